//! The runtime that consensus runs on: tokio, with three differences.
//!
//! Watch channels wake their waiters in a fixed order ([`watch`]). Sleeps shorter than tokio's timer
//! can tell apart end in the next turn instead of a millisecond later; consensus asks for one
//! microsecond to gather disk completions. And random numbers come from a seed once
//! [`seed_this_thread`] was called, so that a cluster on one thread with a paused clock behaves
//! the same on every run. Work that blocks goes where [`Blocking`] says.

pub(crate) mod watch;

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use openraft::{AsyncRuntime, Instant};
use openraft_rt_tokio::{TokioInstant, TokioMpsc, TokioMutex, TokioOneshot, TokioRuntime};
use rand::rngs::{SmallRng, SysRng};
use rand::{SeedableRng, TryRng};

use watch::OrderedWatch;

/// Below this, tokio's timer rounds up to a millisecond.
const SHORTEST_SLEEP: Duration = Duration::from_micros(100);

thread_local! {
    static SEEDED: RefCell<Option<SmallRng>> = const { RefCell::new(None) };
}

/// Makes all randomness of consensus on this thread follow from `seed`.
pub fn seed_this_thread(seed: u64) {
    SEEDED.with(|rng| *rng.borrow_mut() = Some(SmallRng::seed_from_u64(seed)));
}

/// Where work that blocks on the medium runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// On tokio's pool of blocking threads.
    Pool,
    /// In the calling task, for simulations on one thread.
    Inline,
}

impl Blocking {
    /// Runs `work`, which may block.
    pub(crate) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        match self {
            Self::Inline => Ok(work()),
            Self::Pool => tokio::task::spawn_blocking(work).await.map_err(io::Error::other),
        }
    }
}

/// tokio as openraft's runtime.
pub(crate) struct ClusterRuntime(TokioRuntime);

impl fmt::Debug for ClusterRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterRuntime")
    }
}

/// A sleep; see [`ClusterRuntime`].
pub(crate) enum Sleep {
    /// Ends when it is polled a second time.
    Turn(bool),
    /// A timer.
    Timer(Pin<Box<tokio::time::Sleep>>),
}

impl Sleep {
    fn of(duration: Duration) -> Self {
        match duration < SHORTEST_SLEEP {
            true => Self::Turn(false),
            false => Self::Timer(Box::pin(tokio::time::sleep(duration))),
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self {
            Self::Timer(timer) => timer.as_mut().poll(cx),
            Self::Turn(true) => Poll::Ready(()),
            Self::Turn(seen) => {
                *seen = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

fn remaining(deadline: TokioInstant) -> Duration {
    deadline.saturating_duration_since(TokioInstant::now())
}

/// Random numbers: the system's, or the thread's seeded ones.
pub(crate) struct ClusterRng;

impl TryRng for ClusterRng {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        self.try_next_u64().map(|n| n as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        SEEDED.with(|seeded| match &mut *seeded.borrow_mut() {
            Some(rng) => rng.try_fill_bytes(bytes),
            None => {
                // The system's source does not fail once the process has started; if it did,
                // election timeouts would lose their spread and nothing else.
                SysRng.try_fill_bytes(bytes).unwrap_or(());
                Ok(())
            }
        })
    }
}

impl AsyncRuntime for ClusterRuntime {
    type JoinError = tokio::task::JoinError;
    type JoinHandle<T: Send + 'static> = tokio::task::JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = TokioInstant;
    type TimeoutError = tokio::time::error::Elapsed;
    type Timeout<R, T: Future<Output = R> + Send> = tokio::time::Timeout<T>;
    type ThreadLocalRng = ClusterRng;
    type Mpsc = TokioMpsc;
    type Watch = OrderedWatch;
    type Oneshot = TokioOneshot;
    type Mutex<T: Send + 'static> = TokioMutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        tokio::spawn(future)
    }

    fn sleep(duration: Duration) -> Sleep {
        Sleep::of(duration)
    }

    fn sleep_until(deadline: TokioInstant) -> Sleep {
        Sleep::of(remaining(deadline))
    }

    fn timeout<R, F: Future<Output = R> + Send>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        tokio::time::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + Send>(
        deadline: TokioInstant,
        future: F,
    ) -> Self::Timeout<R, F> {
        tokio::time::timeout(remaining(deadline), future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        join_error.is_panic()
    }

    fn thread_rng() -> ClusterRng {
        ClusterRng
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fulfils_the_runtime_contract() {
        openraft_rt::testing::Suite::<ClusterRuntime>::test_all();
    }

    #[test]
    fn a_seed_fixes_the_numbers() {
        let draw = |seed| {
            seed_this_thread(seed);
            [ClusterRng.try_next_u64(), ClusterRng.try_next_u64()]
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[tokio::test(start_paused = true)]
    async fn the_shortest_sleep_takes_no_time() {
        let start = tokio::time::Instant::now();
        ClusterRuntime::sleep(Duration::from_micros(1)).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        ClusterRuntime::sleep(Duration::from_millis(3)).await;
        assert!(start.elapsed() >= Duration::from_millis(3));
    }
}
