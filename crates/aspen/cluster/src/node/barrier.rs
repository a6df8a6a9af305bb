//! One confirmation of leadership for all reads that wait for it.
//!
//! A linearizable read must see everything that was committed when it came, so it needs a
//! confirmation that began after it came. All reads that come while one confirmation is under way
//! share the next. Invariant: at most one round runs, and one more waits for its end.

use std::future::Future;
use std::sync::{Arc, Mutex};

use aspen_api::ApiError;
use net_types::lock;
use openraft::async_runtime::watch::{Watch, WatchReceiver, WatchSender};

use crate::condition::stopped;
use crate::runtime::watch::{OrderedWatch, Sender};

type Outcome = Option<Result<(), ApiError>>;

#[derive(Default)]
struct State {
    /// The round that has not begun, if a read waits for it.
    next: Option<Sender<Outcome>>,
    is_running: bool,
    /// Rounds begun.
    rounds: u64,
}

/// Gathers reads into rounds.
#[derive(Clone, Default)]
pub(super) struct Barrier(Arc<Mutex<State>>);

impl Barrier {
    /// Waits for a round that begins after this call. `confirm` is what a round does; it runs in a
    /// task of its own, so that a read that is given up does not end it for the others.
    pub(super) async fn wait<F, R>(&self, confirm: F) -> Result<(), ApiError>
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), ApiError>> + Send + 'static,
    {
        let (mut round, should_start) = {
            let mut state = lock(&self.0);
            let next = state.next.get_or_insert_with(|| OrderedWatch::channel(None).0);
            let round = next.subscribe();
            (round, !std::mem::replace(&mut state.is_running, true))
        };
        if should_start {
            tokio::spawn(self.clone().run(confirm));
        }
        round.wait_until(Option::is_some).await.map_err(|_| stopped())?.unwrap_or(Ok(()))
    }

    /// Rounds begun so far.
    pub(super) fn rounds(&self) -> u64 {
        lock(&self.0).rounds
    }

    async fn run<F, R>(self, confirm: F)
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), ApiError>> + Send + 'static,
    {
        loop {
            let round = {
                let mut state = lock(&self.0);
                let round = state.next.take();
                state.is_running = round.is_some();
                state.rounds += u64::from(state.is_running);
                round
            };
            let Some(round) = round else { return };
            let outcome = confirm().await;
            // All reads that waited for it may have been given up.
            let _ = round.send(Some(outcome));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use aspen_api::ErrorCode;

    use super::*;

    #[tokio::test]
    async fn reads_of_one_turn_share_a_round_and_late_ones_get_their_own() {
        let barrier = Barrier::default();
        let rounds = Arc::new(AtomicU32::new(0));
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let read = || {
            let (barrier, rounds, gate) = (barrier.clone(), rounds.clone(), gate.clone());
            tokio::spawn(async move {
                let confirm = move || {
                    rounds.fetch_add(1, Ordering::SeqCst);
                    let gate = gate.clone();
                    async move {
                        gate.acquire().await.unwrap().forget();
                        Ok(())
                    }
                };
                barrier.wait(confirm).await
            })
        };
        let first: Vec<_> = (0..3).map(|_| read()).collect();
        while rounds.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let late: Vec<_> = (0..3).map(|_| read()).collect();
        tokio::task::yield_now().await;
        gate.add_permits(1);
        for read in first {
            read.await.unwrap().unwrap();
        }
        assert!(late.iter().all(|read| !read.is_finished()), "they came after the round began");
        gate.add_permits(1);
        for read in late {
            read.await.unwrap().unwrap();
        }
        assert_eq!((rounds.load(Ordering::SeqCst), barrier.rounds()), (2, 2));
    }

    #[tokio::test]
    async fn all_reads_of_a_round_hear_of_its_failure() {
        let barrier = Barrier::default();
        let fail = || async { Err(ApiError::not_leader(None)) };
        let (a, b) = tokio::join!(barrier.wait(fail), barrier.wait(fail));
        assert_eq!(a.unwrap_err().code, ErrorCode::NotLeader);
        assert_eq!(b.unwrap_err().code, ErrorCode::NotLeader);
    }
}
