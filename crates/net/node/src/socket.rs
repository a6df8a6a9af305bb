//! The UDP socket, batched both ways.
//!
//! Invariants: the socket never blocks: what cannot be done now registers the driver for the next
//! readiness; datagrams keep their boundaries, however many travel in one call; receiving allocates
//! nothing.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use net_mesh_core::Transmit;
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// One receive buffer takes a whole coalesced train of datagrams.
const BUFFER_BYTES: usize = 64 << 10;
/// Buffers offered to a receive call when the one before it used fewer: each costs its preparation.
const FEW_BUFFERS: usize = 4;

/// A bound, non-blocking socket with the kernel's batching switched on.
pub(crate) struct MeshSocket {
    io: UdpSocket,
    state: UdpSocketState,
    addr: SocketAddr,
}

impl MeshSocket {
    pub(crate) fn bind(addr: SocketAddr, buffer_bytes: usize) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        let io = UdpSocket::from_std(socket.into())?;
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        // The kernel grants what its limits allow; less only means earlier loss under bursts.
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&io), buffer_bytes);
        let _ = state.set_send_buffer_size(UdpSockRef::from(&io), buffer_bytes);
        let addr = io.local_addr()?;
        Ok(Self { io, state, addr })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Datagrams that one send call may carry.
    pub(crate) fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Receives one batch and hands each datagram to `each`. `Ready(Ok(true))` when more may wait.
    pub(crate) fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut ReceiveBuffers,
        mut each: impl FnMut(SocketAddr, &mut [u8]),
    ) -> Poll<io::Result<bool>> {
        ready!(self.io.poll_recv_ready(cx))?;
        let mut received = 0;
        let result = self.io.try_io(Interest::READABLE, || {
            let offered = buffers.offered;
            received = buffers.receive(&self.state, &self.io)?;
            // A batch with room left emptied the queue: saying so spares the call that would only
            // find it empty. A datagram that comes meanwhile raises the readiness again.
            if received < offered { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        for i in 0..received {
            buffers.each_datagram(i, &mut each);
        }
        match result {
            Ok(()) => Poll::Ready(Ok(true)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && received > 0 => {
                Poll::Ready(Ok(false))
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                // The readiness was stale: register for the next one.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Err(e) => Poll::Ready(Err(e)),
        }
    }

    /// Whether a datagram waits; registers for the next one if not.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        match self.io.poll_recv_ready(cx) {
            Poll::Ready(result) => result.map(Poll::Ready),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    /// Sends one batch. `Pending` when the socket is full.
    pub(crate) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        transmit: &Transmit,
        contents: &[u8],
    ) -> Poll<io::Result<()>> {
        let out = quinn_udp::Transmit {
            destination: transmit.to,
            ecn: None,
            contents,
            segment_size: (transmit.len > transmit.segment_bytes).then_some(transmit.segment_bytes),
            src_ip: None,
        };
        loop {
            ready!(self.io.poll_send_ready(cx))?;
            let send = || self.state.try_send(UdpSockRef::from(&self.io), &out);
            match self.io.try_io(Interest::WRITABLE, send) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }
}

/// Memory for one receive call; the kernel fills only what it needs, so the rest is never touched.
pub(crate) struct ReceiveBuffers {
    bytes: Vec<u8>,
    metas: [RecvMeta; BATCH_SIZE],
    /// Buffers that the next call may fill.
    offered: usize,
}

impl ReceiveBuffers {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; BUFFER_BYTES * BATCH_SIZE],
            metas: [RecvMeta::default(); BATCH_SIZE],
            offered: FEW_BUFFERS,
        }
    }

    fn receive(&mut self, state: &UdpSocketState, io: &UdpSocket) -> io::Result<usize> {
        let received = match self.offered {
            FEW_BUFFERS => self.receive_into::<FEW_BUFFERS>(state, io)?,
            _ => self.receive_into::<BATCH_SIZE>(state, io)?,
        };
        self.offered = if received < FEW_BUFFERS { FEW_BUFFERS } else { BATCH_SIZE };
        Ok(received)
    }

    fn receive_into<const N: usize>(
        &mut self,
        state: &UdpSocketState,
        io: &UdpSocket,
    ) -> io::Result<usize> {
        let mut chunks = self.bytes.chunks_exact_mut(BUFFER_BYTES);
        let mut slices: [IoSliceMut<'_>; N] =
            core::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        state.recv(UdpSockRef::from(io), &mut slices, &mut self.metas[..N])
    }

    fn each_datagram(&mut self, i: usize, each: &mut impl FnMut(SocketAddr, &mut [u8])) {
        let meta = &self.metas[i];
        let start = i * BUFFER_BYTES;
        let train = &mut self.bytes[start..start + meta.len];
        if meta.stride > 0 {
            train.chunks_mut(meta.stride).for_each(|datagram| each(meta.addr, datagram));
        }
    }
}
