//! Snapshot chunks of arbitrary content, in intact frames and without: restoring them never panics,
//! nor does what a node then does with the tables; and a store that was restored whole gives a
//! stream from which the same store is restored.

#![no_main]

use aspen_api::Revision;
use aspen_fuzz::Choices;
use aspen_kv::snapshot::{Restore, SnapshotStream};
use aspen_kv::{Applier, Command, MemoryTables, Proposal, ReadTables, TableId, View};
use libfuzzer_sys::fuzz_target;
use xxhash_rust::xxh3::xxh3_64;

const KIND_ROWS: u8 = 1;
const KIND_END: u8 = 2;

/// The first chunk of a real snapshot: the header's row, behind which all others stand.
fn header_chunk() -> Vec<u8> {
    let mut tables = MemoryTables::new();
    let proposal = Proposal { log_time_ms: 5, request_id: None, command: Command::Tick {} };
    let mut applier = Applier::open(&mut tables).expect("empty tables");
    applier.apply(Revision(1), &proposal).expect("memory does not fail");
    applier.finish().expect("memory does not fail");
    let chunk = SnapshotStream::new().next_chunk(&tables).expect("memory does not fail");
    chunk.expect("a stream has chunks").to_vec()
}

/// A chunk as a snapshot frames it.
fn framed(kind: u8, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut chunk = vec![1, kind];
    chunk.extend_from_slice(&sequence.to_le_bytes());
    chunk.extend_from_slice(body);
    chunk.extend_from_slice(&xxh3_64(&chunk).to_le_bytes());
    chunk
}

fn count_rows(tables: &MemoryTables) -> u64 {
    let rows = |table: &TableId| tables.range(*table, &[], None).expect("memory").count() as u64;
    TableId::ALL.iter().map(rows).sum()
}

fuzz_target!(|input: &[u8]| {
    let mut tables = MemoryTables::new();
    let mut restore = Restore::begin(&tables).expect("empty tables");
    let _ = restore.push(&mut MemoryTables::new(), input);
    let mut restore = Restore::begin(&tables).expect("empty tables");
    let mut choices = Choices::new(input);
    let mut digest = 0u64;
    let mut chunk = header_chunk();
    loop {
        if restore.push(&mut tables, &chunk).is_err() {
            return;
        }
        let checksum = chunk[chunk.len() - 8..].try_into().expect("8 bytes");
        digest = xxh3_64([digest.to_le_bytes(), checksum].as_flattened());
        if choices.is_empty() {
            break;
        }
        chunk = framed(KIND_ROWS, restore.expected(), choices.block());
    }
    let end = [count_rows(&tables).to_le_bytes(), digest.to_le_bytes()];
    let end = framed(KIND_END, restore.expected(), end.as_flattened());
    let Ok(Some(header)) = restore.push(&mut tables, &end) else { return };

    let mut again = MemoryTables::new();
    let mut restore = Restore::begin(&again).expect("empty tables");
    let mut stream = SnapshotStream::new();
    let mut restored = None;
    while let Some(chunk) = stream.next_chunk(&tables).expect("memory does not fail") {
        restored = restore.push(&mut again, &chunk).expect("an intact stream");
    }
    assert_eq!(restored.map(|header| header.applied_revision), Some(header.applied_revision));
    assert_eq!(count_rows(&again), count_rows(&tables));

    let _ = View::open(&tables, 0);
    let revision = Revision(header.applied_revision.0.saturating_add(1));
    let tick = Proposal { log_time_ms: u64::MAX, request_id: None, command: Command::Tick {} };
    if let Ok(mut applier) = Applier::open(&mut tables)
        && applier.apply(revision, &tick).is_ok()
    {
        let _ = applier.finish();
    }
});
