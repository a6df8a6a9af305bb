//! How much one node does for its clients: beyond it they are refused, and counted.

use std::net::UdpSocket;

use aspen_api::cluster::{AddLearner, ClusterStateResult, GetHealth};
use aspen_api::kv::{Transact, TransactResult, WriteOperation};
use aspen_api::{
    ErrorCode, Key, KeyValueStore, MemberId, RequestFrame, RequestId, Response, service,
};
use aspen_client::Client;
use net_node::{
    CallOptions, EntityKeypair, MeshConfig, MeshNode, MeshSecret, PeerAddr, ServiceName,
};
use net_types::limits::{DEFAULT_MAX_CLIENTS, MAX_REQUESTS_PER_CLIENT};
use tempfile::TempDir;

use crate::cli::Cli;
use crate::process::{Node, client, ticket};

/// A counter as the node tells it.
fn counter(cli: &Cli, name: &str) -> u64 {
    let metrics = cli.run(&["cluster", "prometheus"]);
    let line = metrics.text().lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim().parse().unwrap()
}

fn write(number: usize) -> Transact {
    let key = Key::new(format!("k{number}")).unwrap();
    Transact::always([WriteOperation::set(key, "v")])
}

// The clients go on while a program is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_that_asks_too_much_at_once_is_refused_and_ours_does_not() {
    const WRITES: usize = 156;
    let folder = TempDir::new().unwrap();
    let node = Node::start(folder.path(), &[]).unwrap();
    let cli = Cli::of(&node);
    let ticket = ticket(node.folder());

    // Without the client library, everything at once over one session.
    let secret = MeshSecret::new(ticket.mesh_key.0);
    let bind = "127.0.0.1:0".parse().unwrap();
    let greedy = MeshConfig::new(EntityKeypair::from_seed([8; 32]), secret, bind);
    let greedy = MeshNode::bind(greedy).unwrap();
    let peer = greedy.connect(&ticket.peers()[0]).await.unwrap();
    let name = ServiceName::new(service::CLIENT).unwrap();
    let call = |body| {
        let (greedy, name) = (greedy.clone(), name.clone());
        tokio::spawn(async move {
            greedy.call(peer, &name, body, CallOptions::default()).await.unwrap().body
        })
    };
    // Each occupies the node for as long as it waits for a learner that does not answer.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = PeerAddr::direct(
        EntityKeypair::from_seed([9; 32]).entity_id(),
        silent.local_addr().unwrap(),
    );
    let slow = AddLearner { node_id: MemberId(9), addr };
    let waiting: Vec<_> = (0..MAX_REQUESTS_PER_CLIENT)
        .map(|_| call(RequestFrame::of(&slow, RequestId::NONE, None)))
        .collect();
    let write = |number| {
        let reply = call(RequestFrame::of(&write(number), RequestId::NONE, None));
        async { Response::<TransactResult>::decode(reply.await.unwrap()).unwrap().result }
    };
    // Until they have all arrived.
    let mut kept = 0;
    while write(0).await.is_ok() {
        kept = 1;
    }
    let writes: Vec<_> = (1..WRITES).map(write).collect();
    for write in writes {
        let error = write.await.unwrap_err();
        assert_eq!(error.code, ErrorCode::ServiceUnavailable);
        assert!(error.message.contains("100 requests of this client"), "{error}");
    }
    for add in waiting {
        let reply = Response::<ClusterStateResult>::decode(add.await.unwrap()).unwrap();
        let error = reply.result.unwrap_err();
        assert!(error.message.contains("does not answer"), "{error}");
    }
    assert_eq!(counter(&cli, "aspen_client_requests_refused_total "), WRITES as u64);
    let found = cli.json(&["kv", "scan"]).json()["count"].as_u64();
    assert_eq!(found, Some(kept), "what was refused did not happen");

    let ours = client(node.folder());
    let writes: Vec<_> = (0..2 * WRITES)
        .map(|number| {
            let ours = ours.clone();
            let key = Key::new(format!("ours{number}")).unwrap();
            tokio::spawn(async move { ours.set(key, "v").await })
        })
        .collect();
    for write in writes {
        write.await.unwrap().unwrap();
    }
    assert_eq!(counter(&cli, "aspen_client_requests_refused_total "), WRITES as u64);
}

/// One request, once; whether it was answered.
async fn is_served(client: &Client, node: &Node) -> bool {
    let peer = ticket(node.folder()).peers()[0].clone();
    match client.send_to(&peer, GetHealth {}).await {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.code, ErrorCode::ServiceUnavailable, "{error}");
            assert!(error.message.contains("clients already"), "{error}");
            false
        }
    }
}

#[tokio::test]
async fn a_node_serves_two_hundred_clients_and_another_when_one_leaves() {
    let folder = TempDir::new().unwrap();
    let node = Node::start(folder.path(), &[]).unwrap();
    let mut clients = Vec::new();
    for _ in 0..DEFAULT_MAX_CLIENTS {
        let client = client(node.folder());
        assert!(is_served(&client, &node).await);
        clients.push(client);
    }
    let late = client(node.folder());
    assert!(!is_served(&late, &node).await);
    assert!(is_served(&clients[0], &node).await, "who has a place keeps it");
    clients.pop().unwrap().shutdown().await;
    while !is_served(&late, &node).await {
        tokio::task::yield_now().await;
    }
    assert!(counter_over(&late, &node).await >= 1);
}

/// Refusals for want of a place, asked by a client that has one.
async fn counter_over(client: &Client, node: &Node) -> u64 {
    let peer = ticket(node.folder()).peers()[0].clone();
    let text = client.send_to(&peer, aspen_api::cluster::GetMetrics {}).await.unwrap().text;
    let line = text.lines().find_map(|line| line.strip_prefix("aspen_clients_refused_total "));
    line.unwrap().parse().unwrap()
}

// The clients go on while a program is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_number_of_clients_is_a_setting() {
    let folder = TempDir::new().unwrap();
    let node = Node::start(folder.path(), &["--max-clients", "1"]).unwrap();
    let (first, second) = (client(node.folder()), client(node.folder()));
    assert!(is_served(&first, &node).await);
    assert!(!is_served(&second, &node).await);
    let cli = Cli::of(&node).json(&["--timeout", "500", "kv", "get", "k"]);
    assert_eq!(cli.refusal(), (6, "SERVICE_UNAVAILABLE".into()));
    assert!(cli.stderr.contains("serves 1 clients already"), "{}", cli.stderr);
}
