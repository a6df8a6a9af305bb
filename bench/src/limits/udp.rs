//! Bare UDP: what a round trip and a batch cost without a protocol.

use std::io::{BufRead, BufReader, IoSliceMut};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::measure::Latencies;

const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const BODY_BYTES: usize = 32;

async fn echo(socket: UdpSocket) {
    let mut buffer = [0u8; 2_048];
    loop {
        let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
        socket.send_to(&buffer[..len], from).await.unwrap();
    }
}

async fn ask(to: SocketAddr, time: Duration) -> Latencies {
    let socket = UdpSocket::bind(LOOPBACK).await.unwrap();
    let mut buffer = [0u8; 2_048];
    let mut latencies = Latencies::default();
    let end = Instant::now() + time;
    while Instant::now() < end {
        let start = Instant::now();
        socket.send_to(&[7; BODY_BYTES], to).await.unwrap();
        let (len, _) = socket.recv_from(&mut buffer).await.unwrap();
        assert_eq!(buffer[..len], [7; BODY_BYTES]);
        latencies.record(start);
    }
    latencies
}

/// Round trips of 32 bytes, both ends on the present runtime.
pub(crate) async fn ping_pong(time: Duration) -> Latencies {
    let server = UdpSocket::bind(LOOPBACK).await.unwrap();
    let to = server.local_addr().unwrap();
    let server = tokio::spawn(echo(server));
    let latencies = ask(to, time).await;
    server.abort();
    latencies
}

/// Round trips of 32 bytes with the echo in another process.
pub(crate) async fn ping_pong_two_processes(time: Duration) -> Latencies {
    let (mut peer, line) = start_peer("udp-echo");
    let latencies = ask(line.parse().unwrap(), time).await;
    peer.kill().unwrap();
    peer.wait().unwrap();
    latencies
}

/// Starts this program as the other end and returns the line it prints when it is ready.
pub(crate) fn start_peer(role: &str) -> (Child, String) {
    let mut peer = Command::new(std::env::current_exe().unwrap())
        .args(["peer", role])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(peer.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (peer, line.trim().to_owned())
}

/// The other end of a two-process measurement.
pub(crate) fn run_peer(role: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        match role {
            "udp-echo" => {
                let socket = UdpSocket::bind(LOOPBACK).await.unwrap();
                println!("{}", socket.local_addr().unwrap());
                echo(socket).await;
            }
            "rpc-echo" => crate::rpc::serve_echo_forever().await,
            other => panic!("no such role: {other}"),
        }
    });
}

/// A socket with the same batching as a node's.
struct Batched {
    io: UdpSocket,
    state: UdpSocketState,
    buffer: Vec<u8>,
}

impl Batched {
    async fn bind() -> Self {
        let io = UdpSocket::bind(LOOPBACK).await.unwrap();
        let state = UdpSocketState::new(UdpSockRef::from(&io)).unwrap();
        Self { io, state, buffer: vec![0; BATCH_SIZE * 65_536] }
    }

    /// Datagrams of one receive call, concatenated, and where they came from.
    async fn receive(&mut self) -> (Vec<u8>, SocketAddr) {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let (io, state, buffer) = (&self.io, &self.state, &mut self.buffer);
        let count = loop {
            io.readable().await.unwrap();
            let mut chunks = buffer.chunks_exact_mut(65_536);
            let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
                std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap()));
            let receive = || state.recv(UdpSockRef::from(io), &mut slices, &mut metas);
            if let Ok(count) = io.try_io(Interest::READABLE, receive) {
                break count;
            }
        };
        let mut out = Vec::with_capacity(8_192);
        for (i, meta) in metas[..count].iter().enumerate() {
            out.extend_from_slice(&self.buffer[i * 65_536..i * 65_536 + meta.len]);
        }
        (out, metas[0].addr)
    }

    async fn send(&self, to: SocketAddr, datagrams: &[u8]) {
        for chunk in datagrams.chunks(BODY_BYTES * self.state.max_gso_segments()) {
            let transmit = Transmit {
                destination: to,
                ecn: None,
                contents: chunk,
                segment_size: Some(BODY_BYTES),
                src_ip: None,
            };
            let send = || self.state.try_send(UdpSockRef::from(&self.io), &transmit);
            while self.io.try_io(Interest::WRITABLE, send).is_err() {
                self.io.writable().await.unwrap();
            }
        }
    }
}

/// Echoed 32-byte datagrams per second with `in_flight` under way, both ends on the present
/// runtime, segmentation offload both ways.
pub(crate) async fn batched_echo(in_flight: usize, time: Duration) -> f64 {
    let mut server = Batched::bind().await;
    let to = server.io.local_addr().unwrap();
    let server = tokio::spawn(async move {
        loop {
            let (datagrams, from) = server.receive().await;
            server.send(from, &datagrams).await;
        }
    });
    let mut client = Batched::bind().await;
    let start = Instant::now();
    let mut done = 0u64;
    client.send(to, &vec![7; BODY_BYTES * in_flight]).await;
    while start.elapsed() < time {
        let (datagrams, _) = client.receive().await;
        done += (datagrams.len() / BODY_BYTES) as u64;
        client.send(to, &datagrams).await;
    }
    server.abort();
    done as f64 / start.elapsed().as_secs_f64()
}
