//! The node program under test.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use aspen_api::ClusterTicket;
use aspen_client::{Client, ClientOptions, read_ticket_file};

use crate::ran::isolated;

/// Time for anything to come about on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running node; killed when dropped.
pub(crate) struct Node {
    child: Child,
    stderr: BufReader<ChildStderr>,
    folder: PathBuf,
    /// What the node logged until it served.
    pub(crate) log: String,
}

/// The program, with nothing of the caller's environment that would change a node.
pub(crate) fn program() -> Command {
    isolated(Path::new(env!("CARGO_BIN_EXE_aspen-node")))
}

impl Node {
    /// Starts a node on a folder and waits until it serves or ends.
    pub(crate) fn start(folder: &Path, flags: &[&str]) -> Result<Self, (ExitStatus, String)> {
        let mut command = program();
        command.arg("--data-dir").arg(folder).args(flags);
        Self::spawn(command, folder)
    }

    /// Starts a node with one more variable in its environment.
    pub(crate) fn start_with(
        folder: &Path,
        name: &str,
        value: impl AsRef<OsStr>,
        flags: &[&str],
    ) -> Self {
        let mut command = program();
        command.arg("--data-dir").arg(folder).args(flags).env(name, value);
        Self::spawn(command, folder).unwrap()
    }

    /// Starts a node whose files cannot grow beyond `limit_bytes`, as if the disk were full then.
    pub(crate) fn start_within(folder: &Path, limit_bytes: u64) -> Self {
        // A shell counts blocks of 512 bytes here.
        Self::start_under(folder, &format!("-f {}", limit_bytes / 512), &[])
    }

    /// Starts a node under a limit of the system, in the words of a shell's `ulimit`.
    pub(crate) fn start_under(folder: &Path, limit: &str, flags: &[&str]) -> Self {
        let node = program();
        let mut command = isolated(Path::new("sh"));
        command.arg("-c").arg(format!("ulimit {limit}; exec \"$0\" \"$@\""));
        command.arg(node.get_program()).arg("--data-dir").arg(folder).args(flags);
        Self::spawn(command, folder).unwrap()
    }

    fn spawn(mut command: Command, folder: &Path) -> Result<Self, (ExitStatus, String)> {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut node = Self { child, stderr, folder: folder.to_owned(), log: String::new() };
        while !node.log.contains(" serving ") {
            if node.stderr.read_line(&mut node.log).unwrap() == 0 {
                return Err((node.child.wait().unwrap(), std::mem::take(&mut node.log)));
            }
        }
        Ok(node)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The next line of the log.
    pub(crate) fn next_line(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).unwrap();
        line
    }

    /// The value of a field in the line that says that the node serves.
    pub(crate) fn field(&self, name: &str) -> String {
        let start = self.log.rfind(&format!(" {name}=")).unwrap() + name.len() + 2;
        self.log[start..].split_whitespace().next().unwrap().to_owned()
    }

    /// Ends the process as a crash would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether the process has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until the process has ended by itself and returns how, with the rest of its log.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap(), rest)
    }

    /// Asks the process to stop and returns how it ended, with the rest of its log.
    pub(crate) fn stop(self) -> (ExitStatus, String) {
        signal(&self.child, "TERM");
        self.wait()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal by its name.
pub(crate) fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
}

/// Looks until there is something to see.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begun.elapsed() < PATIENCE, "{what} did not come about");
        std::thread::yield_now();
    }
}

/// A port that is free at present.
pub(crate) fn free_udp_port() -> String {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port().to_string()
}

/// Where a node leaves its ticket.
pub(crate) fn ticket_path(folder: &Path) -> PathBuf {
    folder.join("cluster-ticket.txt")
}

/// The ticket in a data folder.
pub(crate) fn ticket(folder: &Path) -> ClusterTicket {
    read_ticket_file(&ticket_path(folder)).unwrap().unwrap()
}

/// A client of the node in a data folder.
pub(crate) fn client(folder: &Path) -> Client {
    Client::connect(&ticket(folder), ClientOptions::default()).unwrap()
}
