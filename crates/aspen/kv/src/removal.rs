//! Removing what has ended: expired keys, ended leases with their keys, compacted versions, old
//! answers. Every call takes a budget of rows and leaves the rest for later entries.
//!
//! Invariants: a removal changes nothing that a reader sees; `next_deadline_ms` is never above the
//! earliest deadline row.

use aspen_api::{LeaseId, Revision};
use bytes::Bytes;
use net_types::limits::REMOVED_ROW_BYTES;

use crate::applier::Applier;
use crate::layout::{Due, Sweep, lease_key, split_be, split_expiry, split_history_key};
use crate::lifetime::{first_revision_at, load_lease};
use crate::{Fault, Rows, StateError, TableId, WriteTables};

impl<T: WriteTables> Applier<'_, T> {
    /// Whether something has ended and still has rows.
    pub(crate) fn is_backlogged(&self) -> bool {
        self.header.next_deadline_ms <= self.header.log_time_ms
    }

    /// Removes what has ended by now, oldest deadline first, and forgets silent clients.
    pub(crate) fn remove_due(&mut self, budget: &mut usize) -> Result<(), Fault<T>> {
        while *budget > 0 && self.is_backlogged() {
            let mut queue = self.tables.rows(TableId::Expiry, &[], None)?;
            let Some(row) = queue.next() else {
                return Err(StateError::Corrupt(TableId::Expiry));
            };
            let (deadline_ms, due) = split_expiry(row?.0.as_ref())?;
            drop(queue);
            match due {
                Due::Key(key) => {
                    self.expire_key(&key)?;
                    self.charge(budget);
                }
                Due::Lease(id) => self.remove_lease(id, deadline_ms, budget)?,
            }
        }
        self.keep_marks(budget)?;
        self.forget_silent_clients(budget)
    }

    /// Takes the removal of the row found last off the budget.
    fn charge(&self, budget: &mut usize) {
        *budget = budget.saturating_sub(1 + self.row.len() / REMOVED_ROW_BYTES);
    }

    fn expire_key(&mut self, key: &[u8]) -> Result<(), Fault<T>> {
        match self.find(key)? {
            Some(found) if found.ended.is_some() => self.remove_ended(key, &found),
            _ => Err(StateError::Corrupt(TableId::Expiry)),
        }
    }

    /// Removes keys of an ended lease, and the lease once it has none.
    fn remove_lease(
        &mut self,
        id: LeaseId,
        deadline_ms: u64,
        budget: &mut usize,
    ) -> Result<(), Fault<T>> {
        let mut lease = load_lease(self.tables, id)?.ok_or(StateError::Corrupt(TableId::Leases))?;
        if lease.ended.is_none() {
            lease.ended = Some(first_revision_at(self.tables, deadline_ms, self.revision)?);
            self.put_lease(id, &lease)?;
        }
        let keys = self.keys_of_lease(id, *budget)?;
        for key in &keys {
            if *budget == 0 {
                break;
            }
            match self.find(key)? {
                Some(found) if found.ended.is_some() => self.remove_ended(key, &found)?,
                _ => return Err(StateError::Corrupt(TableId::LeaseKeys)),
            }
            self.charge(budget);
        }
        if *budget > 0 {
            *budget -= 1;
            self.tables.delete_row(TableId::Leases, &lease_key(id))?;
            self.header.lease_count = self.header.lease_count.saturating_sub(1);
            self.unqueue_lease(id, deadline_ms)?;
        }
        Ok(())
    }

    fn keys_of_lease(&mut self, id: LeaseId, limit: usize) -> Result<Vec<Vec<u8>>, Fault<T>> {
        let next = LeaseId(id.0.saturating_add(1));
        let rows = self.tables.rows(TableId::LeaseKeys, &lease_key(id), Some(&lease_key(next)))?;
        rows.take(limit)
            .map(|row| {
                let (row_key, _) = row?;
                let (_, key) =
                    split_be(row_key.as_ref()).ok_or(StateError::Corrupt(TableId::LeaseKeys))?;
                Ok(key.to_vec())
            })
            .collect()
    }

    /// Remembers at which revision this entry's time was reached while something that ended by then
    /// still has rows, and drops marks once nothing has.
    fn keep_marks(&mut self, budget: &mut usize) -> Result<(), Fault<T>> {
        let now_ms = self.header.log_time_ms;
        if self.is_backlogged() {
            if now_ms > self.header.last_mark_ms {
                self.header.last_mark_ms = now_ms;
                self.tables.put_row(
                    TableId::Marks,
                    &now_ms.to_be_bytes(),
                    &self.revision.0.to_be_bytes(),
                )?;
            }
            return Ok(());
        }
        // Marks left here are below every later deadline and answer for none.
        while self.header.last_mark_ms > 0 && *budget > 0 {
            *budget -= 1;
            match self.first_key(TableId::Marks)? {
                Some(mark) => {
                    self.tables.delete_row(TableId::Marks, &mark)?;
                }
                None => self.header.last_mark_ms = 0,
            }
        }
        Ok(())
    }

    /// The first key of a table.
    pub(crate) fn first_key(&self, table: TableId) -> Result<Option<Vec<u8>>, Fault<T>> {
        let mut rows = self.tables.rows(table, &[], None)?;
        let Some(row) = rows.next() else { return Ok(None) };
        Ok(Some(row?.0.as_ref().to_vec()))
    }

    /// Continues the sweep for versions that ended at or before the oldest revision kept.
    pub(crate) fn sweep_history(&mut self, budget: &mut usize) -> Result<(), Fault<T>> {
        let oldest = self.header.oldest_revision;
        while *budget > 0
            && let Some(sweep) = self.header.sweep.take()
        {
            let Swept { doomed, cursor } = self.history_ended_by(oldest, &sweep.cursor, budget)?;
            for (row_key, bytes) in doomed {
                self.tables.delete_row(TableId::History, &row_key)?;
                self.header.history_count = self.header.history_count.saturating_sub(1);
                self.header.history_bytes = self.header.history_bytes.saturating_sub(bytes);
            }
            self.header.sweep = match cursor {
                Some(cursor) => Some(Sweep { cursor, ..sweep }),
                None if sweep.is_again => Some(Sweep { cursor: Bytes::new(), is_again: false }),
                None => None,
            };
        }
        Ok(())
    }

    /// Looks at history rows from `cursor` on, as far as the budget goes.
    fn history_ended_by(
        &self,
        oldest: Revision,
        cursor: &[u8],
        budget: &mut usize,
    ) -> Result<Swept, Fault<T>> {
        let mut doomed = Vec::new();
        for row in self.tables.rows(TableId::History, cursor, None)? {
            let (row_key, item) = row?;
            let row_key = row_key.as_ref();
            if *budget == 0 {
                let cursor = Some(Bytes::copy_from_slice(row_key));
                return Ok(Swept { doomed, cursor });
            }
            *budget -= 1;
            if split_history_key(row_key)?.1 <= oldest {
                doomed.push((row_key.to_vec(), (row_key.len() + item.as_ref().len()) as u64));
            }
        }
        Ok(Swept { doomed, cursor: None })
    }
}

/// What one step of a sweep found.
struct Swept {
    /// Rows to remove, with their sizes.
    doomed: Vec<(Vec<u8>, u64)>,
    /// The first row not looked at, if the budget ended before the table.
    cursor: Option<Bytes>,
}
