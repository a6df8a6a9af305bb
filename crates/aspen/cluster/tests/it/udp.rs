//! Three nodes on real sockets, threads and files.

use std::collections::BTreeMap;
use std::sync::Arc;

use aspen_api::MemberId;
use aspen_api::kv::Consistency;
use aspen_cluster::disk::FsDisk;
use aspen_cluster::{ClusterConfig, ClusterNode, ClusterServices, MeshTransport};
use net_node::{EntityKeypair, MeshConfig, MeshNode, MeshSecret, PeerAddr};

use crate::client::{get, keys, put};
use crate::mesh::until;

struct Running {
    node: ClusterNode,
    mesh: MeshNode,
    _services: ClusterServices,
    _dir: tempfile::TempDir,
}

async fn start(n: u64) -> Running {
    let identity = EntityKeypair::from_seed([n as u8; 32]);
    let bind = "127.0.0.1:0".parse().unwrap();
    let secret = MeshSecret::from_cookie("a cookie of tests");
    let mesh = MeshNode::bind(MeshConfig::new(identity, secret, bind)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(FsDisk::open(dir.path()).unwrap());
    let addr = PeerAddr::direct(mesh.entity_id(), mesh.local_addr());
    let config = ClusterConfig::new(MemberId(n), addr, disk);
    let transport = Arc::new(MeshTransport::new(mesh.clone()));
    let node = ClusterNode::start(config, transport).await.unwrap();
    let server = crate::client::server(&node);
    let services = ClusterServices::serve(&mesh, &node, &server).unwrap();
    Running { node, mesh, _services: services, _dir: dir }
}

#[tokio::test]
async fn three_nodes_form_and_one_is_replaced_over_udp() {
    let mut running = BTreeMap::new();
    for n in 1..=3 {
        running.insert(n, start(n).await);
    }
    let first = running[&1].node.clone();
    first.init().await.unwrap();
    for n in [2, 3] {
        let addr = running[&n].node.info().addr;
        first.add_learner(MemberId(n), addr).await.unwrap();
    }
    first.change_membership(&[MemberId(1), MemberId(2), MemberId(3)]).await.unwrap();
    let writes: Vec<_> = (0..200)
        .map(|n| {
            let node = first.clone();
            tokio::spawn(async move { put(&node, &format!("k{n:03}"), "v").await.unwrap() })
        })
        .collect();
    for write in writes {
        write.await.unwrap();
    }
    assert_eq!(get(&first, "k007").await.unwrap().as_deref(), Some("v"));

    // The leader goes without a word.
    let gone = running.remove(&1).unwrap();
    gone.mesh.shutdown().await;
    gone.node.shutdown().await;
    let leader = until(|| running.values().find(|r| r.node.is_leader()).map(|r| r.node.clone()));
    let leader = leader.await;
    put(&leader, "after", "v").await.unwrap();
    assert_eq!(keys(&leader, Consistency::Linearizable).await.len(), 201);
    for (_, running) in running {
        running.node.shutdown().await;
        running.mesh.shutdown().await;
    }
}
