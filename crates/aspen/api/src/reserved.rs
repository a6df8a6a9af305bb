//! What a request reaches, and which of it is closed to generic requests.

use crate::kv::{Compare, Condition, TransactionOperation, WriteOperation};
use crate::{Key, Prefix, Request};

/// Prefixes that belong to services: a generic request that reaches one needs cluster-admin
/// authority, since a plain write could otherwise install a plugin or forge a lock.
pub const RESERVED_PREFIXES: [&str; 17] = [
    "plugins/",
    "_system:",
    "_sys:",
    "__plugin:",
    "__coord:",
    "__service:",
    "__secrets:",
    "__hooks:",
    "__pubsub/",
    "__aspen_origin:",
    "forge:",
    "dns:",
    "automerge:",
    "snix:",
    "_ci:",
    "_cache:",
    "_deploy:",
];

/// One thing that a request reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch<'a> {
    /// One key.
    Key(&'a Key),
    /// All keys that start with a prefix.
    Prefix(&'a Prefix),
}

impl Touch<'_> {
    /// Whether any key that starts with `prefix` is reached.
    pub fn overlaps(&self, prefix: &str) -> bool {
        match self {
            Touch::Key(key) => key.as_bytes().starts_with(prefix.as_bytes()),
            Touch::Prefix(scanned) => {
                let (scanned, prefix) = (scanned.as_bytes(), prefix.as_bytes());
                scanned.starts_with(prefix) || prefix.starts_with(scanned)
            }
        }
    }
}

/// Calls `visit` with everything that a key-value request reaches, conditions included, until it
/// returns `false`. Requests of other families reach nothing.
pub fn touches<'a>(request: &'a Request, mut visit: impl FnMut(Touch<'a>) -> bool) {
    let visit = &mut visit;
    match request {
        Request::ReadKey(r) => one(&r.key, visit),
        Request::WriteKey(r) => one(&r.key, visit),
        Request::WriteKeyWithTtl(r) => one(&r.key, visit),
        Request::WriteKeyWithLease(r) => one(&r.key, visit),
        Request::DeleteKey(r) => one(&r.key, visit),
        Request::CompareAndSwapKey(r) => one(&r.key, visit),
        Request::CompareAndDeleteKey(r) => one(&r.key, visit),
        Request::ScanKeys(r) => {
            visit(Touch::Prefix(&r.prefix));
        }
        Request::BatchRead(r) => all(r.keys.iter(), visit),
        Request::BatchWrite(r) => all(r.operations.iter().map(WriteOperation::key), visit),
        Request::ConditionalBatchWrite(r) => {
            let conditions = r.conditions.iter().map(Condition::key);
            all(conditions.chain(r.operations.iter().map(WriteOperation::key)), visit);
        }
        Request::Transact(r) => {
            let branches = r.then.iter().chain(&r.otherwise).map(TransactionOperation::key);
            let compares = r.compares.iter().map(|Compare { key, .. }| key);
            all(compares.chain(branches), visit);
        }
        Request::Ping(_)
        | Request::GetHealth(_)
        | Request::GetMetrics(_)
        | Request::GetRaftMetrics(_)
        | Request::GetNodeInfo(_)
        | Request::GetLeader(_)
        | Request::Compact(_)
        | Request::InitCluster(_)
        | Request::GetClusterState(_)
        | Request::GetClusterTicket(_)
        | Request::AddLearner(_)
        | Request::PromoteLearner(_)
        | Request::ChangeMembership(_)
        | Request::AddPeer(_)
        | Request::ExpungeNode(_)
        | Request::TransferLeader(_)
        | Request::TriggerSnapshot(_)
        | Request::LeaseGrant(_)
        | Request::LeaseRevoke(_)
        | Request::LeaseKeepalive(_)
        | Request::LeaseTimeToLive(_)
        | Request::LeaseList(_) => {}
    }
}

fn one<'a>(key: &'a Key, visit: &mut impl FnMut(Touch<'a>) -> bool) {
    visit(Touch::Key(key));
}

fn all<'a>(mut keys: impl Iterator<Item = &'a Key>, visit: &mut impl FnMut(Touch<'a>) -> bool) {
    keys.all(|key| visit(Touch::Key(key)));
}

/// The first reserved prefix that a request reaches, if it reaches one.
pub fn reserved_prefix_of(request: &Request) -> Option<&'static str> {
    let mut found = None;
    touches(request, |touch| {
        found = RESERVED_PREFIXES.into_iter().find(|prefix| touch.overlaps(prefix));
        found.is_none()
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{
        BatchRead, CompareTarget, ConditionalBatchWrite, Consistency, ReadKey, Relation, ScanKeys,
        Transact,
    };

    fn key(text: &str) -> Key {
        Key::new(text.to_owned()).unwrap()
    }

    fn scan(prefix: &str) -> Request {
        ScanKeys::newest(prefix.parse().unwrap()).into()
    }

    #[test]
    fn keys_are_reserved_by_prefix_only() {
        assert_eq!(reserved_prefix_of(&ReadKey::newest(key("dns:a")).into()), Some("dns:"));
        assert_eq!(reserved_prefix_of(&ReadKey::newest(key("dns")).into()), None);
        assert_eq!(reserved_prefix_of(&ReadKey::newest(key("my/plugins/")).into()), None);
    }

    #[test]
    fn scans_are_reserved_by_overlap_in_both_directions() {
        assert_eq!(reserved_prefix_of(&scan("")), Some("plugins/"));
        assert_eq!(reserved_prefix_of(&scan("_")), Some("_system:"));
        assert_eq!(reserved_prefix_of(&scan("__coord:lock:")), Some("__coord:"));
        assert_eq!(reserved_prefix_of(&scan("app/")), None);
    }

    #[test]
    fn every_key_of_a_batch_or_transaction_counts() {
        let read = BatchRead {
            keys: vec![key("a"), key("_ci:x")],
            consistency: Consistency::Stale,
            revision: None,
        };
        assert_eq!(reserved_prefix_of(&read.into()), Some("_ci:"));
        let batch = ConditionalBatchWrite {
            conditions: vec![Condition::KeyExists { key: key("forge:r") }],
            operations: vec![WriteOperation::set(key("a"), "v")],
        };
        assert_eq!(reserved_prefix_of(&batch.into()), Some("forge:"));
        let compare = Compare {
            key: key("snix:x"),
            relation: Relation::Equal,
            target: CompareTarget::Version { version: 0 },
        };
        let delete =
            |k| TransactionOperation::Write { operation: WriteOperation::Delete { key: key(k) } };
        let txn = |compares, otherwise| Transact { compares, then: vec![delete("a")], otherwise };
        assert_eq!(reserved_prefix_of(&txn(vec![compare], vec![]).into()), Some("snix:"));
        assert_eq!(
            reserved_prefix_of(&txn(vec![], vec![delete("_cache:")]).into()),
            Some("_cache:")
        );
        assert_eq!(reserved_prefix_of(&txn(vec![], vec![]).into()), None);
    }
}
