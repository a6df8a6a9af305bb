//! One node process.
//!
//! Invariants: at most one process runs on the folder; it is killed when the value is dropped.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use net_types::{EntityId, PeerAddr};
use tokio::time::Instant;

use super::{CHILD_VARIABLE, DevError};

/// Time for a node to start, even on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// Time for a node to stop by itself. Its data goes with the cluster, so there is nothing to save
/// by waiting for leadership to be handed over among nodes that all stop.
const STOP_DEADLINE: Duration = Duration::from_millis(500);
/// Pause between two looks at a starting or stopping process.
const LOOK: Duration = Duration::from_millis(5);
/// End of a log that an error shows.
const LOG_TAIL_BYTES: usize = 2_000;

/// How to start a node, and the process if it runs.
pub(crate) struct NodeProcess {
    pub(crate) number: u64,
    folder: PathBuf,
    port: u16,
    flags: Vec<String>,
    environment: Vec<(&'static str, String)>,
    child: Option<Child>,
    /// Known once the node has made its key.
    entity: Option<EntityId>,
}

/// A UDP port that nothing uses now, so that a node keeps its address when it restarts.
fn free_port() -> Result<u16, DevError> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let socket = UdpSocket::bind(any).map_err(DevError::io("no free UDP port"))?;
    Ok(socket.local_addr().map_err(DevError::io("no free UDP port"))?.port())
}

/// Whether a node gets a variable of the command's environment. Settings of single nodes do not
/// concern it: a ticket for the client, for instance, would send it to another cluster.
fn is_passed_on(name: &OsStr) -> bool {
    name == "ASPEN_LOG" || !name.as_encoded_bytes().starts_with(b"ASPEN_")
}

impl NodeProcess {
    /// Node `number` with its data below `folder`, not started yet.
    pub(crate) fn new(
        number: u64,
        folder: &Path,
        flags: Vec<String>,
        environment: Vec<(&'static str, String)>,
    ) -> Result<Self, DevError> {
        let folder = folder.join(format!("node-{number}"));
        let port = free_port()?;
        Ok(Self { number, folder, port, flags, environment, child: None, entity: None })
    }

    /// Starts the process and waits until the node can be reached.
    pub(crate) async fn start(&mut self) -> Result<(), DevError> {
        let program = std::env::current_exe().map_err(DevError::io("this program"))?;
        let log = File::options().create(true).append(true).open(self.log_path());
        let log = log.map_err(DevError::io("log file"))?;
        // A ticket of an earlier start would name an earlier address.
        let _ = fs::remove_file(self.ticket_path());
        let child = Command::new(program)
            .arg("--data-dir")
            .arg(&self.folder)
            .args(["--host", "127.0.0.1", "--bind-port", &self.port.to_string()])
            .args(["--node-id", &self.number.to_string()])
            .args(&self.flags)
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| is_passed_on(name)))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env(CHILD_VARIABLE, "1")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(DevError::io("cannot start a node"))?;
        self.child = Some(child);
        let deadline = Instant::now() + START_DEADLINE;
        while !self.ticket_path().exists() {
            if !self.is_running() {
                return Err(self.failed("ended while it started"));
            }
            if Instant::now() > deadline {
                return Err(self.failed("does not start"));
            }
            tokio::time::sleep(LOOK).await;
        }
        let key = self.folder.join("node_key");
        let file = net_crypto::load_or_create(&key, || [0; 32])
            .map_err(|error| self.failed(&format!("has no usable key: {error}")))?;
        self.entity = Some(file.keypair.entity_id());
        Ok(())
    }

    fn log_path(&self) -> PathBuf {
        self.folder.with_extension("log")
    }

    /// The node's own ticket file.
    pub(crate) fn ticket_path(&self) -> PathBuf {
        self.folder.join("cluster-ticket.txt")
    }

    /// Identity and address, once it was started.
    pub(crate) fn addr(&self) -> Result<PeerAddr, DevError> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let entity = self.entity.ok_or_else(|| self.failed("was never started"))?;
        Ok(PeerAddr::direct(entity, addr))
    }

    /// An error about this node, with the end of its log.
    pub(crate) fn failed(&self, what: &str) -> DevError {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        let mut from = log.len().saturating_sub(LOG_TAIL_BYTES);
        while !log.is_char_boundary(from) {
            from += 1;
        }
        DevError::Node { number: self.number, what: what.to_owned(), log: log[from..].to_owned() }
    }

    /// Whether the process runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Ends the process without warning, as a crash or a power loss would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks the process to stop.
    pub(crate) fn ask_to_stop(&self) {
        let Some(child) = &self.child else { return };
        let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended already.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }

    /// Waits for the process to stop, and ends it when it does not.
    pub(crate) async fn stopped(&mut self) {
        let deadline = Instant::now() + STOP_DEADLINE;
        while self.is_running() && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
        self.kill();
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        self.kill();
    }
}
