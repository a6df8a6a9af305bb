//! The state as openraft's state machine.
//!
//! Invariants: entries are applied in the order of the log; a checkpoint or a snapshot holds no entry that
//! the log could still lose.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use net_types::limits::MAX_STATE_MEMORY_BYTES;
use openraft::impls::EntryPayload;
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{OptionalSend, Snapshot};

use super::durable::{RaftLog, flush};
use crate::runtime::Blocking;
use crate::snapshot::{SnapshotData, Spool};
use crate::state::{Progress, Store, StoreError};
use crate::types::{LogId, RaftEntry, SnapshotMeta, StoredMembership, Types, entry_id, log_id};

/// Entries applied at once. More would only delay the answer to the first of them.
const BATCH_ENTRIES: usize = 512;
/// Bytes of commands after which a batch ends.
const BATCH_BYTES: usize = 4 << 20;

type RaftSnapshot = openraft::alias::SnapshotOf<Types, SnapshotData>;

/// The state machine of a node.
#[derive(Clone)]
pub(crate) struct StateMachine {
    store: Arc<Store>,
    log: RaftLog,
    spool: Arc<Spool>,
    blocking: Blocking,
}

impl StateMachine {
    /// Applies to `store`. A checkpoint waits for `log`, so that it never holds an entry that the
    /// log could still lose. Followers that need a snapshot get the files of `spool`.
    pub(crate) fn new(
        store: Arc<Store>,
        log: RaftLog,
        spool: Arc<Spool>,
        blocking: Blocking,
    ) -> Self {
        Self { store, log, spool, blocking }
    }

    /// The state.
    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Makes the state durable and says how far that is.
    pub(crate) async fn checkpoint(&self) -> io::Result<Progress> {
        let writing = self.store.begin_writing().await;
        let Some(frozen) = self.store.freeze() else { return Ok(self.store.progress()) };
        // The log follows what is applied, so it holds all of it once it is flushed from here.
        flush(&self.log).await?;
        let store = self.store.clone();
        // The waiting task may be dropped; the lock stays with the work.
        let write = move || {
            let _writing = writing;
            store.write(&frozen)
        };
        self.blocking.run(write).await?.map_err(StoreError::into_io)
    }

    /// Applies entries and sends each reply to the task that waits for it.
    async fn apply_batch(
        &self,
        mut rest: &[RaftEntry],
        responders: Vec<Option<ApplyResponder<Types>>>,
    ) -> io::Result<()> {
        let mut responders = responders.into_iter();
        while !rest.is_empty() {
            if self.store.memory_bytes() >= MAX_STATE_MEMORY_BYTES {
                // Writing is slower than what comes in.
                self.checkpoint().await?;
            }
            let replies = self.store.apply(rest).map_err(StoreError::into_io)?;
            rest = &rest[replies.len()..];
            for (reply, responder) in replies.into_iter().zip(&mut responders) {
                if let Some(responder) = responder {
                    responder.send(reply);
                }
            }
        }
        Ok(())
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let progress = self.store.progress();
        Ok((progress.applied.map(log_id), progress.membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        let mut is_more = true;
        while is_more {
            let count = entries.size_hint().0.min(BATCH_ENTRIES);
            let (mut batch, mut responders) =
                (Vec::with_capacity(count), Vec::with_capacity(count));
            let mut bytes = 0;
            while batch.len() < BATCH_ENTRIES && bytes < BATCH_BYTES {
                let Some(item) = entries.next().await else {
                    is_more = false;
                    break;
                };
                let (entry, responder) = item?;
                if let EntryPayload::Normal(command) = &entry.payload {
                    bytes += command.0.len();
                }
                batch.push(entry);
                responders.push(responder);
            }
            self.apply_batch(&batch, responders).await?;
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
        let writing = self.store.begin_writing().await;
        // What the log was told to drop is gone before the state goes beyond it: a log that ends
        // before the state, but with conflicting entries, could not be opened again.
        flush(&self.log).await?;
        let store = self.store.clone();
        self.blocking
            .run(move || {
                let _writing = writing;
                store.replace(progress, |tables| snapshot.install(tables))
            })
            .await?
            .map_err(StoreError::into_io)
    }

    /// The file that is being sent to followers while the log still continues it, so that a
    /// transfer can resume; else the newest state.
    async fn get_current_snapshot(&mut self) -> io::Result<Option<RaftSnapshot>> {
        if let Some(file) = self.spool.newest()
            && file.progress.applied >= self.log.purged()
        {
            let meta = file.progress.meta();
            return Ok(Some(Snapshot { meta, snapshot: SnapshotData::File(file) }));
        }
        if self.store.applied().is_none() {
            return Ok(None);
        }
        let view = self.store.view().map_err(StoreError::into_io)?;
        let meta = view.progress().meta();
        Ok(Some(Snapshot { meta, snapshot: SnapshotData::View(view) }))
    }
}

impl RaftSnapshotBuilder<Types> for StateMachine {
    type SnapshotData = SnapshotData;

    /// The state is its own snapshot. Building one makes it durable, so that the log before it may
    /// go; its bytes are only written out when a follower needs them.
    async fn build_snapshot(&mut self) -> io::Result<RaftSnapshot> {
        let progress = self.checkpoint().await?;
        let view = self.store.view().map_err(StoreError::into_io)?;
        Ok(Snapshot { meta: progress.meta(), snapshot: SnapshotData::View(view) })
    }
}
