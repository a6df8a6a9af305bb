//! The life of sessions: which one is in use for a peer, which one ends when.
//!
//! Invariants: a peer has at most one session in use, that of the newest handshake unless the peer
//! says that it uses another one; a session whose successor is in use drains; a session that was
//! touched is in line to be polled; events of a session are carried on in their order.

use net_crypto::EPHEMERAL_BYTES;
use net_session::{CloseCause, CloseReason, Context, Event as SessionEvent, Phase, Session};
use net_types::limits::{MAX_DRAINING_PER_PEER, SUSPECT_AFTER};
use net_types::{Instant, NodeId};

use crate::peers::Peer;
use crate::timers::Timer;
use crate::{Endpoint, Event};

impl Endpoint {
    /// Runs `call` on a session, forwards its events and puts it in line to be polled.
    pub(crate) fn with_session<T>(
        &mut self,
        now: Instant,
        slot: usize,
        call: impl FnOnce(&mut Session, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let session = self.sessions.touch(slot)?;
        let (rng, counters) = (&mut self.rng, &mut self.counters);
        let mut ctx = Context { now, rng, counters, events: &mut self.scratch };
        let out = call(session, &mut ctx);
        // Its timer is armed once it has nothing more to send: every input is followed by a poll.
        if !self.scratch.is_empty() {
            self.forward_events(now, slot);
        }
        Some(out)
    }

    /// Forwards the events of a session.
    pub(crate) fn forward_events(&mut self, now: Instant, slot: usize) {
        // Taken out, since handling an event may call other sessions, which report their own.
        let mut events = core::mem::take(&mut self.scratch);
        for event in events.drain(..) {
            let Some(entry) = self.sessions.get(slot) else { continue };
            let (peer, session) = (entry.peer, entry.session.id());
            match event {
                SessionEvent::Confirmed => self.confirm(now, slot),
                SessionEvent::Closed { cause } => self.on_closed(now, slot, cause),
                event => self.events.push_back(Event::Session { peer, session, event }),
            }
        }
        self.scratch = events;
    }

    /// Adds a session, which is not yet in use for its peer. One that answers an Init has its
    /// `ephemeral` key.
    pub(crate) fn insert(
        &mut self,
        now: Instant,
        session: Session,
        ephemeral: Option<[u8; EPHEMERAL_BYTES]>,
    ) -> usize {
        let next_timeout = session.next_timeout().unwrap_or(now);
        let slot = self.sessions.insert(session, ephemeral);
        self.timers.arm(Timer::Session(slot), next_timeout);
        slot
    }

    /// The peer proved its keys for a session that this side answered. The newest handshake decides
    /// which session is in use, in whatever order the proofs come.
    fn confirm(&mut self, now: Instant, slot: usize) {
        let Some(entry) = self.sessions.get(slot) else { return };
        let (peer, entity) = (entry.peer, entry.session.peer());
        let live = self.live_slot(peer);
        if live.is_some_and(|l| l.session.peer() != entity) {
            // Another identity took the address meanwhile, and keeps it.
            self.with_session(now, slot, |s, ctx| s.close(ctx, CloseReason::Overloaded));
        } else if live.is_none_or(|l| l.age < entry.age) {
            self.promote(now, slot);
        } else {
            self.announce(slot);
            self.drain(now, slot, peer);
        }
    }

    /// A heartbeat came, which may say that the peer uses another session.
    ///
    /// When dials cross, "newest" may differ at both ends. The smaller identity then follows the
    /// larger one, which says by its heartbeats what it no longer uses.
    pub(crate) fn follow_peer(&mut self, now: Instant, slot: usize) {
        let Some(entry) = self.sessions.get(slot) else { return };
        let peer = entry.peer;
        if !entry.session.is_peer_draining() || self.entity >= entry.session.peer() {
            return;
        }
        if self.peers.get(&peer).is_some_and(|p| p.live == Some(slot))
            && self.resume_other(now, peer)
        {
            self.drain(now, slot, peer);
        }
    }

    /// Makes the newest draining session that the peer still uses the one in use again.
    fn resume_other(&mut self, now: Instant, peer_id: NodeId) -> bool {
        let Some(peer) = self.peers.get_mut(&peer_id) else { return false };
        let sessions = &self.sessions;
        let is_used = |slot: &usize| {
            let session = sessions.get(*slot).map(|s| &s.session);
            session.is_some_and(|s| s.phase() != Phase::Closed && !s.is_peer_draining())
        };
        let Some(other) = peer.draining.iter().copied().rev().find(is_used) else { return false };
        peer.draining.retain(|s| *s != other);
        peer.live = Some(other);
        self.with_session(now, other, |session, _| session.resume());
        true
    }

    /// Makes a session the one in use for its peer; an older one may finish what is under way.
    pub(crate) fn promote(&mut self, now: Instant, slot: usize) {
        let Some(peer_id) = self.announce(slot) else { return };
        let peer = self.peers.entry(peer_id).or_default();
        let old = peer.live.replace(slot);
        if let Some(dial) = peer.dial.take() {
            self.handshakes.dials.remove(&dial.handshake_id);
            self.timers.disarm(Timer::Dial(peer_id));
        }
        if let Some(old) = old {
            self.drain(now, old, peer_id);
        }
    }

    /// Reports that a session is up. Its Init is never answered again.
    fn announce(&mut self, slot: usize) -> Option<NodeId> {
        let entry = self.sessions.get_mut(slot)?;
        let (peer, is_initiator) = (entry.peer, entry.is_initiator);
        let (entity, session) = (entry.session.peer(), entry.session.id());
        if let Some(ephemeral) = entry.ephemeral.take() {
            self.handshakes.answered.finished(&ephemeral);
        }
        self.forget_provisional(peer, slot);
        self.counters.handshakes_ok += 1;
        self.events.push_back(Event::Connected { peer, entity, session, is_initiator });
        Some(peer)
    }

    /// Takes a session off the list of those that wait for proof; false if it was not on it.
    fn forget_provisional(&mut self, peer: NodeId, slot: usize) -> bool {
        let Some(peer) = self.peers.get_mut(&peer) else { return false };
        let before = peer.provisional.len();
        peer.provisional.retain(|s| *s != slot);
        let is_forgotten = peer.provisional.len() < before;
        self.provisional_sessions -= usize::from(is_forgotten);
        is_forgotten
    }

    fn drain(&mut self, now: Instant, slot: usize, peer: NodeId) {
        let session = self.with_session(now, slot, |session, ctx| {
            session.drain(ctx.now);
            session.id()
        });
        self.events.extend(session.map(|session| Event::Draining { session }));
        let peer = self.peers.entry(peer).or_default();
        peer.draining.push_back(slot);
        if peer.draining.len() > MAX_DRAINING_PER_PEER
            && let Some(oldest) = peer.draining.front().copied()
        {
            self.with_session(now, oldest, |s, ctx| s.close(ctx, CloseReason::Replaced));
        }
    }

    fn on_closed(&mut self, now: Instant, slot: usize, cause: CloseCause) {
        let Some(entry) = self.sessions.get(slot) else { return };
        let (peer_id, session) = (entry.peer, entry.session.id());
        if self.forget_provisional(peer_id, slot) {
            self.counters.handshakes_failed += 1;
            return;
        }
        let Some(peer) = self.peers.get_mut(&peer_id) else { return };
        peer.draining.retain(|s| *s != slot);
        let was_live = peer.live.take_if(|s| *s == slot).is_some();
        let addr = peer.addr.clone();
        self.events.push_back(Event::Disconnected { peer: peer_id, session, cause, was_live });
        match cause {
            // The peer uses another session.
            CloseCause::Peer(CloseReason::Replaced) if was_live => {
                self.resume_other(now, peer_id);
            }
            CloseCause::Exhausted if was_live => {
                // A failure is reported by the dial itself.
                let _ = addr.map(|addr| self.dial(now, &addr));
            }
            _ => {}
        }
    }

    /// Forgets a session that is over and has nothing more to send.
    pub(crate) fn remove_if_closed(&mut self, slot: usize) {
        if self.sessions.get(slot).is_none_or(|s| s.session.phase() != Phase::Closed) {
            return;
        }
        let Some(entry) = self.sessions.remove(slot) else { return };
        self.timers.disarm(Timer::Session(slot));
        if let Some(ephemeral) = entry.ephemeral {
            self.handshakes.answered.finished(&ephemeral);
        }
        if self.peers.get(&entry.peer).is_some_and(Peer::is_idle) {
            self.peers.remove(&entry.peer);
        }
    }

    /// Dials the peer of a live session that went silent: if the peer restarted, only a new handshake
    /// reaches it, and if it did not, the dial disturbs nothing.
    pub(crate) fn redial_if_silent(&mut self, now: Instant, slot: usize) {
        let Some(entry) = self.sessions.get(slot) else { return };
        let suspect_after = SUSPECT_AFTER.max(self.config.heartbeat_interval * 3);
        if now.since(entry.session.last_received()) < suspect_after {
            return;
        }
        let Some(peer) = self.peers.get(&entry.peer) else { return };
        if peer.live != Some(slot) || peer.dial.is_some() {
            return;
        }
        if let Some(addr) = peer.addr.clone() {
            // A failure is reported by the dial itself, or shows as the session's end.
            let _ = self.dial(now, &addr);
        }
    }
}
