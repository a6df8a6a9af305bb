//! Log entries of arbitrary content applied to a store: what decodes and is admitted is applied
//! without an error of the store itself, and the tables can be read afterwards.

#![no_main]

use aspen_api::codec::Wire;
use aspen_api::{AuthenticatedRequest, Request, Revision};
use aspen_fuzz::Choices;
use aspen_kv::{Applier, Command, MemoryTables, Proposal, View};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let mut tables = MemoryTables::new();
    let mut reads: Vec<Request> = Vec::new();
    let mut revision = Revision(0);
    while !choices.is_empty() {
        let bytes = Bytes::copy_from_slice(choices.block());
        if let Ok(envelope) = AuthenticatedRequest::decode(bytes.clone()) {
            match Command::from_request(envelope.request) {
                Ok(command) if command.admit().is_ok() => {
                    let request_id = envelope.request_id.named();
                    let log_time_ms = u64::from(choices.u16());
                    revision.0 += 1;
                    apply(&mut tables, revision, Proposal { log_time_ms, request_id, command });
                }
                Ok(_) => {}
                Err(read) => reads.push(read),
            }
        } else if let Ok(proposal) = Proposal::from_bytes(bytes)
            && proposal.command.admit().is_ok()
        {
            revision.0 += 1;
            apply(&mut tables, revision, proposal);
        }
    }
    let view = View::open(&tables, 0).expect("the header that was written");
    for read in reads.iter().take(64) {
        let _ = view.answer(read);
    }
});

fn apply(tables: &mut MemoryTables, revision: Revision, proposal: Proposal) {
    let again = Proposal::from_bytes(proposal.to_bytes()).expect("its own encoding");
    assert_eq!(again, proposal);
    let mut applier = Applier::open(tables).expect("the header that was written");
    applier.apply(revision, &proposal).expect("memory does not fail");
    applier.finish().expect("memory does not fail");
}
