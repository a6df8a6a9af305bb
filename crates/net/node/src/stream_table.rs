//! The streams of a node's sessions, except those that carry calls.
//!
//! Invariants: an entry lives from the stream's opening until its owner drops it or it is reset; what
//! an unread stream holds is bounded, by its window or by [`MAX_UNREAD_UNRELIABLE_BYTES`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use net_mesh_core::{OpenError, ResetReason, StreamMode, Subprotocol};
use net_types::limits::MAX_UNREAD_UNRELIABLE_BYTES;
use net_types::{IdMap, NodeId, SessionId, StreamId};
use thiserror::Error;
use tokio::sync::{Notify, mpsc};

use crate::ConnectError;

/// Streams that peers opened and no task accepted yet, per listener; more are refused.
const MAX_UNACCEPTED: usize = 1_024;

/// Why a stream has ended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StreamError {
    /// There is no session with the peer.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The stream was not opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// One side ended the stream by force.
    #[error("the stream was reset: {0:?}")]
    Reset(ResetReason),
    /// The session ended.
    #[error("the session ended")]
    SessionClosed,
    /// The stream's sending half is finished.
    #[error("the stream is finished")]
    Finished,
    /// The message is longer than a message may be.
    #[error("the message is longer than a message may be")]
    TooLarge,
}

/// What a stream's reader gets.
pub(crate) enum Item {
    Message(Bytes, u32),
    Finished,
    Failed(StreamError),
}

/// What an unread message costs beside its bytes.
const ITEM_OVERHEAD_BYTES: usize = 64;

struct Entry {
    inbox: mpsc::UnboundedSender<Item>,
    changed: Arc<Notify>,
    is_flushed: bool,
    is_reliable: bool,
    /// Bytes that the reader has not taken, of a stream that is not reliable.
    unread: Arc<AtomicUsize>,
}

/// The streams of a node's sessions, except those that carry calls. Inboxes of reliable streams are
/// bounded by the streams' windows, since credit returns only when a message is taken. Those of
/// others have a bound of their own, above which messages are dropped.
#[derive(Default)]
pub(crate) struct StreamTable {
    entries: IdMap<(SessionId, StreamId), Entry>,
    listeners: BTreeMap<Subprotocol, Listener>,
    /// Distinguishes a listener from the one that replaced it.
    next_listener: u64,
}

struct Listener {
    id: u64,
    incoming: mpsc::Sender<Parts>,
}

/// A stream as its owner holds it.
pub(crate) struct Parts {
    pub(crate) peer: NodeId,
    pub(crate) session: SessionId,
    pub(crate) id: StreamId,
    pub(crate) inbox: mpsc::UnboundedReceiver<Item>,
    pub(crate) changed: Arc<Notify>,
    unread: Arc<AtomicUsize>,
}

impl Parts {
    /// Frees the room of a message that the reader has taken.
    pub(crate) fn took(&self, message: &Bytes) {
        if self.unread.load(Ordering::Relaxed) > 0 {
            self.unread.fetch_sub(ITEM_OVERHEAD_BYTES + message.len(), Ordering::Relaxed);
        }
    }
}

impl StreamTable {
    /// Takes streams that peers open under a subprotocol from now on; an earlier listener gets no
    /// more.
    pub(crate) fn listen(&mut self, subprotocol: Subprotocol) -> (u64, mpsc::Receiver<Parts>) {
        let (sender, incoming) = mpsc::channel(MAX_UNACCEPTED);
        self.next_listener += 1;
        let id = self.next_listener;
        self.listeners.insert(subprotocol, Listener { id, incoming: sender });
        (id, incoming)
    }

    /// Ends a listener that has not been replaced.
    pub(crate) fn unlisten(&mut self, subprotocol: Subprotocol, id: u64) {
        if self.listeners.get(&subprotocol).is_some_and(|listener| listener.id == id) {
            self.listeners.remove(&subprotocol);
        }
    }

    /// Adds a stream that is open.
    pub(crate) fn add(
        &mut self,
        peer: NodeId,
        session: SessionId,
        id: StreamId,
        mode: StreamMode,
    ) -> Parts {
        let (sender, inbox) = mpsc::unbounded_channel();
        let (changed, unread) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let entry = Entry {
            inbox: sender,
            changed: changed.clone(),
            is_flushed: false,
            is_reliable: mode.is_reliable,
            unread: unread.clone(),
        };
        self.entries.insert((session, id), entry);
        Parts { peer, session, id, inbox, changed, unread }
    }

    /// A peer opened a stream; false when nothing listens.
    pub(crate) fn opened(
        &mut self,
        peer: NodeId,
        session: SessionId,
        id: StreamId,
        mode: StreamMode,
        subprotocol: Subprotocol,
    ) -> bool {
        let Some(listener) = self.listeners.get(&subprotocol) else { return false };
        let incoming = listener.incoming.clone();
        let parts = self.add(peer, session, id, mode);
        let is_accepted = incoming.try_send(parts).is_ok();
        if !is_accepted {
            self.entries.remove(&(session, id));
        }
        is_accepted
    }

    fn push(&mut self, session: SessionId, id: StreamId, item: Item) {
        if let Some(entry) = self.entries.get(&(session, id)) {
            // A reader that is gone is being reset by its drop.
            let _ = entry.inbox.send(item);
        }
    }

    /// Hands a message to its reader; false when it is dropped because the reader does not keep up.
    #[must_use]
    pub(crate) fn deliver(
        &mut self,
        session: SessionId,
        id: StreamId,
        message: Bytes,
        credit: u32,
    ) -> bool {
        let Some(entry) = self.entries.get(&(session, id)) else { return true };
        if !entry.is_reliable {
            let cost = ITEM_OVERHEAD_BYTES + message.len();
            let unread = entry.unread.load(Ordering::Relaxed);
            if unread > 0 && unread + cost > MAX_UNREAD_UNRELIABLE_BYTES {
                return false;
            }
            entry.unread.fetch_add(cost, Ordering::Relaxed);
        }
        // A reader that is gone is being reset by its drop.
        let _ = entry.inbox.send(Item::Message(message, credit));
        true
    }

    pub(crate) fn finished(&mut self, session: SessionId, id: StreamId) {
        self.push(session, id, Item::Finished);
    }

    pub(crate) fn flushed(&mut self, session: SessionId, id: StreamId) {
        if let Some(entry) = self.entries.get_mut(&(session, id)) {
            entry.is_flushed = true;
            entry.changed.notify_waiters();
        }
    }

    /// Whether the peer has all of a stream that was finished; `None` if the stream is gone.
    pub(crate) fn is_flushed(&self, session: SessionId, id: StreamId) -> Option<bool> {
        self.entries.get(&(session, id)).map(|entry| entry.is_flushed)
    }

    /// Forgets a stream and tells whether it was flushed.
    pub(crate) fn remove(&mut self, session: SessionId, id: StreamId) -> Option<bool> {
        self.entries.remove(&(session, id)).map(|entry| entry.is_flushed)
    }

    pub(crate) fn writable(&mut self, session: SessionId, id: StreamId) {
        if let Some(entry) = self.entries.get(&(session, id)) {
            entry.changed.notify_waiters();
        }
    }

    pub(crate) fn reset(&mut self, session: SessionId, id: StreamId, reason: ResetReason) {
        if let Some(entry) = self.entries.remove(&(session, id)) {
            let _ = entry.inbox.send(Item::Failed(StreamError::Reset(reason)));
            entry.changed.notify_waiters();
        }
    }

    pub(crate) fn fail_session(&mut self, session: SessionId) {
        self.entries.retain(|(s, _), entry| {
            if *s == session {
                let _ = entry.inbox.send(Item::Failed(StreamError::SessionClosed));
                entry.changed.notify_waiters();
            }
            *s != session
        });
    }

    pub(crate) fn close(&mut self) {
        self.listeners.clear();
    }
}
