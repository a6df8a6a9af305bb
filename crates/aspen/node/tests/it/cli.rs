//! The command line under test: found where cargo leaves it, or built.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use aspen_api::ClusterTicket;
use serde_json::Value;

use crate::process::{Node, ticket_path};
use crate::ran::{Ran, isolated};

/// The program: the one beside the node's if it is of the present sources, as when the whole
/// workspace is tested, and else a new one.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let node = Path::new(env!("CARGO_BIN_EXE_aspen-node"));
        let beside = node.with_file_name("aspen-cli");
        if is_current(&beside) { beside } else { build(node) }
    })
}

/// Whether a program is newer than everything that cargo noted it was built from.
fn is_current(program: &Path) -> bool {
    let changed = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
    let Some(built) = changed(program) else { return false };
    let Ok(noted) = std::fs::read_to_string(program.with_extension("d")) else { return false };
    let Some((_, sources)) = noted.split_once(": ") else { return false };
    let sources = sources.replace("\\ ", "\0");
    let mut sources = sources.split_whitespace().map(|path| PathBuf::from(path.replace('\0', " ")));
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("cli").join("src/main.rs");
    let is_older = |path: &Path| changed(path).is_some_and(|at: SystemTime| at <= built);
    sources.clone().any(|path| path == own) && sources.all(|path| is_older(&path))
}

/// Builds the program as the node was built.
fn build(node: &Path) -> PathBuf {
    let profile = match node.parent().unwrap().file_name().unwrap().to_str().unwrap() {
        "debug" => "dev",
        other => other,
    };
    let output = Command::new(env!("CARGO"))
        .args(["build", "--offline", "--package", "aspen-cli", "--bin", "aspen-cli"])
        .args(["--profile", profile, "--message-format", "json-render-diagnostics"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).unwrap();
    let built = messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).unwrap();
        let is_it = message["target"]["name"] == "aspen-cli";
        message["executable"].as_str().filter(|_| is_it).map(PathBuf::from)
    });
    built.expect("cargo names the program it built")
}

/// The command line with a ticket.
pub(crate) struct Cli {
    ticket: String,
}

impl Cli {
    /// With the ticket in a node's data folder, given as a file.
    pub(crate) fn of(node: &Node) -> Self {
        Self { ticket: ticket_path(node.folder()).display().to_string() }
    }

    /// With a ticket as text.
    pub(crate) fn with(ticket: &ClusterTicket) -> Self {
        Self { ticket: ticket.to_text().expose().to_owned() }
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, b"")
    }

    pub(crate) fn run_with(&self, args: &[&str], stdin: &[u8]) -> Ran {
        let mut command = isolated(program());
        command.env("ASPEN_TICKET", &self.ticket).args(args);
        Ran::finish(command, stdin)
    }

    /// Runs with `--json`.
    pub(crate) fn json(&self, args: &[&str]) -> Ran {
        self.run(&[&["--json"], args].concat())
    }
}

impl Ran {
    /// The one document on stdout of a run that succeeded.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self.document()
    }

    /// The one document on stdout.
    pub(crate) fn document(&self) -> Value {
        assert_eq!(self.text().lines().count(), 1, "{}{}", self.text(), self.stderr);
        serde_json::from_slice(&self.stdout).unwrap()
    }
}
