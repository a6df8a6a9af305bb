//! Whether a token's capabilities cover what a request needs.

use aspen_api::{Action, Key, LeaseId, Needs, Over, Prefix, Right};
use thiserror::Error;

use crate::Capability;

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

    /// Whether the capabilities cover `needs`. `lease_keys` gives the keys that live with a lease;
    /// `None` if they are too many to be judged.
    pub fn permits(
        &self,
        needs: &Needs<'_>,
        lease_keys: impl Fn(LeaseId) -> Option<Vec<Key>>,
    ) -> Result<(), Denied> {
        if self.is_admin() {
            return Ok(());
        }
        match needs {
            Needs::Open | Needs::AnyToken => Ok(()),
            Needs::Admin(what) => Err(Denied((*what).to_owned())),
            Needs::Rights(rights) => {
                rights.iter().try_for_each(|right| self.right(*right, &lease_keys))
            }
        }
    }

    fn right(
        &self,
        right: Right<'_>,
        lease_keys: &impl Fn(LeaseId) -> Option<Vec<Key>>,
    ) -> Result<(), Denied> {
        let Right { action, over } = right;
        if let Some(prefix) = over.reserved_prefix() {
            return Err(Denied(format!("reach keys under the reserved prefix {prefix:?}")));
        }
        match over {
            Over::Key(key) | Over::Name(key) => self.key(action, key),
            Over::Prefix(prefix) => self.prefix(action, prefix),
            Over::SomeKey => self.some(action),
            Over::LeaseKeys(lease) => {
                self.some(action)?;
                let Some(keys) = lease_keys(lease) else {
                    return Err(Denied(format!("{action} all keys of so large a lease")));
                };
                keys.iter().try_for_each(|key| {
                    self.right(Right { action, over: Over::Key(key) }, lease_keys)
                })
            }
        }
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
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use aspen_api::Request;
    use aspen_api::cluster::{GetHealth, InitCluster};
    use aspen_api::kv::{
        Compare, NumberRange, ReadKey, ScanKeys, Transact, TransactionOperation, WriteOperation,
    };
    use aspen_api::lease::{LeaseGrant, LeaseRevoke};

    use super::*;

    fn key(text: &str) -> Key {
        text.parse().unwrap()
    }

    fn may(capabilities: &[&str], request: impl Request) -> bool {
        let grant = Grant::new(capabilities.iter().map(|text| text.parse().unwrap()).collect());
        grant.permits(&request.needs(), |_| Some(vec![key("app/1"), key("app/2")])).is_ok()
    }

    fn set(text: &str) -> WriteOperation {
        WriteOperation::set(key(text), "v")
    }

    fn write(text: &str) -> Transact {
        Transact::always([set(text)])
    }

    fn delete(text: &str) -> Transact {
        Transact::always([WriteOperation::Delete { key: key(text) }])
    }

    #[test]
    fn each_key_needs_its_capability() {
        assert!(may(&["read:app/"], ReadKey::newest(key("app/x"))));
        assert!(!may(&["read:app/"], ReadKey::newest(key("app"))));
        assert!(!may(&["read:app/"], write("app/x")));
        assert!(may(&["write:app/"], write("app/x")));
        assert!(may(&["full:app/"], delete("app/x")));
        assert!(!may(&["write:app/"], delete("app/x")));
        assert!(!may(&[], ReadKey::newest(key("app/x"))));
        assert!(may(&[], GetHealth {}));
    }

    #[test]
    fn what_an_answer_shows_must_be_readable() {
        let compares = || vec![Compare::value(key("other"), None)];
        let swap = || Transact { compares: compares(), ..write("a") };
        assert!(!may(&["full:a"], swap()));
        assert!(may(&["full:a", "read:other"], swap()));
        let add = || {
            let range = NumberRange::Unsigned;
            let (amount, is_subtraction) = (1, false);
            let add = TransactionOperation::Add { key: key("a"), amount, is_subtraction, range };
            Transact::always([add])
        };
        assert!(!may(&["write:a"], add()), "the answer tells the number");
        assert!(may(&["write:a", "read:a"], add()));
    }

    #[test]
    fn every_step_of_every_branch_counts() {
        assert!(may(&["write:a"], Transact::always([set("a"), set("ab")])));
        assert!(!may(&["write:a"], Transact::always([set("a"), set("b")])));
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
        assert!(!may(&["full:"], Transact::always([set("a"), set("dns:x")])));
        assert!(may(&["admin"], ReadKey::newest(key("_sys:x"))));
        assert!(!may(&["full:", "delegate"], InitCluster {}));
        assert!(may(&["admin"], InitCluster {}));
    }

    #[test]
    fn revoking_a_lease_deletes_its_keys() {
        let revoke = || LeaseRevoke { lease_id: LeaseId(1) };
        assert!(may(&["delete:app/"], revoke()));
        assert!(!may(&["delete:app/1"], revoke()));
        let full = Grant::new(vec!["full:".parse().unwrap()]);
        let reserved = |_| Some(vec![key("_sys:x")]);
        assert!(full.permits(&revoke().needs(), reserved).is_err());
        assert!(full.permits(&revoke().needs(), |_| None).is_err());
        assert!(!may(&["read:"], LeaseGrant { ttl_seconds: 1, lease_id: None }));
        assert!(may(&["write:x"], LeaseGrant { ttl_seconds: 1, lease_id: None }));
    }
}
