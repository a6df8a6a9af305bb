//! Streams for applications: messages in both directions with credit that follows the reader.
//!
//! Invariants: the credit of a message returns to the peer when the application takes it; a stream
//! that is dropped before the peer's end was read is reset, and afterwards finished.

use std::sync::Arc;

use bytes::Bytes;
use net_mesh_core::{ResetReason, SendError, StreamConfig, Subprotocol};
use net_types::NodeId;
use tokio::sync::mpsc;

use crate::MeshNode;
use crate::shared::Shared;
use crate::stream_table::{Item, Parts, StreamError};

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
        let now = self.shared.now();
        let mut core = self.shared.lock();
        core.streams(now, |streams, _| streams.unlisten(self.subprotocol, self.id));
        drop(core);
        // A stream that was not accepted ends like a stream that is dropped.
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
                match core.streams(now, |_, cx| cx.send(*session, *id, message.clone())) {
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
                self.parts.took(&message);
                if credit > 0 {
                    let now = self.shared.now();
                    let mut core = self.shared.lock();
                    let (session, id) = (self.parts.session, self.parts.id);
                    core.streams(now, |_, cx| cx.consume(session, id, credit));
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
        core.streams(now, |_, cx| cx.finish_stream(self.parts.session, self.parts.id));
        core.wake();
    }

    /// Ends the sending half and waits until the peer has everything.
    pub async fn finish_and_wait(&self) -> Result<(), StreamError> {
        self.finish();
        loop {
            let mut change = std::pin::pin!(self.parts.changed.notified());
            change.as_mut().enable();
            let is_flushed = {
                let core = self.shared.lock();
                core.mesh.get(core.streams).is_flushed(self.parts.session, self.parts.id)
            };
            match is_flushed {
                Some(true) => return Ok(()),
                Some(false) => {}
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
        let is_over = self.is_over;
        core.streams(now, |streams, cx| match streams.remove(session, id) {
            // Both halves are done, and the last acknowledgements end it; or it was reset.
            Some(true) if is_over => {}
            Some(_) if is_over => cx.finish_stream(session, id),
            Some(_) => cx.reset_stream(session, id, ResetReason::Closed),
            None => {}
        });
        core.mesh.process(now);
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
        self.check_number(config.subprotocol)?;
        self.ensure_session(peer).await?;
        let now = self.shared.now();
        let mut core = self.shared.lock();
        let parts = core.streams(now, |streams, cx| {
            let session = cx.live_session(peer).ok_or(StreamError::SessionClosed)?;
            let id = cx.open_stream(session, config)?;
            Ok::<_, StreamError>(streams.add(peer, session, id, config.mode))
        })?;
        drop(core);
        Ok(MeshStream { shared: self.shared.clone(), parts, is_over: false })
    }

    /// Accepts streams that peers open under `subprotocol`; replaces an earlier listener.
    pub fn listen(&self, subprotocol: Subprotocol) -> Result<StreamListener, StreamError> {
        self.check_number(subprotocol)?;
        let now = self.shared.now();
        let (id, incoming) =
            self.shared.lock().streams(now, |streams, _| streams.listen(subprotocol));
        Ok(StreamListener { shared: self.shared.clone(), subprotocol, id, incoming })
    }

    fn check_number(&self, subprotocol: Subprotocol) -> Result<(), StreamError> {
        let core = self.shared.lock();
        let is_free = core.mesh.has(core.streams, subprotocol);
        is_free.then_some(()).ok_or(StreamError::Reserved(subprotocol))
    }
}
