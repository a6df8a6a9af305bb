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

/// Entry that holds a membership, and the membership.
fn encode_membership(stored: &StoredMembership) -> Vec<u8> {
    let mut out = Vec::new();
    put_id(stored.log_id().as_ref().map(entry_id), &mut out);
    MembershipRecord(stored.membership().clone()).put(&mut out);
    out
}

/// Reads what [`encode_membership`] wrote.
fn decode_membership(bytes: Bytes) -> Result<StoredMembership, DecodeError> {
    let mut input = Input::new(bytes);
    let id = take_id(&mut input)?;
    let record = MembershipRecord::take(&mut input)?;
    input.finish()?;
    Ok(StoredMembership::new(id.map(log_id), record.0))
}

pub(super) fn read_progress(db: &Database) -> Result<Progress, StoreError> {
    let table = match db.begin_read()?.open_table(CONSENSUS) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Progress::default()),
        Err(error) => return Err(error.into()),
    };
    let damaged = |_| StoreError::Damaged("unreadable progress".into());
    let applied = match table.get(APPLIED)? {
        Some(row) => {
            let mut input = Input::new(Bytes::copy_from_slice(row.value()));
            take_id(&mut input).and_then(|id| input.finish().map(|()| id)).map_err(damaged)?
        }
        None => None,
    };
    let membership = match table.get(MEMBERSHIP)? {
        Some(row) => decode_membership(Bytes::copy_from_slice(row.value())).map_err(damaged)?,
        None => StoredMembership::default(),
    };
    Ok(Progress { applied, membership })
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
    table.insert(MEMBERSHIP, encode_membership(&progress.membership).as_slice())?;
    Ok(())
}
