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
        Self::start_with(args, |_| {})
    }

    fn start_with(args: &[&str], change: impl Fn(&mut Command)) -> Self {
        let folder = TempDir::new().unwrap();
        let mut command = program();
        in_folder(&mut command, folder.path());
        change(command.arg("dev").args(args));
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

/// Runs the client in a folder, perhaps with commands of the text that `dev` shows.
fn client(folder: &Path, args: &[&str]) -> Ran {
    let mut command = isolated(cli::program());
    in_folder(&mut command, folder);
    command.args(args);
    Ran::finish(command, b"")
}

/// The commands that `dev` tells to try, without the program.
fn tried(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines().filter(|line| line.starts_with("  "));
    lines
        .map(|line| line.split_once("aspen-cli ").unwrap().1.split_whitespace().collect())
        .collect()
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
    let cli = |args: &[&str]| client(dev.folder.path(), args);
    let tried = tried(&dev.text);
    assert_eq!(tried.len(), 3);
    assert!(!dev.text.contains("--ticket"), "{}", dev.text);
    for words in tried {
        let ran = cli(&words);
        assert_eq!(ran.code, 0, "{words:?}: {}", ran.stderr);
    }
    assert_eq!(cli(&["kv", "get", "greeting"]).text(), "hello");
    let status = cli(&["--json", "cluster", "status"]).json();
    assert!(status["nodes"].as_array().unwrap().iter().all(|node| node["is_voter"] == true));
    dev.says("node 2");
    let folder = dev.folder.path().to_owned();
    assert_eq!(dev.end("INT"), (0, String::new()));
    let gone = client(&folder, &["--json", "kv", "get", "greeting"]);
    assert_eq!(gone.refusal(), (6, "NOT_CONNECTED".into()));
    assert!(gone.stderr.contains("aspen-node dev"), "{}", gone.stderr);
}

#[test]
fn a_second_cluster_leaves_the_first_ones_ticket_alone() {
    let mut first = Dev::start(&["--nodes", "1"]);
    first.says("Ctrl-C");
    let home = first.folder.path().to_owned();
    let get = || client(&home, &["--json", "kv", "get", "whose"]).json()["value"].clone();
    assert_eq!(client(&home, &["kv", "set", "whose", "the first"]).code, 0);

    let mut second = program();
    in_folder(&mut second, &home);
    second.args(["dev", "--nodes", "1"]);
    let refused = Ran::finish(second, b"");
    assert_eq!((refused.code, refused.stdout.len()), (1, 0));
    let process = format!("(process {})", first.child.id());
    assert!(refused.stderr.contains(&process), "{}", refused.stderr);
    assert!(refused.stderr.contains("--ticket-file"), "{}", refused.stderr);
    assert_eq!(get(), "the first");

    let elsewhere = TempDir::new().unwrap();
    let path = elsewhere.path().join("ticket");
    let args = ["--nodes", "1", "--ticket-file", path.to_str().unwrap()];
    let mut beside = Dev::start_with(&args, |command| {
        command.env("XDG_RUNTIME_DIR", &home);
    });
    beside.says("Ctrl-C");
    for words in tried(&beside.text) {
        assert_eq!(client(&home, &words).code, 0, "{words:?}");
    }
    assert_eq!(get(), "the first");
    assert_eq!(beside.end("INT"), (0, String::new()));
    assert!(!path.exists(), "its ticket went with it");
    assert_eq!(get(), "the first");
    assert_eq!(first.end("INT"), (0, String::new()));
}

#[test]
fn a_cluster_whose_place_was_left_by_a_killed_one_takes_it() {
    let mut killed = Dev::start(&["--nodes", "1"]);
    killed.says("Ctrl-C");
    let home = killed.folder.path().to_owned();
    killed.child.kill().unwrap();
    killed.child.wait().unwrap();
    let left: Vec<_> = files(&home).into_iter().filter(|f| f.contains("ticket.txt")).collect();
    assert_eq!(left.len(), 1, "{left:?}");
    let mut next = Dev::start_with(&["--nodes", "1"], |command| {
        command.env("XDG_RUNTIME_DIR", &home);
    });
    next.says("Ctrl-C");
    assert_eq!(client(&home, &["kv", "set", "k", "v"]).code, 0);
    assert_eq!(next.end("INT"), (0, String::new()));
    assert!(!Path::new(&left[0]).exists());
}

#[test]
fn a_ticket_that_was_exported_for_another_cluster_is_taken_account_of() {
    let mut dev = Dev::start_with(&["--nodes", "2"], |command| {
        command.env("ASPEN_TICKET", "/nonexistent/ticket");
    });
    dev.says("Ctrl-C");
    assert!(dev.text.contains("ASPEN_TICKET is set"), "{}", dev.text);
    for words in tried(&dev.text) {
        let mut command = isolated(cli::program());
        command.env("ASPEN_TICKET", "/nonexistent/ticket").args(&words);
        let ran = Ran::finish(command, b"");
        assert_eq!(ran.code, 0, "{words:?}: {}", ran.stderr);
    }
    assert_eq!(dev.end("INT"), (0, String::new()));
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

#[test]
fn a_command_whose_reader_or_terminal_goes_leaves_nothing() {
    let hung_up = {
        let mut dev = Dev::start(&["--nodes", "1"]);
        dev.says("Ctrl-C");
        dev.end("HUP")
    };
    assert_eq!(hung_up, (0, String::new()));
    // As after `| head -1`.
    let mut dev = Dev::start(&["--tour"]);
    dev.says("cluster ");
    let nodes = dev.nodes();
    let Dev { folder, mut child, stdout, .. } = dev;
    drop(stdout);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(!errors.contains("panicked"), "{errors}");
    assert!(nodes.iter().all(|node| !Path::new("/proc").join(node).exists()), "{nodes:?} are left");
    assert_eq!(files(folder.path()), Vec::<String>::new(), "left behind");
}

#[test]
fn a_tour_of_too_few_nodes_is_refused_at_once() {
    for nodes in ["1", "2"] {
        let mut dev = Dev::start(&["--tour", "--nodes", nodes]);
        assert_eq!(dev.child.wait().unwrap().code(), Some(2));
        let mut errors = String::new();
        dev.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert!(errors.contains("at least 3 nodes"), "{errors}");
    }
}
