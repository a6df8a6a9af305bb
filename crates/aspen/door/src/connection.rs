//! One accepted connection: a stream of bytes that counts them and ends by itself.
//!
//! Invariants: a connection holds its slot until it is dropped; after it was cut, every read and write
//! is an error.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aspen_api::service::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

use crate::metrics::Meter;
use crate::stop::Stop;

/// A place among the connections of a door.
pub(crate) struct SlotPermit {
    meter: Meter,
    _permit: OwnedSemaphorePermit,
}

impl SlotPermit {
    /// Takes a slot if one is free. Either is counted.
    pub(crate) fn acquire(slots: &Arc<Semaphore>, meter: &Meter) -> Option<Self> {
        let Ok(permit) = slots.clone().try_acquire_owned() else {
            meter.refused.inc();
            return None;
        };
        meter.accepted.inc();
        meter.connections.inc();
        Some(Self { meter: meter.clone(), _permit: permit })
    }
}

impl Drop for SlotPermit {
    fn drop(&mut self) {
        self.meter.connections.dec();
    }
}

/// A stream of bytes, with or without TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Ends a connection on which no byte moves. It is armed again only when it fires, so that a byte
/// costs a look at the clock and no change of the timer.
struct IdleTimer {
    limit: Duration,
    last: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl IdleTimer {
    fn new(limit: Duration) -> Self {
        Self { limit, last: Instant::now(), sleep: Box::pin(sleep(limit)) }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let due = self.last + self.limit;
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(due);
        }
    }
}

/// A connection of a door. One task reads and writes it.
pub struct Connection {
    io: Box<dyn Stream>,
    peer: SocketAddr,
    slot: SlotPermit,
    idle: Option<IdleTimer>,
    closed: BoxFuture<'static, ()>,
    /// Why it was cut.
    cut: Option<io::ErrorKind>,
}

impl Connection {
    pub(crate) fn new(
        io: impl Stream + 'static,
        peer: SocketAddr,
        slot: SlotPermit,
        idle: Option<Duration>,
        mut stop: Stop,
    ) -> Self {
        Self {
            io: Box::new(io),
            peer,
            slot,
            idle: idle.map(IdleTimer::new),
            closed: Box::pin(async move { stop.closed().await }),
            cut: None,
        }
    }

    /// The address of the client.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Reads or writes, unless the connection is cut. A closed door cuts at once; an idle connection
    /// is cut only while it would wait.
    fn poll_io<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut dyn Stream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.cut.is_none() && self.closed.as_mut().poll(cx).is_ready() {
            self.cut = Some(io::ErrorKind::ConnectionAborted);
        }
        if let Some(kind) = self.cut {
            return Poll::Ready(Err(kind.into()));
        }
        let done = poll(Pin::new(&mut *self.io), cx);
        if done.is_pending() && self.idle.as_mut().is_some_and(|idle| idle.poll(cx).is_ready()) {
            self.cut = Some(io::ErrorKind::TimedOut);
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        done
    }

    fn moved(&mut self) {
        if let Some(idle) = &mut self.idle {
            idle.last = Instant::now();
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(self.poll_io(cx, |io, cx| io.poll_read(cx, buf)))?;
        self.slot.meter.received.inc_by((buf.filled().len() - before) as u64);
        self.moved();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.poll_io(cx, |io, cx| io.poll_write(cx, bytes)))?;
        self.slot.meter.sent.inc_by(written as u64);
        self.moved();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.poll_io(cx, |io, cx| io.poll_write_vectored(cx, bytes)))?;
        self.slot.meter.sent.inc_by(written as u64);
        self.moved();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_io(cx, |io, cx| io.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_io(cx, |io, cx| io.poll_shutdown(cx))
    }
}
