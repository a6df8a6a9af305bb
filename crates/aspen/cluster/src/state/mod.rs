//! The state that the log leads to: the store's tables, how far the log is applied, and the members.
//!
//! Entries are applied in memory, on top of a file that holds the last checkpoint; the log is what
//! makes them durable. From time to time a checkpoint writes to the file what memory holds, in one
//! synced transaction, and only then may the log before it be dropped. After a crash the state
//! is that of the last checkpoint and the log is applied again from there. Reads see the state as
//! of the last whole batch and never wait.

mod checkpoint;
mod file;
mod layer;
mod machine;
mod tables;
#[cfg(test)]
mod tests;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use aspen_api::Level;
use aspen_api::codec::{Input, Wire, put_varint};
use aspen_kv::{Header, StateError, View, load_header};
use bytes::Bytes;
use redb::{Database, ReadableDatabase, TableDefinition, WriteTransaction};
use thiserror::Error;

pub(crate) use file::FileWriter;
use file::{Backend, FileView};
pub use machine::Blocking;
pub(crate) use machine::StateMachine;
pub use tables::{Rows, Slice, StoreTables};

use crate::disk::DiskFile;
use crate::log::EntryId;
use crate::types::{MembershipRecord, StoredMembership, log_id};
use net_types::lock;

/// What the state knows of consensus, beside the store's own tables.
const CONSENSUS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("consensus");
const APPLIED: &str = "applied";
const MEMBERSHIP: &str = "membership";
/// Bytes of a state file up to which all of it is checked when it is opened: seconds.
const MAX_CHECKED_BYTES: u64 = 8 << 30;

/// Why the state cannot be opened, read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The medium failed.
    #[error("state storage failed: {0}")]
    Io(#[from] io::Error),
    /// The file is not what this program wrote. The node must not serve with it: remove its data
    /// folder and let it join again, or restore the folder.
    #[error("the state file is damaged: {0}")]
    Damaged(String),
    /// The state, or an entry of the log, needs a newer program. Nothing of it was applied.
    #[error(
        "{what} needs feature level {level}, and this program, version {version}, understands level \
         {top}: start the version that the other members run",
        version = env!("CARGO_PKG_VERSION")
    )]
    TooNew {
        /// The state or the entry.
        what: String,
        /// The level that it needs.
        level: Level,
        /// The highest level that this program understands.
        top: Level,
    },
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
    tables: StoreTables,
    header: Header,
    progress: Progress,
}

impl StoreView {
    /// The store as readers see it.
    pub fn view(&self) -> View<'_, StoreTables> {
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
    pub fn tables(&self) -> &StoreTables {
        &self.tables
    }
}

/// What a batch brought, beside the store's header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchSummary {
    /// Memory that a checkpoint begun now frees, about.
    pub memory_bytes: usize,
    /// Whether it held commands, each with a stamp of log time; or replaced the state.
    pub is_stamped: bool,
}

/// Told after each batch.
type Listener = Box<dyn Fn(&Header, BatchSummary) + Send + Sync>;

/// The newest state.
struct Current {
    tables: StoreTables,
    header: Header,
    progress: Progress,
    /// The same for readers, once someone has read it.
    view: Option<Arc<StoreView>>,
    /// Why a batch could not be applied. It may have left a part of itself behind, so nothing is
    /// read or applied any more.
    failure: Option<String>,
}

impl Current {
    fn new(tables: StoreTables, progress: Progress) -> Result<Self, StoreError> {
        let header = load_header(&tables)?;
        Ok(Self { tables, header, progress, view: None, failure: None })
    }

    fn check(&self) -> Result<(), StoreError> {
        match &self.failure {
            None => Ok(()),
            Some(text) => Err(StoreError::Io(io::Error::other(text.clone()))),
        }
    }
}

/// The state of a node.
pub(crate) struct Store {
    db: Database,
    current: Mutex<Current>,
    /// Index after the last entry that a crash cannot take back.
    durable_next: AtomicU64,
    listener: OnceLock<Listener>,
    /// Held by who writes the file.
    writing: Arc<tokio::sync::Mutex<()>>,
    /// The highest feature level that this program understands.
    top: Level,
}

/// Whether a program that understands levels up to `top` can serve a state of this level.
fn ensure_level(level: Level, top: Level) -> Result<(), StoreError> {
    match level <= top {
        true => Ok(()),
        false => Err(StoreError::TooNew { what: "the cluster's state".into(), level, top }),
    }
}

fn next_of(applied: Option<EntryId>) -> u64 {
    applied.map_or(0, |id| id.index + 1)
}

impl Store {
    /// Opens the state in `file`, or starts it if the file is empty. `cache_bytes` bounds what the
    /// storage keeps in memory of the file.
    pub(crate) fn open(
        file: Arc<dyn DiskFile>,
        cache_bytes: usize,
        top: Level,
    ) -> Result<Arc<Self>, StoreError> {
        let (db, progress) = open_sound(file, cache_bytes)?;
        let durable_next = AtomicU64::new(next_of(progress.applied));
        let tables = StoreTables::of_file(Arc::new(FileView::new(db.begin_read()?)));
        // Reading the header now tells a damaged or newer file before the node takes part.
        let current = Current::new(tables, progress)?;
        ensure_level(current.header.level, top)?;
        let (current, writing) = (Mutex::new(current), Arc::default());
        Ok(Arc::new(Self { db, current, durable_next, listener: OnceLock::new(), writing, top }))
    }

    /// The newest state.
    pub(crate) fn view(&self) -> Result<Arc<StoreView>, StoreError> {
        let mut current = lock(&self.current);
        current.check()?;
        if let Some(view) = &current.view {
            return Ok(view.clone());
        }
        let view = Arc::new(StoreView {
            tables: current.tables.clone(),
            header: current.header.clone(),
            progress: current.progress.clone(),
        });
        current.view = Some(view.clone());
        Ok(view)
    }

    pub(crate) fn progress(&self) -> Progress {
        lock(&self.current).progress.clone()
    }

    /// The last applied entry.
    pub(crate) fn applied(&self) -> Option<EntryId> {
        lock(&self.current).progress.applied
    }

    /// Index after the last entry that a crash cannot take back.
    pub(crate) fn durable_next(&self) -> u64 {
        self.durable_next.load(Ordering::Acquire)
    }

    /// Memory that a checkpoint begun now would free, about.
    pub(crate) fn newest_bytes(&self) -> usize {
        lock(&self.current).tables.newest_bytes()
    }

    /// Memory that the state takes until the next checkpoint, about.
    pub(crate) fn memory_bytes(&self) -> usize {
        lock(&self.current).tables.memory_bytes()
    }

    /// Tells `listener` of each batch from now on; the first call counts.
    pub(crate) fn listen(&self, listener: impl Fn(&Header, BatchSummary) + Send + Sync + 'static) {
        let _ = self.listener.set(Box::new(listener));
    }

    fn tell(&self, header: &Header, batch: BatchSummary) {
        if let Some(listener) = self.listener.get() {
            listener(header, batch);
        }
    }
}

/// Opens a file and makes sure that it holds what was written to it.
///
/// Its pages carry checksums, but reads do not look at them: a damaged page would be served as it is,
/// or end the task that reads it. So all pages are checked here.
fn open_sound(
    file: Arc<dyn DiskFile>,
    cache_bytes: usize,
) -> Result<(Database, Progress), StoreError> {
    let open = || {
        let len = file.len()?;
        let mut builder = Database::builder();
        builder.set_cache_size(cache_bytes);
        let mut db = builder.create_with_backend(Backend(file))?;
        let progress = read_progress(&db)?;
        if len > MAX_CHECKED_BYTES {
            tracing::warn!(bytes = len, "the state file is too large to be checked as a whole");
            return Ok((db, progress));
        }
        // A damaged checkpoint is repaired by going back to the one before, whose log may be gone.
        db.check_integrity()?;
        match read_progress(&db)? == progress {
            true => Ok((db, progress)),
            false => Err(StoreError::Damaged("the last checkpoint cannot be read".into())),
        }
    };
    // What is read before the checksums is taken for granted in places, and nothing outlives this.
    let panicked = |_| Err(StoreError::Damaged("its structure makes no sense".into()));
    catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(panicked)
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

/// Writes how far the log is applied, and the members.
fn write_progress(transaction: &WriteTransaction, progress: &Progress) -> Result<(), StoreError> {
    let mut table = transaction.open_table(CONSENSUS)?;
    let mut row = Vec::with_capacity(20);
    put_id(progress.applied, &mut row);
    table.insert(APPLIED, row.as_slice())?;
    table.insert(MEMBERSHIP, encode_membership(&progress.membership).as_slice())?;
    Ok(())
}
