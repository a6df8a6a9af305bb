//! What each request needs, in one table.

use aspen_api::kv::{Condition, TransactionOperation, WriteOperation};
use aspen_api::{Key, LeaseId, Prefix, Request, reserved_prefix_of};
use thiserror::Error;

use crate::Capability;
use crate::capability::Action;

/// What a token does not allow.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the token does not allow this caller to {0}")]
pub struct Denied(String);

/// What a verified token allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant(Vec<Capability>);

impl Grant {
    pub(crate) fn new(capabilities: Vec<Capability>) -> Self {
        Self(capabilities)
    }

    fn is_admin(&self) -> bool {
        self.0.contains(&Capability::ClusterAdmin {})
    }

    fn key(&self, action: Action, key: &Key) -> Result<(), Denied> {
        match self.0.iter().any(|own| own.allows_key(action, key)) {
            true => Ok(()),
            false => Err(Denied(format!("{action} the key {key:?}"))),
        }
    }

    fn prefix(&self, action: Action, prefix: &Prefix) -> Result<(), Denied> {
        match self.0.iter().any(|own| own.allows_prefix(action, prefix)) {
            true => Ok(()),
            false => Err(Denied(format!("{action} all keys that start with {prefix:?}"))),
        }
    }

    fn some(&self, action: Action) -> Result<(), Denied> {
        match self.0.iter().any(|own| own.allows_some(action)) {
            true => Ok(()),
            false => Err(Denied(format!("{action} any key"))),
        }
    }

    fn admin(&self, what: &str) -> Result<(), Denied> {
        match self.is_admin() {
            true => Ok(()),
            false => Err(Denied(what.to_owned())),
        }
    }

    fn operation(&self, operation: &WriteOperation) -> Result<(), Denied> {
        match operation {
            WriteOperation::Set { key, .. } => self.key(Action::Write, key),
            WriteOperation::Delete { key } => self.key(Action::Delete, key),
        }
    }

    fn step(&self, step: &TransactionOperation) -> Result<(), Denied> {
        match step {
            TransactionOperation::Write { operation } => self.operation(operation),
            TransactionOperation::Read { key } => self.key(Action::Read, key),
        }
    }

    /// Whether a request may be carried out. What it reads to decide, it must be allowed to read.
    /// `lease_keys` are the keys that live with a lease; `None` if they are too many to be judged.
    pub fn permits(
        &self,
        request: &Request,
        lease_keys: impl FnOnce(LeaseId) -> Option<Vec<Key>>,
    ) -> Result<(), Denied> {
        if let Some(prefix) = reserved_prefix_of(request) {
            return self.admin(&format!("reach keys under the reserved prefix {prefix:?}"));
        }
        match request {
            Request::Ping(_)
            | Request::GetHealth(_)
            | Request::GetMetrics(_)
            | Request::GetRaftMetrics(_)
            | Request::GetNodeInfo(_)
            | Request::GetLeader(_)
            | Request::GetClusterState(_)
            | Request::GetClusterTicket(_)
            | Request::LeaseList(_) => Ok(()),
            Request::ReadKey(r) => self.key(Action::Read, &r.key),
            Request::WriteKey(r) => self.key(Action::Write, &r.key),
            Request::WriteKeyWithTtl(r) => self.key(Action::Write, &r.key),
            Request::WriteKeyWithLease(r) => self.key(Action::Write, &r.key),
            Request::DeleteKey(r) => self.key(Action::Delete, &r.key),
            Request::CompareAndSwapKey(r) => {
                self.key(Action::Read, &r.key)?;
                self.key(Action::Write, &r.key)
            }
            Request::CompareAndDeleteKey(r) => {
                self.key(Action::Read, &r.key)?;
                self.key(Action::Delete, &r.key)
            }
            Request::ScanKeys(r) => self.prefix(Action::Read, &r.prefix),
            Request::BatchRead(r) => r.keys.iter().try_for_each(|key| self.key(Action::Read, key)),
            Request::BatchWrite(r) => r.operations.iter().try_for_each(|op| self.operation(op)),
            Request::ConditionalBatchWrite(r) => {
                let mut conditions = r.conditions.iter().map(Condition::key);
                conditions.try_for_each(|key| self.key(Action::Read, key))?;
                r.operations.iter().try_for_each(|op| self.operation(op))
            }
            Request::Transact(r) => {
                r.compares.iter().try_for_each(|c| self.key(Action::Read, &c.key))?;
                r.then.iter().chain(&r.otherwise).try_for_each(|step| self.step(step))
            }
            Request::LeaseGrant(_) | Request::LeaseKeepalive(_) => self.some(Action::Write),
            Request::LeaseRevoke(r) => self.keys(Action::Delete, lease_keys(r.lease_id)),
            Request::LeaseTimeToLive(r) if r.should_include_keys => {
                self.keys(Action::Read, lease_keys(r.lease_id))
            }
            Request::LeaseTimeToLive(_) => Ok(()),
            Request::Compact(_) => self.admin("compact the history"),
            Request::InitCluster(_)
            | Request::AddLearner(_)
            | Request::PromoteLearner(_)
            | Request::ChangeMembership(_)
            | Request::AddPeer(_)
            | Request::ExpungeNode(_)
            | Request::TransferLeader(_)
            | Request::TriggerSnapshot(_) => self.admin("change the cluster"),
        }
    }

    fn keys(&self, action: Action, keys: Option<Vec<Key>>) -> Result<(), Denied> {
        if self.is_admin() {
            return Ok(());
        }
        self.some(action)?;
        let Some(keys) = keys else {
            return Err(Denied(format!("{action} all keys of so large a lease")));
        };
        keys.iter().try_for_each(|key| self.key(action, key))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use aspen_api::cluster::{GetHealth, InitCluster};
    use aspen_api::kv::{
        BatchWrite, CompareAndDeleteKey, CompareAndSwapKey, ConditionalBatchWrite, DeleteKey,
        ReadKey, ScanKeys, Transact, WriteKey,
    };
    use aspen_api::lease::{LeaseGrant, LeaseRevoke};

    use super::*;

    fn key(text: &str) -> Key {
        text.parse().unwrap()
    }

    fn may(capabilities: &[&str], request: impl Into<Request>) -> bool {
        let grant = Grant::new(capabilities.iter().map(|text| text.parse().unwrap()).collect());
        grant.permits(&request.into(), |_| Some(vec![key("app/1"), key("app/2")])).is_ok()
    }

    fn write(text: &str) -> WriteKey {
        WriteKey { key: key(text), value: "v".into() }
    }

    #[test]
    fn each_key_needs_its_capability() {
        assert!(may(&["read:app/"], ReadKey::newest(key("app/x"))));
        assert!(!may(&["read:app/"], ReadKey::newest(key("app"))));
        assert!(!may(&["read:app/"], write("app/x")));
        assert!(may(&["write:app/"], write("app/x")));
        assert!(may(&["full:app/"], DeleteKey { key: key("app/x") }));
        assert!(!may(&["write:app/"], DeleteKey { key: key("app/x") }));
        assert!(!may(&[], ReadKey::newest(key("app/x"))));
        assert!(may(&[], GetHealth {}));
    }

    #[test]
    fn what_an_answer_shows_must_be_readable() {
        let swap = || CompareAndSwapKey { key: key("a"), expected: None, new_value: "v".into() };
        assert!(!may(&["write:"], swap()));
        assert!(may(&["write:", "read:"], swap()));
        let delete = || CompareAndDeleteKey { key: key("a"), expected: "v".into() };
        assert!(!may(&["delete:"], delete()));
        assert!(may(&["full:"], delete()));
        let batch = || ConditionalBatchWrite {
            conditions: vec![Condition::KeyExists { key: key("other") }],
            operations: vec![WriteOperation::set(key("a"), "v")],
        };
        assert!(!may(&["full:a"], batch()));
        assert!(may(&["full:a", "read:other"], batch()));
    }

    #[test]
    fn every_step_of_every_branch_counts() {
        let batch = |keys: &[&str]| BatchWrite {
            operations: keys.iter().map(|k| WriteOperation::set(key(k), "v")).collect(),
        };
        assert!(may(&["write:a"], batch(&["a", "ab"])));
        assert!(!may(&["write:a"], batch(&["a", "b"])));
        let otherwise = vec![TransactionOperation::Read { key: key("b") }];
        let txn = Transact { compares: vec![], then: vec![], otherwise };
        assert!(!may(&["full:a"], txn.clone()));
        assert!(may(&["read:b"], txn));
    }

    #[test]
    fn scans_need_their_whole_prefix() {
        let scan = |prefix: &str| ScanKeys::newest(prefix.parse().unwrap());
        assert!(may(&["read:app/"], scan("app/x")));
        assert!(!may(&["read:app/"], scan("app")));
        assert!(!may(&["read:"], scan("")), "it would reach reserved keys");
        assert!(may(&["admin"], scan("")));
    }

    #[test]
    fn reserved_keys_and_the_cluster_need_an_admin() {
        assert!(!may(&["full:"], ReadKey::newest(key("_sys:x"))));
        assert!(may(&["admin"], ReadKey::newest(key("_sys:x"))));
        assert!(!may(&["full:", "delegate"], InitCluster {}));
        assert!(may(&["admin"], InitCluster {}));
    }

    #[test]
    fn revoking_a_lease_deletes_its_keys() {
        let revoke = || LeaseRevoke { lease_id: LeaseId(1) };
        assert!(may(&["delete:app/"], revoke()));
        assert!(!may(&["delete:app/1"], revoke()));
        assert!(!may(&["read:"], LeaseGrant { ttl_seconds: 1, lease_id: None }));
        assert!(may(&["write:x"], LeaseGrant { ttl_seconds: 1, lease_id: None }));
    }
}
