//! A protocol that the node is given at its start, over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use net_node::{
    CallOptions, ConnectError, Cx, EntityKeypair, Entry, HandlerFuture, MeshConfig, MeshNode,
    MeshSecret, Message, NodeId, PeerEvent, Protocol, Protocols, RpcContext, RpcError, ServiceName,
    StreamConfig, StreamError, StreamEvent, StreamRef, Subprotocol,
};
use tokio::sync::mpsc;

use crate::pair::{addr_of, pair};

const NOTES: Subprotocol = Subprotocol(0x8100);

/// A note that the protocol does not withstand.
const FAULT: &[u8] = b"fault";

/// Passes on what peers send.
struct Notes(mpsc::UnboundedSender<(NodeId, Bytes)>);

impl Notes {
    fn send(&self, cx: &mut Cx<'_>, peer: NodeId, note: &'static [u8]) {
        let config = StreamConfig { subprotocol: NOTES, ..StreamConfig::default() };
        let session = cx.live_session(peer).unwrap();
        let stream = cx.open_stream(session, config).unwrap();
        cx.send(session, stream, Bytes::from_static(note)).unwrap();
        cx.finish_stream(session, stream);
    }
}

impl Protocol for Notes {
    fn on_message(&mut self, cx: &mut Cx<'_>, stream: StreamRef, message: Message) {
        cx.consume(stream.session, stream.id, message.credit);
        assert_ne!(message.bytes, FAULT);
        self.0.send((stream.peer, message.bytes)).unwrap();
    }

    fn on_stream(&mut self, cx: &mut Cx<'_>, stream: StreamRef, event: StreamEvent) {
        if event == StreamEvent::Finished {
            cx.finish_stream(stream.session, stream.id);
        }
    }

    fn on_peer(&mut self, _cx: &mut Cx<'_>, _event: &PeerEvent) {}
}

type Arrived = mpsc::UnboundedReceiver<(NodeId, Bytes)>;

fn node(seed: u8) -> (MeshNode, Entry<Notes>, Arrived) {
    let (tell, arrived) = mpsc::unbounded_channel();
    let mut protocols = Protocols::default();
    let entry = protocols.add([NOTES..=NOTES], Notes(tell));
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let identity = EntityKeypair::from_seed([seed; 32]);
    let config = MeshConfig::new(identity, MeshSecret::from_cookie("mesh"), loopback);
    (MeshNode::bind(MeshConfig { protocols, ..config }).unwrap(), entry, arrived)
}

#[tokio::test]
async fn a_node_speaks_the_protocols_that_it_is_given() {
    let ((a, at_a, _), (b, _, mut arrived)) = (node(1), node(2));
    a.connect(&addr_of(&b)).await.unwrap();
    for note in [&b"first"[..], b"second"] {
        a.with_protocol(at_a, |notes, cx| notes.send(cx, b.node_id(), note));
        assert_eq!(arrived.recv().await.unwrap(), (a.node_id(), Bytes::from_static(note)));
    }
    // The number is the protocol's, and calls are still the node's.
    assert!(matches!(a.listen(NOTES), Err(StreamError::Reserved(NOTES))));
    let service = ServiceName::new("none").unwrap();
    let call = a.call(b.node_id(), &service, Bytes::new(), CallOptions::default());
    assert!(call.await.unwrap_err().to_string().starts_with("nrpc:server_error"));
}

#[tokio::test]
async fn a_driver_that_panics_fails_what_waits_for_the_node() {
    let ((a, at_a, _), (b, _, _)) = (node(1), node(2));
    a.connect(&addr_of(&b)).await.unwrap();
    let waits = |_: RpcContext, _: Bytes| HandlerFuture::later(std::future::pending());
    let name = ServiceName::new("waits").unwrap();
    let _served = b.serve(name.clone(), Arc::new(waits)).unwrap();
    let own = b.call(b.node_id(), &name, Bytes::new(), CallOptions::default());
    let (own, ()) = tokio::join!(own, async {
        a.with_protocol(at_a, |notes, cx| notes.send(cx, b.node_id(), FAULT));
    });
    assert_eq!(own, Err(RpcError::Transport));
    let again = b.call(b.node_id(), &name, Bytes::new(), CallOptions::default()).await;
    assert_eq!(again, Err(RpcError::Cancelled));
    let dialled = b.connect(&addr_of(&a)).await;
    assert_eq!(dialled, Err(ConnectError::Closed));
    b.shutdown().await;
}

#[tokio::test]
async fn an_application_takes_no_number_of_the_mesh() {
    let (a, b) = pair().await;
    for subprotocol in [Subprotocol::RPC, Subprotocol(0x0500)] {
        let config = StreamConfig { subprotocol, ..StreamConfig::default() };
        let opened = a.open_stream(b.node_id(), config).await;
        let Err(error) = opened else { panic!("{subprotocol:?} is the mesh's") };
        assert!(matches!(error, StreamError::Reserved(number) if number == subprotocol));
        assert!(a.listen(subprotocol).is_err());
    }
    assert!(a.listen(Subprotocol::EVENTS).is_ok() && a.listen(Subprotocol(u16::MAX)).is_ok());
}
