//! The primitives every command is made of: find, set and remove one key's newest version.
//!
//! A version that ends moves to the history, where its row names the half-open interval of
//! revisions in which it was the value: from its mod revision up to the revision that ended it.
//! A version that begins and ends in the same entry was never visible and leaves no row.
//!
//! Invariants: a key has at most one live row; intervals of a key's history do not overlap and hold
//! at least one revision; the rows that name a deadline or a lease change together with the live
//! row.

use aspen_api::codec::Wire;
use aspen_api::kv::{Item, Lifetime};
use aspen_api::{Key, LeaseId, Revision};
use bytes::Bytes;

use crate::applier::Applier;
use crate::layout::{
    ItemMeta, expiry_key, history_key, lease_attachment, lease_key, split_expiry, stored_key,
};
use crate::lifetime::{end_of, load_lease};
use crate::{Change, Event, Fault, Rows, StateError, TableId, WriteTables};

/// A live row.
pub(crate) struct Found {
    pub(crate) meta: ItemMeta,
    /// The revision that ended it, if it only waits for its removal.
    pub(crate) ended: Option<Revision>,
}

/// A key's value as commands see it.
pub(crate) struct Visible<'a> {
    pub(crate) meta: ItemMeta,
    pub(crate) value: &'a [u8],
}

/// How long a value lives: as long as the lease, or until the log time, or without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline {
    pub(crate) expires_at_ms: Option<u64>,
    pub(crate) lease_id: Option<LeaseId>,
}

impl Deadline {
    pub(crate) const NONE: Self = Self { expires_at_ms: None, lease_id: None };
}

impl ItemMeta {
    /// How long the value lives.
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline { expires_at_ms: self.expires_at_ms, lease_id: self.lease_id }
    }
}

impl<T: WriteTables> Applier<'_, T> {
    /// Loads the live row of `key` into `self.row`.
    pub(crate) fn find(&mut self, key: &[u8]) -> Result<Option<Found>, Fault<T>> {
        self.row.clear();
        match self.tables.row(TableId::Live, key)? {
            None => return Ok(None),
            Some(row) => self.row.extend_from_slice(row.as_ref()),
        }
        let (meta, _) = ItemMeta::split(&self.row, TableId::Live)?;
        let ended = end_of(self.tables, &meta, self.header.log_time_ms, self.revision)?;
        Ok(Some(Found { meta, ended }))
    }

    /// The value of `key` at this entry.
    pub(crate) fn visible(&mut self, key: &Key) -> Result<Option<Visible<'_>>, Fault<T>> {
        match self.find(key.as_bytes())? {
            Some(found) if found.ended.is_none() => {
                let (meta, value) = ItemMeta::split(&self.row, TableId::Live)?;
                Ok(Some(Visible { meta, value }))
            }
            _ => Ok(None),
        }
    }

    /// Sets a key. The lifetime has been checked.
    pub(crate) fn set(
        &mut self,
        key: &Key,
        value: &Bytes,
        lifetime: &Lifetime,
    ) -> Result<(), Fault<T>> {
        let deadline = match lifetime {
            Lifetime::Forever {} => Deadline::NONE,
            Lifetime::Ttl { ttl_ms } => {
                let at_ms = self.header.log_time_ms.saturating_add(*ttl_ms);
                Deadline { expires_at_ms: Some(at_ms), lease_id: None }
            }
            Lifetime::Lease { lease_id } => {
                Deadline { expires_at_ms: None, lease_id: Some(*lease_id) }
            }
        };
        self.put(key, value, deadline)
    }

    /// Sets a key that lives until a deadline.
    pub(crate) fn put(
        &mut self,
        key: &Key,
        value: &Bytes,
        deadline: Deadline,
    ) -> Result<(), Fault<T>> {
        let revision = self.revision;
        let mut meta = ItemMeta {
            version: 1,
            create_revision: revision,
            mod_revision: revision,
            expires_at_ms: deadline.expires_at_ms,
            lease_id: deadline.lease_id,
        };
        let mut is_attached = false;
        match self.find(key.as_bytes())? {
            None => self.header.key_count += 1,
            Some(old) => {
                if old.ended.is_none() {
                    meta.version = old.meta.version + 1;
                    meta.create_revision = old.meta.create_revision;
                    is_attached = meta.lease_id.is_some() && meta.lease_id == old.meta.lease_id;
                } else {
                    self.emit_removal(key.as_bytes(), &old)?;
                }
                self.keep_in_history(key.as_bytes(), &old)?;
                self.detach(key.as_bytes(), &old.meta, is_attached)?;
            }
        }
        self.attach(key.as_bytes(), &meta, is_attached)?;
        meta.encode_row(value, &mut self.row_scratch);
        self.tables.put_row(TableId::Live, key.as_bytes(), &self.row_scratch)?;
        self.emit(|revision| Event {
            revision,
            key: key.clone(),
            change: Change::Put(Item {
                value: value.clone(),
                version: meta.version,
                create_revision: meta.create_revision,
                mod_revision: meta.mod_revision,
                expires_at_ms: meta.expires_at_ms,
                lease_id: meta.lease_id,
            }),
        });
        Ok(())
    }

    /// Deletes a key; whether it was visible. One that only waits for its removal is left to it.
    pub(crate) fn delete(&mut self, key: &Key) -> Result<bool, Fault<T>> {
        match self.find(key.as_bytes())? {
            Some(found) if found.ended.is_none() => {
                self.remove_found(key.as_bytes(), &found)?;
                self.emit(|revision| Event { revision, key: key.clone(), change: Change::Deleted });
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Removes a row that has ended by its deadline or its lease, and says so.
    pub(crate) fn remove_ended(&mut self, key: &[u8], found: &Found) -> Result<(), Fault<T>> {
        self.remove_found(key, found)?;
        self.emit_removal(key, found)
    }

    fn remove_found(&mut self, key: &[u8], found: &Found) -> Result<(), Fault<T>> {
        self.keep_in_history(key, found)?;
        self.detach(key, &found.meta, false)?;
        self.tables.delete_row(TableId::Live, key)?;
        self.header.key_count = self.header.key_count.saturating_sub(1);
        Ok(())
    }

    fn emit_removal(&mut self, key: &[u8], found: &Found) -> Result<(), Fault<T>> {
        let key = stored_key(key, TableId::Live)?;
        let is_revoked = match found.meta.lease_id {
            None => false,
            // The queue holds a revoked lease at time 0.
            Some(id) => load_lease(self.tables, id)?.is_none_or(|lease| lease.deadline_ms == 0),
        };
        let change = if is_revoked { Change::Revoked } else { Change::Expired };
        self.emit(|revision| Event { revision, key, change });
        Ok(())
    }

    /// Moves the row in `self.row`, found at `key`, to the history.
    pub(crate) fn keep_in_history(&mut self, key: &[u8], old: &Found) -> Result<(), Fault<T>> {
        let ended = old.ended.unwrap_or(self.revision);
        if old.meta.mod_revision >= ended {
            return Ok(());
        }
        history_key(key, ended, &mut self.key_scratch);
        self.header.history_count += 1;
        self.header.history_bytes += (self.key_scratch.len() + self.row.len()) as u64;
        self.tables.put_row(TableId::History, &self.key_scratch, &self.row)
    }

    fn attach(&mut self, key: &[u8], meta: &ItemMeta, is_attached: bool) -> Result<(), Fault<T>> {
        if let Some(deadline_ms) = meta.expires_at_ms {
            expiry_key(deadline_ms, key, &mut self.key_scratch);
            self.tables.put_row(TableId::Expiry, &self.key_scratch, &[])?;
            self.header.next_deadline_ms = self.header.next_deadline_ms.min(deadline_ms);
        }
        if let Some(id) = meta.lease_id
            && !is_attached
        {
            lease_attachment(id, key, &mut self.key_scratch);
            self.tables.put_row(TableId::LeaseKeys, &self.key_scratch, &[])?;
            self.change_lease_keys(id, 1)?;
        }
        Ok(())
    }

    fn detach(&mut self, key: &[u8], meta: &ItemMeta, is_kept: bool) -> Result<(), Fault<T>> {
        if let Some(deadline_ms) = meta.expires_at_ms {
            expiry_key(deadline_ms, key, &mut self.key_scratch);
            self.tables.delete_row(TableId::Expiry, &self.key_scratch)?;
            self.deadline_removed(deadline_ms)?;
        }
        if let Some(id) = meta.lease_id
            && !is_kept
        {
            lease_attachment(id, key, &mut self.key_scratch);
            self.tables.delete_row(TableId::LeaseKeys, &self.key_scratch)?;
            self.change_lease_keys(id, -1)?;
        }
        Ok(())
    }

    fn change_lease_keys(&mut self, id: LeaseId, by: i64) -> Result<(), Fault<T>> {
        let corrupt = StateError::Corrupt(TableId::Leases);
        let Some(mut lease) = load_lease(self.tables, id)? else { return Err(corrupt) };
        let Some(count) = lease.key_count.checked_add_signed(by) else { return Err(corrupt) };
        lease.key_count = count;
        self.tables.put_row(TableId::Leases, &lease_key(id), &lease.to_bytes())
    }

    /// Keeps the earliest deadline exact after a row left the queue.
    pub(crate) fn deadline_removed(&mut self, deadline_ms: u64) -> Result<(), Fault<T>> {
        if deadline_ms > self.header.next_deadline_ms {
            return Ok(());
        }
        let mut queue = self.tables.rows(TableId::Expiry, &[], None)?;
        self.header.next_deadline_ms = match queue.next() {
            None => u64::MAX,
            Some(row) => split_expiry(row?.0.as_ref())?.0,
        };
        Ok(())
    }
}
