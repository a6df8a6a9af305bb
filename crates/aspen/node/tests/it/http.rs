//! The HTTP door: on loopback, beyond it, and at its limits.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use net_types::limits::MAX_DOOR_CONNECTIONS;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;

use crate::process::{Node, until};

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
}

/// What a door answers; nothing if it closes the connection.
fn ask(addr: &str, path: &str) -> String {
    let mut door = TcpStream::connect(addr).unwrap();
    let mut answer = String::new();
    match door.write_all(request(path).as_bytes()).and_then(|()| door.read_to_string(&mut answer)) {
        Ok(_) => answer,
        Err(_) => String::new(),
    }
}

/// A metric of the door.
fn metric(addr: &str, name: &str) -> u64 {
    let answer = ask(addr, "/metrics");
    let start = format!("aspen_door_{name}{{door=\"http\"}} ");
    let value = answer.lines().find_map(|line| line.strip_prefix(&start));
    value.unwrap_or_else(|| panic!("{name} is not in {answer}")).parse().unwrap()
}

fn idle_connections(addr: &str, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(addr).unwrap()).collect()
}

fn answers_again(addr: &str) {
    until("an answer", || ask(addr, "/healthz").contains("200 OK").then_some(()));
}

#[test]
fn health_and_metrics_are_served_on_loopback() {
    let folder = TempDir::new().unwrap();
    let node = Node::start(folder.path(), &["--require-token-auth"]).unwrap();
    let addr = node.field("http");
    assert!(addr.starts_with("127.0.0.1:"), "{addr}");
    for (path, expected) in
        [("/healthz", "200 OK"), ("/readyz", "200 OK"), ("/metrics", "net_packets_total")]
    {
        let answer = ask(&addr, path);
        assert!(answer.contains(expected), "{path}: {answer}");
    }
    assert_eq!(metric(&addr, "refused_total"), 0);
}

#[test]
fn a_connection_beyond_the_limit_is_closed_and_counted() {
    let folder = TempDir::new().unwrap();
    let node = Node::start(folder.path(), &[]).unwrap();
    let addr = node.field("http");
    let idle = idle_connections(&addr, MAX_DOOR_CONNECTIONS);
    assert_eq!(ask(&addr, "/healthz"), "");
    drop(idle);
    answers_again(&addr);
    assert!(metric(&addr, "refused_total") >= 1);
}

#[test]
fn a_door_without_descriptors_answers_again_once_there_are_some() {
    let folder = TempDir::new().unwrap();
    let mut node = Node::start_under(folder.path(), "-n 64", &[]);
    let addr = node.field("http");
    let idle = idle_connections(&addr, 64);
    loop {
        let line = node.next_line();
        assert!(!line.is_empty(), "the node has ended");
        if line.contains("cannot accept connections") {
            break;
        }
    }
    drop(idle);
    answers_again(&addr);
    assert_eq!(metric(&addr, "refused_total"), 0);
    assert!(node.stop().0.success());
}

#[test]
fn a_node_stops_although_a_request_does_not_end() {
    let folder = TempDir::new().unwrap();
    let node = Node::start(folder.path(), &[]).unwrap();
    let addr = node.field("http");
    let half = "GET /healthz HTTP/1.1\r\n";
    let mut open = TcpStream::connect(&addr).unwrap();
    open.write_all(half.as_bytes()).unwrap();
    let whole = request("/metrics").len() as u64;
    until("the half of the request", || {
        // Every other request is a whole one.
        (metric(&addr, "received_bytes_total") % whole == half.len() as u64).then_some(())
    });
    let (status, log) = node.stop();
    assert!(status.success(), "{log}");
    assert!(log.contains("some connections of doors were still open"), "{log}");
    assert!(matches!(open.read(&mut [0; 1]), Ok(0) | Err(_)));
}

/// A certificate for 127.0.0.1 and its key.
fn certificate(folder: &Path) -> (PathBuf, PathBuf) {
    let names = vec!["127.0.0.1".to_owned()];
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    std::fs::write(&certificate, cert.pem()).unwrap();
    std::fs::write(&key, signing_key.serialize_pem()).unwrap();
    (certificate, key)
}

#[test]
fn beyond_loopback_there_is_tls_and_metrics_need_a_token() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let (status, log) = Node::start(&data, &["--http-host", "0.0.0.0"]).err().unwrap();
    assert_eq!(status.code(), Some(2));
    assert!(log.contains("--http-host: other machines reach 0.0.0.0"), "{log}");

    let (certificate, key) = certificate(folder.path());
    let certificate = certificate.to_str().unwrap();
    let root = folder.path().join("root.token");
    let flags = [
        &["--http-host", "0.0.0.0", "--http-tls-cert", certificate][..],
        &["--http-tls-key", key.to_str().unwrap()],
        &["--require-token-auth", "--output-root-token", root.to_str().unwrap()],
    ];
    let node = Node::start(&data, &flags.concat()).unwrap();
    let addr = node.field("http");
    let port = addr.strip_prefix("0.0.0.0:").unwrap();
    let curl = |path: &str, options: &[&str]| {
        let url = format!("https://127.0.0.1:{port}{path}");
        let fixed = ["-q", "-sS", "-i", "--noproxy", "*", "--cacert", certificate, &url];
        let output = Command::new("curl").args(fixed).args(options).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    for path in ["/healthz", "/readyz"] {
        assert!(curl(path, &[]).starts_with("HTTP/1.1 200 "), "{path}");
    }
    let root = std::fs::read_to_string(&root).unwrap();
    let other = TempDir::new().unwrap();
    let of_another = other.path().join("root.token");
    let flags = ["--require-token-auth", "--output-root-token", of_another.to_str().unwrap()];
    Node::start(&other.path().join("data"), &flags).unwrap().kill();
    let of_another = std::fs::read_to_string(&of_another).unwrap();
    for refused in ["", "Authorization: Bearer nonsense", "Authorization: Basic YTpi"]
        .map(str::to_owned)
        .into_iter()
        .chain([format!("Authorization: Bearer {}", of_another.trim())])
    {
        let answer = curl("/metrics", &["-H", &refused]);
        assert!(answer.starts_with("HTTP/1.1 401 "), "{refused:?}: {answer}");
        assert!(answer.contains("www-authenticate: Bearer"), "{answer}");
        assert!(!answer.contains("net_packets_total"), "{answer}");
    }
    let header = format!("Authorization: Bearer {}", root.trim());
    let answer = curl("/metrics", &["-H", &header]);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("aspen_door_connections{door=\"http\"} 1"), "{answer}");
}
