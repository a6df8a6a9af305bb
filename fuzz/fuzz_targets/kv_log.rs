//! Log entries of arbitrary content applied to a store: what decodes and is admitted is applied
//! without an error of the store itself, and the tables can be read afterwards.

#![no_main]

use aspen_api::codec::Wire;
use aspen_api::kv::{BatchRead, ReadKey, ScanKeys};
use aspen_api::lease::{LeaseList, LeaseTimeToLive};
use aspen_api::{Level, RequestFrame, Revision};
use aspen_fuzz::Choices;
use aspen_kv::{Applier, Command, MemoryTables, Proposal, Query, View};
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let mut tables = MemoryTables::new();
    let mut reads: Vec<RequestFrame> = Vec::new();
    let mut revision = Revision(0);
    while !choices.is_empty() {
        let bytes = Bytes::copy_from_slice(choices.block());
        if let Some(proposal) = proposal(&bytes, &mut choices) {
            if proposal.command.admit().is_ok() {
                revision.0 += 1;
                apply(&mut tables, revision, proposal);
            }
        } else if let Ok(read) = RequestFrame::decode(bytes) {
            reads.push(read);
        }
    }
    let view = View::open(&tables, 0).expect("the header that was written");
    for read in reads.iter().take(64) {
        answer::<ReadKey>(&view, read);
        answer::<ScanKeys>(&view, read);
        answer::<BatchRead>(&view, read);
        answer::<LeaseTimeToLive>(&view, read);
        answer::<LeaseList>(&view, read);
    }
});

/// A log entry, or a command with a stamp and an id of its own.
fn proposal(bytes: &Bytes, choices: &mut Choices<'_>) -> Option<Proposal> {
    if let Ok(proposal) = Proposal::decode(bytes.clone(), Level::TOP) {
        return Some(proposal);
    }
    let frame = RequestFrame::decode(bytes.clone()).ok()?;
    let command = Command::from_bytes(frame.body).ok()?;
    let log_time_ms = u64::from(choices.u16());
    Some(Proposal { log_time_ms, request_id: frame.request_id.some(), command })
}

fn apply(tables: &mut MemoryTables, revision: Revision, proposal: Proposal) {
    match Proposal::decode(proposal.encode(), Level::TOP) {
        Ok(again) => assert_eq!(again, proposal),
        // A step above this build's top level is refused.
        Err(_) => {
            assert!(proposal.command.level() > Level::TOP);
            return;
        }
    }
    let mut applier = Applier::open(tables).expect("the header that was written");
    applier.apply(revision, &proposal).expect("memory does not fail");
    applier.finish().expect("memory does not fail");
}

fn answer<R: Query>(view: &View<'_, MemoryTables>, frame: &RequestFrame) {
    if frame.number == R::NUMBER
        && let Ok(request) = R::from_bytes(frame.body.clone())
    {
        let _ = request.answer(view);
    }
}
