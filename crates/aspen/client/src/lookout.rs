//! What a request does while the peer that it asked is silent: it looks for a better one, without
//! giving up the first.
//!
//! The others are asked who leads, one after the other without waiting for their answers, as RFC
//! 8305 races connections: members that are gone cost one short pause each. Only the question is
//! repeated, never the request; it moves to another peer once one is known to be the better.

use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::task::Poll;
use std::time::Duration;

use aspen_api::RequestId;
use aspen_api::cluster::{GetLeader, LeaderResult};
use aspen_api::codec::Wire;
use net_types::lock;
use tokio::time::Instant;

use crate::judgement::Audience;
use crate::routing::Routing;

/// Silence of a peer with a session after which the others are asked who leads, and the time from
/// one such question to the next.
const SUSPECT_AFTER: Duration = Duration::from_millis(250);
/// The same for a peer that is being dialled: the "connection attempt delay" of RFC 8305. A
/// handshake is one round trip; where that takes longer, a session with another member is made too
/// early, and nothing else happens. The RFC allows 10 ms and more.
const DIAL_PATIENCE: Duration = Duration::from_millis(50);
/// Longest wait for the answer to that question.
const PROBE_DEADLINE: Duration = Duration::from_millis(1_000);

impl Routing {
    /// How long a peer that is about to be asked may be silent.
    pub(crate) fn patience(&self, peer: usize) -> Duration {
        match lock(&self.peers).has_session(peer) {
            true => SUSPECT_AFTER,
            false => DIAL_PATIENCE,
        }
    }

    /// Waits until `peer`, which does not answer, is known not to be the best one to ask: another
    /// one leads or, for a request that any can answer, another one answers.
    pub(crate) async fn better_than(
        &self,
        peer: usize,
        audience: Audience,
        patience: Duration,
    ) -> usize {
        if audience == Audience::First {
            return std::future::pending().await;
        }
        // Only news count: what was known before led to this peer.
        let mut choice = self.first_choice(audience).subscribe();
        let mut probes = Vec::new();
        let mut candidate = peer;
        let mut pause = patience;
        let mut next = Instant::now() + pause;
        loop {
            tokio::select! {
                Ok(()) = choice.changed() => {
                    let found = *choice.borrow_and_update();
                    if found != peer {
                        return found;
                    }
                }
                (by, answer) = first_of(&mut probes) => {
                    if let Some(better) = self.judge_probe(peer, by, audience, answer) {
                        self.choose(better, audience);
                        return better;
                    }
                }
                () = tokio::time::sleep_until(next) => {
                    candidate = (candidate + 1) % self.known(audience);
                    if candidate == peer {
                        // Everybody has been asked once; those that answer have answered by now.
                        pause = SUSPECT_AFTER;
                    } else if probes.iter().all(|(asked, _)| *asked != candidate)
                        && self.may_probe(pause)
                    {
                        probes.push((candidate, Box::pin(self.probe(candidate))));
                    }
                    next = Instant::now() + pause;
                }
            }
        }
    }

    /// Asks a candidate who leads; `None` if it is silent too. An answer that tells nothing is one.
    async fn probe(&self, candidate: usize) -> Option<Option<LeaderResult>> {
        let body = self.frame(&GetLeader {}, RequestId::NONE);
        let asked = self.ask(candidate, body, PROBE_DEADLINE, &AtomicBool::new(false)).await;
        let reply = asked.ok()?.result.ok();
        Some(reply.and_then(|reply| LeaderResult::from_bytes(reply.0).ok()))
    }

    /// Who is better than `peer` after an answer of the candidate `by`.
    fn judge_probe(
        &self,
        peer: usize,
        by: usize,
        audience: Audience,
        answer: Option<Option<LeaderResult>>,
    ) -> Option<usize> {
        let named = answer?.and_then(|answer| answer.leader);
        let leader = named.and_then(|leader| self.learn(leader.addr));
        match audience {
            Audience::Leader => leader.filter(|leader| *leader != peer),
            Audience::Any | Audience::First => Some(by),
        }
    }

    /// One question about the leader in each pause, however many requests wait.
    fn may_probe(&self, pause: Duration) -> bool {
        let now = Instant::now();
        let mut next = lock(&self.next_probe);
        if next.is_some_and(|next| now < next) {
            return false;
        }
        *next = Some(now + pause);
        true
    }
}

/// The first of some questions to end, by the peer that was asked; it is taken out. There are at
/// most as many as members.
async fn first_of<T>(probes: &mut Vec<(usize, Pin<Box<impl Future<Output = T>>>)>) -> (usize, T) {
    std::future::poll_fn(|context| {
        for at in 0..probes.len() {
            if let Poll::Ready(answer) = probes[at].1.as_mut().poll(context) {
                return Poll::Ready((probes.swap_remove(at).0, answer));
            }
        }
        Poll::Pending
    })
    .await
}
