//! Where the writer runs: on a thread of its own, or as a task of the caller's runtime.
//!
//! Invariant: one of the two is assigned at any time, and only the assigned one begins a batch.
//! An adaptive writer changes its executor by the measured time of its batches.

use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use tokio::sync::Notify;

/// Where the writer runs.
#[derive(Clone)]
pub enum WriterDrive {
    /// On a thread.
    Thread,
    /// As a task of the current tokio runtime while syncs are fast, which saves waking a thread and
    /// being woken by it; on a thread while they are slow, so that they hold up nothing else. The
    /// runtime waits for one slow sync before the thread takes over.
    Adaptive,
    /// As a task of the current tokio runtime that sleeps before each batch for the duration that
    /// the function returns, so that a simulated disk has a speed and can stall.
    Task(Arc<dyn Fn() -> Duration + Send + Sync>),
}

/// A batch slower than this moves the writer to the thread.
const SLOW_BATCH: Duration = Duration::from_millis(3);
/// Batches faster than this, [`FAST_BATCHES`] in a row, move the writer to the task.
const FAST_BATCH: Duration = Duration::from_micros(500);
const FAST_BATCHES: u32 = 64;

/// What may run the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Executor {
    /// The thread.
    Thread,
    /// The task.
    Task,
}

/// The executor that is assigned, and the measurements that may change it.
#[derive(Debug)]
pub(crate) struct Assignment {
    executor: Executor,
    is_adaptive: bool,
    fast_batches: u32,
}

impl Assignment {
    /// The first executor of a writer that runs as `drive` says.
    pub(crate) fn new(drive: &WriterDrive) -> Self {
        match drive {
            WriterDrive::Thread => Self::thread(),
            WriterDrive::Adaptive => {
                Self { executor: Executor::Task, is_adaptive: true, fast_batches: 0 }
            }
            WriterDrive::Task(_) => {
                Self { executor: Executor::Task, is_adaptive: false, fast_batches: 0 }
            }
        }
    }

    /// The thread, for good.
    pub(crate) fn thread() -> Self {
        Self { executor: Executor::Thread, is_adaptive: false, fast_batches: 0 }
    }

    /// The executor that is assigned.
    pub(crate) fn executor(&self) -> Executor {
        self.executor
    }

    /// Assigns the other executor.
    #[cfg(test)]
    pub(crate) fn swap(&mut self) {
        self.executor = match self.executor {
            Executor::Thread => Executor::Task,
            Executor::Task => Executor::Thread,
        };
    }

    /// Records how long a batch took.
    pub(crate) fn observe(&mut self, took: Duration) {
        if !self.is_adaptive {
            return;
        }
        self.fast_batches = if took < FAST_BATCH { self.fast_batches + 1 } else { 0 };
        match self.executor {
            Executor::Task if took > SLOW_BATCH => self.executor = Executor::Thread,
            Executor::Thread if self.fast_batches >= FAST_BATCHES => self.executor = Executor::Task,
            Executor::Task | Executor::Thread => {}
        }
    }
}

/// Wakes the writer.
#[derive(Default)]
pub(crate) struct Wake {
    thread: OnceLock<Thread>,
    notify: Notify,
}

impl Wake {
    /// Registers the current thread as the writer's.
    pub(crate) fn set_thread(&self) {
        let _ = self.thread.set(std::thread::current());
    }

    /// Wakes `executor`; a task that does not wait yet will not wait.
    pub(crate) fn wake(&self, executor: Executor) {
        match executor {
            Executor::Thread => {
                if let Some(thread) = self.thread.get() {
                    thread.unpark();
                }
            }
            Executor::Task => self.notify.notify_one(),
        }
    }

    /// Waits until the task is woken.
    pub(crate) async fn woken(&self) {
        self.notify.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_batch_moves_to_the_thread_and_many_fast_ones_move_back() {
        let mut adaptive = Assignment::new(&WriterDrive::Adaptive);
        assert_eq!(adaptive.executor(), Executor::Task);
        adaptive.observe(Duration::from_millis(1));
        assert_eq!(adaptive.executor(), Executor::Task);
        adaptive.observe(Duration::from_millis(20));
        assert_eq!(adaptive.executor(), Executor::Thread);
        (0..63).for_each(|_| adaptive.observe(Duration::from_micros(90)));
        assert_eq!(adaptive.executor(), Executor::Thread);
        adaptive.observe(Duration::from_micros(90));
        assert_eq!(adaptive.executor(), Executor::Task);
        let mut fixed = Assignment::new(&WriterDrive::Thread);
        (0..100).for_each(|_| fixed.observe(Duration::from_micros(90)));
        assert_eq!(fixed.executor(), Executor::Thread);
    }
}
