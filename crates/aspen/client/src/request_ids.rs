//! Ids of writes, so that a repeated one is answered instead of applied again.
//!
//! A cluster remembers the last 128 answers of a client. Ids are therefore drawn from lanes, each
//! a client of its own to the cluster, and a lane is full while the span from its oldest open
//! request to its next one would exceed the window.
//!
//! Invariants: a number is given once in its lane; open numbers of a lane lie within one window of
//! 128.

use aspen_api::{ClientId, RequestId, Revision};
use net_types::limits::DEDUP_WINDOW_REQUESTS;

#[derive(Debug)]
struct Lane {
    client: ClientId,
    /// The counter of bit 0 of `open`: all earlier ones are done.
    base: u64,
    /// Which of `base..base + 128` are open.
    open: u128,
    next: u64,
}

const _: () = assert!(DEDUP_WINDOW_REQUESTS == u128::BITS as u64);

impl Lane {
    fn new(client: ClientId) -> Self {
        Self { client, base: 1, open: 0, next: 1 }
    }

    fn open(&mut self, since: Revision) -> Option<RequestId> {
        let at = self.next - self.base;
        if at >= DEDUP_WINDOW_REQUESTS {
            return None;
        }
        self.open |= 1 << at;
        self.next += 1;
        Some(RequestId { client: self.client, counter: self.next - 1, since })
    }

    fn close(&mut self, counter: u64) {
        self.open &= !(1 << (counter - self.base));
        let done = u64::from(self.open.trailing_zeros()).min(self.next - self.base);
        self.base += done;
        self.open = if done < 128 { self.open >> done } else { 0 };
    }
}

/// The ids that a client has given.
#[derive(Debug, Default)]
pub(crate) struct RequestIds {
    lanes: Vec<Lane>,
}

impl RequestIds {
    /// An id for a new write; `since` is the newest revision seen. `draw` gives random client ids;
    /// it is called when every lane is full.
    pub(crate) fn open(&mut self, since: Revision, draw: impl FnOnce() -> ClientId) -> RequestId {
        // The lane used last stands first, so that one search step is the rule.
        for at in 0..self.lanes.len() {
            if let Some(id) = self.lanes[at].open(since) {
                self.lanes.swap(0, at);
                return id;
            }
        }
        let mut lane = Lane::new(draw());
        let id = lane.open(since).expect("a new lane has room");
        self.lanes.insert(0, lane);
        id
    }

    /// The write is answered or given up; no repetition of it will be sent.
    pub(crate) fn close(&mut self, id: RequestId) {
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.client == id.client) {
            lane.close(id.counter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SINCE: Revision = Revision(7);

    fn client(n: u8) -> impl Fn() -> ClientId {
        move || ClientId([n; 16])
    }

    fn unexpected() -> ClientId {
        panic!("no new lane is needed")
    }

    #[test]
    fn counters_go_up_in_one_lane_while_requests_finish() {
        let mut ids = RequestIds::default();
        for n in 1..1_000 {
            let id = ids.open(SINCE, client(1));
            assert_eq!((id.client, id.counter), (ClientId([1; 16]), n));
            ids.close(id);
        }
        assert_eq!(ids.lanes.len(), 1);
    }

    #[test]
    fn a_request_that_stays_open_is_never_128_behind() {
        let mut ids = RequestIds::default();
        let slow = ids.open(SINCE, client(1));
        for _ in 1..128 {
            let id = ids.open(SINCE, unexpected);
            ids.close(id);
        }
        let other = ids.open(SINCE, client(2));
        assert_eq!((other.client, other.counter), (ClientId([2; 16]), 1));
        ids.close(slow);
        ids.close(other);
        assert_eq!(ids.lanes.iter().map(|lane| lane.open).sum::<u128>(), 0);
        let again = ids.open(SINCE, unexpected);
        assert!(again.counter == 129 || again.counter == 2);
    }

    #[test]
    fn requests_may_finish_in_any_order() {
        let mut ids = RequestIds::default();
        let mut open: Vec<_> = (0..128).map(|_| ids.open(SINCE, client(1))).collect();
        open.reverse();
        for id in open.drain(..) {
            ids.close(id);
        }
        assert_eq!((ids.lanes[0].base, ids.lanes[0].next), (129, 129));
        assert_eq!(ids.open(SINCE, unexpected).counter, 129);
    }
}
