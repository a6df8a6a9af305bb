//! Group commit without a batching delay.
//!
//! A proposal that finds a free slot goes at once. While all slots are taken, proposals gather;
//! when a slot comes free, all that have gathered go together as one group. So a lone client
//! does not wait, and many clients share appends, messages and syncs.
//!
//! Invariant: while a proposal waits, all slots are taken.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use net_types::lock;
use tokio::sync::oneshot;

/// Groups under way. The second one is replicated while the first is being applied.
const SLOTS: usize = 2;
/// Proposals of one group.
const GROUP_LIMIT: usize = 1_024;

#[derive(Default)]
struct State {
    slots_taken: usize,
    waiting: VecDeque<oneshot::Sender<SlotPermit>>,
}

impl State {
    fn check_invariants(&self) {
        assert!(self.slots_taken <= SLOTS, "more slots are taken than there are");
        assert!(self.waiting.is_empty() || self.slots_taken == SLOTS, "a proposal waits for none");
    }
}

/// Lets proposals through in groups.
#[derive(Clone, Default)]
pub(super) struct Gate(Arc<Mutex<State>>);

/// A share of the slot of a group under way. The slot is free again once all shares are dropped.
pub(super) struct SlotPermit {
    _slot: Arc<Slot>,
}

struct Slot(Gate);

impl Gate {
    /// Waits for a slot. Proposals pass in the order in which they came.
    pub(super) async fn enter(&self) -> SlotPermit {
        let turn = {
            let mut state = lock(&self.0);
            if state.slots_taken < SLOTS {
                state.slots_taken += 1;
                return SlotPermit { _slot: Arc::new(Slot(self.clone())) };
            }
            let (tx, rx) = oneshot::channel();
            state.waiting.push_back(tx);
            if cfg!(debug_assertions) {
                state.check_invariants();
            }
            rx
        };
        turn.await.expect("a sender is dropped only by being used")
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let group: Vec<_> = {
            let mut state = lock(&self.0.0);
            let len = state.waiting.len().min(GROUP_LIMIT);
            if len == 0 {
                state.slots_taken -= 1;
                return;
            }
            state.waiting.drain(..len).collect()
        };
        let slot = Arc::new(Slot(self.0.clone()));
        for turn in group {
            // A proposal that was given up drops its share of the slot here.
            let _ = turn.send(SlotPermit { _slot: slot.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn proposals_that_gather_pass_together_and_in_order() {
        let gate = Gate::default();
        let mut slots: Vec<_> = (0..SLOTS).map(|_| gate.enter().now_or_never().unwrap()).collect();
        let mut waiting: Vec<_> = (0..5).map(|_| Box::pin(gate.enter())).collect();
        assert!(waiting.iter_mut().all(|turn| turn.now_or_never().is_none()));
        drop(slots.pop());
        let group: Vec<_> =
            waiting.iter_mut().map(|turn| turn.now_or_never().expect("released")).collect();
        let mut next = Box::pin(gate.enter());
        assert!((&mut next).now_or_never().is_none(), "the group takes one slot, whole");
        drop(group);
        assert!((&mut next).now_or_never().is_some());
    }

    #[test]
    fn a_group_of_proposals_that_were_given_up_frees_its_slot() {
        let gate = Gate::default();
        let slots: Vec<_> = (0..SLOTS).map(|_| gate.enter().now_or_never().unwrap()).collect();
        for _ in 0..3 {
            assert!(gate.enter().now_or_never().is_none());
        }
        drop(slots);
        assert!(gate.enter().now_or_never().is_some());
        assert_eq!(lock(&gate.0).slots_taken, 0);
    }
}
