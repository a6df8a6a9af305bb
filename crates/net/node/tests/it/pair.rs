//! Two connected nodes on loopback.

use std::net::SocketAddr;

use net_node::{EntityKeypair, MeshConfig, MeshNode, MeshSecret, PeerAddr};

/// A node with the identity of `seed` and the secret of `cookie`.
pub(crate) fn node(seed: u8, cookie: &str) -> MeshNode {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let identity = EntityKeypair::from_seed([seed; 32]);
    MeshNode::bind(MeshConfig::new(identity, MeshSecret::from_cookie(cookie), loopback)).unwrap()
}

pub(crate) fn addr_of(node: &MeshNode) -> PeerAddr {
    PeerAddr::direct(node.entity_id(), node.local_addr())
}

/// Two nodes of one mesh, the first connected to the second.
pub(crate) async fn pair() -> (MeshNode, MeshNode) {
    let (a, b) = (node(1, "mesh"), node(2, "mesh"));
    a.connect(&addr_of(&b)).await.unwrap();
    (a, b)
}

/// What a node measures, as a scraper reads it.
pub(crate) fn metrics(node: &MeshNode) -> String {
    prometheus::TextEncoder::new().encode_to_string(&node.collector().collect()).unwrap()
}
