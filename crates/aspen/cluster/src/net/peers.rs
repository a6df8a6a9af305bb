//! Other nodes as this one reaches them, and what it learns of them from their messages.
//!
//! Invariant: what is learned is advice, which may be old; membership comes from consensus alone.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aspen_api::{ApiError, Level, Request, RequestFrame, RequestId, Response};
use net_types::{Instant, PeerAddr, lock};
use net_wire::Class;
use tokio::sync::Notify;

use super::transport::Transport;
use crate::clock::{Clock, Drift};

/// How long a report of a feature level counts: longer than a leader is silent to a member, shorter
/// than it takes to start a node with another version.
const LEVEL_COUNTS: Duration = Duration::from_secs(3);

/// Other nodes.
pub(crate) struct Peers {
    /// This node's own number.
    pub(crate) local: u64,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) clock: Arc<dyn Clock>,
    /// How far their clocks are from this node's.
    pub(crate) drift: Drift,
    /// The highest feature level that each member understands, and when it said so.
    top_levels: Mutex<BTreeMap<u64, (Level, Instant)>>,
    level_changed: Notify,
    /// Whether the last refusal was that of a member that does not know this node.
    was_disowned: AtomicBool,
    /// When the leader last spoke to this node, in nanoseconds; zero for never.
    leader_heard: AtomicU64,
}

impl Peers {
    /// Peers of node `local`, of which nothing is known yet.
    pub(crate) fn new(local: u64, transport: Arc<dyn Transport>, clock: Arc<dyn Clock>) -> Self {
        Self {
            local,
            transport,
            clock,
            drift: Drift::default(),
            top_levels: Mutex::default(),
            level_changed: Notify::new(),
            was_disowned: AtomicBool::new(false),
            leader_heard: AtomicU64::new(0),
        }
    }

    /// Asks another node, member or not; `None` if it does not answer or its answer cannot be read.
    /// The transport takes the request when the future is first polled.
    pub(crate) fn ask<R: Request>(
        &self,
        peer: &PeerAddr,
        class: Class,
        deadline: Duration,
        request: &R,
    ) -> impl Future<Output = Option<Result<R::Reply, ApiError>>> + Send + use<R> {
        let body = RequestFrame::of(request, RequestId::NONE, None);
        let call = self.transport.call(peer, aspen_api::service::CLIENT, class, body, deadline);
        async move { Some(Response::<R::Reply>::decode(call.await.ok()?).ok()?.result) }
    }

    pub(super) fn note_level(&self, peer: u64, level: Level) {
        let now = self.clock.now();
        let before = lock(&self.top_levels).insert(peer, (level, now));
        if before.is_none_or(|(known, at)| known != level || now.since(at) >= LEVEL_COUNTS) {
            self.level_changed.notify_one();
        }
    }

    /// The highest level that `peer` understands, if it said so lately: one that is silent may come
    /// back as another version.
    pub(crate) fn top_level_of(&self, peer: u64) -> Option<Level> {
        let (level, at) = lock(&self.top_levels).get(&peer).copied()?;
        (self.clock.now().since(at) < LEVEL_COUNTS).then_some(level)
    }

    /// Forgets the levels of those that are no longer members: another node may get the number.
    pub(crate) fn keep_levels(&self, is_member: impl Fn(u64) -> bool) {
        lock(&self.top_levels).retain(|peer, _| is_member(*peer));
    }

    /// Waits until a peer has reported a level that was not known. For one task.
    pub(crate) async fn level_changed(&self) {
        self.level_changed.notified().await;
    }

    /// Whether a refusal is the first of its kind in a row.
    pub(super) fn note_refusal(&self, is_disowned: bool) -> bool {
        !self.was_disowned.swap(is_disowned, Ordering::Relaxed)
    }

    pub(super) fn note_leader(&self, now: Instant) {
        self.leader_heard.store(now.as_nanos().max(1), Ordering::Relaxed);
    }

    /// Whether the leader spoke to this node less than `limit` ago.
    pub(crate) fn has_heard_leader(&self, limit: Duration) -> bool {
        let at = self.leader_heard.load(Ordering::Relaxed);
        at > 0 && self.clock.now().since(Instant::from_nanos(at)) < limit
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::clock::SystemClock;
    use crate::testing::Nowhere;

    fn peers() -> Peers {
        Peers::new(1, Arc::new(Nowhere), Arc::new(SystemClock::new()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_level_counts_for_a_while_and_is_told_of_when_it_changes() {
        let peers = peers();
        peers.note_level(2, Level(1));
        assert_eq!((peers.top_level_of(2), peers.top_level_of(3)), (Some(Level(1)), None));
        assert!(peers.level_changed().now_or_never().is_some());
        peers.note_level(2, Level(1));
        assert!(peers.level_changed().now_or_never().is_none());
        peers.note_level(2, Level(2));
        assert!(peers.level_changed().now_or_never().is_some());
        tokio::time::advance(LEVEL_COUNTS).await;
        assert_eq!(peers.top_level_of(2), None, "it may be another version by now");
        peers.note_level(2, Level(2));
        assert!(peers.level_changed().now_or_never().is_some());
        peers.keep_levels(|peer| peer != 2);
        assert_eq!(peers.top_level_of(2), None);
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_in_a_row_are_told_of_once() {
        let peers = peers();
        assert!(peers.note_refusal(true));
        assert!(!peers.note_refusal(true));
        peers.note_refusal(false);
        assert!(peers.note_refusal(true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_is_heard_for_a_while() {
        let (peers, lease) = (peers(), Duration::from_secs(1));
        assert!(!peers.has_heard_leader(lease), "never");
        tokio::time::advance(lease).await;
        peers.note_leader(peers.clock.now());
        assert!(peers.has_heard_leader(lease));
        tokio::time::advance(lease).await;
        assert!(!peers.has_heard_leader(lease));
    }
}
