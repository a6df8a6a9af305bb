//! `aspen-cli cluster` against real nodes: what a cluster says of itself, growth from one node to
//! three, and the death of a leader.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aspen_api::kv::Lifetime;
use aspen_api::{ClusterTicket, Key, KeyValueStore, MeshTicket};
use aspen_client::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::Cli;
use crate::process::{Node, client, ticket, ticket_path, until};

/// Short enough that a test does not wait, long enough for a busy machine.
pub(crate) const TIMING: [&str; 4] =
    ["--heartbeat-interval-ms", "100", "--election-timeout-min-ms", "600"];

pub(crate) fn start(folder: &TempDir, name: &str, flags: &[&str]) -> Node {
    Node::start(&folder.path().join(name), &[&TIMING[..], flags].concat()).unwrap()
}

/// Starts a node with another one's ticket and adds it with the command that it logs.
pub(crate) fn join(folder: &TempDir, name: &str, cli: &Cli, first: &Node) -> (Node, u64) {
    join_with(folder, name, cli, first, &[], &[])
}

/// The same with flags of the node and options of the command.
pub(crate) fn join_with(
    folder: &TempDir,
    name: &str,
    cli: &Cli,
    first: &Node,
    flags: &[&str],
    options: &[&str],
) -> (Node, u64) {
    let ticket = first.folder().join("cluster-ticket.txt");
    let mut node = start(folder, name, &[&["--ticket", ticket.to_str().unwrap()], flags].concat());
    let advice = node.next_line();
    let (_, command) = advice.split_once("aspen-cli ").expect("the log says how to add the node");
    let (words, addr) = command.split_once('\'').unwrap();
    let addr = addr.trim_end().strip_suffix('\'').unwrap();
    let words: Vec<_> = words.split_whitespace().chain([addr]).collect();
    let id = node.field("node_id").parse().unwrap();
    let added = cli.json(&[options, &words].concat()).json();
    assert_eq!(added["status"], "success");
    let mut nodes = added["nodes"].as_array().unwrap().iter();
    let mut learner = nodes.find(|n| n["node_id"] == id).unwrap().clone();
    // It is told with the learner's first answer, which may come later.
    learner.as_object_mut().unwrap().remove("top_level").unwrap();
    let entity = node.field("entity_id");
    let expected = json!({ "node_id": id, "endpoint_id": entity, "is_leader": false,
                           "is_voter": false, "is_learner": true, "addrs": [node.field("udp")] });
    assert_eq!(learner, expected);
    (node, id)
}

/// A ticket of one node alone.
pub(crate) fn only(node: &Node) -> ClusterTicket {
    let ticket = ticket(node.folder());
    let peers = vec![ticket.peers()[0].clone()];
    assert_eq!(peers[0].entity_id.to_string(), node.field("entity_id"));
    ClusterTicket { mesh: MeshTicket { label: String::new(), peers }, ..ticket }
}

fn keys(document: &Value) -> Vec<&str> {
    document.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn a_lone_node_says_how_it_is() {
    let folder = TempDir::new().unwrap();
    let node = start(&folder, "node", &["--node-id", "5"]);
    let cli = Cli::of(&node);
    let entity = node.field("entity_id");
    let status = cli.json(&["cluster", "status"]).json();
    let own = json!({ "node_id": 5, "endpoint_id": entity, "is_leader": true, "is_voter": true,
                      "is_learner": false, "addrs": [node.field("udp")], "top_level": 1 });
    assert_eq!(status, json!({ "nodes": [own], "feature_level": 1 }));
    let text = format!("5\tleader\t{entity}\t{}\n", node.field("udp"));
    assert_eq!(cli.run(&["cluster", "status"]).text(), text);

    let mut health = cli.json(&["cluster", "health"]).json();
    assert!(health["uptime_seconds"].is_u64() && health["mesh_node_id"].is_string());
    (health["uptime_seconds"], health["mesh_node_id"]) = (json!(0), json!(""));
    let expected = json!({
        "status": "healthy", "node_id": 5, "raft_node_id": 5, "mesh_node_id": "",
        "endpoint_id": entity, "uptime_seconds": 0, "is_initialized": true, "is_alive": true,
        "is_ready": true, "membership_node_count": 1, "reasons": [],
    });
    assert_eq!(health, expected);

    let metrics = cli.json(&["cluster", "metrics"]).json();
    let mut expected = [
        "node_id",
        "state",
        "leader",
        "term",
        "last_log_index",
        "last_applied_index",
        "snapshot_index",
        "purged_index",
        "replication",
    ];
    expected.sort_unstable();
    assert_eq!(keys(&metrics), expected);
    assert_eq!((&metrics["state"], &metrics["leader"]), (&json!("leader"), &json!(5)));
    assert!(cli.run(&["cluster", "metrics"]).text().contains("state\tleader\n"));

    let prometheus = cli.run(&["cluster", "prometheus"]);
    assert!(prometheus.text().contains("\naspen_raft_is_leader 1\n"), "{}", prometheus.text());
    let text = cli.run(&["cluster", "ticket"]);
    assert_eq!(text.text().trim(), ticket(node.folder()).to_text().expose());
    assert_eq!(cli.json(&["cluster", "ticket"]).json(), json!({ "ticket": text.text().trim() }));
    let snapshot = cli.json(&["cluster", "snapshot"]).json();
    assert_eq!(keys(&snapshot), ["snapshot_index", "status"]);

    // What cannot be done is said, and harms nothing.
    let twice = cli.json(&["cluster", "init"]);
    assert_eq!(twice.refusal(), (1, "CONFLICT".into()));
    assert!(twice.stderr.contains("belongs to a cluster already"), "{}", twice.stderr);
    for (args, refusal) in [
        (&["cluster", "promote", "9"][..], (3, "NOT_FOUND")),
        (&["cluster", "change-membership", "5", "9"], (3, "NOT_FOUND")),
        (&["cluster", "change-membership", "5", "5"], (2, "USAGE")),
        (&["cluster", "transfer-leader"], (1, "CONFLICT")),
        (&["cluster", "transfer-leader", "--to", "9"], (3, "NOT_FOUND")),
        (&["cluster", "add-learner", "--node-id", "9", "--addr", &entity], (2, "USAGE")),
    ] {
        assert_eq!(cli.json(args).refusal(), (refusal.0, refusal.1.to_owned()), "{args:?}");
    }
    assert_eq!(cli.json(&["cluster", "status"]).json(), status);
}

#[test]
fn a_node_that_was_told_to_join_waits_and_can_be_made_a_cluster() {
    let folder = TempDir::new().unwrap();
    let absent = format!("{}@127.0.0.1:1", "ab".repeat(32));
    let node = start(&folder, "node", &["--peers", &absent]);
    assert_eq!(node.field("initialized"), "false");
    let cli = Cli::of(&node);
    let early = cli.json(&["--timeout", "300", "kv", "get", "k"]);
    assert_eq!(early.refusal(), (6, "NOT_INITIALIZED".into()));
    assert!(early.stderr.contains("cluster init"), "{}", early.stderr);
    let health = cli.json(&["cluster", "health"]);
    assert_eq!((health.code, &health.document()["is_initialized"]), (1, &json!(false)));
    let (path, flags) = (node.folder().to_owned(), [&TIMING[..]].concat());
    node.stop();
    let node = Node::start(&path, &flags).unwrap();
    assert_eq!(node.field("initialized"), "false", "it still waits, also without the flag");
    let formed = cli.json(&["cluster", "init"]).json();
    assert_eq!(
        (&formed["status"], &formed["nodes"][0]["is_leader"]),
        (&json!("success"), &json!(true))
    );
    assert_eq!(cli.run(&["kv", "set", "k", "v"]).code, 0);
}

#[test]
fn a_ticket_that_was_exported_for_the_client_changes_no_node() {
    let folder = TempDir::new().unwrap();
    let first = start(&folder, "1", &[]);
    let exported = ticket_path(first.folder());
    let mut second = Node::start_with(&folder.path().join("2"), "ASPEN_TICKET", &exported, &[]);
    assert_eq!(second.field("initialized"), "true", "a cluster of its own");
    let advice = second.next_line();
    assert!(advice.contains("ASPEN_TICKET") && advice.contains("--ticket"), "{advice}");
    assert_ne!(ticket(first.folder()).mesh_key, ticket(second.folder()).mesh_key);
    // Nor does a later start take on the other cluster's secret.
    let (path, key) = (second.folder().to_owned(), ticket(second.folder()).mesh_key);
    second.stop();
    let second = Node::start_with(&path, "ASPEN_TICKET", &exported, &[]);
    assert_eq!(ticket(second.folder()).mesh_key, key);

    let mut third = Node::start_with(&folder.path().join("3"), "ASPEN_JOIN_TICKET", &exported, &[]);
    assert_eq!(third.field("initialized"), "false");
    assert!(third.next_line().contains("waiting to be added"));
    let undo = third.next_line();
    let (_, command) = undo.trim_end().split_once("aspen-cli --ticket '").unwrap();
    let (own, verb) = command.split_once("' ").unwrap();
    assert_eq!((own, verb), (ticket_path(third.folder()).to_str().unwrap(), "cluster init"));
    assert_eq!(Cli::of(&third).run(&verb.split(' ').collect::<Vec<_>>()).code, 0);
}

#[test]
fn one_node_grows_to_three_and_survives_its_leader() {
    let folder = TempDir::new().unwrap();
    let first = start(&folder, "1", &["--node-id", "1", "--cookie", "a shared secret"]);
    let cli = Cli::of(&first);
    assert_eq!(cli.run(&["kv", "set", "k", "before"]).code, 0);
    let (second, two) = join(&folder, "2", &cli, &first);
    let (third, three) = join(&folder, "3", &cli, &first);
    let promote = |id: u64| cli.json(&["cluster", "promote", &id.to_string()]);
    until("the promotion of a learner that has caught up", || {
        (promote(two).code == 0).then_some(())
    });
    let early = promote(three);
    assert_eq!(early.refusal(), (1, "CONFLICT".into()), "a second change so soon");
    let forced = cli.json(&["cluster", "promote", &three.to_string(), "--force"]).json();
    let roles: Vec<_> =
        forced["nodes"].as_array().unwrap().iter().map(|n| &n["is_voter"]).collect();
    assert_eq!(roles, [&json!(true); 3]);

    // A ticket names all members, the node that was asked first.
    until("the ticket of the second node with all members", || {
        (ticket(second.folder()).peers().len() == 3).then_some(())
    });
    let follower = Cli::with(&only(&second));
    assert_eq!(follower.run(&["kv", "set", "k", "by a follower"]).code, 0);
    assert_eq!(follower.run(&["kv", "get", "k"]).text(), "by a follower");
    let conflict = follower.run(&["kv", "cas", "k", "--new-value", "x"]);
    assert_eq!(conflict.code, 1);
    let followers = cli.json(&["cluster", "metrics"]).json();
    assert_eq!(followers["replication"].as_array().unwrap().len(), 2);

    // One member among them is asked by its number.
    let asked = |verb: &str, id: u64| cli.json(&["cluster", verb, "--node", &id.to_string()]);
    for id in [1, two, three] {
        assert_eq!(asked("health", id).json()["node_id"], id);
        assert_eq!(asked("metrics", id).json()["node_id"], id);
        assert!(asked("snapshot", id).json()["snapshot_index"].is_u64());
    }
    let stranger = asked("health", 9);
    assert_eq!(stranger.refusal(), (3, "NOT_FOUND".into()));

    let path = first.folder().to_owned();
    first.kill();
    // The ticket still names the dead leader first.
    assert_eq!(cli.run(&["kv", "set", "k", "after"]).code, 0);
    assert_eq!(follower.run(&["kv", "get", "k"]).text(), "after");
    let status = Cli::of(&third).json(&["cluster", "status"]).json();
    let nodes = status["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 3);
    let gone = asked("health", 1);
    assert_eq!(gone.refusal(), (6, "NOT_CONNECTED".into()));
    assert!(gone.stderr.contains("node 1 does not answer at 127.0.0.1:"), "{}", gone.stderr);
    assert!(nodes.iter().any(|n| n["is_leader"] == true && n["node_id"] != 1), "{status}");

    let first = Node::start(&path, &TIMING).unwrap();
    let own = Cli::with(&only(&first));
    until("the old leader's catching up", || {
        let stale = own.run(&["kv", "get", "k", "--consistency", "stale"]);
        (stale.text() == "after").then_some(())
    });

    // Without a majority nothing is acknowledged, and what is there can still be read.
    second.kill();
    third.kill();
    let write = own.json(&["--timeout", "2000", "kv", "set", "k", "alone"]);
    let (code, name) = write.refusal();
    assert!(matches!(
        (code, name.as_str()),
        (6, "NOT_LEADER" | "SERVICE_UNAVAILABLE") | (7, "TIMEOUT")
    ));
    let stale = own.run(&["kv", "get", "k", "--consistency", "stale"]);
    assert_eq!((stale.code, stale.text()), (0, "after"));
    let dead = own.json(&["cluster", "change-membership", "1", &two.to_string()]);
    assert_eq!(dead.refusal(), (1, "CONFLICT".into()));
    assert!(dead.stderr.contains(&format!("do not answer here: {two};")), "{}", dead.stderr);
}

#[test]
fn a_dead_member_is_expunged_and_its_folder_refused() {
    let folder = TempDir::new().unwrap();
    let first = start(&folder, "1", &["--node-id", "1"]);
    let cli = Cli::of(&first);
    let (second, two) = join(&folder, "2", &cli, &first);
    let (path, addr) = (
        second.folder().to_owned(),
        format!("{}@{}", second.field("entity_id"), second.field("udp")),
    );
    let number = two.to_string();
    let slip = cli.json(&["cluster", "expunge", &number]);
    assert_eq!(slip.refusal(), (1, "CONFLICT".into()), "it lives");
    assert!(slip.stderr.contains("--force"), "{}", slip.stderr);
    second.kill();
    until("the missing member in the leader's health", || {
        let health = cli.json(&["cluster", "health"]).json();
        let reason = format!("node {two} does not answer");
        (health["reasons"] == json!([reason])).then_some(())
    });
    let left = cli.json(&["cluster", "expunge", &number]).json();
    assert_eq!(left["nodes"].as_array().unwrap().len(), 1);
    assert_eq!(cli.json(&["cluster", "expunge", &number]).refusal(), (3, "NOT_FOUND".into()));
    assert_eq!(cli.json(&["cluster", "expunge", "1"]).refusal(), (1, "CONFLICT".into()));
    let _second = Node::start(&path, &TIMING).unwrap();
    let again = cli.json(&["cluster", "add-learner", "--node-id", &number, "--addr", &addr]);
    assert_eq!(again.refusal(), (1, "CONFLICT".into()));
    assert!(again.stderr.contains("expunged"), "{}", again.stderr);
    let (_third, three) = join(&folder, "3", &cli, &first);
    let forced = cli.json(&["cluster", "expunge", &three.to_string(), "--force"]).json();
    assert_eq!(forced["nodes"].as_array().unwrap().len(), 1);
}

#[test]
fn a_learner_is_taken_out_and_comes_back() {
    let folder = TempDir::new().unwrap();
    let first = start(&folder, "1", &["--node-id", "1"]);
    let cli = Cli::of(&first);
    let (second, two) = join(&folder, "2", &cli, &first);
    let number = two.to_string();
    let remove = |number: &str| cli.json(&["cluster", "remove-learner", number]);
    let left = remove(&number).json();
    assert_eq!((&left["status"], &left["nodes"][0]["node_id"]), (&json!("success"), &json!(1)));
    assert_eq!(left["nodes"].as_array().unwrap().len(), 1);
    assert_eq!(remove(&number).refusal(), (3, "NOT_FOUND".into()));
    let voter = remove("1");
    assert_eq!(voter.refusal(), (1, "CONFLICT".into()));
    assert!(voter.stderr.contains("node 1 votes"), "{}", voter.stderr);
    let addr = format!("{}@{}", second.field("entity_id"), second.field("udp"));
    let back = cli.json(&["cluster", "add-learner", "--node-id", &number, "--addr", &addr]).json();
    assert_eq!(back["nodes"].as_array().unwrap().len(), 2);
    assert_eq!(cli.run(&["cluster", "promote", &number, "--force"]).code, 0);
}

#[test]
fn voters_change_together_and_a_leader_that_leaves_steps_down() {
    let folder = TempDir::new().unwrap();
    let first = start(&folder, "1", &["--node-id", "1"]);
    let cli = Cli::of(&first);
    let (second, two) = join(&folder, "2", &cli, &first);
    let two = two.to_string();
    let voters = |document: &Value| -> Vec<Value> {
        let nodes = document["nodes"].as_array().unwrap().iter();
        nodes.filter(|n| n["is_voter"] == true).map(|n| n["node_id"].clone()).collect()
    };
    let id: u64 = two.parse().unwrap();
    let both = cli.json(&["cluster", "change-membership", "1", &two]).json();
    assert_eq!(voters(&both), [json!(1), json!(id)]);
    let moved = cli.json(&["cluster", "transfer-leader", "--to", &two]).json();
    assert_eq!(moved, json!({ "status": "success" }));
    let leader = |cli: &Cli| {
        let status = cli.json(&["cluster", "status"]).json();
        let nodes = status["nodes"].as_array().unwrap().clone();
        nodes.into_iter().find(|n| n["is_leader"] == true).map(|n| n["node_id"].clone())
    };
    until("the other leader", || (leader(&cli) == Some(json!(id))).then_some(()));
    let slip = cli.json(&["cluster", "change-membership", "1"]);
    assert_eq!(slip.refusal(), (1, "CONFLICT".into()));
    assert!(slip.stderr.contains("of 2 voters 1 would be left"), "{}", slip.stderr);
    assert!(slip.stderr.contains("--force"), "{}", slip.stderr);
    assert_eq!(voters(&cli.json(&["cluster", "status"]).json()), [json!(1), json!(id)]);
    // The leader removes itself.
    let left = cli.json(&["cluster", "change-membership", "1", "--force"]).json();
    assert_eq!(voters(&left), [json!(1)]);
    until("the first leader's return", || (leader(&cli) == Some(json!(1))).then_some(()));
    assert_eq!(cli.run(&["kv", "set", "k", "v"]).code, 0);
    drop(second);
}

#[test]
fn only_a_node_with_the_number_given_and_no_cluster_of_its_own_is_added() {
    let folder = TempDir::new().unwrap();
    let cookie = ["--cookie", "the same"];
    let first = start(&folder, "1", &[&cookie[..], &["--node-id", "1"]].concat());
    let second = start(&folder, "2", &[&cookie[..], &["--node-id", "2"]].concat());
    let cli = Cli::of(&first);
    let addr = format!("{}@{}", second.field("entity_id"), second.field("udp"));
    let add = |id: &str| cli.json(&["cluster", "add-learner", "--node-id", id, "--addr", &addr]);
    let misnamed = add("7");
    assert_eq!(misnamed.refusal(), (2, "INVALID_REQUEST".into()));
    assert!(misnamed.stderr.contains("is node 2, not 7"), "{}", misnamed.stderr);
    let foreign = add("2");
    assert_eq!(foreign.refusal(), (1, "CONFLICT".into()));
    assert!(foreign.stderr.contains("a cluster of its own"), "{}", foreign.stderr);
    let status = cli.json(&["cluster", "status"]).json();
    assert_eq!(status["nodes"].as_array().unwrap().len(), 1);
}

/// Writes one key after another until it is told to stop; how many were acknowledged.
async fn keep_writing(client: Client, should_stop: Arc<AtomicBool>) -> u64 {
    let mut count = 0;
    while !should_stop.load(Ordering::Relaxed) {
        let key = Key::new(format!("load/{count:06}")).unwrap();
        let create = client.compare_and_swap(key, None, "v", Lifetime::Forever {});
        let written = create.await.expect("no client notices a restart");
        assert!(written.is_success, "a repeated write is applied once");
        count += 1;
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_rolling_restart_under_load_loses_nothing_and_no_client_notices() {
    let folder = TempDir::new().unwrap();
    let first = start(&folder, "1", &["--node-id", "1"]);
    let cli = Cli::of(&first);
    let (second, two) = join(&folder, "2", &cli, &first);
    let (third, three) = join(&folder, "3", &cli, &first);
    let (two, three) = (two.to_string(), three.to_string());
    assert_eq!(cli.run(&["cluster", "change-membership", "1", &two, &three]).code, 0);
    until("the ticket with all members", || {
        (ticket(first.folder()).peers().len() == 3).then_some(())
    });
    let should_stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(keep_writing(client(first.folder()), should_stop.clone()));
    let mut nodes = vec![];
    for node in [first, second, third] {
        let applied = |cli: &Cli| {
            let metrics = cli.json(&["cluster", "metrics"]).json();
            metrics["last_applied_index"].as_u64().unwrap()
        };
        let path = node.folder().to_owned();
        let before = applied(&Cli::with(&only(&node)));
        let (status, log) = node.stop();
        assert!(status.success(), "{log}");
        let node = Node::start(&path, &TIMING).unwrap();
        let own = Cli::with(&only(&node));
        // It takes part again once it has what was written after it came back.
        until("the restarted node's catching up", || (applied(&own) > before + 5).then_some(()));
        until("its health", || (own.json(&["cluster", "health"]).code == 0).then_some(()));
        nodes.push(node);
    }
    should_stop.store(true, Ordering::Relaxed);
    let count = writer.await.unwrap();
    let scan = Cli::of(&nodes[0]).json(&["kv", "scan", "load/", "--limit", "10000"]).json();
    let found = scan["count"].as_u64().unwrap();
    assert!(found == count.min(10_000) && count > 0, "{found} of {count}");
}
