//! The driver: the one task that moves datagrams and time.
//!
//! Invariants: it takes the lock for a bounded piece of work and never waits under it; what a turn
//! leaves undone wakes it for the next one; its end, however it comes, is the node's.

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use net_mesh_core::Transmit;
use net_types::Instant;
use tokio::time::Sleep;

use crate::handlers::Handlers;
use crate::shared::Shared;
use crate::socket::ReceiveBuffers;

/// Receive batches handled before other tasks get their turn.
const BATCHES_PER_TURN: usize = 8;
/// Bytes collected for sending before the socket is called: few enough to be still in the
/// processor's cache when the kernel copies them.
const SEND_BATCH_BYTES: usize = 128 << 10;

pub(crate) struct Driver {
    shared: Arc<Shared>,
    buffers: ReceiveBuffers,
    sleep: Pin<Box<Sleep>>,
    out: Vec<u8>,
    transmits: Vec<(Transmit, usize)>,
    /// The time that this turn works with: read before each receive call, after handlers and between
    /// batches that are sent.
    now: Instant,
    /// When the mesh is to be told of the time next, as the last turn left it. What a turn sets
    /// earlier is seen at its end.
    due: Option<Instant>,
    /// Index of the first batch in `transmits` that is not sent.
    unsent: usize,
    handlers: Handlers,
    /// Pauses receiving after errors.
    backoff: ReceiveBackoff,
}

/// The pauses between attempts while receiving fails: a millisecond, doubled each time up to a
/// second, so that an error that persists does not keep a core busy.
#[derive(Default)]
struct ReceiveBackoff {
    errors: u32,
    until: Option<Instant>,
}

impl ReceiveBackoff {
    fn begin(&mut self, now: Instant) {
        self.until = Some(now + Duration::from_millis(1 << self.errors.min(10)));
        self.errors = self.errors.saturating_add(1);
    }

    /// Receiving works.
    fn end(&mut self) {
        *self = Self::default();
    }

    /// Whether it is too early to try again.
    fn is_waiting(&mut self, now: Instant) -> bool {
        self.until.take_if(|at| *at <= now);
        self.until.is_some()
    }

    fn until(&self) -> Option<Instant> {
        self.until
    }
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            buffers: ReceiveBuffers::new(),
            sleep: Box::pin(tokio::time::sleep(Duration::ZERO)),
            out: Vec::with_capacity(SEND_BATCH_BYTES),
            transmits: Vec::new(),
            now: Instant::ZERO,
            due: Some(Instant::ZERO),
            unsent: 0,
            handlers: Handlers::default(),
            backoff: ReceiveBackoff::default(),
        }
    }

    /// Receives and handles what is there; true when more may be.
    fn receive(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        self.now = self.shared.now();
        if self.backoff.is_waiting(self.now) {
            return Ok(false);
        }
        for _ in 0..BATCHES_PER_TURN {
            let now = self.now;
            let mut core = self.shared.lock();
            let received = self.shared.socket.poll_receive(cx, &mut self.buffers, |from, bytes| {
                core.mesh.handle_datagram(now, from, bytes);
            });
            if core.mesh.process(now) {
                self.handlers.take(&mut core, now);
            }
            drop(core);
            match received {
                Poll::Pending => {
                    self.backoff.end();
                    return Ok(false);
                }
                Poll::Ready(Ok(true)) => {
                    self.backoff.end();
                    self.run_handlers();
                    self.now = self.shared.now();
                }
                Poll::Ready(Ok(false)) => {
                    self.backoff.end();
                    self.run_handlers();
                    // Asks for the next readiness without another receive call.
                    return Ok(self.shared.socket.poll_readable(cx)?.is_ready());
                }
                Poll::Ready(Err(e)) if is_fatal(&e) => return Err(e),
                Poll::Ready(Err(error)) => {
                    self.backoff.begin(now);
                    tracing::warn!(target: "net::node", %error, "receiving failed; trying again");
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn run_handlers(&mut self) {
        if !self.handlers.is_idle() {
            self.handlers.run();
            self.now = self.shared.now();
        }
    }

    /// Writes answers, lets time pass and collects what must be sent; true when more is to be
    /// collected once this is sent.
    fn collect(&mut self) -> bool {
        let now = self.now;
        let mut core = self.shared.lock();
        self.handlers.settle(&self.shared, &mut core, now);
        if self.due.is_some_and(|at| at <= now) {
            core.mesh.handle_timeout(now);
        } else {
            core.mesh.process(now);
        }
        // A node's calls to itself arrive without a datagram.
        if core.take_called_itself() {
            self.handlers.take(&mut core, now);
        }
        // What the socket refused goes first.
        let mut has_more = self.has_unsent();
        if !has_more {
            self.out.clear();
            self.transmits.clear();
            self.unsent = 0;
            let max_segments = self.shared.socket.max_segments();
            while self.out.len() < SEND_BATCH_BYTES {
                let start = self.out.len();
                let Some(sent) = core.mesh.poll_transmit(now, &mut self.out, max_segments) else {
                    break;
                };
                self.transmits.push((sent, start));
            }
            has_more = core.mesh.process(now) || self.out.len() >= SEND_BATCH_BYTES;
        }
        drop(core);
        self.handlers.drop_refused();
        has_more
    }

    fn has_unsent(&self) -> bool {
        self.unsent < self.transmits.len()
    }

    /// Sends what was collected; `Pending` when the socket is full.
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((transmit, start)) = self.transmits.get(self.unsent) {
            let contents = &self.out[*start..*start + transmit.len];
            match self.shared.socket.poll_send(cx, transmit, contents) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(e)) if is_fatal(&e) => return Poll::Ready(Err(e)),
                // Too large for the path, unreachable, out of buffers: as good as lost on the way.
                Poll::Ready(_) => self.unsent += 1,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Registers for the next timeout; true when it has come already.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        self.due = self.shared.lock().mesh.next_timeout();
        let Some(next) = self.due.into_iter().chain(self.backoff.until()).min() else {
            return false;
        };
        let at = self.shared.to_tokio(next);
        // An alarm that is early only costs a look; moving it later on every packet costs more.
        if self.sleep.deadline() > at || self.sleep.is_elapsed() {
            self.sleep.as_mut().reset(at);
        }
        self.sleep.as_mut().poll(cx).is_ready()
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        // Registered before looking, so that nothing that comes meanwhile is missed.
        self.shared.lock().begin_turn(cx.waker());
        let mut is_work_left = self.receive(cx)?;
        loop {
            let has_more = self.collect();
            let sent = self.send(cx);
            if let Poll::Ready(Err(e)) = sent {
                return Err(e);
            }
            if !self.handlers.is_idle() {
                self.run_handlers();
                continue;
            }
            if sent.is_pending() || !has_more {
                break;
            }
            self.now = self.shared.now();
        }
        if self.shared.lock().is_closed && !self.has_unsent() {
            return Ok(Poll::Ready(()));
        }
        is_work_left |= self.poll_timer(cx);
        if is_work_left {
            cx.waker().wake_by_ref();
        }
        Ok(Poll::Pending)
    }
}

impl Drop for Driver {
    /// Nothing moves without the driver: what waits for the node fails, also after a panic.
    fn drop(&mut self) {
        let mut core = self.shared.lock();
        if !core.is_closed {
            let now = self.shared.now();
            // A panic that left the mesh unusable is not to become an abort.
            let _ = catch_unwind(AssertUnwindSafe(|| core.close(now)));
        }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.turn(cx) {
            Ok(poll) => poll,
            Err(error) => {
                tracing::error!(target: "net::node", %error, "the socket failed; the node stops");
                Poll::Ready(())
            }
        }
    }
}

/// Errors after which the socket never works again: it is no longer an open socket. EPERM is none of
/// them: it is what a packet filter answers for one datagram.
fn is_fatal(error: &io::Error) -> bool {
    const EBADF: i32 = 9;
    const ENOTSOCK: i32 = 88;
    matches!(error.raw_os_error(), Some(EBADF | ENOTSOCK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_while_receiving_fails_and_end_when_it_works() {
        let (mut backoff, mut now) = (ReceiveBackoff::default(), Instant::ZERO);
        assert!(!backoff.is_waiting(now));
        let mut pauses = Vec::new();
        for _ in 0..15 {
            backoff.begin(now);
            assert!(backoff.is_waiting(now));
            let until = backoff.until().unwrap();
            assert!(!backoff.is_waiting(until));
            assert_eq!(backoff.until(), None, "nothing to wait for any more");
            pauses.push(until.since(now).as_millis());
            now = until;
        }
        assert_eq!(pauses[..4], [1, 2, 4, 8]);
        assert_eq!(pauses.last(), Some(&1_024));
        backoff.end();
        backoff.begin(now);
        assert_eq!(backoff.until(), Some(now + Duration::from_millis(1)));
    }
}
