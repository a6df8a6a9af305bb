//! Calls between nodes that exchange datagrams by hand.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use net_crypto::{EntityKeypair, MeshSecret, Seeded};
use net_mesh_core::{Endpoint, EndpointConfig, Entry, Mesh, Protocols};
use net_types::PeerAddr;
use net_types::limits::{
    DEFAULT_CALL_DEADLINE, MAX_SESSION_QUEUE_BYTES, REFUSE_CALLS_ABOVE_REPLY_BYTES,
};

use super::*;

const NOW: Instant = Instant::ZERO;
const MIB: usize = 1 << 20;

struct Tell(mpsc::Sender<CallResult>);

impl Waiter for Tell {
    fn finish(self, result: CallResult) {
        self.0.send(result).unwrap();
    }
}

type TestRpc = Rpc<Tell, u8>;

/// A node whose only protocol is calls.
struct Node {
    mesh: Mesh,
    rpc: Entry<TestRpc>,
    addr: SocketAddr,
}

impl Node {
    fn new(i: u8) -> Self {
        let identity = EntityKeypair::from_seed([i; 32]);
        let config = EndpointConfig::new(identity, MeshSecret::from_cookie("mesh"));
        let endpoint = Endpoint::new(NOW, config, [i; 32]).unwrap();
        let mut protocols = Protocols::default();
        let rpc = TestRpc::new(endpoint.entity_id());
        let rpc = protocols.add([Subprotocol::RPC..=Subprotocol::RPC], rpc);
        let mesh = Mesh::new(endpoint, Seeded::from_u64(i.into()), protocols);
        Self { mesh, rpc, addr: SocketAddr::from(([10, 0, 0, i], 1)) }
    }

    fn id(&self) -> NodeId {
        self.mesh.endpoint().node_id()
    }

    fn rpc(&self) -> &TestRpc {
        self.mesh.get(self.rpc)
    }

    fn act<T>(&mut self, now: Instant, act: impl FnOnce(&mut TestRpc, &mut Cx<'_>) -> T) -> T {
        self.mesh.with(now, self.rpc, act)
    }

    fn dial(&mut self, other: &Self) {
        let at = PeerAddr::direct(other.mesh.endpoint().entity_id(), other.addr);
        self.mesh.endpoint_mut().dial(NOW, &at).unwrap();
    }

    fn session_with(&self, other: &Self) -> SessionId {
        self.mesh.endpoint().live_session(other.id()).unwrap()
    }

    /// Answers a call that arrived.
    fn answer(&mut self, to: ReplyTo, answer: &'static [u8]) {
        self.act(NOW, |rpc, cx| rpc.finish(cx, to, Ok(Bytes::from_static(answer))));
    }

    /// Queues a reply to a call that never came.
    fn reply(&mut self, to: ReplyTo, answer: &Bytes) {
        self.act(NOW, |rpc, cx| rpc.reply(cx, to, Ok(answer.clone())));
    }

    /// Calls the service "echo" of `peer`.
    fn call(&mut self, peer: NodeId) -> (CallId, mpsc::Receiver<CallResult>) {
        let (tell, result) = mpsc::channel();
        let (body, options) = (Bytes::from_static(b"ask"), CallOptions::default());
        let request = Outgoing::new(&echo(), &body, &options).unwrap();
        let call = self.act(NOW, |rpc, cx| rpc.call(cx, peer, &request, Tell(tell)));
        (call.unwrap().unwrap(), result)
    }

    fn arrived(&mut self) -> Vec<Arrived<u8>> {
        let mut arrived = Vec::new();
        self.act(NOW, |rpc, _| rpc.take_arrived(&mut arrived));
        arrived
    }

    fn handle(&mut self, now: Instant, from: SocketAddr, datagrams: &mut VecDeque<Vec<u8>>) {
        for mut datagram in datagrams.drain(..) {
            self.mesh.handle_datagram(now, from, &mut datagram);
        }
        self.mesh.handle_timeout(now);
    }

    /// What it sends to `to`; what it sends elsewhere is lost.
    fn datagrams(&mut self, now: Instant, to: SocketAddr) -> VecDeque<Vec<u8>> {
        let (mut all, mut buffer) = (VecDeque::new(), Vec::new());
        while let Some(sent) = self.mesh.poll_transmit(now, &mut buffer, 1) {
            if sent.to == to {
                all.push_back(buffer.split_off(buffer.len() - sent.len));
            }
            buffer.clear();
        }
        self.mesh.process(now);
        all
    }
}

fn echo() -> ServiceName {
    ServiceName::new("echo").unwrap()
}

/// Moves datagrams between two nodes until both are silent.
fn exchange(now: Instant, a: &mut Node, b: &mut Node) {
    loop {
        let mut to_b = a.datagrams(now, b.addr);
        let mut to_a = b.datagrams(now, a.addr);
        if to_a.is_empty() && to_b.is_empty() {
            return;
        }
        b.handle(now, a.addr, &mut to_b);
        a.handle(now, b.addr, &mut to_a);
    }
}

/// Node 0 and a session with each of the other nodes, which dialled it.
fn served_by<const N: usize>(mut others: [Node; N]) -> (Node, [Node; N]) {
    let mut server = Node::new(0);
    for other in &mut others {
        other.dial(&server);
        exchange(NOW, &mut server, other);
    }
    assert!(server.act(NOW, |rpc, _| rpc.serve(echo(), 7)));
    (server, others)
}

fn reply_to(session: SessionId, call: u64) -> ReplyTo {
    ReplyTo { session, call: CallId(call), class: Class::Foreground }
}

/// A session with the peer opens a stream for frames that no `Rpc` sends, and sends one.
fn send_frame(node: &mut Node, to: &Node, write: impl FnOnce(&mut Vec<u8>)) {
    let session = node.session_with(to);
    node.act(NOW, |_, cx| {
        cx.send_with(session, rpc_stream(Class::Foreground, true), 1_024, write).unwrap();
    });
}

#[test]
fn a_call_ends_with_the_reply_to_it() {
    let (mut server, [mut caller]) = served_by([Node::new(1)]);
    let (_, result) = caller.call(server.id());
    exchange(NOW, &mut server, &mut caller);
    let arrived = server.arrived();
    let [Arrived { to, peer, handler: 7, request, .. }] = &arrived[..] else {
        panic!("the request did not arrive")
    };
    assert_eq!((*peer, &request.body[..]), (caller.id(), &b"ask"[..]));
    assert_eq!(caller.rpc().open_calls(), 1);
    server.answer(*to, b"answer");
    exchange(NOW, &mut server, &mut caller);
    assert_eq!(&result.try_recv().unwrap().unwrap().body[..], b"answer");
    assert_eq!((caller.rpc().open_calls(), caller.rpc().counts().replies), (0, 1));
}

#[test]
fn a_node_calls_itself_without_a_packet() {
    let (mut node, []) = served_by([]);
    let (_, result) = node.call(node.id());
    let to = node.arrived()[0].to;
    node.answer(to, b"own");
    assert_eq!(&result.try_recv().unwrap().unwrap().body[..], b"own");
    let (mut buffer, calls) = (Vec::new(), MAX_WAITING_OWN_CALLS);
    assert!(node.mesh.poll_transmit(NOW, &mut buffer, 1).is_none());
    // What waits for the driver is bounded, also when it is refused.
    let waiting: Vec<_> = (0..calls).map(|_| node.call(node.id()).1).collect();
    let (tell, _result) = mpsc::channel();
    let (body, options) = (Bytes::new(), CallOptions::default());
    let request = Outgoing::new(&echo(), &body, &options).unwrap();
    let (own, refused) = (node.id(), RpcError::Backpressure);
    let more = node.act(NOW, |rpc, cx| rpc.call(cx, own, &request, Tell(tell)));
    assert_eq!(more.unwrap_err(), refused);
    node.mesh.close(NOW);
    assert!(waiting.iter().all(|r| r.try_recv() == Ok(Err(RpcError::Transport))));
    let (tell, _result) = mpsc::channel();
    let late = node.act(NOW, |rpc, cx| rpc.call(cx, own, &request, Tell(tell)));
    assert_eq!(late.unwrap_err(), RpcError::Cancelled);
}

#[test]
fn a_call_whose_deadline_passes_ends_on_both_sides() {
    let (mut server, [mut caller]) = served_by([Node::new(1)]);
    let (_, result) = caller.call(server.id());
    exchange(NOW, &mut server, &mut caller);
    let arrived = server.arrived().remove(0);
    assert!(server.act(NOW, |rpc, cx| rpc.begin(cx, arrived.to)));
    let stopped = mpsc::channel();
    server.act(NOW, |rpc, _| rpc.set_stop(arrived.to, move || stopped.0.send(()).unwrap()));
    let late = NOW + DEFAULT_CALL_DEADLINE + Duration::from_millis(100);
    assert!(caller.mesh.next_timeout().unwrap() < late);
    // Kept alive until then, or both would end the session.
    for second in 1..=late.as_nanos() / 1_000_000_000 {
        let now = NOW + Duration::from_secs(second);
        server.mesh.handle_timeout(now);
        caller.mesh.handle_timeout(now);
        exchange(now, &mut server, &mut caller);
    }
    assert_eq!(result.try_recv(), Err(mpsc::TryRecvError::Empty));
    caller.mesh.handle_timeout(late);
    assert_eq!(result.try_recv(), Ok(Err(RpcError::Timeout)));
    exchange(late, &mut server, &mut caller);
    assert_eq!((stopped.1.try_recv(), server.rpc().in_flight()), (Ok(()), 0));
}

#[test]
fn a_frame_that_its_call_does_not_take_ends_nothing() {
    let (mut server, [mut caller]) = served_by([Node::new(1)]);
    let (call, result) = caller.call(server.id());
    exchange(NOW, &mut server, &mut caller);
    let to = server.arrived()[0].to;
    // A chunk of the open call, and credit for one that is unknown.
    for (call_id, number, tail) in [(call, 0x16, &[0; 12][..]), (CallId(9), 0x19, &[0; 4])] {
        let meta = net_wire::EventMeta {
            dispatch: number,
            flags: 0,
            origin: OriginHash(0),
            seq_or_ts: call_id.0,
        };
        let session = server.session_with(&caller);
        let stream = rpc_stream(Class::Foreground, false);
        server.act(NOW, |_, cx| {
            let write = |out: &mut Vec<u8>| {
                meta.encode_with(out, |out| out.extend_from_slice(tail));
            };
            cx.send_with(session, stream, 64, write).unwrap();
        });
    }
    exchange(NOW, &mut server, &mut caller);
    assert_eq!((caller.rpc().counts().unexpected, caller.rpc().counts().malformed), (2, 0));
    assert!(result.try_recv().is_err());
    server.answer(to, b"whole");
    exchange(NOW, &mut server, &mut caller);
    assert_eq!(&result.try_recv().unwrap().unwrap().body[..], b"whole");
}

#[test]
fn a_request_that_announces_chunks_is_answered_with_an_error() {
    let (mut server, [mut caller]) = served_by([Node::new(1)]);
    let (call, result) = caller.call(server.id());
    exchange(NOW, &mut server, &mut caller);
    let to = server.arrived()[0].to;
    server.act(NOW, |rpc, _| assert!(rpc.services.finish(to.session, to.call)));
    // The same call, as REQUEST_INIT.
    send_frame(&mut caller, &server, |out| {
        let service = echo().hash();
        let codec = net_wire::rpc::Codec::Raw;
        let info = RequestInfo { service, budget_ms: 1, response_window: 0, codec };
        let mut whole = Vec::new();
        FrameWriter { origin: OriginHash(0), call_id: call }.request(&info, &[], b"", &mut whole);
        let meta = net_wire::EventMeta {
            dispatch: 0x10,
            flags: 0,
            origin: OriginHash(0),
            seq_or_ts: call.0,
        };
        meta.encode_with(out, |out| out.extend_from_slice(&whole[24..]));
    });
    exchange(NOW, &mut server, &mut caller);
    assert!(server.arrived().is_empty());
    assert_eq!(server.rpc().in_flight(), 0);
    let Ok(Err(RpcError::ServerError { status, kind, .. })) = result.try_recv() else {
        panic!("the caller waits")
    };
    assert_eq!((status, &kind[..]), (Status::NOT_FOUND, "call_shape"));
}

#[test]
fn a_cancel_that_comes_with_its_request_stops_the_call() {
    let (mut server, [mut caller]) = served_by([Node::new(1)]);
    let (call, _) = caller.call(server.id());
    assert!(caller.act(NOW, |rpc, cx| rpc.cancel(cx, call)));
    exchange(NOW, &mut server, &mut caller);
    let to = server.arrived()[0].to;
    assert_eq!(server.rpc().in_flight(), 0);
    assert!(!server.act(NOW, |rpc, cx| rpc.begin(cx, to)));
}

#[test]
fn an_answer_that_no_frame_takes_is_answered_with_an_error() {
    let (mut server, [mut caller]) = served_by([Node::new(1)]);
    let body = Bytes::from(vec![0; MAX_UNARY_BODY_BYTES + 1]);
    let failure = RpcFailure { body: body.clone(), ..RpcFailure::new(Status::INTERNAL, "", "") };
    for answer in [Ok(body), Err(failure)] {
        let (_, result) = caller.call(server.id());
        exchange(NOW, &mut server, &mut caller);
        let to = server.arrived()[0].to;
        server.act(NOW, |rpc, cx| rpc.finish(cx, to, answer));
        exchange(NOW, &mut server, &mut caller);
        let Ok(Err(RpcError::ServerError { kind, .. })) = result.try_recv() else {
            panic!("the caller waits")
        };
        assert_eq!(kind, "reply_too_large");
    }
}

#[test]
fn a_peer_that_takes_no_replies_holds_up_no_other_peer() {
    let (mut server, [lazy, mut eager]) = served_by([Node::new(1), Node::new(2)]);
    let (to_lazy, to_eager) = (server.session_with(&lazy), server.session_with(&eager));
    let body = Bytes::from(vec![0; MIB]);
    // Nothing of this ever reaches the first node.
    for call in 0..(MAX_SESSION_QUEUE_BYTES / MIB + 8) as u64 {
        server.reply(reply_to(to_lazy, call), &body);
    }
    assert!(server.rpc().waiting_reply_bytes() > 7 * MIB);
    let (_, result) = eager.call(server.id());
    exchange(NOW, &mut server, &mut eager);
    let to = server.arrived()[0].to;
    assert_eq!(to.session, to_eager);
    server.answer(to, b"yours");
    exchange(NOW, &mut server, &mut eager);
    assert_eq!(&result.try_recv().unwrap().unwrap().body[..], b"yours");
}

#[test]
fn a_peer_that_takes_no_replies_is_refused_more_and_gets_them_when_it_does() {
    let (mut server, [mut peer]) = served_by([Node::new(1)]);
    let session = server.session_with(&peer);
    let body = Bytes::from(vec![0; MIB]);
    let enough = (MAX_SESSION_QUEUE_BYTES + REFUSE_CALLS_ABOVE_REPLY_BYTES) / MIB + 1;
    for call in 0..enough as u64 {
        server.reply(reply_to(session, call), &body);
    }
    let (_, refused) = peer.call(server.id());
    let mut to_server = peer.datagrams(NOW, server.addr);
    server.handle(NOW, peer.addr, &mut to_server);
    assert!(server.arrived().is_empty(), "the call was not refused");
    exchange(NOW, &mut server, &mut peer);
    assert_eq!(server.rpc().waiting_reply_bytes(), 0);
    let Ok(Err(RpcError::ServerError { status, .. })) = refused.try_recv() else {
        panic!("the refusal did not arrive")
    };
    assert_eq!(status, Status::BACKPRESSURE);
    let _served = peer.call(server.id());
    exchange(NOW, &mut server, &mut peer);
    assert_eq!(server.arrived().len(), 1);
}

#[test]
fn a_late_reply_arrives_on_a_session_that_was_replaced() {
    let (mut server, [mut caller]) = served_by([Node::new(1)]);
    let old = server.session_with(&caller);
    let (_, result) = caller.call(server.id());
    exchange(NOW, &mut server, &mut caller);
    // A handler works on the call when the caller makes a new session.
    let arrived = server.arrived().remove(0);
    assert!(server.act(NOW, |rpc, cx| rpc.begin(cx, arrived.to)));
    caller.dial(&server);
    exchange(NOW, &mut server, &mut caller);
    assert_ne!(server.session_with(&caller), old);
    let late = Bytes::from_static(b"late");
    server.act(NOW, |rpc, cx| rpc.finish(cx, arrived.to, Ok(late.clone())));
    exchange(NOW, &mut server, &mut caller);
    assert_eq!(result.try_recv().unwrap().unwrap().body, late);
    // Now that nothing is waited for, the session ends once the reply is acknowledged.
    for ms in [30, 60, 90] {
        let now = NOW + Duration::from_millis(ms);
        server.mesh.handle_timeout(now);
        caller.mesh.handle_timeout(now);
        exchange(now, &mut server, &mut caller);
    }
    assert_eq!(server.mesh.endpoint().is_initiator(old), None);
}
