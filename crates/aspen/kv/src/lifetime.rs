//! When a stored value's life ends.
//!
//! A value with a deadline is gone for every reader from the first log entry whose time has reached
//! the deadline: that entry's revision is where its life ends in history, although the row may be
//! removed later. While removals lag behind, a mark for each entry's time remembers that revision.

use aspen_api::{LeaseId, Revision};

use crate::layout::{Damaged, ItemMeta, Lease, decode_record, lease_key, split_be};
use crate::{Fault, ReadTables, Rows, StateError, TableId};

impl<E> From<Damaged> for StateError<E> {
    fn from(Damaged(table): Damaged) -> Self {
        Self::Corrupt(table)
    }
}

/// The revision that ended a live row's value, judged at `log_time_ms`; `None` while it lives.
///
/// `newest` is the answer where no mark says otherwise: the entry that is being applied.
pub(crate) fn end_of<T: ReadTables>(
    tables: &T,
    meta: &ItemMeta,
    log_time_ms: u64,
    newest: Revision,
) -> Result<Option<Revision>, Fault<T>> {
    let mut deadline_ms = meta.expires_at_ms;
    if let Some(id) = meta.lease_id {
        let lease = load_lease(tables, id)?.ok_or(StateError::Corrupt(TableId::Leases))?;
        if lease.ended.is_some() {
            return Ok(lease.ended);
        }
        deadline_ms = Some(lease.deadline_ms);
    }
    match deadline_ms {
        Some(deadline_ms) if deadline_ms <= log_time_ms => {
            first_revision_at(tables, deadline_ms, newest).map(Some)
        }
        _ => Ok(None),
    }
}

/// The first revision whose log time had reached `deadline_ms`.
pub(crate) fn first_revision_at<T: ReadTables>(
    tables: &T,
    deadline_ms: u64,
    newest: Revision,
) -> Result<Revision, Fault<T>> {
    let mut marks = tables.rows(TableId::Marks, &deadline_ms.to_be_bytes(), None)?;
    let Some(mark) = marks.next() else { return Ok(newest) };
    let (_, revision) = mark?;
    match split_be(revision.as_ref()) {
        Some((revision, [])) => Ok(Revision(revision)),
        _ => Err(StateError::Corrupt(TableId::Marks)),
    }
}

/// A lease's row.
pub(crate) fn load_lease<T: ReadTables>(
    tables: &T,
    id: LeaseId,
) -> Result<Option<Lease>, Fault<T>> {
    let row = tables.row(TableId::Leases, &lease_key(id))?;
    Ok(row.map(|row| decode_record(TableId::Leases, row.as_ref())).transpose()?)
}

impl Lease {
    /// Whether the lease lives at a log time. A revoked one has its deadline at 0.
    pub(crate) fn is_alive(&self, log_time_ms: u64) -> bool {
        self.deadline_ms > log_time_ms
    }
}
