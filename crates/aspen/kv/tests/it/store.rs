//! A store driven entry by entry.

use aspen_api::kv::{
    Item, Lifetime, ReadKey, ScanKeys, ScanResult, Transact, TransactionOutcome, WriteOperation,
};
use aspen_api::lease::LeaseGrant;
use aspen_api::{ErrorCode, Key, LeaseId, Level, Prefix, RequestId, Revision};
use aspen_kv::{
    Applier, Command, Event, Header, MemoryTables, Proposal, Reply, View, check_invariants,
    load_header,
};
use bytes::Bytes;

pub(crate) fn key(text: &str) -> Key {
    text.parse().unwrap()
}

/// A transaction that makes changes without a condition.
pub(crate) fn write(operations: Vec<WriteOperation>) -> Command {
    Command::Transact { request: Transact::always(operations) }
}

pub(crate) fn put(k: &str, value: impl Into<Bytes>, lifetime: Lifetime) -> Command {
    write(vec![WriteOperation::Set { key: key(k), value: value.into(), lifetime }])
}

/// The outcomes and the revision of a transaction.
pub(crate) fn outcomes(reply: Reply) -> (Vec<TransactionOutcome>, u64) {
    match reply {
        Reply::Transact { result } => (result.outcomes, result.revision.0),
        other => panic!("{other:?}"),
    }
}

#[derive(Default)]
pub(crate) struct Store {
    pub(crate) tables: MemoryTables,
    pub(crate) revision: u64,
    pub(crate) now_ms: u64,
    pub(crate) events: Vec<Event>,
}

impl Store {
    pub(crate) fn apply(&mut self, command: Command) -> Reply {
        self.apply_named(command, None)
    }

    pub(crate) fn apply_named(&mut self, command: Command, request_id: Option<RequestId>) -> Reply {
        self.revision += 1;
        let proposal = Proposal { log_time_ms: self.now_ms, request_id, command };
        // As a replica would see it.
        let proposal = Proposal::decode(proposal.encode(), Level::TOP).unwrap();
        let mut sink = |event| self.events.push(event);
        let mut applier = Applier::open_watched(&mut self.tables, &mut sink).unwrap();
        let reply = applier.apply(Revision(self.revision), &proposal).unwrap();
        applier.finish().unwrap();
        // A walk over everything, so only while that is little.
        if load_header(&self.tables).unwrap().key_count < 100 {
            check_invariants(&self.tables).unwrap();
        }
        reply
    }

    pub(crate) fn set(&mut self, k: &str, value: &str) -> u64 {
        self.set_living(k, value, Lifetime::Forever {})
    }

    pub(crate) fn set_living(&mut self, k: &str, value: &str, lifetime: Lifetime) -> u64 {
        let value = Bytes::copy_from_slice(value.as_bytes());
        outcomes(self.apply(put(k, value, lifetime))).1
    }

    pub(crate) fn set_ttl(&mut self, k: &str, value: &str, ttl_ms: u64) -> u64 {
        self.set_living(k, value, Lifetime::Ttl { ttl_ms })
    }

    pub(crate) fn set_leased(&mut self, k: &str, value: &str, lease: u64) -> u64 {
        self.set_living(k, value, Lifetime::Lease { lease_id: LeaseId(lease) })
    }

    pub(crate) fn delete(&mut self, k: &str) -> bool {
        let delete = write(vec![WriteOperation::Delete { key: key(k) }]);
        match outcomes(self.apply(delete)).0[..] {
            [TransactionOutcome::Deleted { was_deleted }] => was_deleted,
            ref other => panic!("{other:?}"),
        }
    }

    pub(crate) fn grant(&mut self, id: u64, ttl_seconds: u64) -> Reply {
        let lease_id = Some(LeaseId(id));
        self.apply(Command::LeaseGrant { request: LeaseGrant { lease_id, ttl_seconds } })
    }

    pub(crate) fn view(&self) -> View<'_, MemoryTables> {
        View::open(&self.tables, 0).unwrap()
    }

    pub(crate) fn header(&self) -> Header {
        load_header(&self.tables).unwrap()
    }

    pub(crate) fn item(&self, k: &str) -> Option<Item> {
        self.view().read(&ReadKey::newest(key(k))).unwrap().item
    }

    pub(crate) fn value(&self, k: &str) -> Option<String> {
        self.item(k).map(|item| String::from_utf8(item.value.to_vec()).unwrap())
    }

    pub(crate) fn value_at(&self, k: &str, revision: u64) -> Option<String> {
        let read = ReadKey { revision: Some(Revision(revision)), ..ReadKey::newest(key(k)) };
        let item = self.view().read(&read).unwrap().item;
        item.map(|item| String::from_utf8(item.value.to_vec()).unwrap())
    }

    pub(crate) fn scan(&self, prefix: &str, limit: u32, after: Option<Bytes>) -> ScanResult {
        let prefix: Prefix = prefix.parse().unwrap();
        let scan =
            ScanKeys { limit: Some(limit), continuation_token: after, ..ScanKeys::newest(prefix) };
        self.view().scan(&scan).unwrap()
    }

    pub(crate) fn tick(&mut self) -> bool {
        match self.apply(Command::Tick {}) {
            Reply::Tick { result } => result.is_more,
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn refusal(reply: Reply) -> ErrorCode {
    match reply {
        Reply::Refused { error } => error.code,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn keys_of(page: &ScanResult) -> Vec<&str> {
    page.entries.iter().map(|entry| entry.key.as_str()).collect()
}
