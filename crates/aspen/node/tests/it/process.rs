//! The node program under test.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use aspen_api::ClusterTicket;
use aspen_client::{Client, ClientOptions, read_ticket_file};

/// A running node; killed when dropped.
pub(crate) struct Node {
    child: Child,
    stderr: BufReader<ChildStderr>,
    /// What the node logged until it served.
    pub(crate) log: String,
}

/// The program, with nothing of the caller's environment that would change a node.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aspen-node"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ASPEN_")) {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

impl Node {
    /// Starts a node on a folder and waits until it serves or ends.
    pub(crate) fn start(folder: &Path, flags: &[&str]) -> Result<Self, (ExitStatus, String)> {
        let mut child = program()
            .arg("--data-dir")
            .arg(folder)
            .args(flags)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut log = String::new();
        while !log.contains(" serving ") {
            if stderr.read_line(&mut log).unwrap() == 0 {
                return Err((child.wait().unwrap(), log));
            }
        }
        Ok(Self { child, stderr, log })
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

    /// Asks the process to stop and returns how it ended, with the rest of its log.
    pub(crate) fn stop(mut self) -> (ExitStatus, String) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap(), rest)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The ticket in a data folder.
pub(crate) fn ticket(folder: &Path) -> ClusterTicket {
    read_ticket_file(&folder.join("cluster-ticket.txt")).unwrap().unwrap()
}

/// A client of the node in a data folder.
pub(crate) fn client(folder: &Path) -> Client {
    Client::connect(&ticket(folder), ClientOptions::default()).unwrap()
}
