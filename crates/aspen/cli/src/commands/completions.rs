//! `completions`.

use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::json;

use crate::args::Cli;
use crate::outcome::{Outcome, Text};

/// A script for a shell, which knows every command and option. No cluster is asked.
pub(crate) fn script(shell: Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "aspen-cli", &mut script);
    let json = json!({ "shell": shell.to_string(), "script": String::from_utf8_lossy(&script) });
    Outcome { text: Text::Raw(script), ..Outcome::new(json, "") }
}
