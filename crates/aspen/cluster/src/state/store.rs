//! The newest state, and the views that readers take of it.
//!
//! One lock guards the newest state. It is held for as long as a batch is applied in memory, never
//! while the file is written. A state that failed to apply a batch is neither read nor applied to.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use aspen_api::Level;
use aspen_kv::{Header, View, load_header};
use aspen_log::EntryId;
use aspen_log::disk::DiskFile;
use net_types::lock;
use redb::{Database, ReadableDatabase};

use super::error::StoreError;
use super::file::{Backend, FileView};
use super::progress::{Progress, read_progress};
use super::tables::StoreTables;
use crate::condition::ensure;

/// Bytes of a state file up to which all of it is checked when it is opened: seconds.
const MAX_CHECKED_BYTES: u64 = 8 << 30;

/// The state at one moment. Shared by all readers until the next batch is applied.
#[derive(Clone)]
pub struct StoreView {
    pub(super) tables: StoreTables,
    pub(super) header: Header,
    pub(super) progress: Progress,
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

/// What a batch changed, apart from the store's header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AppliedBatch {
    /// Memory that a checkpoint begun now frees, about.
    pub memory_bytes: usize,
    /// Whether it held commands, each with a stamp of log time; or replaced the state.
    pub is_stamped: bool,
}

/// Told after each batch.
type Listener = Box<dyn Fn(&Header, AppliedBatch) + Send + Sync>;

/// The newest state.
pub(super) struct Current {
    pub(super) state: StoreView,
    /// The same for readers, once one has asked for it.
    pub(super) view: Option<Arc<StoreView>>,
    /// Why a batch could not be applied. It may have left a part of itself behind, so nothing is
    /// read or applied any more.
    pub(super) failure: Option<String>,
}

impl Current {
    pub(super) fn new(tables: StoreTables, progress: Progress) -> Result<Self, StoreError> {
        let header = load_header(&tables)?;
        Ok(Self { state: StoreView { tables, header, progress }, view: None, failure: None })
    }

    pub(super) fn ensure_sound(&self) -> Result<(), StoreError> {
        match &self.failure {
            None => Ok(()),
            Some(text) => Err(StoreError::Io(io::Error::other(text.clone()))),
        }
    }

    /// The header and the progress name the same entry, and no later one is durable.
    pub(super) fn check_invariants(&self, durable_next: u64) {
        let index = self.state.progress.applied.map_or(0, |id| id.index);
        assert_eq!(self.state.header.applied_revision.0, index, "header and progress differ");
        assert!(
            durable_next <= next_of(self.state.progress.applied),
            "an entry is durable too early"
        );
    }
}

/// The state of a node.
pub(crate) struct Store {
    pub(super) db: Database,
    pub(super) current: Mutex<Current>,
    /// Index after the last entry that a crash cannot take back.
    pub(super) durable_next: AtomicU64,
    listener: OnceLock<Listener>,
    /// Held by the one task that writes the file.
    writing: Arc<tokio::sync::Mutex<()>>,
    /// The highest feature level that this program understands.
    pub(super) top: Level,
}

pub(super) fn next_of(applied: Option<EntryId>) -> u64 {
    applied.map_or(0, |id| id.index + 1)
}

/// Refuses a state that this program does not understand.
pub(super) fn ensure_level(level: Level, top: Level) -> Result<(), StoreError> {
    let what = || "the cluster's state".into();
    ensure(level <= top, || StoreError::TooNew { what: what(), level, top })
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
        ensure_level(current.state.header.level, top)?;
        let (current, writing) = (Mutex::new(current), Arc::default());
        Ok(Arc::new(Self { db, current, durable_next, listener: OnceLock::new(), writing, top }))
    }

    /// The newest state.
    pub(crate) fn view(&self) -> Result<Arc<StoreView>, StoreError> {
        let mut current = lock(&self.current);
        current.ensure_sound()?;
        if let Some(view) = &current.view {
            return Ok(view.clone());
        }
        let view = Arc::new(current.state.clone());
        current.view = Some(view.clone());
        Ok(view)
    }

    /// Held for as long as the file is written.
    pub(crate) async fn begin_writing(&self) -> tokio::sync::OwnedMutexGuard<()> {
        self.writing.clone().lock_owned().await
    }

    pub(crate) fn progress(&self) -> Progress {
        lock(&self.current).state.progress.clone()
    }

    /// The last applied entry.
    pub(crate) fn applied(&self) -> Option<EntryId> {
        lock(&self.current).state.progress.applied
    }

    /// Index after the last entry that a crash cannot take back.
    pub(crate) fn durable_next(&self) -> u64 {
        self.durable_next.load(Ordering::Acquire)
    }

    /// Memory that a checkpoint begun now would free, about.
    pub(crate) fn newest_bytes(&self) -> usize {
        lock(&self.current).state.tables.newest_bytes()
    }

    /// Memory that the state takes until the next checkpoint, about.
    pub(crate) fn memory_bytes(&self) -> usize {
        lock(&self.current).state.tables.memory_bytes()
    }

    /// Tells `listener` of each batch from now on; the first call counts.
    pub(crate) fn listen(&self, listener: impl Fn(&Header, AppliedBatch) + Send + Sync + 'static) {
        let _ = self.listener.set(Box::new(listener));
    }

    pub(super) fn tell(&self, header: &Header, batch: AppliedBatch) {
        if let Some(listener) = self.listener.get() {
            listener(header, batch);
        }
    }
}

/// Opens a file and makes sure that it holds what was written to it.
///
/// Its pages carry checksums, but reads do not look at them: a damaged page would be served,
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
