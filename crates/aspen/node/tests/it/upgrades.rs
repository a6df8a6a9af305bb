//! The upgrade gate on real nodes: one program that understands feature level 1 or, as the variable
//! for tests says, more.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::cli::Cli;
use crate::cluster::TIMING;
use crate::process::{Node, program, ticket, ticket_path, until};

/// A node of a folder whose program understands levels up to `top`.
fn start(folder: &Path, top: u32, flags: &[&str]) -> Node {
    let flags = [&TIMING[..], flags].concat();
    Node::start_with(folder, "ASPEN_TEST_TOP_LEVEL", top.to_string(), &flags)
}

fn join(folder: &Path, top: u32, cli: &Cli, first: &Node) -> (Node, u64) {
    let ticket = ticket_path(first.folder());
    let node = start(folder, top, &["--ticket", ticket.to_str().unwrap()]);
    let id: u64 = node.field("node_id").parse().unwrap();
    let addr = format!("{}@{}", node.field("entity_id"), node.field("udp"));
    let added = cli.run(&["cluster", "add-learner", "--node-id", &id.to_string(), "--addr", &addr]);
    assert_eq!(added.code, 0, "{}", added.stderr);
    (node, id)
}

fn status(cli: &Cli) -> (Value, String) {
    let ran = cli.json(&["cluster", "status"]);
    let note = cli.run(&["cluster", "status"]).stderr;
    (ran.json(), note)
}

fn level(cli: &Cli) -> u64 {
    status(cli).0["feature_level"].as_u64().unwrap()
}

#[test]
fn the_level_rises_when_the_last_member_is_upgraded_and_not_before() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let first = start(&path("1"), 1, &["--node-id", "1"]);
    let cli = Cli::of(&first);
    let (second, two) = join(&path("2"), 1, &cli, &first);
    let (third, three) = join(&path("3"), 1, &cli, &first);
    let (two, three) = (two.to_string(), three.to_string());
    let voters = cli.run(&["cluster", "change-membership", "1", &two, &three]);
    assert_eq!(voters.code, 0, "{}", voters.stderr);
    let nodes = [&first, &second, &third];
    until("the tickets with all members", || {
        nodes.iter().all(|node| ticket(node.folder()).peers().len() == 3).then_some(())
    });

    // One member after the other is upgraded, and one is taken back before the step.
    third.stop();
    let third = start(&path("3"), 2, &[]);
    second.stop();
    let second = start(&path("2"), 2, &[]);
    second.stop();
    let second = start(&path("2"), 1, &[]);
    until("status naming the members that hold the step back", || {
        let (_, note) = status(&Cli::of(&third));
        let names = |id: &str| note.contains(&format!("node {id} understands level 1"));
        (names("1") && names(&two) && !names(&three)).then_some(())
    });
    assert_eq!(level(&cli), 1);
    assert_eq!(cli.run(&["kv", "set", "k", "before"]).code, 0);

    second.stop();
    let second = start(&path("2"), 2, &[]);
    first.stop();
    let first = start(&path("1"), 2, &[]);
    until("the step", || (level(&Cli::of(&second)) == 2).then_some(()));
    assert_eq!(Cli::of(&second).run(&["kv", "get", "k"]).text(), "before");

    // There is no way back for a member: it says which versions are meant and changes nothing.
    first.stop();
    let refusal = refused(&path("1"), 1);
    assert!(refusal.contains("needs feature level 2"), "{refusal}");
    assert!(refusal.contains("understands level 1"), "{refusal}");
    assert!(refusal.contains(env!("CARGO_PKG_VERSION")), "{refusal}");
    let first = start(&path("1"), 2, &[]);
    until("the member's return", || (level(&Cli::of(&first)) == 2).then_some(()));

    // Nor does a node join that understands less.
    let late = start(&path("4"), 1, &["--ticket", ticket_path(first.folder()).to_str().unwrap()]);
    let addr = format!("{}@{}", late.field("entity_id"), late.field("udp"));
    let id = late.field("node_id");
    let cli = Cli::of(&second);
    let added = cli.run(&["cluster", "add-learner", "--node-id", &id, "--addr", &addr]);
    assert_eq!(added.code, 1, "{}", added.stderr);
    assert!(added.stderr.contains("this cluster is at level 2"), "{}", added.stderr);
}

/// What a node says that ends by itself.
fn refused(folder: &Path, top: u32) -> String {
    let mut command = program();
    command.env("ASPEN_TEST_TOP_LEVEL", top.to_string());
    let output = command.arg("--data-dir").arg(folder).args(TIMING).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}
