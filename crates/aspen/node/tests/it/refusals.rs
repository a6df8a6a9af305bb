//! What cannot work is refused with an exit code, a name and a text that says what to do.

use std::fs::Permissions;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;

use aspen_api::{ClusterTicket, MeshKey, MeshTicket};
use tempfile::TempDir;

use crate::cli::{self, Cli};
use crate::process::{self, Node, ticket, ticket_path};
use crate::ran::{Ran, isolated};

fn with_ticket(ticket: &str) -> Ran {
    let mut command = isolated(cli::program());
    command.args(["--json", "--ticket", ticket, "kv", "get", "k"]);
    Ran::finish(command, b"")
}

#[test]
fn oversize_keys_and_values_are_refused_before_they_travel() {
    let folder = TempDir::new().unwrap();
    let node = Node::start(folder.path(), &[]).unwrap();
    let cli = Cli::of(&node);
    let key = "k".repeat(1_025);
    for verb in [&["kv", "get"][..], &["kv", "delete"], &["kv", "scan"], &["kv", "batch-read"]] {
        assert_eq!(cli.json(&[verb, &[&key]].concat()).refusal(), (2, "USAGE".into()), "{verb:?}");
    }
    assert_eq!(cli.json(&["kv", "set", "", "v"]).refusal(), (2, "USAGE".into()));
    let large = cli.run_with(&["--json", "kv", "set", "k", "--file", "-"], &vec![0; (1 << 20) + 1]);
    assert_eq!(large.refusal(), (1, "TOO_LARGE".into()));
    assert!(large.stderr.contains("1048576"), "{}", large.stderr);
    assert_eq!(cli.json(&["kv", "get", "k"]).json()["does_exist"], false);
}

#[test]
fn a_ticket_that_is_none_is_named_and_a_damaged_one_not_repeated() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("cluster-ticket.txt");
    let ran = with_ticket(missing.to_str().unwrap());
    assert_eq!(ran.refusal(), (2, "USAGE".into()));
    assert!(ran.stderr.contains("nor a file that exists"), "{}", ran.stderr);
    let node = Node::start(folder.path(), &[]).unwrap();
    let text = ticket(node.folder()).to_text();
    let cut = &text.expose()[..text.expose().len() - 1];
    let ran = with_ticket(cut);
    assert_eq!(ran.refusal(), (2, "USAGE".into()));
    assert!(!ran.stderr.contains(cut) && ran.stderr.contains("copy it again"), "{}", ran.stderr);
    std::fs::set_permissions(&missing, Permissions::from_mode(0o644)).unwrap();
    let ran = with_ticket(missing.to_str().unwrap());
    assert_eq!(ran.refusal(), (2, "BAD_TICKET_FILE".into()));
    assert!(ran.stderr.contains("chmod 600"), "{}", ran.stderr);
    let mut node = process::program();
    node.args(["--data-dir", "/nonexistent", "--ticket", missing.to_str().unwrap()]);
    let ran = Ran::finish(node, b"");
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("chmod 600"), "{}", ran.stderr);
}

#[test]
fn a_wrong_secret_and_an_absent_node_are_not_connected() {
    let folder = TempDir::new().unwrap();
    let node = Node::start(folder.path(), &[]).unwrap();
    let good = ticket(node.folder());
    let wrong = ClusterTicket { mesh_key: MeshKey([7; 32]), ..good.clone() };
    let refused = Cli::with(&wrong).json(&["--timeout", "500", "kv", "get", "k"]);
    assert_eq!(refused.refusal(), (6, "SERVICE_UNAVAILABLE".into()));
    assert!(refused.stderr.contains("is the ticket current?"), "{}", refused.stderr);

    // A port on which somebody listens who never answers.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut peer = good.peers()[0].clone();
    peer.addrs = vec![silent.local_addr().unwrap()];
    let mesh = MeshTicket { label: String::new(), peers: vec![peer] };
    let absent = Cli::with(&ClusterTicket { mesh, ..good });
    let refused = absent.json(&["--timeout", "500", "kv", "set", "k", "v"]);
    assert_eq!(refused.refusal(), (6, "SERVICE_UNAVAILABLE".into()));
    let text = absent.run(&["--timeout", "500", "cluster", "status"]);
    assert_eq!((text.code, text.stdout.len()), (6, 0));
    assert!(text.stderr.starts_with("error: ") && !text.stderr.contains('\x1b'), "{}", text.stderr);
    assert_eq!(
        Cli::of(&node).run(&["kv", "set", "k", "v"]).code,
        0,
        "the others are not disturbed"
    );
}

#[test]
fn a_node_that_cannot_start_says_why_and_can_start_later() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("node");
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let Err((status, log)) = Node::start(&path, &["--bind-port", &port]) else { panic!("two") };
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("another process"), "{log}");
    drop(taken);
    let node = Node::start(&path, &[]).unwrap();
    assert_eq!(node.field("initialized"), "true", "the first start that works begins the cluster");
    assert_eq!(Cli::of(&node).run(&["kv", "set", "k", "v"]).code, 0);
    let id = node.field("node_id");
    node.stop();
    let Err((status, log)) = Node::start(&path, &["--node-id", "1"]) else { panic!("another id") };
    assert_eq!(status.code(), Some(1));
    assert!(log.contains(&format!("belongs to node {id}")), "{log}");
    assert!(ticket_path(&path).exists());
    std::fs::remove_file(path.join("node_key")).unwrap();
    let Err((status, log)) = Node::start(&path, &[]) else { panic!("another identity") };
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("node_key or node_id changed"), "{log}");
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    for not_a_folder in [&file, &file.join("below")] {
        let Err((status, log)) = Node::start(not_a_folder, &[]) else { panic!("on a file") };
        assert_eq!(status.code(), Some(1));
        assert!(log.contains("it is not a folder: name another with --data-dir"), "{log}");
    }
}

#[test]
fn an_address_of_another_machine_and_a_mistake_in_the_settings_file_are_named() {
    let folder = TempDir::new().unwrap();
    // An address that is reserved for documentation.
    let Err((status, log)) = Node::start(folder.path(), &["--host", "192.0.2.1"]) else {
        panic!("it listens where it is not")
    };
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("this machine does not have the address"), "{log}");
    assert!(log.contains("--host") && !log.contains("another process"), "{log}");
    let file = folder.path().join("settings.toml");
    std::fs::write(&file, "host = \"127.0.0.1\"\nbind-prot = 7000\n").unwrap();
    let flags = ["--config", file.to_str().unwrap()];
    let Err((status, log)) = Node::start(folder.path(), &flags) else { panic!("it starts") };
    assert_eq!(status.code(), Some(2));
    assert!(log.contains("line 2: ") && log.contains("bind-prot"), "{log}");
}

#[test]
fn logs_have_colours_only_on_a_terminal() {
    let folder = TempDir::new().unwrap();
    let node = Node::start(folder.path(), &[]).unwrap();
    let seen = Cli::of(&node).run(&["-vv", "kv", "get", "k"]);
    assert!(seen.stderr.contains("TRACE"), "{}", seen.stderr);
    let log = node.log.clone();
    let (_, rest) = node.stop();
    for text in [&seen.stderr, &log, &rest] {
        assert!(!text.contains('\x1b'), "{text}");
    }
}
