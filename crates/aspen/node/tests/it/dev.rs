//! `aspen-node dev`: found by the command line, and gone without a trace whenever it is stopped.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use tempfile::TempDir;

use crate::cli;
use crate::process::{program, signal, until};
use crate::ran::{Ran, isolated};

/// A running `aspen-node dev` with folders of its own.
struct Dev {
    folder: TempDir,
    child: Child,
    stdout: BufReader<ChildStdout>,
    text: String,
}

impl Dev {
    fn start(args: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let mut command = program();
        in_folder(&mut command, folder.path());
        // A ticket for the client concerns no node of the new cluster.
        command.env("ASPEN_TICKET", "/nonexistent/ticket").arg("dev").args(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { folder, child, stdout, text: String::new() }
    }

    /// Reads until a line begins like this.
    fn says(&mut self, beginning: &str) {
        while !self.text.lines().any(|line| line.starts_with(beginning)) {
            assert_ne!(self.stdout.read_line(&mut self.text).unwrap(), 0, "{}", self.text);
        }
    }

    /// Processes that the command started and that still run.
    fn nodes(&self) -> Vec<String> {
        let id = self.child.id();
        let path = format!("/proc/{id}/task/{id}/children");
        let children = std::fs::read_to_string(path).unwrap_or_default();
        children.split_whitespace().map(str::to_owned).collect()
    }

    /// Sends a signal and waits for the end; exit code and stderr.
    fn end(mut self, name: &str) -> (i32, String) {
        let nodes = self.nodes();
        signal(&self.child, name);
        let status = self.child.wait().unwrap();
        self.stdout.read_to_string(&mut self.text).unwrap();
        let mut errors = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        for node in nodes {
            assert!(!Path::new("/proc").join(&node).exists(), "process {node} is left");
        }
        assert_eq!(files(self.folder.path()), Vec::<String>::new(), "left behind");
        assert!(!self.text.contains('\x1b') && !errors.contains('\x1b'), "{}{errors}", self.text);
        (status.code().unwrap(), errors)
    }
}

fn in_folder(command: &mut Command, folder: &Path) {
    command.env("TMPDIR", folder).env("XDG_RUNTIME_DIR", folder);
}

/// Files below a folder, and folders of development clusters.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.display().to_string();
        match path.is_dir() && !name.contains("aspen-dev-") {
            true => found.extend(files(&path)),
            false => found.push(name),
        }
    }
    found
}

#[test]
fn the_command_line_finds_the_cluster_and_ctrl_c_leaves_nothing() {
    let mut dev = Dev::start(&["--nodes", "2"]);
    dev.says("Ctrl-C");
    assert_eq!(dev.nodes().len(), 2);
    let cli = |args: &[&str]| {
        let mut command = isolated(cli::program());
        in_folder(&mut command, dev.folder.path());
        command.args(args);
        Ran::finish(command, b"")
    };
    // The commands that it tells to try.
    let tried: Vec<_> = dev.text.lines().filter_map(|l| l.strip_prefix("  aspen-cli ")).collect();
    assert_eq!(tried.len(), 3);
    for line in tried {
        let ran = cli(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(ran.code, 0, "{line}: {}", ran.stderr);
    }
    assert_eq!(cli(&["kv", "get", "greeting"]).text(), "hello");
    let status = cli(&["--json", "cluster", "status"]).json();
    assert!(status["nodes"].as_array().unwrap().iter().all(|node| node["is_voter"] == true));
    dev.says("node 2");
    let folder = dev.folder.path().to_owned();
    assert_eq!(dev.end("INT"), (0, String::new()));
    let mut command = isolated(cli::program());
    in_folder(&mut command, &folder);
    command.args(["--json", "kv", "get", "greeting"]);
    let gone = Ran::finish(command, b"");
    assert_eq!(gone.refusal(), (6, "NOT_CONNECTED".into()));
    assert!(gone.stderr.contains("aspen-node dev"), "{}", gone.stderr);
}

#[test]
fn a_cluster_that_is_stopped_while_it_starts_leaves_nothing() {
    let dev = Dev::start(&["--nodes", "3"]);
    until("the first node", || dev.nodes().first().cloned());
    assert_eq!(dev.end("TERM"), (0, String::new()));
}

#[test]
fn a_tour_that_is_stopped_leaves_nothing_and_does_not_claim_success() {
    let mut dev = Dev::start(&["--tour"]);
    dev.says("cluster ");
    let (code, errors) = dev.end("INT");
    assert_eq!(code, 1);
    assert!(errors.contains("before the end of the tour"), "{errors}");
}
