//! The sessions of an endpoint: where each one is, and which ones are in line to be polled.
//!
//! Invariants, which [`SessionTable::check_invariants`] asserts: an id names one session; a slot is
//! used or free; a session is in line once at most, and exactly if it is marked so; a session that is
//! closed stays in line until it was polled.

use core::ops::Range;
use std::collections::{BTreeSet, VecDeque};

use net_session::{Phase, Session};
use net_types::limits::MAX_SESSIONS;
use net_types::{IdMap, NodeId, SessionId};

/// One session and the endpoint's bookkeeping for it.
pub(crate) struct Slot {
    pub(crate) session: Session,
    pub(crate) peer: NodeId,
    pub(crate) is_initiator: bool,
    /// Orders sessions by when this side answered the Init or got the Response.
    pub(crate) age: u64,
    /// Whether it is in line to be polled.
    is_ready: bool,
    /// Ephemeral key of the Init that it answers, until the peer proved its keys.
    pub(crate) ephemeral: Option<[u8; 32]>,
}

/// All sessions of an endpoint, by slot and by id.
#[derive(Default)]
pub(crate) struct SessionTable {
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    by_id: IdMap<SessionId, usize>,
    /// Sessions to be polled, the next one first.
    ready: VecDeque<usize>,
    /// Sessions so far.
    ages: u64,
}

impl SessionTable {
    /// Adds a session; one without the `ephemeral` key of an Init is the initiator's.
    pub(crate) fn insert(&mut self, session: Session, ephemeral: Option<[u8; 32]>) -> usize {
        self.ages += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.by_id.insert(session.id(), slot);
        let (peer, is_initiator) = (session.peer().node_id(), ephemeral.is_none());
        let (age, is_ready) = (self.ages, false);
        self.slots[slot] = Some(Slot { session, peer, is_initiator, age, is_ready, ephemeral });
        slot
    }

    pub(crate) fn remove(&mut self, slot: usize) -> Option<Slot> {
        let entry = self.slots.get_mut(slot)?.take()?;
        self.by_id.remove(&entry.session.id());
        if entry.is_ready {
            self.ready.retain(|s| *s != slot);
        }
        self.free.push(slot);
        Some(entry)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn find(&self, id: SessionId) -> Option<usize> {
        self.by_id.get(&id).copied()
    }

    pub(crate) fn get(&self, slot: usize) -> Option<&Slot> {
        self.slots.get(slot)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: usize) -> Option<&mut Slot> {
        self.slots.get_mut(slot)?.as_mut()
    }

    pub(crate) fn by_id(&self, id: SessionId) -> Option<&Slot> {
        self.get(self.find(id)?)
    }

    /// All slots, the free ones included.
    pub(crate) fn slots(&self) -> Range<usize> {
        0..self.slots.len()
    }

    /// All sessions with their slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Slot)> {
        self.slots.iter().enumerate().filter_map(|(slot, entry)| Some((slot, entry.as_ref()?)))
    }

    /// A session that is about to change; it is put in line to be polled.
    #[inline]
    pub(crate) fn touch(&mut self, slot: usize) -> Option<&mut Session> {
        let entry = self.slots.get_mut(slot)?.as_mut()?;
        if !entry.is_ready {
            entry.is_ready = true;
            self.ready.push_back(slot);
        }
        Some(&mut entry.session)
    }

    /// The session that is polled next.
    pub(crate) fn next_ready(&self) -> Option<usize> {
        self.ready.front().copied()
    }

    /// The next session goes to the end of the line.
    pub(crate) fn rotate_ready(&mut self) {
        self.ready.rotate_left(1);
    }

    /// The next session leaves the line.
    pub(crate) fn pop_ready(&mut self) {
        if let Some(slot) = self.ready.pop_front()
            && let Some(entry) = self.get_mut(slot)
        {
            entry.is_ready = false;
        }
    }

    /// Whether the session is in line to be polled.
    pub(crate) fn is_ready(&self, slot: usize) -> bool {
        self.get(slot).is_some_and(|entry| entry.is_ready)
    }

    /// Asserts the module's invariants.
    pub(crate) fn check_invariants(&self) {
        assert!(self.len() <= MAX_SESSIONS);
        assert_eq!(self.by_id.len() + self.free.len(), self.slots.len());
        assert!(self.free.iter().all(|slot| self.slots[*slot].is_none()), "a used slot is free");
        let mut marked = BTreeSet::new();
        for (slot, entry) in self.iter() {
            let (id, phase) = (entry.session.id(), entry.session.phase());
            assert_eq!(self.by_id.get(&id), Some(&slot), "{id} is not found");
            assert_eq!(entry.session.peer().node_id(), entry.peer);
            assert!(phase != Phase::Closed || entry.is_ready, "{id} is closed and kept");
            assert!(entry.age <= self.ages);
            if entry.is_ready {
                marked.insert(slot);
            }
        }
        assert_eq!(self.ready.len(), marked.len(), "{:?} are in line", self.ready);
        assert!(self.ready.iter().all(|slot| marked.remove(slot)), "{:?} are in line", self.ready);
    }
}
