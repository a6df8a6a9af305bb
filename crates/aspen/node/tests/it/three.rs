//! Three voting nodes, each asked on its own: every node shows the same store, a node that does not
//! lead says so, and a lost majority acknowledges nothing until it is back.

use aspen_api::kv::{Transact, TransactResult, WriteOperation};
use aspen_api::{ErrorCode, Key, RequestFrame, RequestId, Response, service};
use net_node::{CallOptions, EntityKeypair, MeshConfig, MeshNode, MeshSecret, ServiceName};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::Cli;
use crate::cluster::{TIMING, join, only, start};
use crate::process::{Node, ticket, until};

/// Nodes 1 (which leads), 2 and 3, all voters, whose tickets name each other.
fn formed(folder: &TempDir) -> [Node; 3] {
    let first = start(folder, "1", &["--node-id", "1"]);
    let cli = Cli::of(&first);
    let (second, two) = join(folder, "2", &cli, &first);
    let (third, three) = join(folder, "3", &cli, &first);
    let (two, three) = (two.to_string(), three.to_string());
    let voters = cli.run(&["cluster", "change-membership", "1", &two, &three]);
    assert_eq!(voters.code, 0, "{}", voters.stderr);
    let nodes = [first, second, third];
    until("the tickets with all members", || {
        nodes.iter().all(|node| ticket(node.folder()).peers().len() == 3).then_some(())
    });
    nodes
}

/// What a node itself holds, keys, values and revisions.
fn held(node: &Node) -> Value {
    let own = Cli::with(&only(node));
    let page = own.json(&["kv", "scan", "app/", "--consistency", "stale", "--limit", "1000"]);
    page.json()["entries"].clone()
}

#[test]
fn every_node_shows_the_same_store() {
    let folder = TempDir::new().unwrap();
    let nodes = formed(&folder);
    let clients = nodes.each_ref().map(|node| Cli::with(&only(node)));
    // Through each node in turn, the leader and the followers.
    for n in 0..9 {
        let (key, value) = (format!("app/{n}"), format!("v{n}"));
        assert_eq!(clients[n % 3].run(&["kv", "set", &key, &value]).code, 0);
    }
    assert_eq!(clients[1].run(&["kv", "batch-write", "app/x=1", "app/y=2"]).code, 0);
    assert_eq!(clients[2].json(&["kv", "delete", "app/4"]).json()["was_deleted"], true);
    let swap = |cli: &Cli, new: &str| {
        cli.json(&["kv", "cas", "app/cas", "--new-value", new]).document()["is_success"].clone()
    };
    assert_eq!(
        clients.each_ref().map(|cli| swap(cli, "once")),
        [true, false, false].map(Value::from)
    );
    let expected = clients[0].json(&["kv", "scan", "app/"]).json()["entries"].clone();
    assert_eq!(expected.as_array().unwrap().len(), 11);
    for node in &nodes {
        until("the same entries at every node", || (held(node) == expected).then_some(()));
    }
}

#[test]
fn a_lost_majority_acknowledges_nothing_until_it_is_back() {
    let folder = TempDir::new().unwrap();
    let [first, second, third] = formed(&folder);
    let cli = Cli::of(&first);
    assert_eq!(cli.run(&["kv", "set", "app/before", "1"]).code, 0);
    let path = second.folder().to_owned();
    second.kill();
    third.kill();
    let alone = cli.json(&["--timeout", "1500", "kv", "set", "app/alone", "1"]);
    assert!(matches!(alone.refusal().0, 6 | 7), "{}", alone.stderr);
    assert_eq!(held(&first).as_array().unwrap().len(), 1);
    let second = Node::start(&path, &TIMING).unwrap();
    until("the majority's return", || {
        let ran = cli.run(&["--timeout", "5000", "kv", "set", "app/after", "1"]);
        (ran.code == 0).then_some(())
    });
    until("the returned node's catching up", || {
        let keys: Vec<_> =
            held(&second).as_array().unwrap().iter().map(|e| e["key"].clone()).collect();
        // The write that was not acknowledged may have been carried out.
        let is_there = |key: &str| keys.contains(&json!(key));
        (is_there("app/before") && is_there("app/after")).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_node_that_does_not_lead_says_so_and_who_does() {
    let folder = TempDir::new().unwrap();
    let [first, second, _third] = formed(&folder);
    let ticket = only(&second);
    let secret = MeshSecret::new(ticket.mesh_key.0);
    let bind = "127.0.0.1:0".parse().unwrap();
    let mesh = MeshNode::bind(MeshConfig::new(EntityKeypair::from_seed([8; 32]), secret, bind));
    let mesh = mesh.unwrap();
    let peer = mesh.connect(&ticket.peers()[0]).await.unwrap();
    let name = ServiceName::new(service::CLIENT).unwrap();
    let write = Transact::always([WriteOperation::set(Key::new("k").unwrap(), "v")]);
    let body = RequestFrame::of(&write, RequestId::NONE, None);
    let reply = mesh.call(peer, &name, body, CallOptions::default()).await.unwrap();
    let error = Response::<TransactResult>::decode(reply.body).unwrap().result.unwrap_err();
    assert_eq!(error.code, ErrorCode::NotLeader);
    let leader = error.leader_hint.unwrap();
    assert_eq!(leader.entity_id.to_string(), first.field("entity_id"));
    assert_eq!(leader.addrs[0].to_string(), first.field("udp"));
    mesh.shutdown().await;
}
