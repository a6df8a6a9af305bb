//! The state against the store's conformance checks and openraft's storage suite, and through
//! crashes at any moment between two checkpoints.

use std::sync::Arc;

use aspen_kv::conformance::{check_store, check_tables, dump};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use redb::Durability;

use super::*;
use crate::disk::{Disk, FsDisk, MemoryDisk};
use crate::log::{Log, LogOptions, WriterDrive};
use crate::raft_log::LogStore;
use crate::types::Types;

const CACHE: usize = 4 << 20;

fn memory_file() -> Arc<dyn DiskFile> {
    MemoryDisk::new().create("state.redb", 0).unwrap()
}

#[test]
fn redb_tables_conform() {
    let store = Store::open(memory_file(), CACHE).unwrap();
    let transaction = store.begin(Durability::None).unwrap();
    check_tables(&mut WriteView::new(&transaction));
    transaction.abort().unwrap();
    let transaction = store.begin(Durability::None).unwrap();
    assert!(check_store(&mut WriteView::new(&transaction), 7, 400) > 20);
}

#[test]
fn a_read_view_shows_one_moment_and_unwritten_tables_are_empty() {
    let store = Store::open(memory_file(), CACHE).unwrap();
    let before = store.view().unwrap();
    assert_eq!(dump(before.tables()), []);
    let transaction = store.begin(Durability::None).unwrap();
    {
        use aspen_kv::WriteTables;
        WriteView::new(&transaction).insert(aspen_kv::TableId::Live, b"k", b"v").unwrap();
    }
    transaction.commit().unwrap();
    store.publish(Progress::default(), None);
    assert_eq!(dump(before.tables()), []);
    assert_eq!(dump(store.view().unwrap().tables()).len(), 1);
}

struct Builder {
    drive: fn() -> WriterDrive,
    on_disk: bool,
}

impl StoreBuilder<Types, LogStore, StateMachine, Option<tempfile::TempDir>> for Builder {
    async fn build(
        &self,
    ) -> Result<(Option<tempfile::TempDir>, LogStore, StateMachine), StorageError<Types>> {
        let dir = self.on_disk.then(|| tempfile::tempdir().unwrap());
        let disk: Arc<dyn Disk> = match &dir {
            Some(dir) => Arc::new(FsDisk::open(dir.path()).unwrap()),
            None => Arc::new(MemoryDisk::new()),
        };
        let store = Store::open(disk.create("state.redb", 0).unwrap(), CACHE).unwrap();
        let log = disk.folder("log").unwrap();
        // Small segments, so that the suite crosses them.
        let options = LogOptions { segment_bytes: 1_024, ..LogOptions::default() };
        let log = Log::open(log, [1; 16], options, (self.drive)()).unwrap();
        let machine = StateMachine::new(store, Some(log.clone()), Blocking::Pool);
        Ok((dir, LogStore::new(log, 1 << 20, Some(machine.clone())), machine))
    }
}

fn run_suite(builder: Builder) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Suite::test_all(builder)).unwrap();
}

#[test]
fn passes_the_storage_suite_of_openraft_in_memory() {
    let drive = || WriterDrive::Task(Arc::new(|| std::time::Duration::ZERO));
    run_suite(Builder { drive, on_disk: false });
}

#[test]
fn passes_the_storage_suite_of_openraft_on_disk() {
    run_suite(Builder { drive: || WriterDrive::Thread, on_disk: true });
}
