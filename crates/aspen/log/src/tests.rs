//! The log against a model: every crash point, every fault, every damaged byte.

use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::disk::crash::{CrashDisk, Faults};
use crate::disk::{Disk, FsDisk, MemoryDisk};
use crate::recover::recover;
use crate::segment::file_name;
use crate::writer::write_batch;
use crate::*;

const ID: [u8; 16] = [7; 16];

#[derive(Clone, Default)]
struct Outcomes(Arc<Mutex<Vec<Outcome>>>);

type Outcome = (u64, Result<(), io::ErrorKind>);

struct Ack(Outcomes, u64);

impl Completion for Ack {
    fn complete(self, result: io::Result<()>) {
        self.0.0.lock().unwrap().push((self.1, result.map_err(|e| e.kind())));
    }
}

impl Outcomes {
    /// Largest step acknowledged as durable.
    fn durable(&self) -> Option<u64> {
        self.0.lock().unwrap().iter().filter(|(_, r)| r.is_ok()).map(|(step, _)| *step).max()
    }
}

fn options() -> LogOptions {
    LogOptions { segment_bytes: 2_048, cache_bytes: 256, read_bytes: 1_000 }
}

/// A log whose writer only moves when the test says so.
fn open(disk: &Arc<dyn Disk>) -> Result<Log<Ack>, LogError> {
    Log::open_manual(disk.clone(), ID, options())
}

fn entry(term: u64, index: u64, len: usize) -> LogEntry {
    let payload = Bytes::from(vec![(index * 31 + term) as u8; len]);
    let kind = if len == 0 { RecordKind::Blank } else { RecordKind::Command };
    LogEntry { id: EntryId { term, index }, kind, payload }
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<usize>),
    Vote,
    Truncate(usize),
    Purge(usize),
    Jump,
    Turn,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop::collection::vec(0usize..900, 1..4).prop_map(Step::Append),
        1 => Just(Step::Vote),
        1 => (1usize..5).prop_map(Step::Truncate),
        1 => (1usize..8).prop_map(Step::Purge),
        1 => Just(Step::Jump),
        4 => Just(Step::Turn),
    ];
    prop::collection::vec(step, 1..40)
}

/// What the log must hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    entries: Vec<LogEntry>,
    purged: Option<EntryId>,
    vote: Option<StoredVote>,
    term: u64,
}

impl Model {
    fn last(&self) -> Option<EntryId> {
        self.entries.last().map(|e| e.id).or(self.purged)
    }

    fn of(log: &Log<Ack>) -> Self {
        let entries = log.read(0..u64::MAX, usize::MAX).unwrap();
        Self { entries, purged: log.purged(), vote: log.vote(), term: 0 }
    }

    fn push(&mut self, len: usize) -> LogEntry {
        let next = self.last().map_or(0, |last| last.index + 1);
        let new = entry(self.term, next, len);
        self.entries.push(new.clone());
        new
    }

    /// Whether `found` is this model, but for entries that a lost purge brought back.
    fn admits(&self, found: &Self) -> bool {
        let floor = self.purged.map_or(0, |id| id.index + 1);
        let above: Vec<_> = found.entries.iter().filter(|e| e.id.index >= floor).cloned().collect();
        let last_fits = !above.is_empty() || self.entries.is_empty();
        above == self.entries && found.vote == self.vote && last_fits
    }

    fn apply(&mut self, step: &Step, log: &Log<Ack>, ack: Ack) -> Result<(), LogError> {
        match step {
            Step::Append(lens) => {
                let new: Vec<_> = lens.iter().map(|len| self.push(*len)).collect();
                log.append(new, ack)
            }
            Step::Vote => {
                self.term += 1;
                let vote =
                    StoredVote { term: self.term, node: 5, committed: self.term.is_multiple_of(2) };
                self.vote = Some(vote);
                log.save_vote(vote, ack)
            }
            Step::Truncate(count) => {
                let keep = self.entries.len().saturating_sub(*count);
                let Some(from) = self.entries.get(keep).map(|e| e.id.index) else { return Ok(()) };
                self.entries.truncate(keep);
                self.term += 1;
                log.truncate(from)
            }
            Step::Purge(count) => {
                let Some(id) = self.entries.get(count - 1).map(|e| e.id) else { return Ok(()) };
                self.entries.drain(..*count);
                self.purged = Some(id);
                log.purge(id)
            }
            Step::Jump => {
                let index = self.last().map_or(50, |last| last.index + 50);
                let id = EntryId { term: self.term, index };
                self.entries.clear();
                self.purged = Some(id);
                log.purge(id)
            }
            Step::Turn => {
                write_batch(log.shared());
                Ok(())
            }
        }
    }
}

proptest! {
    /// Without faults the log is the model at every moment, and reopening changes nothing.
    #[test]
    fn behaves_like_a_vector(steps in steps()) {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        let mut log = open(&disk).unwrap();
        let mut model = Model::default();
        for step in &steps {
            model.apply(step, &log, Ack(Outcomes::default(), 0)).unwrap();
            prop_assert_eq!(log.last(), model.last());
            prop_assert!(model.admits(&Model::of(&log)));
        }
        write_batch(log.shared());
        drop(log);
        log = open(&disk).unwrap();
        let found = Model::of(&log);
        prop_assert!(model.admits(&found), "{:?} {:?}", model, found);
        prop_assert_eq!(log.purged(), model.purged);
        let mut from = 0;
        while let Some(next) = log.verify(from, 3).unwrap() {
            from = next;
        }
    }

    /// Whatever the moment of a crash, the log opens and holds a state between the last one that
    /// was acknowledged and the last one that was requested. It then works on, and crashes again.
    #[test]
    fn survives_a_crash_at_any_moment(steps in steps(), seed: u64, cut: Index, again: Index) {
        let outcomes = Outcomes::default();
        let disk = CrashDisk::new(seed);
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let log = open(&shared).unwrap();
        let mut model = Model::default();
        let mut states = vec![(0, model.clone())];
        for (at, step) in steps.iter().enumerate() {
            let number = at as u64 + 1;
            if let Step::Append(lens) = step {
                // A torn write may keep some of the entries of one append.
                let mut part = model.clone();
                for len in lens {
                    part.push(*len);
                    states.push((number - 1, part.clone()));
                }
            }
            model.apply(step, &log, Ack(outcomes.clone(), number)).unwrap();
            states.push((number, model.clone()));
        }
        // The power fails somewhere inside the last turn.
        let allowed = cut.index(6) as u64;
        disk.set_faults(Faults { fail_after: Some((allowed, io::ErrorKind::Other)) });
        write_batch(log.shared());
        let floor = outcomes.durable().unwrap_or(0);
        // It fails again while the log is opened.
        let disk = disk.crash();
        let allowed = again.index(8) as u64;
        disk.set_faults(Faults { fail_after: Some((allowed, io::ErrorKind::Other)) });
        let _ = open(&(Arc::new(disk.clone()) as Arc<dyn Disk>));
        let crashed: Arc<dyn Disk> = Arc::new(disk.crash());
        let log = open(&crashed).unwrap();
        let found = Model::of(&log);
        prop_assert!(
            states.iter().any(|(step, state)| *step >= floor && state.admits(&found)),
            "acknowledged up to step {floor}, found {:?} {:?}", found.last(), found.purged
        );
        // A second life on what was left behind.
        let next = found.last().map_or(0, |last| last.index + 1);
        let added = entry(99, next, 40);
        log.append([added.clone()], Ack(outcomes, 0)).unwrap();
        write_batch(log.shared());
        let log = open(&crashed).unwrap();
        let mut expected = found;
        expected.entries.push(added);
        prop_assert_eq!(Model::of(&log).entries, expected.entries);
    }
}

fn filled(disk: &Arc<dyn Disk>, batches: u64) -> Log<Ack> {
    let log = open(disk).unwrap();
    for index in 0..batches {
        log.append([entry(1, index, 100)], Ack(Outcomes::default(), 0)).unwrap();
        write_batch(log.shared());
    }
    log
}

#[test]
fn every_damaged_byte_of_durable_records_is_found() {
    let disk = CrashDisk::new(3);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    drop(filled(&shared, 12));
    let last = shared.list().unwrap().into_iter().filter(|n| n.ends_with(".seg")).max().unwrap();
    for name in shared.list().unwrap() {
        let end = match name == last {
            // The newest segment's last record has no successor that vouches for it.
            true => 192 + 172usize.next_multiple_of(8) * (12 % 10),
            false => 192 + 172usize.next_multiple_of(8) * 10,
        };
        for at in (0..end).step_by(7) {
            let copy = disk.crash();
            copy.damage(&name, |bytes| bytes[at] ^= 0x10);
            let opened = open(&(Arc::new(copy) as Arc<dyn Disk>));
            let is_last_record = name == last && at >= end - 176;
            match opened {
                Ok(log) if is_last_record => assert_eq!(log.last().unwrap().index, 10),
                Ok(_) => {
                    // Padding after a payload is not covered and carries nothing.
                    let within = (at.saturating_sub(192)) % 176;
                    assert!(at >= 192 && within >= 172, "{name} byte {at} went unnoticed");
                }
                Err(LogError::Corrupt { .. } | LogError::BadSegmentHeader { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn a_missing_segment_and_a_foreign_log_are_refused() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    drop(filled(&disk, 30));
    assert!(matches!(recover(&*disk, &[8; 16]), Err(LogError::Foreign)));
    disk.remove(&file_name(1)).unwrap();
    assert!(matches!(open(&disk), Err(LogError::Corrupt { what: "segment missing", .. })));
}

#[test]
fn a_failed_write_closes_the_log_and_fails_every_completion() {
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        let disk = CrashDisk::new(1);
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let log = filled(&shared, 2);
        disk.set_faults(Faults { fail_after: Some((1, kind)) });
        let outcomes = Outcomes::default();
        log.append([entry(1, 2, 10)], Ack(outcomes.clone(), 1)).unwrap();
        log.append([entry(1, 3, 10)], Ack(outcomes.clone(), 2)).unwrap();
        write_batch(log.shared());
        assert_eq!(*outcomes.0.lock().unwrap(), [(1, Err(kind)), (2, Err(kind))]);
        let refused = log.append([entry(1, 4, 10)], Ack(outcomes.clone(), 3));
        assert!(matches!(refused, Err(LogError::Closed)));
        assert!(log.has_failed());
    }
}

#[test]
fn appends_that_wait_share_one_sync() {
    let disk = CrashDisk::new(1);
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let log = open(&shared).unwrap();
    let before = disk.syncs();
    let outcomes = Outcomes::default();
    for index in 0..5 {
        log.append([entry(1, index, 50)], Ack(outcomes.clone(), index)).unwrap();
    }
    write_batch(log.shared());
    assert_eq!(disk.syncs() - before, 1);
    assert_eq!(outcomes.0.lock().unwrap().len(), 5);
}

#[test]
fn purged_segments_are_recycled_and_idle_restarts_add_none() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    let mut log = filled(&disk, 60);
    log.purge(EntryId { term: 1, index: 55 }).unwrap();
    write_batch(log.shared());
    let files = disk.list().unwrap();
    assert!(files.contains(&"spare".to_owned()), "{files:?}");
    for _ in 0..5 {
        drop(log);
        log = open(&disk).unwrap();
        assert_eq!(log.last().unwrap().index, 59);
    }
    assert!(disk.list().unwrap().len() <= 4, "{:?}", disk.list());
}

#[test]
fn a_gap_is_refused() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    let log = filled(&disk, 2);
    let gap = log.append([entry(1, 5, 1)], Ack(Outcomes::default(), 0));
    assert!(matches!(gap, Err(LogError::Gap { expected: 2, found: 5 })));
}

struct Heard(std::sync::mpsc::Sender<bool>);

impl Completion for Heard {
    fn complete(self, result: io::Result<()>) {
        let _ = self.0.send(result.is_ok());
    }
}

#[test]
fn the_thread_writes_and_ends_with_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(FsDisk::open(dir.path()).unwrap());
    let (tx, rx) = std::sync::mpsc::channel();
    let log = Log::open(disk.clone(), ID, LogOptions::default(), WriterDrive::Thread).unwrap();
    for index in 0..100 {
        log.append([entry(1, index, 1_000)], Heard(tx.clone())).unwrap();
    }
    assert!((0..100).all(|_| rx.recv().unwrap()));
    drop(log);
    let log: Log<Heard> = Log::open(disk, ID, LogOptions::default(), WriterDrive::Thread).unwrap();
    assert_eq!(log.last(), Some(EntryId { term: 1, index: 99 }));
    assert_eq!(log.read(98..200, 1).unwrap(), [entry(1, 98, 1_000)]);
}

#[test]
fn a_writer_that_changes_its_executor_writes_everything() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
    let (tx, rx) = std::sync::mpsc::channel();
    let log = runtime.block_on(async {
        let log = Log::open(disk.clone(), ID, options(), WriterDrive::Adaptive).unwrap();
        for index in 0..400 {
            log.append([entry(1, index, 20)], Heard(tx.clone())).unwrap();
            if index % 50 == 25 {
                let mut state = log.shared().lock();
                state.assignment.swap();
            }
            if index % 3 == 0 {
                tokio::task::yield_now().await;
            }
        }
        log
    });
    // The runtime is gone, and with it the task; closing writes the rest.
    drop(runtime);
    drop(log);
    assert!((0..400).all(|_| rx.recv().unwrap()));
    let log: Log<Heard> = Log::open(disk, ID, options(), WriterDrive::Thread).unwrap();
    assert_eq!(log.last(), Some(EntryId { term: 1, index: 399 }));
}
