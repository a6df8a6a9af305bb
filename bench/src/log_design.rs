//! Two ways to make a batch of writes durable with one sync: which costs less?
//!
//! *One transaction*: the entries and the state they lead to are written to redb together and
//! synced. *Log and checkpoint*: the entries go to the append-only log, which is synced; the state
//! is written to redb without a sync and becomes durable with a checkpoint now and then, whose
//! cost is part of the figure. Both do the same work on the state: one row for each entry and one
//! for the batch. The limit beside them is a bare write and `fdatasync` of as many bytes.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use aspen_cluster::disk::{Disk, FsDisk};
use aspen_cluster::log::{Completion, EntryId, Log, LogEntry, LogOptions, RecordKind, WriterDrive};
use bytes::Bytes;
use redb::{Database, Durability, TableDefinition};

use crate::measure::{Outcome, Plan, Series};

const STATE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("state");
const ENTRIES: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("entries");
const BATCHES: [u64; 3] = [1, 16, 64];
/// The batch whose figures are the result.
const RESULT_BATCH: u64 = 64;
const VALUE_BYTES: usize = 256;
/// Keys that are written again and again.
const KEYS: u64 = 100_000;
/// Entries between two checkpoints of the second way.
const CHECKPOINT_ENTRIES: u64 = 50_000;

/// Entries a second, and CPU time an entry, of one way in one round.
struct Figure {
    per_second: f64,
    cpu_us: f64,
    entries: u64,
}

/// Writes groups of so many entries for so long.
type Way = fn(Duration, u64) -> Figure;

/// User and system time of this process so far.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn measure(time: Duration, batch: u64, mut write: impl FnMut(u64)) -> Figure {
    let (start, cpu) = (Instant::now(), cpu_time());
    let mut entries = 0;
    while start.elapsed() < time {
        write(entries);
        entries += batch;
    }
    let cpu_us = (cpu_time() - cpu).as_secs_f64() * 1e6 / entries as f64;
    Figure { per_second: entries as f64 / start.elapsed().as_secs_f64(), cpu_us, entries }
}

fn key(index: u64) -> [u8; 16] {
    let mut key = *b"key/000000000000";
    let mixed = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) % KEYS;
    key[8..].copy_from_slice(&mixed.to_be_bytes());
    key
}

fn database(folder: &std::path::Path) -> Database {
    let mut builder = Database::builder();
    builder.set_cache_size(16 << 20);
    builder.create(folder.join("state.redb")).unwrap()
}

fn write_state(transaction: &redb::WriteTransaction, from: u64, batch: u64, value: &[u8]) {
    let mut state = transaction.open_table(STATE).unwrap();
    for index in from..from + batch {
        state.insert(key(index).as_slice(), value).unwrap();
    }
    state.insert(b"header".as_slice(), from.to_le_bytes().as_slice()).unwrap();
}

fn one_transaction(time: Duration, batch: u64) -> Figure {
    let folder = tempfile::tempdir().unwrap();
    let db = database(folder.path());
    let value = [7u8; VALUE_BYTES];
    let figure = measure(time, batch, |from| {
        let transaction = db.begin_write().unwrap();
        let mut entries = transaction.open_table(ENTRIES).unwrap();
        for index in from..from + batch {
            entries.insert(index, value.as_slice()).unwrap();
        }
        drop(entries);
        write_state(&transaction, from, batch, &value);
        transaction.commit().unwrap();
    });
    let transaction = redb::ReadableDatabase::begin_read(&db).unwrap();
    let entries = transaction.open_table(ENTRIES).unwrap();
    assert_eq!(redb::ReadableTableMetadata::len(&entries).unwrap(), figure.entries);
    figure
}

struct Told(Sender<()>);

impl Completion for Told {
    fn complete(self, result: io::Result<()>) {
        result.unwrap();
        self.0.send(()).unwrap();
    }
}

fn log_and_checkpoint(time: Duration, batch: u64) -> Figure {
    let folder = tempfile::tempdir().unwrap();
    let db = database(folder.path());
    let disk: Arc<dyn Disk> = Arc::new(FsDisk::open(folder.path().join("log")).unwrap());
    let open = || Log::open(disk.clone(), [1; 16], LogOptions::default(), WriterDrive::Thread);
    let log = open().unwrap();
    let value = Bytes::from(vec![7u8; VALUE_BYTES]);
    let mut next_checkpoint = CHECKPOINT_ENTRIES;
    let figure = measure(time, batch, |from| {
        let (tell, told) = channel();
        let entry = |index| LogEntry {
            id: EntryId { term: 1, index },
            kind: RecordKind::Command,
            payload: value.clone(),
        };
        log.append((from..from + batch).map(entry), Told(tell)).unwrap();
        told.recv().unwrap();
        let mut transaction = db.begin_write().unwrap();
        let is_checkpoint = from >= next_checkpoint;
        match is_checkpoint {
            true => transaction.set_quick_repair(true),
            false => transaction.set_durability(Durability::None).unwrap(),
        }
        write_state(&transaction, from, batch, &value);
        transaction.commit().unwrap();
        if is_checkpoint {
            next_checkpoint = from + CHECKPOINT_ENTRIES;
            log.purge(EntryId { term: 1, index: from }).unwrap();
        }
    });
    drop(log);
    assert_eq!(open().unwrap().last().unwrap().index + 1, figure.entries);
    figure
}

fn bare_sync(time: Duration, batch: u64) -> Figure {
    let folder = tempfile::tempdir().unwrap();
    let disk = FsDisk::open(folder.path()).unwrap();
    let bytes = vec![7u8; batch as usize * (VALUE_BYTES + 72)];
    let file = disk.create("file", 64 << 20).unwrap();
    let mut at = 0;
    measure(time, batch, |_| {
        if at + bytes.len() as u64 > 64 << 20 {
            at = 0;
        }
        file.write_at(&bytes, at).unwrap();
        file.sync_data().unwrap();
        at += bytes.len() as u64;
    })
}

/// Measures both ways and the limit, interleaved.
pub(crate) fn run(plan: &Plan) -> Outcome {
    let (mut ours, mut base, mut n, mut notes) = (Series::default(), Series::default(), 0, vec![]);
    let time = plan.round_time / 3;
    for batch in BATCHES {
        let ways: [(&str, Way); 3] = [
            ("log and checkpoint", log_and_checkpoint),
            ("one transaction", one_transaction),
            ("bare write and sync", bare_sync),
        ];
        let mut rates: [Series; 3] = Default::default();
        let mut costs: [Series; 3] = Default::default();
        for _ in 0..plan.rounds {
            for (at, (_, way)) in ways.iter().enumerate() {
                let figure = way(time, batch);
                rates[at].push(figure.per_second);
                costs[at].push(figure.cpu_us);
                if batch == RESULT_BATCH && at == 0 {
                    n += figure.entries;
                }
            }
        }
        for (at, (name, _)) in ways.iter().enumerate() {
            notes.push((format!("batch {batch}, {name}"), rates[at].median(), "entries/s"));
            notes.push((String::new(), costs[at].median(), "CPU us/entry"));
        }
        if batch == RESULT_BATCH {
            let [log, one, _] = rates;
            (ours, base) = (log, one);
        }
    }
    Outcome { ours, base, base_name: "one redb transaction", unit: "entries/s", n, notes }
}
