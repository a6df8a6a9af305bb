//! The calls that a node waits for.
//!
//! Each open call is one slot, whose number is part of the call's id. Deadlines are kept in lists,
//! one for each tick of 16 ms, so that opening and completing a call touches no tree: a call that
//! ends early leaves its list at once.
//!
//! Invariants: every open call is in the list of its deadline's tick and in no other; a slot is
//! open or free.

use std::collections::BTreeMap;

use net_types::limits::MAX_PENDING_CALLS;
use net_types::{CallId, Instant, SessionId};
use net_wire::Class;
use thiserror::Error;

/// Nanoseconds of a tick, as a power of two.
const TICK_BITS: u32 = 24;
const NONE: u32 = u32::MAX;
/// Bits of a call's id that are its slot; the others are random, so that a reply to an earlier call
/// of the slot, or one that was guessed, ends no other call.
const SLOT_BITS: u32 = 16;

const _: () = assert!(MAX_PENDING_CALLS <= 1 << SLOT_BITS);

/// Too many calls are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{MAX_PENDING_CALLS} calls are open")]
pub struct TableFull;

struct Open<U> {
    id: CallId,
    session: SessionId,
    class: Class,
    tick: u64,
    previous: u32,
    next: u32,
    user: U,
}

/// A call that left the table without a reply.
pub struct Ended<U> {
    /// The call.
    pub id: CallId,
    /// Where it went.
    pub session: SessionId,
    /// The class of its stream.
    pub class: Class,
    /// What the caller left with it.
    pub user: U,
}

/// Open calls, each with a `U` that its caller waits on.
pub struct Calls<U> {
    slots: Vec<Option<Open<U>>>,
    free: Vec<u32>,
    /// First slot of each tick's list.
    ticks: BTreeMap<u64, u32>,
}

impl<U> Calls<U> {
    /// No calls.
    pub fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), ticks: BTreeMap::new() }
    }

    /// Open calls.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether no call is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Opens a call; `random` is fresh for each.
    pub fn open(
        &mut self,
        random: u64,
        session: SessionId,
        class: Class,
        deadline: Instant,
        user: U,
    ) -> Result<CallId, TableFull> {
        if self.len() >= MAX_PENDING_CALLS {
            return Err(TableFull);
        }
        // Rounded up: a call never ends before its deadline.
        let tick = (deadline.as_nanos() >> TICK_BITS).saturating_add(1);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        // Without the highest bit: u64::MAX is not a sequence.
        let id = CallId((random << SLOT_BITS | u64::from(slot)) & (u64::MAX >> 1));
        let next = self.ticks.insert(tick, slot).unwrap_or(NONE);
        if let Some(Some(after)) = self.slots.get_mut(next as usize) {
            after.previous = slot;
        }
        self.slots[slot as usize] =
            Some(Open { id, session, class, tick, previous: NONE, next, user });
        Ok(id)
    }

    /// The slot of a call that is open.
    fn find(&self, id: CallId) -> Option<u32> {
        let slot = (id.0 & ((1 << SLOT_BITS) - 1)) as u32;
        let call = self.slots.get(slot as usize)?.as_ref()?;
        (call.id == id).then_some(slot)
    }

    /// Whether the call is open, wherever it went.
    pub fn is_open(&self, id: CallId) -> bool {
        self.find(id).is_some()
    }

    /// A reply came from `session`: ends the call if it went there.
    pub fn complete(&mut self, session: SessionId, id: CallId) -> Option<U> {
        let slot = self.find(id)?;
        if self.slots[slot as usize].as_ref()?.session != session {
            return None;
        }
        self.take(slot).map(|ended| ended.user)
    }

    /// Ends a call without a reply.
    pub fn cancel(&mut self, id: CallId) -> Option<Ended<U>> {
        let slot = self.find(id)?;
        self.take(slot)
    }

    /// The next call whose deadline has passed.
    pub fn pop_expired(&mut self, now: Instant) -> Option<Ended<U>> {
        let (&tick, &slot) = self.ticks.first_key_value()?;
        if tick > now.as_nanos() >> TICK_BITS {
            return None;
        }
        self.take(slot)
    }

    /// When [`Calls::pop_expired`] may next give a call.
    pub fn next_deadline(&self) -> Option<Instant> {
        let (&tick, _) = self.ticks.first_key_value()?;
        Some(Instant::from_nanos(tick.saturating_mul(1 << TICK_BITS)))
    }

    /// Whether a call to a session is open; looks at all calls.
    pub fn has_session(&self, session: SessionId) -> bool {
        self.slots.iter().flatten().any(|call| call.session == session)
    }

    /// Ends every call that went to a session.
    pub fn fail_session(&mut self, session: SessionId) -> Vec<U> {
        let slots: Vec<u32> = (0..self.slots.len() as u32)
            .filter(|s| self.slots[*s as usize].as_ref().is_some_and(|c| c.session == session))
            .collect();
        slots.into_iter().filter_map(|slot| self.take(slot)).map(|ended| ended.user).collect()
    }

    /// Asserts that each open call is in the list of its tick.
    pub fn check_invariants(&self) {
        let mut listed = 0;
        for (&tick, &first) in &self.ticks {
            let (mut previous, mut slot) = (NONE, first);
            while slot != NONE {
                let call = self.slots[slot as usize].as_ref().expect("a listed call is open");
                assert_eq!((call.tick, call.previous), (tick, previous), "slot {slot}");
                (previous, slot, listed) = (slot, call.next, listed + 1);
            }
        }
        assert_eq!(listed, self.len(), "open calls that no list has");
    }

    fn take(&mut self, slot: u32) -> Option<Ended<U>> {
        let call = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        if let Some(Some(after)) = self.slots.get_mut(call.next as usize) {
            after.previous = call.previous;
        }
        match self.slots.get_mut(call.previous as usize) {
            Some(Some(before)) => before.next = call.next,
            _ if call.next == NONE => drop(self.ticks.remove(&call.tick)),
            _ => drop(self.ticks.insert(call.tick, call.next)),
        }
        let Open { id, session, class, user, .. } = call;
        Some(Ended { id, session, class, user })
    }
}

impl<U> Default for Calls<U> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;
    use std::collections::BTreeMap as Model;

    use super::*;

    const SESSION: SessionId = SessionId(1);

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn a_reply_counts_only_from_the_session_that_was_called() {
        let mut calls = Calls::new();
        let id = calls.open(5, SESSION, Class::Foreground, at(100), 'x').unwrap();
        assert_eq!(calls.complete(SessionId(2), id), None);
        assert!(calls.is_open(id));
        assert_eq!(calls.complete(SESSION, id), Some('x'));
        assert_eq!(calls.complete(SESSION, id), None);
        let next = calls.open(u64::MAX, SESSION, Class::Foreground, at(100), 'y').unwrap();
        assert!(next != id && next.0 != u64::MAX);
        assert_eq!(calls.complete(SESSION, id), None);
        assert_eq!(calls.complete(SESSION, CallId(next.0 + 1)), None);
        assert_eq!(calls.complete(SESSION, next), Some('y'));
    }

    #[test]
    fn calls_are_bounded() {
        let mut calls = Calls::new();
        for i in 0..MAX_PENDING_CALLS as u64 {
            calls.open(i, SESSION, Class::Foreground, at(i), ()).unwrap();
        }
        assert_eq!(calls.open(1, SESSION, Class::Foreground, at(1), ()), Err(TableFull));
        calls.pop_expired(at(1_000)).unwrap();
        assert!(calls.open(1, SESSION, Class::Foreground, at(1), ()).is_ok());
    }

    #[test]
    fn calls_expire_after_their_deadline_and_not_before() {
        let mut calls = Calls::new();
        calls.open(1, SESSION, Class::Foreground, at(100), 1).unwrap();
        assert!(calls.pop_expired(at(100)).is_none());
        let due = calls.next_deadline().unwrap();
        assert!(due >= at(100) && due <= at(134));
        assert_eq!(calls.pop_expired(due).map(|e| e.user), Some(1));
        assert_eq!(calls.next_deadline(), None);
    }

    #[test]
    fn any_order_of_opening_and_ending_agrees_with_a_map() {
        let (mut calls, mut model) = (Calls::new(), Model::new());
        let mut x = 1u64;
        for step in 0..20_000u64 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let pick = (x >> 40) % 64;
            match (x >> 33) % 4 {
                0 | 1 => {
                    let session = SessionId((x >> 50) % 3);
                    let deadline = at(step + (x >> 20) % 200);
                    let id = calls.open(x, session, Class::Foreground, deadline, step).unwrap();
                    assert_eq!(model.insert(id, (session, deadline, step)), None);
                }
                2 => {
                    let id = model.keys().nth(pick as usize).copied().unwrap_or(CallId(pick));
                    let ended = calls.cancel(id).map(|e| e.user);
                    assert_eq!(ended, model.remove(&id).map(|m| m.2));
                }
                _ => {
                    while let Some(ended) = calls.pop_expired(at(step)) {
                        let (_, deadline, user) = model.remove(&ended.id).unwrap();
                        assert!(deadline < at(step));
                        assert_eq!(user, ended.user);
                    }
                    let late = at(step.saturating_sub(34));
                    assert!(model.values().all(|m| m.1 >= late));
                }
            }
            assert_eq!(calls.len(), model.len());
            calls.check_invariants();
        }
        let of_one = model.values().filter(|m| m.0 == SESSION).count();
        assert_eq!(calls.has_session(SESSION), of_one > 0);
        assert_eq!(calls.fail_session(SESSION).len(), of_one);
        assert!(!calls.has_session(SESSION));
    }
}
