//! The state against the store's conformance checks, and through crashes at any moment between two
//! checkpoints.

use std::io;
use std::sync::Arc;

use aspen_api::Level;
use aspen_api::codec::Wire;
use aspen_kv::conformance::{check_store, check_tables, dump};
use aspen_kv::{Header, MemoryTables, ReadTables, TableId, WriteTables};
use aspen_log::EntryId;
use aspen_log::disk::crash::{CrashDisk, Faults};
use aspen_log::disk::{Disk, DiskFile, MemoryDisk};
use net_types::lock;
use proptest::prelude::*;

use super::error::StoreError;
use super::file::FileWriter;
use super::progress::Progress;
use super::store::Store;
use super::tables::StoreTables;

const CACHE: usize = 4 << 20;

fn memory_file() -> Arc<dyn DiskFile> {
    MemoryDisk::new().create("state.redb", 0).unwrap()
}

fn open() -> (Arc<dyn DiskFile>, Arc<Store>) {
    let file = memory_file();
    (file.clone(), Store::open(file, CACHE, Level::TOP).unwrap())
}

/// Ends a checkpoint of what was written so far.
fn checkpoint(store: &Store) {
    if let Some(frozen) = store.freeze() {
        store.write(&frozen).unwrap();
    }
}

#[test]
fn the_file_conforms() {
    let (_, store) = open();
    let transaction = store.db.begin_write().unwrap();
    check_tables(&mut FileWriter::new(&transaction));
    transaction.abort().unwrap();
    let transaction = store.db.begin_write().unwrap();
    assert!(check_store(&mut FileWriter::new(&transaction), 7, 400) > 20);
}

#[test]
fn memory_over_an_empty_file_conforms() {
    check_tables(&mut lock(&open().1.current).state.tables);
    assert!(check_store(&mut lock(&open().1.current).state.tables, 7, 400) > 20);
}

#[derive(Clone, Debug)]
enum Step {
    Insert(TableId, u8, u8),
    Remove(TableId, u8),
    /// Begins a checkpoint, unless one is under way.
    Freeze,
    /// Ends it.
    Write,
    /// Ends it without having written.
    GiveUp,
    /// Forgets it: the task that was to write it is gone.
    Drop,
    /// Replaces everything by these rows, as a snapshot does; not while a checkpoint is written.
    Replace(Vec<(u8, u8)>),
    /// Opens the file again, as after a crash.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let table = || prop::sample::select(vec![TableId::Live, TableId::Expiry]);
    prop_oneof![
        8 => (table(), 0..12u8, any::<u8>()).prop_map(|(t, k, v)| Step::Insert(t, k, v)),
        8 => (table(), 0..12u8).prop_map(|(t, k)| Step::Remove(t, k)),
        2 => Just(Step::Freeze),
        2 => Just(Step::Write),
        1 => Just(Step::GiveUp),
        1 => Just(Step::Drop),
        1 => prop::collection::vec((0..12u8, any::<u8>()), 0..6).prop_map(Step::Replace),
        1 => Just(Step::Crash),
    ]
}

/// Every way of reading agrees with `model`.
fn check_rows(tables: &StoreTables, model: &MemoryTables) {
    assert_eq!(dump(tables), dump(model));
    for table in [TableId::Live, TableId::Expiry] {
        for key in 0..12u8 {
            let found = tables.get(table, &[key]).unwrap().map(|row| row.as_ref().to_vec());
            assert_eq!(found.as_deref(), model.get(table, &[key]).unwrap());
            let range = |to: Option<&[u8]>| {
                let rows = tables.range(table, &[key], to).unwrap();
                let keys: Vec<_> = rows.map(|row| row.unwrap().0.as_ref().to_vec()).collect();
                let expected = model.range(table, &[key], to).unwrap();
                let expected: Vec<_> = expected.map(|row| row.unwrap().0.to_vec()).collect();
                assert_eq!(keys, expected);
            };
            range(None);
            range(Some(&[key.saturating_add(3)]));
        }
    }
}

proptest! {
    #[test]
    fn tables_are_the_same_whatever_is_in_memory_and_what_in_the_file(
        steps in prop::collection::vec(step(), 0..80)
    ) {
        let (file, mut store) = open();
        let mut model = MemoryTables::new();
        let (mut in_file, mut in_frozen) = (model.clone(), model.clone());
        let mut frozen = None;
        for step in steps {
            match step {
                Step::Insert(table, key, value) => {
                    lock(&store.current).state.tables.insert(table, &[key], &[value]).unwrap();
                    model.insert(table, &[key], &[value]).unwrap();
                }
                Step::Remove(table, key) => {
                    let was_there = lock(&store.current).state.tables.remove(table, &[key]).unwrap();
                    prop_assert_eq!(was_there, model.remove(table, &[key]).unwrap());
                }
                Step::Freeze if frozen.is_none() => {
                    frozen = store.freeze();
                    in_frozen = model.clone();
                }
                Step::Write => if let Some(frozen) = frozen.take() {
                    store.write(&frozen).unwrap();
                    in_file = in_frozen.clone();
                },
                Step::GiveUp => if frozen.take().is_some() {
                    lock(&store.current).state.tables.thaw();
                },
                Step::Drop => frozen = None,
                Step::Replace(rows) if frozen.is_none() => {
                    let fill = |tables: &mut FileWriter<'_>| {
                        for (key, value) in &rows {
                            tables.insert(TableId::Live, &[*key], &[*value])?;
                        }
                        Ok(())
                    };
                    store.replace(Progress::default(), fill).unwrap();
                    model = MemoryTables::new();
                    for (key, value) in &rows {
                        model.insert(TableId::Live, &[*key], &[*value]).unwrap();
                    }
                    in_file = model.clone();
                }
                Step::Crash => {
                    frozen = None;
                    drop(store);
                    store = Store::open(file.clone(), CACHE, Level::TOP).unwrap();
                    model = in_file.clone();
                }
                Step::Freeze | Step::Replace(_) => {}
            }
            check_rows(&lock(&store.current).state.tables, &model);
        }
    }
}

#[test]
fn a_view_keeps_its_moment_through_later_writes_and_checkpoints() {
    let (_, store) = open();
    let put =
        |key: &[u8]| lock(&store.current).state.tables.insert(TableId::Live, key, b"v").unwrap();
    let renew = || {
        lock(&store.current).view = None;
        store.view().unwrap()
    };
    let empty = renew();
    put(b"a");
    let one = renew();
    checkpoint(&store);
    put(b"b");
    let two = renew();
    checkpoint(&store);
    let counts: Vec<usize> = [empty, one, two].iter().map(|v| dump(v.tables()).len()).collect();
    assert_eq!(counts, [0, 1, 2]);
}

#[test]
fn rows_in_memory_are_counted_until_they_are_in_the_file() {
    let (_, store) = open();
    let bytes = |store: &Store| store.memory_bytes();
    for n in 0..100u32 {
        let mut current = lock(&store.current);
        current.state.tables.insert(TableId::Live, &n.to_be_bytes(), &[0; 1_000]).unwrap();
        current.state.tables.insert(TableId::Live, &n.to_be_bytes(), &[0; 10]).unwrap();
    }
    assert!((1_400..30_000).contains(&bytes(&store)), "{}", bytes(&store));
    for n in 0..100u32 {
        assert!(lock(&store.current).state.tables.remove(TableId::Live, &n.to_be_bytes()).unwrap());
    }
    assert_eq!(bytes(&store), 0, "rows that came and went leave nothing to write");
    lock(&store.current).state.tables.insert(TableId::Live, b"k", b"v").unwrap();
    checkpoint(&store);
    assert_eq!(bytes(&store), 0);
    assert!(store.freeze().is_none(), "the file holds everything");
}

/// A file in memory with these bytes.
fn file_of(image: &[u8]) -> Arc<dyn DiskFile> {
    let file = memory_file();
    file.set_len(image.len() as u64).unwrap();
    file.write_at(image, 0).unwrap();
    file
}

#[test]
fn damage_anywhere_in_the_file_is_named_or_does_no_harm() {
    let (file, store) = open();
    check_store(&mut lock(&store.current).state.tables, 7, 400);
    for n in 0..1_000u32 {
        lock(&store.current)
            .state
            .tables
            .insert(TableId::Live, &n.to_be_bytes(), &[7; 100])
            .unwrap();
    }
    checkpoint(&store);
    let rows = dump(&lock(&store.current).state.tables);
    drop(store);
    let mut image = vec![0; file.len().unwrap() as usize];
    file.read_at(&mut image, 0).unwrap();
    // Of what was never written nothing can be lost.
    let written: Vec<_> = (0..image.len()).filter(|at| image[*at] != 0).collect();
    let mut refused = 0;
    for at in written.iter().step_by(written.len() / 300) {
        let mut damaged = image.clone();
        damaged[*at] ^= 0x55;
        match Store::open(file_of(&damaged), CACHE, Level::TOP) {
            Ok(store) => assert_eq!(dump(&lock(&store.current).state.tables), rows, "byte {at}"),
            Err(StoreError::Damaged(_) | StoreError::Version(_)) => refused += 1,
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn a_state_above_the_level_of_the_program_replaces_nothing() {
    let (file, store) = open();
    write(&store, 1, 100);
    checkpoint(&store);
    let before = held(&store);
    let above = Header { level: Level(Level::TOP.0 + 1), ..Header::default() };
    let fill = |tables: &mut FileWriter<'_>| {
        tables.insert(TableId::Meta, b"header", &above.to_bytes())?;
        Ok(())
    };
    let refused = store.replace(Progress::default(), fill);
    assert!(matches!(refused, Err(StoreError::TooNew { .. })), "{refused:?}");
    assert_eq!(held(&store), before);
    drop(store);
    assert_eq!(held(&Store::open(file, CACHE, Level::TOP).unwrap()), before);
}

type Rows = Vec<(TableId, Vec<u8>, Vec<u8>)>;

fn held(store: &Store) -> (Option<EntryId>, Rows) {
    let current = lock(&store.current);
    (current.state.progress.applied, dump(&current.state.tables))
}

/// Sets every `step`th of some keys, as entry `index` would.
fn write(store: &Store, index: u64, step: usize) {
    let mut current = lock(&store.current);
    for n in (0..400u32).step_by(step) {
        let value = [index as u8; 60];
        current.state.tables.insert(TableId::Live, &n.to_be_bytes(), &value).unwrap();
    }
    current.state.progress.applied = Some(EntryId { term: 1, index });
}

/// Lets the power fail after `cut` operations of what makes a state durable, a checkpoint or a
/// snapshot; whether that was after its end.
fn fail_during(is_snapshot: bool, cut: u64) -> bool {
    let disk = CrashDisk::new(cut + 1);
    let file = disk.create("state.redb", 0).unwrap();
    disk.sync_dir().unwrap();
    let store = Store::open(file, CACHE, Level::TOP).unwrap();
    write(&store, 1, 1);
    checkpoint(&store);
    let before = held(&store);
    write(&store, 2, 3);
    let mut after = held(&store);
    disk.set_faults(Faults { fail_after: Some((cut, io::ErrorKind::Other)) });
    let is_done = if is_snapshot {
        let applied = Some(EntryId { term: 2, index: 9 });
        after = (applied, vec![(TableId::Live, b"k".to_vec(), b"v".to_vec())]);
        let progress = Progress { applied, ..Progress::default() };
        let fill = |tables: &mut FileWriter<'_>| Ok(tables.insert(TableId::Live, b"k", b"v")?);
        store.replace(progress, fill).is_ok()
    } else {
        let frozen = store.freeze().unwrap();
        store.write(&frozen).is_ok()
    };
    let left = Store::open(disk.crash().open("state.redb").unwrap(), CACHE, Level::TOP).unwrap();
    let found = held(&left);
    assert!(found == after || (!is_done && found == before), "cut {cut}, snapshot {is_snapshot}");
    is_done
}

#[test]
fn a_power_failure_at_any_moment_leaves_the_state_before_or_the_one_after() {
    for is_snapshot in [false, true] {
        let operations = (0..).find(|cut| fail_during(is_snapshot, *cut)).unwrap();
        assert!(operations > 3, "{operations}");
    }
}
