//! Programs run to their end, and what they left. Tests of both programs share this file.

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// What a run of a program left.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    /// Runs a command to its end, with `stdin` on its standard input.
    pub(crate) fn finish(mut command: Command, stdin: &[u8]) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let written = child.stdin.take().unwrap().write_all(stdin);
        // Who refuses early does not read on.
        assert!(written.is_ok() || written.unwrap_err().kind() == ErrorKind::BrokenPipe);
        let output = child.wait_with_output().unwrap();
        Self {
            code: output.status.code().unwrap(),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// Exit code and error code of a run with `--json` that failed.
    pub(crate) fn refusal(&self) -> (i32, String) {
        assert_eq!(self.stdout, b"", "a failure has no result");
        assert_eq!(self.stderr.lines().count(), 1, "{}", self.stderr);
        let error: Value = serde_json::from_str(&self.stderr).unwrap();
        assert_eq!(error.as_object().unwrap().len(), 3, "{error}");
        assert_eq!(error["status"], "error");
        assert!(!error["message"].as_str().unwrap().is_empty());
        (self.code, error["code"].as_str().unwrap().to_owned())
    }
}

/// A program with an environment of its own, away from the caller's settings and clusters.
pub(crate) fn isolated(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"ASPEN_") {
            command.env_remove(name);
        }
    }
    command.env("XDG_RUNTIME_DIR", "/nonexistent").stdin(Stdio::null());
    command
}
