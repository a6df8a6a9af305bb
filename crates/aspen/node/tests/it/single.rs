//! One node: a cluster at once, durable, alone on its folder.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use aspen_api::kv::{Transact, WriteOperation};
use aspen_api::{ApiError, Key, KeyValueStore};
use bytes::Bytes;
use tempfile::TempDir;

use crate::process::{Node, client, free_udp_port, program, until};

async fn put(client: &aspen_client::Client, key: &str, value: &str) -> Result<(), ApiError> {
    let key = Key::new(key.to_owned()).unwrap();
    client.set(key, value.to_owned()).await.map(drop)
}

async fn get(client: &aspen_client::Client, key: &str) -> Option<Bytes> {
    let key = Key::new(key.to_owned()).unwrap();
    client.get(key).await.unwrap().item.map(|item| item.value)
}

#[tokio::test]
async fn a_node_serves_at_once_and_keeps_its_data_through_stop_and_kill() {
    let folder = TempDir::new().unwrap();
    let node = Node::start(folder.path(), &["--cookie", "secret"]).unwrap();
    let entity = node.field("entity_id");
    let first = client(folder.path());
    put(&first, "a", "1").await.unwrap();
    put(&first, "b", "2").await.unwrap();
    let udp = node.field("udp");
    let (status, _) = node.stop();
    assert!(status.success());
    let node = Node::start(folder.path(), &["--cookie", "secret"]).unwrap();
    assert_eq!(node.field("entity_id"), entity);
    assert_eq!(node.field("udp"), udp, "others know it by its port");
    let second = client(folder.path());
    assert_eq!(get(&second, "a").await.unwrap(), "1");
    put(&second, "a", "3").await.unwrap();
    node.kill();
    let _node = Node::start(folder.path(), &["--cookie", "secret"]).unwrap();
    let third = client(folder.path());
    assert_eq!(get(&third, "a").await.unwrap(), "3");
    assert_eq!(get(&third, "b").await.unwrap(), "2");
    assert_eq!(get(&third, "absent").await, None);
}

#[test]
fn a_node_whose_port_is_taken_waits_for_another_to_be_named() {
    let folder = TempDir::new().unwrap();
    let node = Node::start(folder.path(), &[]).unwrap();
    let udp = node.field("udp");
    node.kill();
    let _taken = std::net::UdpSocket::bind(&udp).unwrap();
    let (status, log) = Node::start(folder.path(), &[]).err().unwrap();
    assert!(!status.success() && log.contains("--bind-port"), "{log}");
    let port = free_udp_port();
    let node = Node::start(folder.path(), &["--bind-port", &port]).unwrap();
    assert!(node.field("udp").ends_with(&format!(":{port}")));
    let kept = || std::fs::read_to_string(folder.path().join("address")).unwrap();
    until("the noted address", || (kept().trim() == node.field("udp")).then_some(()));
}

#[test]
fn secrets_are_readable_by_their_owner_alone() {
    let folder = TempDir::new().unwrap();
    let node = Node::start(folder.path(), &["--cookie", "very secret"]).unwrap();
    for name in ["node_key", "cluster-ticket.txt"] {
        let mode = folder.path().join(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let ticket = std::fs::read_to_string(folder.path().join("cluster-ticket.txt")).unwrap();
    let (_, rest) = Node::stop(node);
    for secret in ["very secret", ticket.trim()] {
        assert!(!rest.contains(secret));
    }
}

#[test]
fn a_second_process_on_the_folder_is_refused() {
    let folder = TempDir::new().unwrap();
    let _node = Node::start(folder.path(), &[]).unwrap();
    let Err((status, log)) = Node::start(folder.path(), &[]) else { panic!("two nodes run") };
    assert!(!status.success());
    assert!(log.contains("data folder"), "{log}");
}

#[test]
fn a_corrupt_state_file_is_a_typed_error_and_not_a_panic() {
    let folder = TempDir::new().unwrap();
    Node::start(folder.path(), &[]).unwrap().stop();
    let mut spoiled = 0;
    let mut folders = vec![folder.path().to_owned()];
    while let Some(inside) = folders.pop() {
        for entry in std::fs::read_dir(inside).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "redb") {
                std::fs::write(&path, vec![0x5A; 100_000]).unwrap();
                spoiled += 1;
            }
        }
    }
    assert!(spoiled > 0, "the state is in a redb file");
    let Err((status, log)) = Node::start(folder.path(), &[]) else { panic!("it started") };
    assert!(!status.success());
    assert!(!log.contains("panicked"), "{log}");
    assert!(log.contains("ERROR"), "{log}");
}

#[test]
fn unusable_settings_are_named() {
    let output = program().args(["--cookie", "x"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--data-dir is needed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_node_that_cannot_write_its_state_ends_and_loses_nothing() {
    let folder = TempDir::new().unwrap();
    // A segment of the log fits, a checkpoint of what memory holds does not.
    let mut node = Node::start_within(folder.path(), 12 << 20);
    let writer = client(folder.path());
    let value = Bytes::from("v".repeat(1 << 20));
    let mut written = 0;
    while !node.has_ended() {
        let key = Key::new(format!("k{written:03}")).unwrap();
        let write = Transact::always([WriteOperation::set(key, value.clone())]);
        let answer = writer.send_within(write, Duration::from_secs(1)).await;
        written += usize::from(answer.is_ok());
        assert!(written < 500, "the limit is not felt");
    }
    let (status, log) = node.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("nothing that was acknowledged is lost"), "{log}");
    assert!(written > 10, "{written}");

    let _node = Node::start(folder.path(), &[]).unwrap();
    let reader = client(folder.path());
    for number in 0..written {
        assert!(get(&reader, &format!("k{number:03}")).await.is_some(), "{number} of {written}");
    }
}
