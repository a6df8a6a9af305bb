//! `completions`.

use clap_complete::Shell;
use serde_json::json;

use crate::outcome::{Outcome, Text};

/// A script for a shell, which knows every command and option of the definition. No cluster is asked.
pub(crate) fn script(shell: Shell, definition: &mut clap::Command) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, definition, "aspen-cli", &mut script);
    let json = json!({ "shell": shell.to_string(), "script": String::from_utf8_lossy(&script) });
    Outcome { text: Text::Raw(script), ..Outcome::new(json, "") }
}
