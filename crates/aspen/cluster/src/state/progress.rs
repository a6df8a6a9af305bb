//! How far the log is applied in a state, and the members there, as rows beside the store's tables.

use aspen_api::codec::{DecodeError, Input, Wire, put_varint};
use aspen_log::EntryId;
use bytes::Bytes;
use redb::{Database, ReadableDatabase, TableDefinition, WriteTransaction};

use super::error::StoreError;
use crate::types::{MembershipRecord, SnapshotMeta, StoredMembership, entry_id, log_id};

const CONSENSUS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("consensus");
const APPLIED: &str = "applied";
const MEMBERSHIP: &str = "membership";

/// How far the log is applied, and the members as of there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub applied: Option<EntryId>,
    pub membership: StoredMembership,
}

impl Progress {
    /// What a snapshot at this point covers.
    pub(crate) fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: self.applied.map(log_id),
            last_membership: self.membership.clone(),
        }
    }
}

fn put_id(id: Option<EntryId>, out: &mut Vec<u8>) {
    out.push(id.is_some().into());
    if let Some(id) = id {
        put_varint(id.term, out);
        put_varint(id.index, out);
    }
}

fn take_id(input: &mut Input) -> Result<Option<EntryId>, DecodeError> {
    bool::take(input)?
        .then(|| Ok(EntryId { term: input.varint()?, index: input.varint()? }))
        .transpose()
}

fn take_membership(input: &mut Input) -> Result<StoredMembership, DecodeError> {
    let id = take_id(input)?;
    Ok(StoredMembership::new(id.map(log_id), MembershipRecord::take(input)?.0))
}

fn read_row<T>(
    bytes: &[u8],
    take: fn(&mut Input) -> Result<T, DecodeError>,
) -> Result<T, StoreError> {
    let mut input = Input::new(Bytes::copy_from_slice(bytes));
    let value = take(&mut input).and_then(|value| input.finish().map(|()| value));
    value.map_err(|_| StoreError::Damaged("unreadable progress".into()))
}

pub(super) fn read_progress(db: &Database) -> Result<Progress, StoreError> {
    let table = match db.begin_read()?.open_table(CONSENSUS) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Progress::default()),
        Err(error) => return Err(error.into()),
    };
    let applied = table.get(APPLIED)?.map(|row| read_row(row.value(), take_id));
    let membership = table.get(MEMBERSHIP)?.map(|row| read_row(row.value(), take_membership));
    Ok(Progress {
        applied: applied.transpose()?.flatten(),
        membership: membership.transpose()?.unwrap_or_default(),
    })
}

/// Writes how far the log is applied, and the members.
pub(super) fn write_progress(
    transaction: &WriteTransaction,
    progress: &Progress,
) -> Result<(), StoreError> {
    let mut table = transaction.open_table(CONSENSUS)?;
    let mut row = Vec::with_capacity(20);
    put_id(progress.applied, &mut row);
    table.insert(APPLIED, row.as_slice())?;
    let stored = &progress.membership;
    let mut row = Vec::new();
    put_id(stored.log_id().as_ref().map(entry_id), &mut row);
    MembershipRecord(stored.membership().clone()).put(&mut row);
    table.insert(MEMBERSHIP, row.as_slice())?;
    Ok(())
}
