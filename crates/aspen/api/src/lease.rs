//! Lease requests and results. A lease's time is log time: stamped by the leader, equal on all
//! replicas.

use net_types::limits::MAX_LEASE_LIST;

use crate::record;
use crate::{Key, LeaseId};

record! {
    /// Grants a lease.
    pub struct LeaseGrant {
        /// The id to use, below 2^52; absent or 0 generates one.
        pub lease_id: Option<LeaseId>,
        /// Seconds it lives without a keepalive, 1 to ten years.
        pub ttl_seconds: u64,
    }

    /// The answer to [`LeaseGrant`]; an id that is in use is `CONFLICT`.
    pub struct LeaseGrantResult {
        /// The lease.
        pub lease_id: LeaseId,
        /// Seconds it lives without a keepalive.
        pub ttl_seconds: u64,
    }

    /// Ends a lease and deletes its keys, atomically. `NOT_FOUND` if there is none.
    pub struct LeaseRevoke {
        /// The lease.
        pub lease_id: LeaseId,
    }

    /// The answer to [`LeaseRevoke`].
    pub struct LeaseRevokeResult {
        /// Keys that ended with the lease.
        pub keys_deleted: u64,
    }

    /// Starts a lease's time anew. `NOT_FOUND` if it has ended.
    pub struct LeaseKeepalive {
        /// The lease.
        pub lease_id: LeaseId,
    }

    /// The answer to [`LeaseKeepalive`].
    pub struct LeaseKeepaliveResult {
        /// The lease.
        pub lease_id: LeaseId,
        /// Seconds it lives from now.
        pub ttl_seconds: u64,
    }

    /// Asks how long a lease lives. `NOT_FOUND` if it has ended.
    pub struct LeaseTimeToLive {
        /// The lease.
        pub lease_id: LeaseId,
        /// Whether to list its keys.
        pub should_include_keys: bool,
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

    /// Lists leases by id.
    pub struct LeaseList {
        /// Where the list before ended.
        pub after: Option<LeaseId>,
        /// Leases wanted, at most 1,000; absent means 1,000.
        pub limit: Option<u32>,
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
