//! Three nodes of ours, started by `aspen-node dev`, and clients of them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aspen_api::cluster::GetLeader;
use aspen_api::{ClusterTicket, Key, KeyValueStore};
use aspen_client::{Client, ClientOptions, read_ticket_file};
use bytes::Bytes;

use super::process::{children, interrupt, listening_port};
use super::{Session, Usage};

/// A cluster of separate processes.
pub(crate) struct AspenCluster {
    dev: Child,
    ticket: ClusterTicket,
}

/// The node program beside this one.
pub(crate) fn node_program() -> PathBuf {
    let program = std::env::current_exe().unwrap().with_file_name("aspen-node");
    assert!(
        program.exists(),
        "{} is missing; run `cargo build --release --bin aspen-node` first",
        program.display()
    );
    program
}

impl AspenCluster {
    /// Starts three nodes with their data below `folder` and waits until the ticket is there.
    pub(crate) async fn start(folder: &Path, flags: &[&str]) -> Self {
        let dev = Command::new(node_program())
            .args(["dev", "--nodes", "3", "--max-clients", "1000"])
            .args(flags)
            .env("TMPDIR", folder)
            .env("XDG_RUNTIME_DIR", folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let path = folder.join("aspen/dev/cluster-ticket.txt");
        let ticket = loop {
            match read_ticket_file(&path) {
                Ok(Some(ticket)) => break ticket,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        Self { dev, ticket }
    }

    pub(crate) async fn connect(&self) -> AspenSession {
        Self::session(&self.ticket)
    }

    /// A client of the cluster that a ticket names.
    pub(crate) fn session(ticket: &ClusterTicket) -> AspenSession {
        AspenSession(Client::connect(ticket, ClientOptions::default()).unwrap())
    }

    /// The process of the present leader: the one that listens on the leader's port.
    pub(crate) async fn leader_pid(&self, session: &AspenSession) -> u32 {
        let port = loop {
            let result = session.0.send(GetLeader {}).await.unwrap();
            if let Some(addr) = result.leader.and_then(|l| l.addr.addrs.first().copied()) {
                break addr.port();
            }
        };
        let listens = |pid: &u32| listening_port(*pid, port);
        self.pids().into_iter().find(listens).expect("a node listens on the leader's port")
    }

    /// Processes of the nodes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        children(self.dev.id())
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage::of(&self.pids())
    }
}

impl Drop for AspenCluster {
    fn drop(&mut self) {
        interrupt(self.dev.id());
        let _ = self.dev.wait();
    }
}

/// A client with an identity and socket; clones share them.
#[derive(Clone)]
pub(crate) struct AspenSession(Client);

impl Session for AspenSession {
    async fn put(&self, key: Bytes, value: Bytes) {
        self.0.set(Key::new(key).unwrap(), value).await.unwrap();
    }

    async fn get(&self, key: Bytes) -> bool {
        self.0.get(Key::new(key).unwrap()).await.unwrap().item.is_some()
    }
}
