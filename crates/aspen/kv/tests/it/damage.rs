//! Damaged input is refused with an error, never with a panic or a wrong state.

use aspen_api::codec::Wire;
use aspen_api::kv::ScanKeys;
use aspen_api::{Level, Revision};
use aspen_kv::conformance::{dump, proposals, snapshot};
use aspen_kv::snapshot::{Restore, RestoreError};
use aspen_kv::{
    Applier, Command, MemoryTables, Proposal, Reply, StateError, TableId, View, WriteTables,
};
use bytes::Bytes;
use proptest::prelude::*;

fn filled(seed: u64) -> MemoryTables {
    let mut tables = MemoryTables::new();
    let mut applier = Applier::open(&mut tables).unwrap();
    for (revision, proposal) in proposals(seed, 400) {
        applier.apply(revision, &proposal).unwrap();
    }
    applier.finish().unwrap();
    tables
}

proptest! {
    #[test]
    fn damaged_log_content_never_panics(
        seed in any::<u64>(),
        flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4),
        cut in any::<usize>(),
    ) {
        for (_, proposal) in proposals(seed, 8) {
            let bytes = proposal.encode();
            for end in 0..bytes.len() {
                prop_assert!(Proposal::decode(bytes.slice(..end), Level::TOP).is_err());
            }
            let mut longer = bytes.to_vec();
            longer.push(0);
            prop_assert!(Proposal::decode(longer.clone().into(), Level::TOP).is_err());
            for (at, mask) in &flips {
                let at = at % longer.len();
                longer[at] ^= mask;
            }
            longer.truncate(cut % (longer.len() + 1));
            let _ = Proposal::decode(longer.into(), Level::TOP);
        }
    }

    #[test]
    fn arbitrary_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        let _ = Proposal::decode(bytes.clone(), Level::TOP);
        let _ = Command::from_bytes(bytes.clone());
        let _ = Reply::from_bytes(bytes.clone());
        let mut tables = MemoryTables::new();
        let mut restore = Restore::begin(&tables).unwrap();
        prop_assert!(restore.push(&mut tables, &bytes).is_err());
    }

    #[test]
    fn damaged_rows_are_errors_of_the_store(
        seed in 0u64..20,
        pick in any::<usize>(),
        at in any::<usize>(),
        mask in 1u8..,
    ) {
        let mut tables = filled(seed);
        let rows = dump(&tables);
        let (table, key, mut value) = rows[pick % rows.len()].clone();
        if value.is_empty() {
            tables.remove(table, &key).unwrap();
        } else {
            let at = at % value.len();
            value[at] ^= mask;
            tables.insert(table, &key, &value).unwrap();
        }
        // Wrong answers cannot be told from right ones here; not panicking and not looping can.
        if let Ok(view) = View::open(&tables, u64::MAX) {
            let _ = view.scan(&ScanKeys::newest(aspen_api::Prefix::ALL));
        }
        if let Ok(mut applier) = Applier::open(&mut tables) {
            for (revision, mut proposal) in proposals(seed + 1, 100) {
                proposal.log_time_ms += 60_000;
                let revision = Revision(revision.0 + 1_000_000);
                if applier.apply(revision, &proposal).is_err() {
                    break;
                }
            }
        }
    }

    #[test]
    fn a_damaged_chunk_is_noticed_before_a_row_of_it_is_written(
        at in any::<usize>(),
        mask in 1u8..,
    ) {
        let chunks = snapshot(&filled(3));
        let mut tables = MemoryTables::new();
        let mut restore = Restore::begin(&tables).unwrap();
        let mut bad = chunks[0].to_vec();
        let at = at % bad.len();
        bad[at] ^= mask;
        prop_assert!(matches!(restore.push(&mut tables, &bad), Err(RestoreError::Damaged)));
        prop_assert_eq!(dump(&tables), []);
        prop_assert!(restore.push(&mut tables, &chunks[0]).is_ok(), "it can be sent again");
    }
}

#[test]
fn chunks_must_come_once_in_order_and_to_the_end() {
    let source = filled(5);
    let chunks = snapshot(&source);
    let mut tables = MemoryTables::new();
    let mut restore = Restore::begin(&tables).unwrap();
    let last = chunks.last().unwrap();
    let out_of_order = restore.push(&mut tables, last);
    assert!(matches!(out_of_order, Err(RestoreError::OutOfOrder { expected: 0, .. })));
    for chunk in &chunks {
        let _ = restore.push(&mut tables, chunk).unwrap();
    }
    assert_eq!(dump(&tables), dump(&source));
    assert!(matches!(Restore::begin(&tables), Err(RestoreError::NotEmpty)));
}

#[test]
fn a_stream_must_end_with_what_was_sent() {
    let (one, other) = (snapshot(&filled(5)), snapshot(&filled(6)));
    assert_eq!((one.len(), other.len()), (2, 2));
    let mut tables = MemoryTables::new();
    let mut restore = Restore::begin(&tables).unwrap();
    assert!(restore.push(&mut tables, &one[0]).unwrap().is_none());
    let mixed = restore.push(&mut tables, &other[1]);
    assert!(matches!(mixed, Err(RestoreError::Malformed(_))));
}

#[test]
fn rows_that_do_not_ascend_are_refused() {
    let row = |key: u8| [TableId::Live as u8, 1, key, 0];
    let push = |rows: &[[u8; 4]]| {
        let mut chunk = vec![1, 1, 0, 0, 0, 0];
        chunk.extend_from_slice(rows.as_flattened());
        chunk.extend_from_slice(&xxhash_rust::xxh3::xxh3_64(&chunk).to_le_bytes());
        let mut tables = MemoryTables::new();
        Restore::begin(&tables).unwrap().push(&mut tables, &chunk)
    };
    assert!(push(&[row(1), row(2)]).is_ok());
    assert!(matches!(push(&[row(2), row(1)]), Err(RestoreError::Malformed(_))));
    assert!(matches!(push(&[row(1), row(1)]), Err(RestoreError::Malformed(_))));
}

#[test]
fn large_states_travel_in_bounded_chunks() {
    let mut source = MemoryTables::new();
    for n in 0u32..40_000 {
        source.insert(TableId::Live, &n.to_be_bytes(), &[7; 40]).unwrap();
    }
    source.insert(TableId::Live, b"\xffbig", &vec![1; 1 << 20]).unwrap();
    let chunks = snapshot(&source);
    assert!(chunks.len() > 8);
    let limit = net_types::limits::SNAPSHOT_CHUNK_BYTES + 16;
    let over: Vec<_> = chunks.iter().filter(|chunk| chunk.len() > limit).collect();
    assert_eq!(over.len(), 1, "only the large row has a chunk above the limit");
    let mut tables = MemoryTables::new();
    let mut restore = Restore::begin(&tables).unwrap();
    for chunk in &chunks {
        let _ = restore.push(&mut tables, chunk).unwrap();
    }
    assert_eq!(dump(&tables), dump(&source));
}

#[test]
fn entries_out_of_order_are_refused() {
    let mut tables = filled(1);
    let mut applier = Applier::open(&mut tables).unwrap();
    let applied = applier.header().applied_revision;
    let proposal = Proposal { log_time_ms: 0, request_id: None, command: Command::Tick {} };
    let refused = applier.apply(applied, &proposal);
    assert!(matches!(refused, Err(StateError::OutOfOrder { .. })));
    applier.skip(Revision(applied.0 + 1)).unwrap();
    assert_eq!(applier.finish().unwrap().applied_revision.0, applied.0 + 1);
}

#[test]
fn a_newer_layout_is_refused() {
    let mut tables = filled(1);
    let (table, key, mut header) =
        dump(&tables).into_iter().find(|row| row.0 == TableId::Meta).unwrap();
    header[0] = 2;
    tables.insert(table, &key, &header).unwrap();
    assert!(matches!(View::open(&tables, 0), Err(StateError::Corrupt(TableId::Meta))));
}
