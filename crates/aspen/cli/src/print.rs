//! Writing results to stdout and everything else to stderr.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use crate::outcome::{Exit, Failure, Outcome, Text};

/// How to print.
pub(crate) struct Printer {
    is_json: bool,
    is_quiet: bool,
}

impl Printer {
    pub(crate) fn new(is_json: bool, is_quiet: bool) -> Self {
        Self { is_json, is_quiet }
    }

    /// Prints a result and gives its exit code.
    pub(crate) fn outcome(&self, outcome: &Outcome) -> ExitCode {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        let written = self.write_result(outcome, &mut stdout.lock(), is_terminal);
        if let Err(error) = written {
            // A reader that has seen enough, such as `head`, is no failure.
            if error.kind() != io::ErrorKind::BrokenPipe {
                // What was asked for may have been done.
                let message = format!("cannot write the result: {error}");
                let (exit, code) = (Exit::Negative, "OUTPUT_FAILED");
                return self.failure(&Failure { exit, code, message });
            }
        }
        if let Some(note) = &outcome.note
            && !self.is_json
            && !self.is_quiet
        {
            say(&format!("{note}\n"));
        }
        code(outcome.exit)
    }

    fn write_result(
        &self,
        outcome: &Outcome,
        out: &mut dyn Write,
        is_terminal: bool,
    ) -> io::Result<()> {
        if self.is_json {
            writeln!(out, "{}", outcome.json)?;
            return out.flush();
        }
        match &outcome.text {
            Text::Nothing => {}
            Text::Lines(lines) => writeln!(out, "{lines}")?,
            Text::Raw(bytes) => {
                out.write_all(bytes)?;
                if is_terminal && !bytes.ends_with(b"\n") {
                    out.write_all(b"\n")?;
                }
            }
        }
        out.flush()
    }

    /// Prints why there is no result and gives the exit code.
    pub(crate) fn failure(&self, failure: &Failure) -> ExitCode {
        if self.is_json {
            say(&format!("{}\n", failure.json()));
        } else {
            let word = match is_coloured() {
                true => "\x1b[1;31merror:\x1b[0m",
                false => "error:",
            };
            say(&format!("{word} {} ({})\n", failure.message, failure.code));
        }
        code(failure.exit)
    }
}

/// Whether people read stderr on a terminal and have nothing against colours.
pub(crate) fn is_coloured() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

fn say(text: &str) {
    // There is nowhere left to report that stderr is closed.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

fn code(exit: Exit) -> ExitCode {
    ExitCode::from(exit as u8)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn printed(is_json: bool, text: Text, is_terminal: bool) -> Vec<u8> {
        let outcome = Outcome { json: json!({ "a": 1 }), text, note: None, exit: Exit::Success };
        let mut out = Vec::new();
        Printer::new(is_json, false).write_result(&outcome, &mut out, is_terminal).unwrap();
        out
    }

    #[test]
    fn bytes_are_written_as_they_are_unless_a_person_reads_them() {
        assert_eq!(printed(false, Text::Raw(vec![0xff]), false), [0xff]);
        assert_eq!(printed(false, Text::Raw(b"v".to_vec()), true), b"v\n");
        assert_eq!(printed(false, Text::Raw(b"v\n".to_vec()), true), b"v\n");
        assert_eq!(printed(false, Text::Raw(vec![]), false), b"");
    }

    #[test]
    fn json_is_one_document_whatever_the_text() {
        for text in [Text::Nothing, Text::Lines("x".into()), Text::Raw(vec![1])] {
            assert_eq!(printed(true, text, true), b"{\"a\":1}\n");
        }
    }
}
