//! The streams of applications: the protocol of the numbers that no other protocol of the node has.
//!
//! Invariants: an entry lives from the stream's opening until its owner drops it or it is reset; what
//! an unread stream holds is bounded, by its window or by [`MAX_UNREAD_UNRELIABLE_BYTES`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use net_mesh_core::{
    Cx, DropReason, Message, OpenError, PeerEvent, Protocol, ResetReason, StreamEvent, StreamMode,
    StreamRef, Subprotocol,
};
use net_types::limits::{MAX_MESSAGE_BYTES, MAX_UNREAD_UNRELIABLE_BYTES};
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
    /// The number belongs to a protocol of the mesh.
    #[error("the subprotocol {:#06x} belongs to the mesh; an application's is 0x8000 or above", .0.0)]
    Reserved(Subprotocol),
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

/// The streams of applications. Inboxes of reliable streams are
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
    fn opened(&mut self, stream: StreamRef, mode: StreamMode) -> bool {
        let Some(listener) = self.listeners.get(&stream.subprotocol) else { return false };
        let incoming = listener.incoming.clone();
        let parts = self.add(stream.peer, stream.session, stream.id, mode);
        let is_accepted = incoming.try_send(parts).is_ok();
        if !is_accepted {
            self.entries.remove(&(stream.session, stream.id));
        }
        is_accepted
    }

    /// Whether the peer has all of a stream that was finished; `None` if the stream is gone.
    pub(crate) fn is_flushed(&self, session: SessionId, id: StreamId) -> Option<bool> {
        self.entries.get(&(session, id)).map(|entry| entry.is_flushed)
    }

    /// Forgets a stream and tells whether it was flushed.
    pub(crate) fn remove(&mut self, session: SessionId, id: StreamId) -> Option<bool> {
        self.entries.remove(&(session, id)).map(|entry| entry.is_flushed)
    }
}

impl Entry {
    /// Tells the reader; one that is gone resets the stream by its drop.
    fn push(&self, item: Item) {
        let _ = self.inbox.send(item);
    }

    fn fail(&self, error: StreamError) {
        self.push(Item::Failed(error));
        self.changed.notify_waiters();
    }
}

impl Protocol for StreamTable {
    /// Hands a message to its reader. One of a stream that is not reliable is dropped when the
    /// reader does not keep up.
    fn on_message(&mut self, cx: &mut Cx<'_>, stream: StreamRef, message: Message) {
        let Some(entry) = self.entries.get(&(stream.session, stream.id)) else { return };
        if !entry.is_reliable {
            let cost = ITEM_OVERHEAD_BYTES + message.bytes.len();
            let unread = entry.unread.load(Ordering::Relaxed);
            if unread > 0 && unread + cost > MAX_UNREAD_UNRELIABLE_BYTES {
                return cx.count_dropped(DropReason::QueueFull);
            }
            entry.unread.fetch_add(cost, Ordering::Relaxed);
        }
        entry.push(Item::Message(message.bytes, message.credit));
    }

    fn on_stream(&mut self, cx: &mut Cx<'_>, stream: StreamRef, event: StreamEvent) {
        let key = (stream.session, stream.id);
        match (event, self.entries.get_mut(&key)) {
            (StreamEvent::Opened { mode }, _) => {
                if !self.opened(stream, mode) {
                    cx.reset_stream(stream.session, stream.id, ResetReason::Refused);
                }
            }
            (StreamEvent::Finished, Some(entry)) => entry.push(Item::Finished),
            (StreamEvent::Flushed, Some(entry)) => {
                entry.is_flushed = true;
                entry.changed.notify_waiters();
            }
            (StreamEvent::Writable, Some(entry)) => entry.changed.notify_waiters(),
            (StreamEvent::Reset { reason, .. }, Some(entry)) => {
                entry.fail(StreamError::Reset(reason));
                self.entries.remove(&key);
            }
            // The application has dropped the stream.
            (
                StreamEvent::Finished
                | StreamEvent::Flushed
                | StreamEvent::Writable
                | StreamEvent::Reset { .. },
                None,
            ) => {}
        }
    }

    fn on_peer(&mut self, _cx: &mut Cx<'_>, event: &PeerEvent) {
        let PeerEvent::Down { session, .. } = *event else { return };
        self.entries.retain(|(of, _), entry| {
            if *of == session {
                entry.fail(StreamError::SessionClosed);
            }
            *of != session
        });
    }

    fn on_close(&mut self, _cx: &mut Cx<'_>) {
        self.listeners.clear();
    }

    /// Asserts the bound of what unread streams hold; one message of any length may be alone above it.
    fn check_invariants(&self) {
        let alone = ITEM_OVERHEAD_BYTES + MAX_MESSAGE_BYTES;
        for (key, entry) in &self.entries {
            let unread = entry.unread.load(Ordering::Relaxed);
            let bound = if entry.is_reliable { 0 } else { MAX_UNREAD_UNRELIABLE_BYTES.max(alone) };
            assert!(unread <= bound, "{key:?} holds {unread} bytes");
        }
        assert!(self.listeners.values().all(|listener| listener.id <= self.next_listener));
    }
}
