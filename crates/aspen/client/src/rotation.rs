//! Where to ask next: the decisions of one request's retries, without I/O or a clock.
//!
//! | Answer | Next |
//! |---|---|
//! | `NOT_LEADER` | the named leader at once, else the next peer; after a full round a wait of 200 ms |
//! | `SERVICE_UNAVAILABLE`, and `TIMEOUT` to a write | the next peer at once; after a full round a wait of 200 ms |
//! | `NOT_INITIALIZED`, `PLUGIN_LOADING` | the same peer after 100 ms, doubling to 10 s |
//! | no answer | the next peer at once; the silent one no sooner than 500 ms later and, after five attempts, only when all others are silent too |
//! | another peer leads | that peer at once |
//!
//! A silent peer is not asked five times in a row, as that would spend seconds on a dead leader
//! while the others have long elected a new one; the limits on asking it again are kept. Everything
//! ends at the deadline.
//!
//! Invariants: the peer that is asked is one of the known ones; no step begins after the deadline.

use core::time::Duration;

use net_types::Instant;

/// Wait after every peer has refused once.
const ROUND_WAIT: Duration = Duration::from_millis(200);
/// Wait before a peer that gave no answer is asked again.
const SILENT_WAIT: Duration = Duration::from_millis(500);
/// Attempts at a silent peer while others may answer.
const MAX_SILENT_ATTEMPTS: u32 = 5;
/// First wait for a peer that is not ready.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest wait for a peer that is not ready.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// What asking a peer came to, if it was no final answer. Peers are named by their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It does not lead; perhaps it knows who does.
    NotLeader {
        /// The leader it names.
        hint: Option<usize>,
    },
    /// It cannot serve now.
    Unavailable,
    /// It will be able to serve.
    NotReady,
    /// No answer came.
    Silent,
    /// While it was silent, another peer was found to lead.
    Superseded {
        /// That peer.
        by: usize,
    },
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask a peer after a wait.
    Ask {
        /// The peer.
        peer: usize,
        /// The wait.
        wait: Duration,
    },
    /// The deadline leaves no room for another attempt.
    GiveUp,
}

#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    silent_attempts: u32,
    not_before: Option<Instant>,
}

/// The retries of one request.
#[derive(Clone, Debug)]
pub struct Rotation {
    peers: Vec<Peer>,
    current: usize,
    refusals_in_round: usize,
    backoff: Duration,
    deadline: Instant,
}

impl Rotation {
    /// A request that asks peer `first` of `peers` first.
    ///
    /// `peers` is at least 1 and `first` below it.
    pub fn start(peers: usize, first: usize, deadline: Instant) -> Self {
        assert!(first < peers, "the first peer is one of them");
        Self {
            peers: vec![Peer::default(); peers],
            current: first,
            refusals_in_round: 0,
            backoff: BACKOFF_MIN,
            deadline,
        }
    }

    /// The peer to ask now.
    pub fn current(&self) -> usize {
        self.current
    }

    /// Takes note of a failure of the current peer at `now` and of how many peers there are now,
    /// which only grows, and says what to do.
    pub fn after(&mut self, now: Instant, failure: Failure, peers: usize) -> Step {
        self.peers.resize(peers.max(self.peers.len()), Peer::default());
        let (peer, wait) = match failure {
            Failure::NotLeader { hint } => self.refused(now, hint),
            Failure::Unavailable => self.refused(now, None),
            Failure::NotReady => {
                let wait = self.backoff;
                self.backoff = (wait * 2).min(BACKOFF_MAX);
                (self.current, wait)
            }
            Failure::Silent => {
                let silent = &mut self.peers[self.current];
                silent.silent_attempts += 1;
                silent.not_before = Some(now + SILENT_WAIT);
                self.next(now)
            }
            Failure::Superseded { by } => (by, Duration::ZERO),
        };
        if peer != self.current {
            self.backoff = BACKOFF_MIN;
        }
        self.current = peer;
        match now + wait < self.deadline {
            true => Step::Ask { peer, wait },
            false => Step::GiveUp,
        }
    }

    fn refused(&mut self, now: Instant, hint: Option<usize>) -> (usize, Duration) {
        self.peers[self.current] = Peer::default();
        self.refusals_in_round += 1;
        let hint = hint.filter(|hint| *hint != self.current && *hint < self.peers.len());
        let (peer, wait) = match hint {
            Some(leader) => (leader, self.wait_for(now, leader)),
            None => self.next(now),
        };
        // While the others are silent, the one peer that answers is a round of its own.
        if self.refusals_in_round < self.peers.len() && peer != self.current {
            return (peer, wait);
        }
        self.refusals_in_round = 0;
        (peer, wait.max(ROUND_WAIT))
    }

    /// The next peer in order that may be asked now, or else the one that may be soonest.
    fn next(&mut self, now: Instant) -> (usize, Duration) {
        if self.peers.iter().all(|peer| peer.silent_attempts >= MAX_SILENT_ATTEMPTS) {
            self.peers.iter_mut().for_each(|peer| peer.silent_attempts = 0);
        }
        let count = self.peers.len();
        (1..=count)
            .map(|step| (self.current + step) % count)
            .filter(|peer| self.peers[*peer].silent_attempts < MAX_SILENT_ATTEMPTS)
            .map(|peer| (peer, self.wait_for(now, peer)))
            .min_by_key(|(_, wait)| *wait)
            .unwrap_or((self.current, SILENT_WAIT))
    }

    fn wait_for(&self, now: Instant, peer: usize) -> Duration {
        self.peers[peer].not_before.map_or(Duration::ZERO, |at| at.since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A request whose clock moves by the waits it is told.
    struct Run {
        rotation: Rotation,
        now: Instant,
        peers: usize,
    }

    impl Run {
        fn start(peers: usize, first: usize) -> Self {
            let now = Instant::from_nanos(7);
            let rotation = Rotation::start(peers, first, now + Duration::from_secs(30));
            Self { rotation, now, peers }
        }

        /// The next peer and the wait before it in milliseconds; `None` at the end.
        fn fails(&mut self, failure: Failure) -> Option<(usize, u64)> {
            match self.rotation.after(self.now, failure, self.peers) {
                Step::Ask { peer, wait } => {
                    assert_eq!(peer, self.rotation.current());
                    self.now += wait;
                    Some((peer, wait.as_millis() as u64))
                }
                Step::GiveUp => None,
            }
        }
    }

    const NO_HINT: Failure = Failure::NotLeader { hint: None };

    #[test]
    fn not_leader_goes_round_and_waits_once_a_round() {
        let mut run = Run::start(3, 1);
        let asked: Vec<_> = (0..7).map(|_| run.fails(NO_HINT).unwrap()).collect();
        assert_eq!(asked, [(2, 0), (0, 0), (1, 200), (2, 0), (0, 0), (1, 200), (2, 0)]);
    }

    #[test]
    fn a_hint_comes_first_but_two_peers_cannot_make_a_busy_loop() {
        let mut run = Run::start(3, 0);
        let hint = |peer| Failure::NotLeader { hint: Some(peer) };
        assert_eq!(run.fails(hint(2)), Some((2, 0)));
        assert_eq!(run.fails(hint(0)), Some((0, 0)));
        assert_eq!(run.fails(hint(2)), Some((2, 200)));
        assert_eq!(run.fails(hint(2)), Some((0, 0)), "a peer that names itself gives no hint");
    }

    #[test]
    fn a_hint_may_name_a_peer_that_was_just_learnt() {
        let mut run = Run::start(1, 0);
        run.peers = 2;
        assert_eq!(run.fails(Failure::NotLeader { hint: Some(1) }), Some((1, 0)));
    }

    #[test]
    fn a_single_peer_that_does_not_lead_is_asked_every_200_ms_until_the_deadline() {
        let mut run = Run::start(1, 0);
        let mut asked = 0;
        while let Some(step) = run.fails(NO_HINT) {
            assert_eq!(step, (0, 200));
            asked += 1;
        }
        assert_eq!(asked, 149, "30 s in steps of 200 ms, none at the deadline itself");
    }

    #[test]
    fn unavailable_goes_to_the_next_peer_at_once() {
        let mut run = Run::start(2, 0);
        assert_eq!(run.fails(Failure::Unavailable), Some((1, 0)));
        assert_eq!(run.fails(Failure::Unavailable), Some((0, 200)));
    }

    #[test]
    fn not_ready_stays_and_backs_off_to_ten_seconds() {
        let mut run = Run::start(3, 1);
        let mut waits = Vec::new();
        while let Some((peer, wait)) = run.fails(Failure::NotReady) {
            assert_eq!(peer, 1);
            waits.push(wait);
        }
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000]);
    }

    #[test]
    fn backoff_starts_anew_at_another_peer() {
        let mut run = Run::start(2, 0);
        run.fails(Failure::NotReady);
        assert_eq!(run.fails(Failure::NotReady), Some((0, 200)));
        assert_eq!(run.fails(NO_HINT), Some((1, 0)));
        assert_eq!(run.fails(Failure::NotReady), Some((1, 100)));
    }

    #[test]
    fn a_silent_peer_is_left_at_once_and_asked_again_after_500_ms() {
        let mut run = Run::start(2, 0);
        assert_eq!(run.fails(Failure::Silent), Some((1, 0)));
        let asked: Vec<_> = (0..4).map(|_| run.fails(NO_HINT).unwrap()).collect();
        assert_eq!(asked, [(1, 200), (1, 200), (1, 200), (0, 0)]);
        assert_eq!(run.fails(Failure::Silent), Some((1, 0)));
    }

    #[test]
    fn a_peer_that_was_silent_five_times_is_left_alone_while_others_answer() {
        let mut run = Run::start(2, 0);
        let mut asked_again = 0;
        let mut peer = 0;
        for _ in 0..100 {
            let failure = if peer == 0 { Failure::Silent } else { NO_HINT };
            peer = run.fails(failure).unwrap().0;
            asked_again += u32::from(peer == 0);
        }
        assert_eq!(asked_again, 4);
    }

    #[test]
    fn when_all_are_silent_each_is_asked_every_500_ms_until_the_deadline() {
        let mut run = Run::start(2, 0);
        let mut asked = vec![(0, 0)];
        while let Some(step) = run.fails(Failure::Silent) {
            asked.push(step);
        }
        assert_eq!(asked[..5], [(0, 0), (1, 0), (0, 500), (1, 0), (0, 500)]);
        assert_eq!(asked.len(), 120);
    }

    #[test]
    fn another_leader_is_asked_at_once() {
        let mut run = Run::start(3, 0);
        assert_eq!(run.fails(Failure::Superseded { by: 2 }), Some((2, 0)));
        run.now += ms(29_999);
        assert_eq!(run.fails(Failure::Superseded { by: 1 }), Some((1, 0)));
        run.now += ms(1);
        assert_eq!(run.fails(Failure::Superseded { by: 2 }), None);
    }
}
