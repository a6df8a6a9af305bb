//! The tasks that wait for a session with a peer.
//!
//! Invariant: each waits until the peer's next session, the failure of its dial, or the node's end.

use std::collections::BTreeMap;

use net_mesh_core::{Cx, DialError, Message, PeerEvent, Protocol, StreamEvent, StreamRef};
use net_types::NodeId;
use tokio::sync::oneshot;

type Waiter = oneshot::Sender<Result<(), DialError>>;

/// The tasks that wait for a session with a peer. It has no streams.
#[derive(Default)]
pub(crate) struct Dials {
    waiters: BTreeMap<NodeId, Vec<Waiter>>,
}

impl Dials {
    /// Waits for the result of the peer's dial that is under way.
    pub(crate) fn wait(&mut self, peer: NodeId) -> oneshot::Receiver<Result<(), DialError>> {
        let (tell, waiter) = oneshot::channel();
        self.waiters.entry(peer).or_default().push(tell);
        waiter
    }

    fn tell(&mut self, peer: NodeId, result: Result<(), DialError>) {
        for waiter in self.waiters.remove(&peer).unwrap_or_default() {
            // A task that no longer waits needs no answer.
            let _ = waiter.send(result);
        }
    }
}

impl Protocol for Dials {
    fn on_message(&mut self, _cx: &mut Cx<'_>, _stream: StreamRef, _message: Message) {}

    fn on_stream(&mut self, _cx: &mut Cx<'_>, _stream: StreamRef, _event: StreamEvent) {}

    fn on_peer(&mut self, _cx: &mut Cx<'_>, event: &PeerEvent) {
        match *event {
            PeerEvent::Up { peer, .. } => self.tell(peer, Ok(())),
            PeerEvent::DialFailed { peer, error } => self.tell(peer, Err(error)),
            PeerEvent::Down { .. } => {}
        }
    }

    fn on_close(&mut self, _cx: &mut Cx<'_>) {
        while let Some((peer, _)) = self.waiters.first_key_value() {
            self.tell(*peer, Err(DialError::Closed));
        }
    }

    fn check_invariants(&self) {
        assert!(self.waiters.values().all(|waiters| !waiters.is_empty()));
    }
}
