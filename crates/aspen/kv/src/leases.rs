//! Lease commands.
//!
//! Invariants: a lease has one deadline row until it is removed; it ends at one revision for all
//! its keys.

use aspen_api::codec::Wire;
use aspen_api::lease::{LeaseGrantResult, LeaseKeepaliveResult, LeaseRevokeResult};
use aspen_api::{ErrorCode, LeaseId};
use net_types::limits::{MAX_LEASES, MAX_TIME_TO_LIVE};

use crate::applier::{Applier, no_lease, refused};
use crate::layout::{Lease, expiry_lease, lease_key};
use crate::lifetime::load_lease;
use crate::{Fault, Reply, Rows, TableId, WriteTables};

impl<T: WriteTables> Applier<'_, T> {
    pub(crate) fn grant_lease(
        &mut self,
        wanted: Option<LeaseId>,
        ttl_seconds: u64,
    ) -> Result<Reply, Fault<T>> {
        if !(1..=MAX_TIME_TO_LIVE.as_secs()).contains(&ttl_seconds) {
            let message = "a lease lives from 1 second to ten years";
            return Ok(refused(ErrorCode::InvalidRequest, message));
        }
        let lease_id = match wanted {
            None | Some(LeaseId(0)) => LeaseId::generated(self.revision),
            Some(id) if id.is_client_chosen() => id,
            Some(_) => {
                let message = "a chosen lease id is below 4503599627370496";
                return Ok(refused(ErrorCode::InvalidRequest, message));
            }
        };
        if load_lease(self.tables, lease_id)?.is_some() {
            return Ok(refused(ErrorCode::Conflict, "the lease id is in use"));
        }
        if self.header.lease_count >= MAX_LEASES {
            return Ok(refused(ErrorCode::TooLarge, "there are too many leases"));
        }
        let deadline_ms = self.header.log_time_ms.saturating_add(ttl_seconds * 1_000);
        let lease = Lease { ttl_seconds, deadline_ms, key_count: 0, ended: None };
        self.put_lease(lease_id, &lease)?;
        self.queue_lease(lease_id, deadline_ms)?;
        self.header.lease_count += 1;
        let result = LeaseGrantResult { lease_id, ttl_seconds };
        Ok(Reply::LeaseGrant { result })
    }

    /// Ends the lease at this revision. Its keys are gone for readers at once; their rows are
    /// removed as the budgets of this and later entries allow.
    pub(crate) fn revoke_lease(
        &mut self,
        id: LeaseId,
        budget: &mut usize,
    ) -> Result<Reply, Fault<T>> {
        let Some(mut lease) = self.living_lease(id)? else {
            return Ok(Reply::Refused { error: no_lease() });
        };
        let keys_deleted = lease.key_count;
        self.unqueue_lease(id, lease.deadline_ms)?;
        lease.deadline_ms = 0;
        lease.ended = Some(self.revision);
        self.put_lease(id, &lease)?;
        self.queue_lease(id, 0)?;
        self.remove_due(budget)?;
        Ok(Reply::LeaseRevoke { result: LeaseRevokeResult { keys_deleted } })
    }

    pub(crate) fn keep_lease_alive(&mut self, id: LeaseId) -> Result<Reply, Fault<T>> {
        let Some(mut lease) = self.living_lease(id)? else {
            return Ok(Reply::Refused { error: no_lease() });
        };
        let ttl_seconds = lease.ttl_seconds;
        let deadline_ms = self.header.log_time_ms.saturating_add(ttl_seconds.saturating_mul(1_000));
        if deadline_ms != lease.deadline_ms {
            self.unqueue_lease(id, lease.deadline_ms)?;
            lease.deadline_ms = deadline_ms;
            self.put_lease(id, &lease)?;
            self.queue_lease(id, deadline_ms)?;
        }
        Ok(Reply::LeaseKeepalive { result: LeaseKeepaliveResult { lease_id: id, ttl_seconds } })
    }

    fn living_lease(&self, id: LeaseId) -> Result<Option<Lease>, Fault<T>> {
        let lease = load_lease(self.tables, id)?;
        Ok(lease.filter(|lease| lease.is_alive(self.header.log_time_ms)))
    }

    pub(crate) fn put_lease(&mut self, id: LeaseId, lease: &Lease) -> Result<(), Fault<T>> {
        self.tables.put_row(TableId::Leases, &lease_key(id), &lease.to_bytes())
    }

    fn queue_lease(&mut self, id: LeaseId, deadline_ms: u64) -> Result<(), Fault<T>> {
        self.header.next_deadline_ms = self.header.next_deadline_ms.min(deadline_ms);
        self.tables.put_row(TableId::Expiry, &expiry_lease(deadline_ms, id), &[])
    }

    pub(crate) fn unqueue_lease(&mut self, id: LeaseId, deadline_ms: u64) -> Result<(), Fault<T>> {
        self.tables.delete_row(TableId::Expiry, &expiry_lease(deadline_ms, id))?;
        self.deadline_removed(deadline_ms)
    }
}
