//! Streams for applications: messages in both directions with credit that follows the reader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use net_mesh_core::{OpenError, ResetReason, SendError, StreamConfig, StreamMode, Subprotocol};
use net_types::limits::MAX_UNREAD_UNRELIABLE_BYTES;
use net_types::{IdMap, NodeId, SessionId, StreamId};
use thiserror::Error;
use tokio::sync::{Notify, mpsc};

use crate::node::Shared;
use crate::{ConnectError, MeshNode};

/// Streams that peers opened and no task accepted yet, per listener; more are refused.
const MAX_UNACCEPTED: usize = 1_024;

/// Why a stream cannot go on.
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

enum Item {
    Message(Bytes, u32),
    Finished,
    Failed(StreamError),
}

/// What an unread message costs besides its bytes.
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

struct Parts {
    peer: NodeId,
    session: SessionId,
    id: StreamId,
    inbox: mpsc::UnboundedReceiver<Item>,
    changed: Arc<Notify>,
    unread: Arc<AtomicUsize>,
}

impl StreamTable {
    fn add(&mut self, peer: NodeId, session: SessionId, id: StreamId, mode: StreamMode) -> Parts {
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

/// Receives the streams that peers open under one subprotocol.
pub struct StreamListener {
    shared: Arc<Shared>,
    subprotocol: Subprotocol,
    id: u64,
    incoming: mpsc::Receiver<Parts>,
}

impl StreamListener {
    /// The next stream, or `None` when the node is shut down.
    pub async fn accept(&mut self) -> Option<MeshStream> {
        let parts = self.incoming.recv().await?;
        Some(MeshStream { shared: self.shared.clone(), parts, is_over: false })
    }
}

impl Drop for StreamListener {
    fn drop(&mut self) {
        let mut core = self.shared.lock();
        let listeners = &mut core.streams.listeners;
        if listeners.get(&self.subprotocol).is_some_and(|l| l.id == self.id) {
            listeners.remove(&self.subprotocol);
        }
        drop(core);
        // What nobody accepted ends like a stream that is dropped.
        self.incoming.close();
        while let Ok(parts) = self.incoming.try_recv() {
            drop(MeshStream { shared: self.shared.clone(), parts, is_over: false });
        }
    }
}

/// A stream of messages with one peer. Dropping it resets what is not finished.
pub struct MeshStream {
    shared: Arc<Shared>,
    parts: Parts,
    is_over: bool,
}

impl MeshStream {
    /// The other end.
    pub fn peer(&self) -> NodeId {
        self.parts.peer
    }

    /// Queues a message, waiting while the stream's queue is full.
    pub async fn send(&self, message: Bytes) -> Result<(), StreamError> {
        let Parts { session, id, changed, .. } = &self.parts;
        loop {
            let mut room = std::pin::pin!(changed.notified());
            room.as_mut().enable();
            {
                let now = self.shared.now();
                let mut core = self.shared.lock();
                match core.endpoint.send(now, *session, *id, message.clone()) {
                    Ok(()) => {
                        core.wake();
                        return Ok(());
                    }
                    Err(SendError::Backpressure) => {}
                    Err(SendError::TooLarge) => return Err(StreamError::TooLarge),
                    Err(SendError::StreamClosed) => return Err(StreamError::Finished),
                    Err(SendError::SessionClosed) => return Err(StreamError::SessionClosed),
                }
            }
            room.await;
        }
    }

    /// The next message, or `None` after the peer finished.
    pub async fn receive(&mut self) -> Result<Option<Bytes>, StreamError> {
        if self.is_over {
            return Ok(None);
        }
        match self.parts.inbox.recv().await {
            Some(Item::Message(message, credit)) => {
                let unread = &self.parts.unread;
                if unread.load(Ordering::Relaxed) > 0 {
                    unread.fetch_sub(ITEM_OVERHEAD_BYTES + message.len(), Ordering::Relaxed);
                }
                if credit > 0 {
                    let now = self.shared.now();
                    let mut core = self.shared.lock();
                    core.endpoint.consume(now, self.parts.session, self.parts.id, credit);
                    core.wake();
                }
                Ok(Some(message))
            }
            Some(Item::Finished) => {
                self.is_over = true;
                Ok(None)
            }
            Some(Item::Failed(error)) => Err(error),
            None => Err(StreamError::SessionClosed),
        }
    }

    /// Ends the sending half after everything queued.
    pub fn finish(&self) {
        let now = self.shared.now();
        let mut core = self.shared.lock();
        core.endpoint.finish_stream(now, self.parts.session, self.parts.id);
        core.wake();
    }

    /// Ends the sending half and waits until the peer has everything.
    pub async fn finish_and_wait(&self) -> Result<(), StreamError> {
        self.finish();
        loop {
            let mut change = std::pin::pin!(self.parts.changed.notified());
            change.as_mut().enable();
            let key = (self.parts.session, self.parts.id);
            match self.shared.lock().streams.entries.get(&key) {
                Some(entry) if entry.is_flushed => return Ok(()),
                Some(_) => {}
                None => return Err(StreamError::SessionClosed),
            }
            change.await;
        }
    }
}

impl Drop for MeshStream {
    fn drop(&mut self) {
        let now = self.shared.now();
        let (session, id) = (self.parts.session, self.parts.id);
        let mut core = self.shared.lock();
        let entry = core.streams.entries.remove(&(session, id));
        match entry {
            // Both halves are done: the last acknowledgements end it.
            Some(entry) if self.is_over && entry.is_flushed => {}
            Some(_) if self.is_over => core.endpoint.finish_stream(now, session, id),
            Some(_) => core.endpoint.reset_stream(now, session, id, ResetReason::Closed),
            None => return,
        }
        core.process_events(now);
        core.wake();
    }
}

impl MeshNode {
    /// Opens a stream to a peer that is connected or that [`MeshNode::add_peer`] knows.
    pub async fn open_stream(
        &self,
        peer: NodeId,
        config: StreamConfig,
    ) -> Result<MeshStream, StreamError> {
        self.ensure_session(peer).await?;
        let now = self.shared.now();
        let mut core = self.shared.lock();
        let session = core.endpoint.live_session(peer).ok_or(StreamError::SessionClosed)?;
        let id = core.endpoint.open_stream(now, session, config)?;
        let parts = core.streams.add(peer, session, id, config.mode);
        drop(core);
        Ok(MeshStream { shared: self.shared.clone(), parts, is_over: false })
    }

    /// Accepts streams that peers open under `subprotocol`; replaces an earlier listener.
    pub fn listen(&self, subprotocol: Subprotocol) -> StreamListener {
        let (sender, incoming) = mpsc::channel(MAX_UNACCEPTED);
        let mut core = self.shared.lock();
        core.streams.next_listener += 1;
        let id = core.streams.next_listener;
        core.streams.listeners.insert(subprotocol, Listener { id, incoming: sender });
        drop(core);
        StreamListener { shared: self.shared.clone(), subprotocol, id, incoming }
    }
}
