//! The node's state behind its one lock: the mesh, and what wakes its driver.
//!
//! Invariant: what changes the mesh from outside the driver's turn wakes the driver, unless nothing
//! follows from the change.

use std::sync::Arc;
use std::task::Waker;

use net_crypto::Seeded;
use net_mesh_core::{Cx, Endpoint, Entry, Mesh, Protocols, Subprotocol};
use net_rpc::{CallResult, RpcHandler, Waiter};
use net_types::{Instant, NodeId};
use tokio::sync::oneshot;

use crate::dials::Dials;
use crate::stream_table::StreamTable;

pub(crate) type Handler = Arc<dyn RpcHandler>;
pub(crate) type Rpc = net_rpc::Rpc<Tell, Handler>;

/// Tells the future that waits for a call.
pub(crate) struct Tell(pub(crate) oneshot::Sender<CallResult>);

impl Waiter for Tell {
    fn finish(self, result: CallResult) {
        // A caller that dropped its future needs no reply.
        let _ = self.0.send(result);
    }
}

pub(crate) struct Core {
    pub(crate) mesh: Mesh,
    pub(crate) rpc: Entry<Rpc>,
    pub(crate) streams: Entry<StreamTable>,
    pub(crate) dials: Entry<Dials>,
    /// The driver, while it waits.
    waker: Option<Waker>,
    /// When the first call since the driver's last turn was made.
    called_at: Option<Instant>,
    /// Whether the node has called itself since the driver last took such calls.
    has_called_itself: bool,
    pub(crate) is_closed: bool,
}

impl Core {
    /// A node with `protocols` and those that every node has.
    pub(crate) fn new(endpoint: Endpoint, rng: Seeded, mut protocols: Protocols) -> Self {
        let own = endpoint.entity_id();
        let rpc = protocols.add([Subprotocol::RPC..=Subprotocol::RPC], Rpc::new(own));
        let of_applications = [
            Subprotocol::EVENTS..=Subprotocol::EVENTS,
            Subprotocol::FIRST_APPLICATION..=Subprotocol(u16::MAX),
        ];
        let streams = protocols.add(of_applications, StreamTable::default());
        let dials = protocols.add([], Dials::default());
        let mesh = Mesh::new(endpoint, rng, protocols);
        Self {
            mesh,
            rpc,
            streams,
            dials,
            waker: None,
            called_at: None,
            has_called_itself: false,
            is_closed: false,
        }
    }

    /// Acts on the calls.
    #[inline]
    pub(crate) fn rpc<T>(
        &mut self,
        now: Instant,
        act: impl FnOnce(&mut Rpc, &mut Cx<'_>) -> T,
    ) -> T {
        self.mesh.with(now, self.rpc, act)
    }

    /// Acts on the streams of applications.
    pub(crate) fn streams<T>(
        &mut self,
        now: Instant,
        act: impl FnOnce(&mut StreamTable, &mut Cx<'_>) -> T,
    ) -> T {
        self.mesh.with(now, self.streams, act)
    }

    /// Wakes the driver. Only the first call between two turns costs anything.
    pub(crate) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The time, read at most once between two turns of the driver: calls that are made together share
    /// it.
    pub(crate) fn call_time(&mut self, clock: impl FnOnce() -> Instant) -> Instant {
        *self.called_at.get_or_insert_with(clock)
    }

    /// A call is made to `peer`.
    pub(crate) fn note_call(&mut self, peer: NodeId) {
        self.has_called_itself |= peer == self.mesh.endpoint().node_id();
    }

    /// Whether the node called itself since this was asked last.
    pub(crate) fn take_called_itself(&mut self) -> bool {
        core::mem::take(&mut self.has_called_itself)
    }

    /// A turn of the driver begins; it is woken through `waker` for the next one.
    pub(crate) fn begin_turn(&mut self, waker: &Waker) {
        self.called_at = None;
        match &mut self.waker {
            Some(known) => known.clone_from(waker),
            None => self.waker = Some(waker.clone()),
        }
    }

    /// Ends everything: sessions close, open calls and waiting dials fail.
    pub(crate) fn close(&mut self, now: Instant) {
        self.is_closed = true;
        self.mesh.close(now);
        self.wake();
    }
}
