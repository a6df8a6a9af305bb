//! What every backend must do, as checks to call from its tests.
//!
//! Each check takes empty tables and panics with what differs.

use aspen_api::kv::{
    Compact, Compare, CompareTarget, Lifetime, NumberRange, Relation, ScanKeys, Transact,
    TransactionOperation, WriteOperation,
};
use aspen_api::lease::{LeaseGrant, LeaseKeepalive, LeaseRevoke};
use aspen_api::{ClientId, Key, LeaseId, Level, Prefix, RequestId, Revision};
use bytes::Bytes;

use crate::snapshot::{Restore, SnapshotStream};
use crate::{Applier, Command, MemoryTables, Proposal, ReadTables, TableId, View, WriteTables};

/// A row: its table, key and value.
pub type Row = (TableId, Vec<u8>, Vec<u8>);

/// Every row, in order.
pub fn dump<T: ReadTables>(tables: &T) -> Vec<Row> {
    let mut out = Vec::new();
    for table in TableId::ALL {
        for row in tables.range(*table, &[], None).expect("range") {
            let (key, value) = row.expect("row");
            out.push((*table, key.as_ref().to_vec(), value.as_ref().to_vec()));
        }
    }
    out
}

/// Rows are found, replaced, removed and listed in byte order, each table by itself.
pub fn check_tables<T: WriteTables>(empty: &mut T) {
    let tables = empty;
    assert_eq!(dump(tables), [], "the check needs empty tables");
    let keys: [&[u8]; 6] = [b"\0", b"\0\0", b"a", b"a\0", b"a\xff", b"b"];
    for key in keys.iter().rev() {
        tables.insert(TableId::Live, key, b"old").expect("insert");
        tables.insert(TableId::Live, key, key).expect("replace");
    }
    tables.insert(TableId::History, b"a", b"").expect("insert an empty value");
    let large = vec![7u8; (1 << 20) + 64];
    tables.insert(TableId::Replies, b"large", &large).expect("insert a large value");

    let get = |tables: &T, table, key: &[u8]| {
        tables.get(table, key).expect("get").map(|value| value.as_ref().to_vec())
    };
    assert_eq!(get(tables, TableId::Live, b"a\0"), Some(b"a\0".to_vec()));
    assert_eq!(get(tables, TableId::Live, b"aa"), None);
    assert_eq!(get(tables, TableId::History, b"a"), Some(Vec::new()));
    assert_eq!(get(tables, TableId::Replies, b"large"), Some(large));

    let range = |tables: &T, from: &[u8], to: Option<&[u8]>| -> Vec<Vec<u8>> {
        let rows = tables.range(TableId::Live, from, to).expect("range");
        rows.map(|row| row.expect("row").0.as_ref().to_vec()).collect()
    };
    assert_eq!(range(tables, b"", None), keys);
    assert_eq!(range(tables, b"a", None), keys[2..]);
    assert_eq!(range(tables, b"a", Some(b"b")), keys[2..5]);
    assert_eq!(range(tables, b"a\0", Some(b"a\xff")), keys[3..4]);
    assert_eq!(range(tables, b"b", Some(b"a")), [] as [&[u8]; 0], "an empty range is no error");
    assert_eq!(range(tables, b"a", Some(b"a")), [] as [&[u8]; 0]);

    assert!(tables.remove(TableId::Live, b"a").expect("remove"));
    assert!(!tables.remove(TableId::Live, b"a").expect("remove again"));
    assert_eq!(get(tables, TableId::Live, b"a"), None);
    assert_eq!(get(tables, TableId::History, b"a"), Some(Vec::new()));
    assert_eq!(range(tables, b"a", None), keys[3..]);
}

/// The same entries leave the same bytes as in memory, and reads and snapshots agree.
///
/// Returns the number of rows, so that a caller can see that the check was about something.
pub fn check_store<T: WriteTables>(empty: &mut T, seed: u64, entries: u64) -> usize {
    assert_eq!(dump(empty), [], "the check needs empty tables");
    let mut memory = MemoryTables::new();
    let proposals = proposals(seed, entries);
    for batch in proposals.chunks(7) {
        let mut ours = Applier::open(&mut memory).expect("open");
        let mut theirs = Applier::open(empty).expect("open");
        for (revision, proposal) in batch {
            let expected = ours.apply(*revision, proposal).expect("apply");
            let found = theirs.apply(*revision, proposal).expect("apply");
            assert_eq!(found, expected, "{proposal:?}");
        }
        assert_eq!(theirs.finish().expect("finish"), ours.finish().expect("finish"));
        check_scans(empty, &memory);
    }
    let rows = dump(&memory);
    assert_eq!(dump(empty), rows);
    assert_eq!(snapshot(empty), snapshot(&memory));
    rows.len()
}

/// Tables restored from a snapshot hold what it was made from.
pub fn check_restore<T: WriteTables>(empty: &mut T, seed: u64, entries: u64) {
    let mut memory = MemoryTables::new();
    let mut applier = Applier::open(&mut memory).expect("open");
    for (revision, proposal) in proposals(seed, entries) {
        applier.apply(revision, &proposal).expect("apply");
    }
    let header = applier.finish().expect("finish");
    let mut restore = Restore::begin(empty).expect("begin");
    let mut restored = None;
    for chunk in snapshot(&memory) {
        assert!(restored.is_none(), "the header comes with the last chunk");
        restored = restore.push(empty, &chunk).expect("push");
    }
    assert_eq!(restored, Some(header));
    assert_eq!(dump(empty), dump(&memory));
}

/// All chunks of a snapshot.
pub fn snapshot<T: ReadTables>(tables: &T) -> Vec<Bytes> {
    let mut stream = SnapshotStream::new();
    let mut chunks = Vec::new();
    while let Some(chunk) = stream.next_chunk(tables).expect("chunk") {
        chunks.push(chunk);
    }
    chunks
}

fn check_scans<T: ReadTables, U: ReadTables>(theirs: &T, ours: &U) {
    let theirs = View::open(theirs, 0).expect("view");
    let ours = View::open(ours, 0).expect("view");
    let newest = ours.header().applied_revision.0;
    let oldest = ours.header().oldest_revision.0;
    for at in [newest, newest.midpoint(oldest), oldest] {
        let mut scan = ScanKeys::newest(Prefix::ALL);
        scan.revision = Some(Revision(at));
        scan.limit = Some(9);
        loop {
            let expected = ours.scan(&scan).expect("scan");
            assert_eq!(theirs.scan(&scan).expect("scan"), expected);
            scan.continuation_token = expected.continuation_token;
            if scan.continuation_token.is_none() {
                break;
            }
        }
    }
}

/// A reproducible log that exercises every command, with deadlines that pass and repeated requests.
pub fn proposals(seed: u64, entries: u64) -> Vec<(Revision, Proposal)> {
    let mut random = Random(seed | 1);
    let mut log_time_ms = 1_000;
    (1..=entries)
        .map(|index| {
            log_time_ms += random.below(40);
            let request_id = (random.below(4) > 0).then(|| RequestId {
                client: ClientId([random.below(5) as u8; 16]),
                counter: 1 + index / 3,
                since: Revision(index.saturating_sub(random.below(9))),
            });
            let command = random.command(index);
            // What stands in a log has been through the codec.
            let proposal = Proposal { log_time_ms, request_id, command };
            let decoded = Proposal::decode(proposal.encode(), Level::TOP).expect("decode");
            assert_eq!(decoded, proposal);
            (Revision(index), decoded)
        })
        .collect()
}

/// xorshift64*: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % bound
    }

    fn key(&mut self) -> Key {
        let text = match self.below(8) {
            0 => format!("k{}\0", self.below(8)),
            1 => format!("k\0{}", self.below(8)),
            2 => format!("ключ{}", self.below(8)),
            _ => format!("k{}", self.below(40)),
        };
        Key::new(text).expect("a key")
    }

    fn value(&mut self) -> Bytes {
        vec![self.below(256) as u8; self.below(24) as usize].into()
    }

    fn lease(&mut self) -> LeaseId {
        LeaseId(1 + self.below(4))
    }

    fn lifetime(&mut self) -> Lifetime {
        match self.below(4) {
            0 => Lifetime::Ttl { ttl_ms: self.below(900) },
            1 => Lifetime::Lease { lease_id: self.lease() },
            _ => Lifetime::Forever {},
        }
    }

    fn operation(&mut self) -> WriteOperation {
        let key = self.key();
        match self.below(4) {
            0 => WriteOperation::Delete { key },
            1 => WriteOperation::Set { key, value: self.value(), lifetime: self.lifetime() },
            _ => WriteOperation::set(key, self.value()),
        }
    }

    fn operations(&mut self) -> Vec<WriteOperation> {
        (0..self.below(12)).map(|_| self.operation()).collect()
    }

    fn transaction(&mut self) -> Transact {
        let target = match self.below(3) {
            0 => CompareTarget::Exists { exists: true },
            1 => CompareTarget::Version { version: self.below(3) },
            _ => CompareTarget::Value { value: self.value() },
        };
        let compare = Compare { key: self.key(), relation: Relation::Equal, target };
        let mut steps = || -> Vec<_> {
            let writes = self.operations();
            let reads = writes.iter().map(|w| TransactionOperation::Read { key: w.key().clone() });
            let reads: Vec<_> = reads.take(2).collect();
            let writes =
                writes.into_iter().map(|operation| TransactionOperation::Write { operation });
            writes.chain(reads).collect()
        };
        Transact { compares: vec![compare], then: steps(), otherwise: steps() }
    }

    fn command(&mut self, index: u64) -> Command {
        let transact = |operations: Vec<WriteOperation>| Command::Transact {
            request: Transact::always(operations),
        };
        match self.below(16) {
            0 => transact(vec![WriteOperation::Delete { key: self.key() }]),
            1 => self.swap(None),
            2 => {
                let expected = self.value();
                self.swap(Some(expected))
            }
            3 => transact(self.operations()),
            4 => Command::Transact { request: self.transaction() },
            5 => {
                let (lease_id, ttl_seconds) = (Some(self.lease()), 1);
                Command::LeaseGrant { request: LeaseGrant { lease_id, ttl_seconds } }
            }
            6 => Command::LeaseRevoke { request: LeaseRevoke { lease_id: self.lease() } },
            7 => Command::LeaseKeepalive { request: LeaseKeepalive { lease_id: self.lease() } },
            8 => Command::Tick {},
            9 if self.below(4) == 0 => {
                let revision = Revision(index.saturating_sub(self.below(50)));
                Command::Compact { request: Compact { revision } }
            }
            10 => self.sum(),
            _ => {
                let (key, value) = (self.key(), self.value());
                transact(vec![WriteOperation::Set { key, value, lifetime: self.lifetime() }])
            }
        }
    }

    /// Sets a key that is absent, or deletes one that has the expected value; else reads it.
    fn swap(&mut self, expected: Option<Bytes>) -> Command {
        let key = self.key();
        let operation = match expected {
            None => WriteOperation::set(key.clone(), self.value()),
            Some(_) => WriteOperation::Delete { key: key.clone() },
        };
        let request = Transact {
            compares: vec![Compare::value(key.clone(), expected)],
            then: vec![operation.into()],
            otherwise: vec![TransactionOperation::Read { key }],
        };
        Command::Transact { request }
    }

    fn sum(&mut self) -> Command {
        let range = match self.below(2) {
            0 => NumberRange::Unsigned,
            _ => NumberRange::Signed,
        };
        let key = Key::new(format!("n{}", self.below(4))).expect("a key");
        let (amount, is_subtraction) = (self.below(9), self.below(2) == 0);
        let add = TransactionOperation::Add { key, amount, is_subtraction, range };
        Command::Transact { request: Transact::always([add]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_conforms() {
        check_tables(&mut MemoryTables::new());
        assert!(check_store(&mut MemoryTables::new(), 7, 2_000) > 100);
        check_restore(&mut MemoryTables::new(), 8, 2_000);
    }
}
