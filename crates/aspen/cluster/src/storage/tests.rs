//! Log and state against openraft's storage suite, and the bound of what memory holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aspen_api::Level;
use aspen_api::kv::{Transact, WriteOperation};
use aspen_kv::{Command, Proposal};
use aspen_log::disk::{Disk, FsDisk, MemoryDisk};
use aspen_log::{EntryId, Log, LogOptions, WriterDrive};
use net_types::limits::{MAX_STATE_MEMORY_BYTES, MAX_VALUE_BYTES};
use openraft::StorageError;
use openraft::entry::RaftEntry as _;
use openraft::impls::EntryPayload;
use openraft::storage::RaftStateMachine;
use openraft::testing::log::{StoreBuilder, Suite};

use super::log::LogStore;
use super::machine::StateMachine;
use crate::runtime::Blocking;
use crate::snapshot::Spool;
use crate::state::Store;
use crate::types::{Proposed, RaftEntry, Types, log_id};

const CACHE: usize = 4 << 20;

fn write_at_once() -> WriterDrive {
    WriterDrive::Task(Arc::new(|| std::time::Duration::ZERO))
}

/// Log and state machine in the folder `disk`.
fn open(disk: &dyn Disk, drive: WriterDrive, blocking: Blocking) -> (LogStore, StateMachine) {
    let store = Store::open(disk.create("state.redb", 0).unwrap(), CACHE, Level::TOP).unwrap();
    // Small segments, so that the suite crosses them.
    let options = LogOptions { segment_bytes: 1_024, ..LogOptions::default() };
    let log = Log::open(disk.folder("log").unwrap(), [1; 16], options, drive).unwrap();
    let spool = Arc::new(Spool::open(disk.folder("snapshots").unwrap()).unwrap());
    let machine = StateMachine::new(store, log.clone(), spool, blocking);
    (LogStore::new(log, 1 << 20, machine.clone()), machine)
}

/// Entry `index`, which sets a key of its own to a value of so many bytes.
fn large_entry(index: u64, bytes: usize) -> RaftEntry {
    let key = format!("k{index}").parse().unwrap();
    let command =
        Command::Transact { request: Transact::always([WriteOperation::set(key, vec![0; bytes])]) };
    let proposal = Proposal { log_time_ms: 0, request_id: None, command };
    let payload = EntryPayload::Normal(Proposed(proposal.encode()));
    openraft::impls::Entry::new(log_id(EntryId { term: 1, index }), payload)
}

#[tokio::test]
async fn rows_in_memory_are_written_out_before_they_pass_the_bound() {
    let (_, mut machine) = open(&MemoryDisk::new(), write_at_once(), Blocking::Inline);
    let store = machine.store().clone();
    let most = Arc::new(AtomicUsize::new(0));
    let (seen, looking) = (most.clone(), Arc::downgrade(&store));
    store.listen(move |_, _| {
        let bytes = looking.upgrade().unwrap().memory_bytes();
        seen.fetch_max(bytes, Ordering::Relaxed);
    });
    let entries = (1..=300).map(|index| Ok((large_entry(index, MAX_VALUE_BYTES), None)));
    machine.apply(futures_util::stream::iter(entries)).await.unwrap();
    assert_eq!(store.applied().unwrap().index, 300);
    assert!(store.durable_next() > 0, "there was a checkpoint");
    let most = most.load(Ordering::Relaxed);
    let bound = MAX_STATE_MEMORY_BYTES + 2 * MAX_VALUE_BYTES;
    assert!((MAX_STATE_MEMORY_BYTES / 2..bound).contains(&most), "{most}");
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
        let (log, machine) = open(&*disk, (self.drive)(), Blocking::Pool);
        Ok((dir, log, machine))
    }
}

fn run_suite(builder: Builder) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Suite::test_all(builder)).unwrap();
}

#[test]
fn passes_the_storage_suite_of_openraft_in_memory() {
    run_suite(Builder { drive: write_at_once, on_disk: false });
}

#[test]
fn passes_the_storage_suite_of_openraft_on_disk() {
    run_suite(Builder { drive: || WriterDrive::Thread, on_disk: true });
}
