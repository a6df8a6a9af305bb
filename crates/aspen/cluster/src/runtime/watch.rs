//! A watch channel that wakes its waiters in the order in which they began to wait.
//!
//! tokio's own spreads its waiters over eight lists that it picks at random, without a seed, so
//! tasks woken by one change run in another order every time. Consensus tells its tasks of progress
//! through watch channels: on this one, equal runs on one thread stay equal. It also takes one lock
//! for a change where tokio's takes nine.
//!
//! The value and its version change under one lock. Versions only grow; a receiver has seen the
//! value of the version that it remembers.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use openraft::async_runtime::watch::{RecvError, SendError, Watch, WatchReceiver, WatchSender};
use tokio::sync::Notify;

/// See the module.
pub(crate) struct OrderedWatch;

struct Shared<T> {
    value: RwLock<T>,
    version: AtomicU64,
    senders: AtomicUsize,
    changed: Notify,
}

impl<T> Shared<T> {
    fn read(&self) -> RwLockReadGuard<'_, T> {
        // A task that panicked while it changed the value left one that is whole.
        self.value.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the value; whether `modify` said that it did.
    fn modify(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let mut value = self.value.write().unwrap_or_else(PoisonError::into_inner);
        let is_changed = modify(&mut value);
        if is_changed {
            self.version.fetch_add(1, Ordering::Release);
        }
        drop(value);
        if is_changed {
            self.changed.notify_waiters();
        }
        is_changed
    }
}

/// Sets the value. The channel is closed when the last clone is gone.
pub(crate) struct Sender<T>(Arc<Shared<T>>);

/// Waits for values that it has not seen.
pub(crate) struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

impl<T> Receiver<T> {
    /// A receiver that has seen the present value.
    fn of(shared: &Arc<Shared<T>>) -> Self {
        let seen = shared.version.load(Ordering::Acquire);
        Self { shared: shared.clone(), seen }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), seen: self.seen }
    }
}

impl Watch for OrderedWatch {
    type Sender<T: Send + Sync> = Sender<T>;
    type Receiver<T: Send + Sync> = Receiver<T>;
    type Ref<'a, T: Send + 'a> = RwLockReadGuard<'a, T>;

    fn channel<T: Send + Sync>(init: T) -> (Sender<T>, Receiver<T>) {
        let shared = Arc::new(Shared {
            value: RwLock::new(init),
            version: AtomicU64::new(0),
            senders: AtomicUsize::new(1),
            changed: Notify::new(),
        });
        let receiver = Receiver::of(&shared);
        (Sender(shared), receiver)
    }
}

impl<T: Send + Sync> WatchSender<OrderedWatch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        // The others that share the value are receivers.
        if Arc::strong_count(&self.0) <= self.0.senders.load(Ordering::Relaxed) {
            return Err(SendError(value));
        }
        // The old value is dropped outside of the lock.
        let mut new = value;
        self.0.modify(|current| {
            std::mem::swap(current, &mut new);
            true
        });
        Ok(())
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        self.0.modify(modify)
    }

    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.0.read()
    }

    fn subscribe(&self) -> Receiver<T> {
        Receiver::of(&self.0)
    }
}

impl<T: Send + Sync> WatchReceiver<OrderedWatch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        loop {
            // Asked for before the look, so that no change falls between the two.
            let changed = self.shared.changed.notified();
            let version = self.shared.version.load(Ordering::Acquire);
            if version != self.seen {
                self.seen = version;
                return Ok(());
            }
            if self.shared.senders.load(Ordering::Acquire) == 0 {
                return Err(RecvError(()));
            }
            changed.await;
        }
    }

    fn borrow_watched(&self) -> RwLockReadGuard<'_, T> {
        self.shared.read()
    }

    fn borrow_and_update(&mut self) -> RwLockReadGuard<'_, T> {
        let value = self.shared.read();
        self.seen = self.shared.version.load(Ordering::Acquire);
        value
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn waiters_are_woken_in_the_order_in_which_they_came() {
        let (sender, receiver) = OrderedWatch::channel(0);
        let woken = Arc::new(Mutex::new(Vec::new()));
        let waiting: Vec<_> = (0..32)
            .map(|number| {
                let (mut receiver, woken) = (receiver.clone(), woken.clone());
                tokio::spawn(async move {
                    receiver.changed().await.unwrap();
                    woken.lock().unwrap().push(number);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        sender.send(1).unwrap();
        for waiter in waiting {
            waiter.await.unwrap();
        }
        assert_eq!(*woken.lock().unwrap(), (0..32).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn the_last_value_is_seen_before_the_end() {
        let (sender, mut receiver) = OrderedWatch::channel(0);
        let other = sender.clone();
        sender.send(7).unwrap();
        drop(sender);
        assert_eq!(receiver.changed().await, Ok(()));
        assert_eq!(*receiver.borrow_watched(), 7);
        let waiting = tokio::spawn(async move { receiver.changed().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(other);
        assert_eq!(waiting.await.unwrap(), Err(RecvError(())));
    }

    #[test]
    fn changes_from_other_threads_are_not_missed() {
        let (sender, mut receiver) = OrderedWatch::channel(0);
        let writer = std::thread::spawn(move || {
            for value in 1..=10_000 {
                sender.send(value).unwrap();
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let last = runtime.block_on(async {
            let mut last = 0;
            while receiver.changed().await.is_ok() {
                let value = *receiver.borrow_and_update();
                assert!(value >= last);
                last = value;
            }
            last
        });
        writer.join().unwrap();
        assert_eq!(last, 10_000);
    }
}
