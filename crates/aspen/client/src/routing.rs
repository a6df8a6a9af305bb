//! Which member is asked, and one call to one of them.
//!
//! Invariants: an index names one member for good; the choices of whom to ask first are indexes of
//! known members.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aspen_api::{
    EncodedReply, Request, RequestFrame, RequestId, Response, Revision, service, unreadable_answer,
};
use bytes::Bytes;
use net_node::{CallOptions, MeshNode, PeerAddr, RpcError, ServiceName};
use net_types::{NodeId, lock};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::judgement::Audience;
use crate::peers::Peers;

/// The members of a cluster as a client reaches them.
pub(crate) struct Routing {
    pub(crate) node: MeshNode,
    service: ServiceName,
    token: Option<Bytes>,
    should_follow_leader: bool,
    pub(crate) peers: Mutex<Peers>,
    /// The peer to ask first what only the leader answers: the one that did so last, or was found to
    /// lead.
    preferred: watch::Sender<usize>,
    /// The peer to ask first what any can answer.
    answering: watch::Sender<usize>,
    /// The newest revision seen in an answer.
    seen: AtomicU64,
    /// When the next question about the leader is due.
    pub(crate) next_probe: Mutex<Option<Instant>>,
}

impl Routing {
    /// The members `peers`, at least one, over a node.
    pub(crate) fn new(
        node: MeshNode,
        peers: Vec<PeerAddr>,
        token: Option<Bytes>,
        should_follow_leader: bool,
    ) -> Self {
        Self {
            node,
            service: ServiceName::new(service::CLIENT).expect("a constant name is valid"),
            token,
            should_follow_leader,
            peers: Mutex::new(Peers::new(peers)),
            preferred: watch::Sender::new(0),
            answering: watch::Sender::new(0),
            seen: AtomicU64::new(0),
            next_probe: Mutex::new(None),
        }
    }

    /// The newest revision seen in an answer.
    pub(crate) fn seen(&self) -> Revision {
        Revision(self.seen.load(Ordering::Relaxed))
    }

    /// How many peers may be asked.
    pub(crate) fn known(&self, audience: Audience) -> usize {
        match audience {
            Audience::First => 1,
            Audience::Leader | Audience::Any => lock(&self.peers).len(),
        }
    }

    /// Calls a member by index, with a session of its own if there is none. `was_sent` says from when
    /// on the member may have the request.
    pub(crate) async fn ask(
        &self,
        peer: usize,
        body: Bytes,
        deadline: Duration,
        was_sent: &AtomicBool,
    ) -> Result<Response<EncodedReply>, RpcError> {
        let route = lock(&self.peers).route(peer);
        if let Some(other) = route.end {
            self.node.disconnect(other);
        }
        let answer = match &route.dial {
            Some(addr) => self.call(addr, body, deadline, was_sent).await,
            None => {
                was_sent.store(true, Ordering::Relaxed);
                self.call_node(route.node, body, deadline).await
            }
        };
        match &answer {
            Ok(answer) => {
                self.seen.fetch_max(answer.applied.0, Ordering::Relaxed);
            }
            // Dialled again next time, perhaps at another address.
            Err(_) => lock(&self.peers).forget_session(peer),
        }
        answer
    }

    /// Makes a session, then calls.
    pub(crate) async fn call(
        &self,
        peer: &PeerAddr,
        body: Bytes,
        deadline: Duration,
        was_sent: &AtomicBool,
    ) -> Result<Response<EncodedReply>, RpcError> {
        let until = Instant::now() + deadline;
        // What fails before there is a session was never sent, whatever the time.
        let node = tokio::time::timeout_at(until, self.node.connect(peer))
            .await
            .map_err(|_| RpcError::NoRoute("no session before the deadline".into()))?
            .map_err(|error| RpcError::NoRoute(error.to_string()))?;
        let left = until.saturating_duration_since(Instant::now());
        was_sent.store(true, Ordering::Relaxed);
        self.call_node(node, body, left).await
    }

    async fn call_node(
        &self,
        node: NodeId,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Response<EncodedReply>, RpcError> {
        let options = CallOptions::with_deadline(deadline);
        let reply = self.node.call(node, &self.service, body, options).await?;
        Ok(Response::decode(reply.body).unwrap_or_else(|error| Response {
            applied: Revision(0),
            result: Err(unreadable_answer(&error)),
        }))
    }

    pub(crate) fn frame<R: Request>(&self, request: &R, id: RequestId) -> Bytes {
        RequestFrame::of(request, id, self.token.as_ref())
    }

    /// The index of a member that was named as the leader.
    pub(crate) fn learn(&self, leader: PeerAddr) -> Option<usize> {
        lock(&self.peers).learn(leader, self.should_follow_leader)
    }

    /// The peer that is asked first.
    pub(crate) fn first_choice(&self, audience: Audience) -> &watch::Sender<usize> {
        match audience {
            Audience::Leader => &self.preferred,
            Audience::Any | Audience::First => &self.answering,
        }
    }

    /// Has a peer asked first from now on, and those whose peer is silent told.
    pub(crate) fn choose(&self, peer: usize, audience: Audience) {
        let set = |choice: &watch::Sender<usize>| {
            choice.send_if_modified(|chosen| std::mem::replace(chosen, peer) != peer);
        };
        match audience {
            // The leader answers everything, and there is a session with it.
            Audience::Leader => {
                set(&self.preferred);
                set(&self.answering);
            }
            Audience::Any => set(&self.answering),
            Audience::First => {}
        }
    }
}
