//! Applying the log to the state, as openraft drives it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aspen_api::Revision;
use aspen_api::codec::Wire;
use aspen_kv::{Applier, Proposal, Reply, StateError, TableId, WriteTables, load_header};
use futures_util::{Stream, StreamExt};
use openraft::entry::RaftEntry;
use openraft::impls::EntryPayload;
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{OptionalSend, Snapshot};
use redb::Durability;

use super::tables::WriteView;
use super::{Progress, Store, StoreError, StoreView, next_of, write_progress};
use crate::raft_log::{RaftLog, flush};
use crate::snapshot::{SnapshotData, Spool};
use crate::types::{Applied, LogId, SnapshotMeta, StoredMembership, Types, entry_id, log_id};

/// Entries in one transaction. More would only delay the first of them.
const BATCH_ENTRIES: usize = 512;
/// Bytes of commands after which a transaction ends.
const BATCH_BYTES: usize = 4 << 20;
/// Entries that may wait to be written together when nobody waits for their replies.
const BACKLOG_ENTRIES: usize = 256;
/// Bytes of commands that may wait.
const BACKLOG_BYTES: usize = 1 << 20;
/// Longest time that they wait; a follower's stale reads lag this much more.
const BACKLOG_AGE: Duration = Duration::from_millis(10);

type RaftEntryOf = openraft::alias::EntryOf<Types>;
type RaftSnapshot = openraft::alias::SnapshotOf<Types, SnapshotData>;

/// Where work that blocks on the medium runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// On tokio's pool of blocking threads.
    Pool,
    /// In the calling task, for simulations on one thread.
    Inline,
}

impl Blocking {
    /// Runs `work`, which may block.
    pub(crate) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        match self {
            Self::Inline => Ok(work()),
            Self::Pool => tokio::task::spawn_blocking(work).await.map_err(io::Error::other),
        }
    }
}

/// The state machine of a node.
#[derive(Clone)]
pub(crate) struct StateMachine {
    store: Arc<Store>,
    log: Option<RaftLog>,
    spool: Option<Arc<Spool>>,
    blocking: Blocking,
}

impl StateMachine {
    /// Applies to `store`. A checkpoint waits for `log`, so that it never holds an entry that the
    /// log could still lose.
    pub(crate) fn new(store: Arc<Store>, log: Option<RaftLog>, blocking: Blocking) -> Self {
        Self { store, log, spool: None, blocking }
    }

    /// Offers the files of `spool` to followers that need a snapshot.
    pub(crate) fn with_spool(self, spool: Arc<Spool>) -> Self {
        Self { spool: Some(spool), ..self }
    }

    /// The state.
    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Makes the state durable and says how far that is.
    pub(crate) async fn checkpoint(&self) -> io::Result<Progress> {
        let mut backlog = self.store.backlog.lock().await;
        self.store.drain(&mut backlog)?;
        if let Some(log) = &self.log {
            flush(log).await?;
        }
        let store = self.store.clone();
        self.blocking.run(move || store.sync()).await?.map_err(StoreError::into_io)
    }

    /// Makes the state durable at least through entry `index`, if it is applied that far.
    pub(crate) async fn checkpoint_through(&self, index: u64) -> io::Result<()> {
        if self.store.durable_next() > index {
            return Ok(());
        }
        self.checkpoint().await.map(drop)
    }
}

/// Entries that are applied as far as consensus is concerned, and are to be written with those that
/// follow. Nobody waits for their replies: they came from another leader.
#[derive(Default)]
pub(crate) struct Backlog {
    entries: Vec<RaftEntryOf>,
    bytes: usize,
    /// Why writing them failed. The state goes no further then.
    failure: Option<(io::ErrorKind, String)>,
}

impl Backlog {
    fn is_full(&self) -> bool {
        self.entries.len() >= BACKLOG_ENTRIES || self.bytes >= BACKLOG_BYTES
    }

    fn push(&mut self, entries: Vec<RaftEntryOf>, bytes: usize) {
        self.entries.extend(entries);
        self.bytes += bytes;
    }

    fn take(&mut self) -> Vec<RaftEntryOf> {
        self.bytes = 0;
        std::mem::take(&mut self.entries)
    }
}

impl Store {
    /// Writes the backlog. A failure stays: what follows must not be applied without it.
    fn drain(&self, backlog: &mut Backlog) -> io::Result<()> {
        if let Some((kind, text)) = &backlog.failure {
            return Err(io::Error::new(*kind, text.clone()));
        }
        if backlog.entries.is_empty() {
            return Ok(());
        }
        let result = self.apply(&backlog.take()).map(drop).map_err(StoreError::into_io);
        if let Err(error) = &result {
            backlog.failure = Some((error.kind(), error.to_string()));
        }
        self.has_backlog.store(false, Ordering::Release);
        result
    }
}

impl StateMachine {
    /// Applies a batch with what waits before it, and answers those who wait for it.
    async fn apply_now(&self, batch: Batch) -> io::Result<()> {
        let replies = {
            let mut backlog = self.store.backlog.lock().await;
            if backlog.failure.is_some() {
                self.store.drain(&mut backlog)?;
            }
            let waited = backlog.entries.len();
            backlog.push(batch.entries, 0);
            self.store.has_backlog.store(false, Ordering::Release);
            let replies = self.store.apply(&backlog.take()).map_err(StoreError::into_io)?;
            replies.into_iter().skip(waited)
        };
        for (responder, reply) in batch.responders.into_iter().zip(replies) {
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    /// Leaves a batch that nobody waits for to be written with those that follow, for a moment.
    async fn defer(&self, batch: Batch) -> io::Result<()> {
        let mut backlog = self.store.backlog.lock().await;
        let was_empty = backlog.entries.is_empty();
        backlog.push(batch.entries, batch.bytes);
        if backlog.is_full() || backlog.failure.is_some() {
            return self.store.drain(&mut backlog);
        }
        self.store.has_backlog.store(true, Ordering::Release);
        if was_empty {
            let machine = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(BACKLOG_AGE).await;
                if let Err(error) = machine.settle().await {
                    tracing::error!(%error, "the state cannot be written");
                }
            });
        }
        Ok(())
    }

    /// Makes everything that is applied visible to readers.
    pub(crate) async fn settle(&self) -> io::Result<()> {
        if !self.store.has_backlog.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut backlog = self.store.backlog.lock().await;
        self.store.drain(&mut backlog)
    }
}

fn meta_of(progress: &Progress) -> SnapshotMeta {
    SnapshotMeta {
        last_log_id: progress.applied.map(log_id),
        last_membership: progress.membership.clone(),
    }
}

/// One transaction's worth of entries with those who wait for their replies.
struct Batch {
    entries: Vec<RaftEntryOf>,
    responders: Vec<Option<ApplyResponder<Types>>>,
    bytes: usize,
}

impl Batch {
    fn with_capacity(entries: usize) -> Self {
        Self {
            entries: Vec::with_capacity(entries),
            responders: Vec::with_capacity(entries),
            bytes: 0,
        }
    }

    fn push(&mut self, (entry, responder): EntryResponder<Types>) {
        if let EntryPayload::Normal(command) = &entry.payload {
            self.bytes += command.0.len();
        }
        self.entries.push(entry);
        self.responders.push(responder);
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= BATCH_ENTRIES || self.bytes >= BATCH_BYTES
    }
}

impl Store {
    /// Applies entries in one transaction and answers each. Nothing of it blocks on the medium.
    fn apply(&self, entries: &[RaftEntryOf]) -> Result<Vec<Applied>, StoreError> {
        let mut progress = self.progress();
        let mut membership_changed = false;
        let transaction = self.begin(Durability::None)?;
        let (replies, header) = {
            let mut tables = WriteView::new(&transaction);
            let mut applier = Applier::open(&mut tables)?;
            let mut replies = Vec::with_capacity(entries.len());
            for entry in entries {
                let id = entry.log_id();
                let reply = apply_one(&mut applier, entry)?;
                if let EntryPayload::Membership(membership) = &entry.payload {
                    progress.membership = StoredMembership::new(Some(id), membership.clone());
                    membership_changed = true;
                }
                progress.applied = Some(entry_id(&id));
                replies.push(Applied(reply));
            }
            (replies, applier.finish()?)
        };
        let membership = membership_changed.then_some(&progress.membership);
        write_progress(&transaction, progress.applied, membership)?;
        transaction.commit()?;
        self.publish(progress, Some(&header));
        Ok(replies)
    }

    /// Replaces the whole state by what `fill` writes, durably and at once.
    pub(crate) fn replace(
        &self,
        progress: Progress,
        fill: impl FnOnce(&mut WriteView<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.begin(Durability::Immediate)?;
        transaction.set_quick_repair(true);
        for table in TableId::ALL {
            super::tables::clear(&transaction, *table)?;
        }
        let mut tables = WriteView::new(&transaction);
        fill(&mut tables)?;
        let header = load_header(&tables)?;
        drop(tables);
        write_progress(&transaction, progress.applied, Some(&progress.membership))?;
        transaction.commit()?;
        // Set and not raised: the state may have moved to another line of history.
        self.durable_next.store(next_of(progress.applied), Ordering::Release);
        self.publish(progress, Some(&header));
        Ok(())
    }
}

fn apply_one<T: WriteTables>(
    applier: &mut Applier<'_, T>,
    entry: &RaftEntryOf,
) -> Result<Option<Reply>, StateError<T::Error>> {
    let revision = Revision(entry.log_id().index());
    match &entry.payload {
        EntryPayload::Normal(command) => {
            let proposal = Proposal::from_bytes(command.0.clone())
                .map_err(|_| StateError::Corrupt(TableId::Meta))?;
            applier.apply(revision, &proposal).map(Some)
        }
        // Revision 0 is the empty store, and a cluster's first entry is always its membership.
        EntryPayload::Blank | EntryPayload::Membership(_) if revision.0 > 0 => {
            applier.skip(revision).map(|()| None)
        }
        EntryPayload::Blank | EntryPayload::Membership(_) => Ok(None),
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        self.settle().await?;
        let progress = self.store.progress();
        Ok((progress.applied.map(log_id), progress.membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        let mut is_more = true;
        while is_more {
            let mut batch = Batch::with_capacity(entries.size_hint().0.min(BATCH_ENTRIES));
            while !batch.is_full() {
                match entries.next().await {
                    Some(item) => batch.push(item?),
                    None => {
                        is_more = false;
                        break;
                    }
                }
            }
            if batch.entries.is_empty() {
                break;
            }
            match batch.responders.iter().all(Option::is_none) {
                true => self.defer(batch).await?,
                false => self.apply_now(batch).await?,
            }
            if is_more {
                // A long backlog must not keep heartbeats and reads waiting.
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Self> {
        Some(self.clone())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> io::Result<()> {
        let progress = Progress {
            applied: meta.last_log_id.as_ref().map(entry_id),
            membership: meta.last_membership.clone(),
        };
        let mut backlog = self.store.backlog.lock().await;
        // The snapshot holds what these entries led to.
        backlog.take();
        let store = self.store.clone();
        self.blocking
            .run(move || store.replace(progress, |tables| snapshot.install(tables)))
            .await?
            .map_err(StoreError::into_io)
    }

    /// The file that is being sent to followers while the log still goes on from it, so that a
    /// transfer can resume; else the state as it is.
    async fn get_current_snapshot(&mut self) -> io::Result<Option<RaftSnapshot>> {
        let purged = self.log.as_ref().and_then(RaftLog::purged);
        if let Some(file) = self.spool.as_ref().and_then(|spool| spool.newest())
            && file.progress.applied >= purged
        {
            let meta = meta_of(&file.progress);
            return Ok(Some(Snapshot { meta, snapshot: SnapshotData::File(file) }));
        }
        self.settle().await?;
        if self.store.applied().is_none() {
            return Ok(None);
        }
        let view = self.store.view().map_err(StoreError::into_io)?;
        Ok(Some(snapshot_of(view)))
    }
}

fn snapshot_of(view: Arc<StoreView>) -> RaftSnapshot {
    Snapshot { meta: meta_of(&view.progress), snapshot: SnapshotData::of_view(view) }
}

impl RaftSnapshotBuilder<Types> for StateMachine {
    type SnapshotData = SnapshotData;

    /// The state is its own snapshot. Building one makes it durable, so that the log before it may
    /// go; its bytes are only written out when a follower needs them.
    async fn build_snapshot(&mut self) -> io::Result<RaftSnapshot> {
        let progress = self.checkpoint().await?;
        let view = self.store.view().map_err(StoreError::into_io)?;
        Ok(Snapshot { meta: meta_of(&progress), snapshot: SnapshotData::of_view(view) })
    }
}
