//! The mesh as the transport of calls: each call reaches the service that it names.

use std::sync::Arc;
use std::time::Duration;

use aspen_api::service;
use aspen_cluster::{MeshTransport, Transport, TransportError};
use bytes::Bytes;
use net_node::{
    EntityKeypair, HandlerFuture, MeshConfig, MeshNode, MeshSecret, PeerAddr, RpcContext,
    RpcHandler, ServeHandle, ServiceName,
};
use net_wire::Class;

fn node(seed: u8) -> MeshNode {
    let identity = EntityKeypair::from_seed([seed; 32]);
    let secret = MeshSecret::from_cookie("a cookie of tests");
    let bind = "127.0.0.1:0".parse().unwrap();
    MeshNode::bind(MeshConfig::new(identity, secret, bind)).unwrap()
}

/// A service that answers each call with its own name.
fn serve(mesh: &MeshNode, name: &'static str) -> ServeHandle {
    let handler = move |_: RpcContext, _: Bytes| HandlerFuture::ready(Ok(Bytes::from(name)));
    let handler: Arc<dyn RpcHandler> = Arc::new(handler);
    mesh.serve(ServiceName::new(name).unwrap(), handler).unwrap()
}

#[tokio::test]
async fn a_call_reaches_the_service_that_it_names_and_no_other() {
    let (caller, peer) = (node(1), node(2));
    let names = [service::RAFT, service::CLIENT, "gossip"];
    let _served = names.map(|name| serve(&peer, name));
    let addr = PeerAddr::direct(peer.entity_id(), peer.local_addr());
    let transport = MeshTransport::new(caller.clone());
    transport.add_peer(&addr);
    let call = |name| {
        transport.call(&addr, name, Class::Foreground, Bytes::new(), Duration::from_secs(30))
    };
    for name in names {
        assert_eq!(call(name).await, Ok(Bytes::from(name)));
    }
    for unknown in ["nothing", ""] {
        let answer = call(unknown).await;
        assert!(matches!(answer, Err(TransportError::Failed(_))), "{unknown:?}: {answer:?}");
    }
    caller.shutdown().await;
    peer.shutdown().await;
}
