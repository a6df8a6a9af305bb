//! The state that the log leads to: the store's tables, how far the log is applied, and the members.
//!
//! Each batch of entries is one transaction that is visible at once and not synced: the log is what
//! makes it durable. From time to time a checkpoint makes the state durable, and only then may the
//! log before it be dropped. After a crash the state is that of the last checkpoint and the log
//! is applied again from there. Reads see the state as of the last whole batch and never wait.

mod machine;
mod tables;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use aspen_api::codec::{Input, Wire, put_varint};
use aspen_kv::{Header, StateError, View, load_header};
use bytes::Bytes;
use redb::{Database, Durability, ReadableDatabase, TableDefinition, WriteTransaction};
use thiserror::Error;

use machine::Backlog;
pub use machine::Blocking;
pub(crate) use machine::StateMachine;
use tables::Backend;
pub use tables::ReadView;
pub(crate) use tables::WriteView;

use crate::disk::DiskFile;
use crate::log::EntryId;
use crate::types::{MembershipRecord, StoredMembership, log_id};

/// What the state knows of consensus, beside the store's own tables.
const CONSENSUS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("consensus");
const APPLIED: &str = "applied";
const MEMBERSHIP: &str = "membership";

/// Why the state cannot be opened, read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The medium failed.
    #[error("state storage failed: {0}")]
    Io(#[from] io::Error),
    /// The file is not what this program wrote. The node must not serve with it: remove its data
    /// folder and let it join anew, or restore the folder.
    #[error("the state file is damaged: {0}")]
    Damaged(String),
    /// The file was written by another version of the storage library.
    #[error("the state file has format {0}, which this build does not read")]
    Version(u8),
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                Self::Damaged(error.to_string())
            }
            redb::Error::Io(error) => Self::Io(error),
            redb::Error::UpgradeRequired(version) => Self::Version(version),
            other => Self::Damaged(other.to_string()),
        }
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => { $(
        impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                redb::Error::from(error).into()
            }
        }
    )* };
}

from_redb!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::CommitError,
    redb::StorageError,
    redb::SetDurabilityError
);

impl From<StateError<redb::Error>> for StoreError {
    fn from(error: StateError<redb::Error>) -> Self {
        match error {
            StateError::Tables(error) => error.into(),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl StoreError {
    pub(crate) fn into_io(self) -> io::Error {
        match self {
            Self::Io(error) => error,
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        }
    }
}

/// How far the log is applied, and the members as of there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub applied: Option<EntryId>,
    pub membership: StoredMembership,
}

fn put_id(id: Option<EntryId>, out: &mut Vec<u8>) {
    out.push(id.is_some().into());
    if let Some(id) = id {
        put_varint(id.term, out);
        put_varint(id.index, out);
    }
}

fn take_id(input: &mut Input) -> Result<Option<EntryId>, aspen_api::codec::DecodeError> {
    bool::take(input)?
        .then(|| Ok(EntryId { term: input.varint()?, index: input.varint()? }))
        .transpose()
}

/// Entry that holds a membership, and the membership.
pub(crate) fn encode_membership(stored: &StoredMembership) -> Vec<u8> {
    let mut out = Vec::new();
    put_id(stored.log_id().as_ref().map(crate::types::entry_id), &mut out);
    MembershipRecord(stored.membership().clone()).put(&mut out);
    out
}

/// Reads what [`encode_membership`] wrote.
pub(crate) fn decode_membership(
    bytes: Bytes,
) -> Result<StoredMembership, aspen_api::codec::DecodeError> {
    let mut input = Input::new(bytes);
    let id = take_id(&mut input)?;
    let record = MembershipRecord::take(&mut input)?;
    input.finish()?;
    Ok(StoredMembership::new(id.map(log_id), record.0))
}

/// The state at one moment. Shared by all readers until the next batch is applied.
pub struct StoreView {
    tables: ReadView,
    header: Header,
    progress: Progress,
}

impl StoreView {
    /// The store as readers see it.
    pub fn view(&self) -> View<'_, ReadView> {
        // Deadlines are judged by log time alone, so that no later leader shows what an earlier
        // one did not.
        View::with_header(&self.tables, self.header.clone(), 0)
    }

    /// What the store knows of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The last entry applied in it.
    pub fn applied(&self) -> Option<EntryId> {
        self.progress.applied
    }

    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The store's rows as they are; equal states have equal rows.
    pub fn tables(&self) -> &ReadView {
        &self.tables
    }
}

/// Told of the store's header after each batch.
type Listener = Box<dyn Fn(&Header) + Send + Sync>;

/// The state of a node.
pub(crate) struct Store {
    db: Database,
    /// The newest state, once someone has read it.
    view: Mutex<Option<Arc<StoreView>>>,
    progress: Mutex<Progress>,
    /// Index after the last entry that a crash cannot take back.
    durable_next: AtomicU64,
    listener: OnceLock<Listener>,
    /// Held while a batch or checkpoint is written, so that neither blocks a thread on the other.
    backlog: tokio::sync::Mutex<Backlog>,
    has_backlog: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The values under these locks are replaced whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn next_of(applied: Option<EntryId>) -> u64 {
    applied.map_or(0, |id| id.index + 1)
}

impl Store {
    /// Opens the state in `file`, or starts it if the file is empty. `cache_bytes` bounds what the
    /// storage keeps in memory.
    pub(crate) fn open(
        file: Arc<dyn DiskFile>,
        cache_bytes: usize,
    ) -> Result<Arc<Self>, StoreError> {
        let mut builder = Database::builder();
        builder.set_cache_size(cache_bytes);
        let db = builder.create_with_backend(Backend(file))?;
        let progress = read_progress(&db)?;
        let durable_next = AtomicU64::new(next_of(progress.applied));
        let store = Self {
            db,
            view: Mutex::new(None),
            progress: Mutex::new(progress),
            durable_next,
            listener: OnceLock::new(),
            backlog: tokio::sync::Mutex::default(),
            has_backlog: AtomicBool::new(false),
        };
        // Reading the header now tells a damaged or newer file before the node takes part.
        store.view()?;
        Ok(Arc::new(store))
    }

    /// The newest state.
    pub(crate) fn view(&self) -> Result<Arc<StoreView>, StoreError> {
        let mut cached = lock(&self.view);
        if let Some(view) = &*cached {
            return Ok(view.clone());
        }
        let view = Arc::new(self.fresh_view()?);
        *cached = Some(view.clone());
        Ok(view)
    }

    fn fresh_view(&self) -> Result<StoreView, StoreError> {
        let transaction = self.db.begin_read()?;
        let progress = progress_in(&transaction)?;
        let tables = ReadView::new(transaction);
        let header = load_header(&tables)?;
        Ok(StoreView { tables, header, progress })
    }

    pub(crate) fn progress(&self) -> Progress {
        lock(&self.progress).clone()
    }

    /// The last applied entry.
    pub(crate) fn applied(&self) -> Option<EntryId> {
        lock(&self.progress).applied
    }

    /// Index after the last entry that a crash cannot take back.
    pub(crate) fn durable_next(&self) -> u64 {
        self.durable_next.load(Ordering::Acquire)
    }

    /// Tells `listener` of the header after each batch from now on; the first call counts.
    pub(crate) fn listen(&self, listener: impl Fn(&Header) + Send + Sync + 'static) {
        let _ = self.listener.set(Box::new(listener));
    }

    /// Makes the newest state visible to readers.
    fn publish(&self, progress: Progress, header: Option<&Header>) {
        *lock(&self.progress) = progress;
        *lock(&self.view) = None;
        if let (Some(listener), Some(header)) = (self.listener.get(), header) {
            listener(header);
        }
    }

    fn begin(&self, durability: Durability) -> Result<WriteTransaction, StoreError> {
        let mut transaction = self.db.begin_write()?;
        transaction.set_durability(durability)?;
        Ok(transaction)
    }

    /// Makes the state durable as it is and says how far that is. Blocks on the medium.
    fn sync(&self) -> Result<Progress, StoreError> {
        let progress = self.progress();
        let mut transaction = self.begin(Durability::Immediate)?;
        // Without it, opening after a crash would read the whole file.
        transaction.set_quick_repair(true);
        transaction.commit()?;
        self.durable_next.fetch_max(next_of(progress.applied), Ordering::AcqRel);
        Ok(progress)
    }
}

fn read_progress(db: &Database) -> Result<Progress, StoreError> {
    progress_in(&db.begin_read()?)
}

fn progress_in(transaction: &redb::ReadTransaction) -> Result<Progress, StoreError> {
    let table = match transaction.open_table(CONSENSUS) {
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

/// Writes how far the log is applied, and the members if they are given.
fn write_progress(
    transaction: &WriteTransaction,
    applied: Option<EntryId>,
    membership: Option<&StoredMembership>,
) -> Result<(), StoreError> {
    let mut table = transaction.open_table(CONSENSUS)?;
    let mut row = Vec::with_capacity(20);
    put_id(applied, &mut row);
    table.insert(APPLIED, row.as_slice())?;
    if let Some(membership) = membership {
        table.insert(MEMBERSHIP, encode_membership(membership).as_slice())?;
    }
    Ok(())
}
