//! Lease requests and results. A lease's time is log time: stamped by the leader, equal on all
//! replicas.

use net_types::limits::MAX_LEASE_LIST;

use crate::kv::Consistency;
use crate::{Action, Key, Kind, LeaseId, Needs, Over, family};
use crate::{record, request};

record! {
    /// The answer to [`LeaseGrant`]; an id that is in use is `CONFLICT`.
    pub struct LeaseGrantResult {
        /// The lease.
        pub lease_id: LeaseId,
        /// Seconds it lives without a keepalive.
        pub ttl_seconds: u64,
    }

    /// The answer to [`LeaseRevoke`].
    pub struct LeaseRevokeResult {
        /// Keys that ended with the lease.
        pub keys_deleted: u64,
    }

    /// The answer to [`LeaseKeepalive`].
    pub struct LeaseKeepaliveResult {
        /// The lease.
        pub lease_id: LeaseId,
        /// Seconds it lives from now.
        pub ttl_seconds: u64,
    }

    /// The answer to [`LeaseTimeToLive`].
    pub struct LeaseTimeToLiveResult {
        /// The lease.
        pub lease_id: LeaseId,
        /// Seconds it was granted.
        pub granted_ttl_seconds: u64,
        /// Milliseconds that remain.
        pub remaining_ms: u64,
        /// Keys attached to it.
        pub key_count: u64,
        /// The first of them in byte order, if they were asked for.
        pub keys: Vec<Key> [MAX_LEASE_LIST],
    }

    /// One lease of a list.
    pub struct LeaseInfo {
        /// The lease.
        pub lease_id: LeaseId,
        /// Seconds it was granted.
        pub granted_ttl_seconds: u64,
        /// Milliseconds that remain.
        pub remaining_ms: u64,
        /// Keys attached to it.
        pub key_count: u64,
    }

    /// The answer to [`LeaseList`].
    pub struct LeaseListResult {
        /// The leases, by id.
        pub leases: Vec<LeaseInfo> [MAX_LEASE_LIST],
        /// Whether there are more.
        pub is_truncated: bool,
    }
}

request! {
    /// Grants a lease.
    pub struct LeaseGrant {
        /// The id to use, below 2^52; absent or 0 generates one.
        pub lease_id: Option<LeaseId>,
        /// Seconds it lives without a keepalive, 1 to ten years.
        pub ttl_seconds: u64,
    }
    number: family::LEASE, 0;
    reply: LeaseGrantResult;
    kind: |_| Kind::Write;
    needs: |_| Needs::right(Action::Write, Over::SomeKey);

    /// Ends a lease and deletes its keys, atomically. `NOT_FOUND` if there is none.
    pub struct LeaseRevoke {
        /// The lease.
        pub lease_id: LeaseId,
    }
    number: family::LEASE, 1;
    reply: LeaseRevokeResult;
    kind: |_| Kind::Write;
    needs: |revoke| Needs::right(Action::Delete, Over::LeaseKeys(revoke.lease_id));

    /// Renews a lease: its time to live starts again. `NOT_FOUND` if it has ended.
    pub struct LeaseKeepalive {
        /// The lease.
        pub lease_id: LeaseId,
    }
    number: family::LEASE, 2;
    reply: LeaseKeepaliveResult;
    kind: |_| Kind::Write;
    needs: |_| Needs::right(Action::Write, Over::SomeKey);

    /// Asks how long a lease lives. `NOT_FOUND` if it has ended.
    pub struct LeaseTimeToLive {
        /// The lease.
        pub lease_id: LeaseId,
        /// Whether to list its keys.
        pub should_include_keys: bool,
    }
    number: family::LEASE, 3;
    reply: LeaseTimeToLiveResult;
    kind: |_| Kind::Read(Consistency::Linearizable);
    needs: |of| match of.should_include_keys {
        true => Needs::right(Action::Read, Over::LeaseKeys(of.lease_id)),
        false => Needs::AnyToken,
    };

    /// Lists leases by id.
    pub struct LeaseList {
        /// Where the list before ended.
        pub after: Option<LeaseId>,
        /// Leases wanted, at most 1,000; absent means 1,000.
        pub limit: Option<u32>,
    }
    number: family::LEASE, 4;
    reply: LeaseListResult;
    kind: |_| Kind::Read(Consistency::Linearizable);
    needs: |_| Needs::AnyToken;
}
