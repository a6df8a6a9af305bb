//! Members that come back at another address.

use tempfile::TempDir;

use crate::cli::Cli;
use crate::cluster::{TIMING, join, start};
use crate::process::{Node, free_udp_port, until};

/// Stops a node and starts it again at another port.
fn restart_elsewhere(node: Node) -> Node {
    let (path, old) = (node.folder().to_owned(), node.field("udp"));
    node.stop();
    let port = free_udp_port();
    let node = Node::start(&path, &[&TIMING[..], &["--bind-port", &port]].concat()).unwrap();
    assert_ne!(node.field("udp"), old);
    node
}

fn knows(cli: &Cli, node: &Node) -> Option<()> {
    cli.run(&["cluster", "status"]).text().contains(&node.field("udp")).then_some(())
}

#[test]
fn members_that_move_are_found_again() {
    let folder = TempDir::new().unwrap();
    let first = start(&folder, "1", &["--node-id", "1"]);
    let cli = Cli::of(&first);
    let (second, two) = join(&folder, "2", &cli, &first);
    let (third, three) = join(&folder, "3", &cli, &first);
    // A learner stands for no election, so nothing else would make it call.
    let second = restart_elsewhere(second);
    until("the learner's new address", || knows(&cli, &second));
    let (two, three) = (two.to_string(), three.to_string());
    assert_eq!(cli.run(&["cluster", "change-membership", "1", &two, &three]).code, 0);
    let third = restart_elsewhere(third);
    until("the voter's new address", || knows(&cli, &third));
    let of_second = Cli::of(&second);
    until("the new address at a follower", || knows(&of_second, &third));
    let kept = || std::fs::read_to_string(third.folder().join("address")).unwrap();
    until("the noted address", || (kept().trim() == third.field("udp")).then_some(()));
    // Those that moved must find each other without the one that did not.
    first.kill();
    assert_eq!(of_second.run(&["kv", "set", "k", "v"]).code, 0);
    drop(third);
}
