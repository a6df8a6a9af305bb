//! What a command came to: something to print and an exit code.

use aspen_api::{ApiError, ErrorCode};
use serde_json::{Value, json};

/// Exit codes, the same for text and JSON and for all tools of the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Success = 0,
    /// A negative outcome: a conflict, a limit.
    Negative = 1,
    Usage = 2,
    NotFound = 3,
    Permission = 5,
    NotConnected = 6,
    Deadline = 7,
    CapabilityUnavailable = 9,
}

/// The result of a command that ran.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The document for `--json`.
    pub(crate) json: Value,
    /// The bytes for stdout otherwise.
    pub(crate) text: Text,
    /// A remark for people, on stderr.
    pub(crate) note: Option<String>,
    /// The exit code.
    pub(crate) exit: Exit,
}

/// What goes to stdout.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Text {
    /// Lines, the last one without its end.
    Lines(String),
    /// Bytes as they are. On a terminal a line end is added.
    Raw(Vec<u8>),
    /// Nothing.
    Nothing,
}

impl Text {
    /// Lines, or nothing if there are none.
    pub(crate) fn lines(lines: &[String]) -> Self {
        match lines {
            [] => Self::Nothing,
            _ => Self::Lines(lines.join("\n")),
        }
    }
}

impl Outcome {
    pub(crate) fn new(json: Value, text: impl Into<String>) -> Self {
        Self { json, text: Text::Lines(text.into()), note: None, exit: Exit::Success }
    }

    pub(crate) fn negative(self) -> Self {
        Self { exit: Exit::Negative, ..self }
    }

    pub(crate) fn with_note(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }
}

/// A command that could not run or got no result.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, code: "USAGE", message: message.into() }
    }

    pub(crate) fn not_connected(message: impl Into<String>) -> Self {
        Self { exit: Exit::NotConnected, code: "NOT_CONNECTED", message: message.into() }
    }

    /// The document on stderr with `--json`.
    pub(crate) fn json(&self) -> Value {
        json!({ "status": "error", "code": self.code, "message": self.message })
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let exit = match error.code {
            ErrorCode::NotLeader
            | ErrorCode::NotInitialized
            | ErrorCode::ServiceUnavailable
            | ErrorCode::PluginLoading => Exit::NotConnected,
            ErrorCode::CapabilityUnavailable
            | ErrorCode::FeatureDisabled
            | ErrorCode::Unsupported => Exit::CapabilityUnavailable,
            ErrorCode::Unauthorized | ErrorCode::Forbidden => Exit::Permission,
            ErrorCode::InvalidRequest | ErrorCode::InvalidToken => Exit::Usage,
            ErrorCode::Timeout => Exit::Deadline,
            ErrorCode::NotFound => Exit::NotFound,
            ErrorCode::TooLarge
            | ErrorCode::RateLimited
            | ErrorCode::Compacted
            | ErrorCode::Conflict
            | ErrorCode::SessionExpired
            | ErrorCode::InternalError => Exit::Negative,
        };
        let advice = match error.code {
            ErrorCode::NotInitialized => {
                "; add it to one with \"aspen-cli cluster add-learner\" and that cluster's ticket, or \
                 make it a cluster of its own with \"aspen-cli cluster init\""
            }
            ErrorCode::NotLeader => {
                "; no leader was found, so that a majority of the voters may be down: look with \
                 \"aspen-cli cluster status\" and \"aspen-cli cluster health --node ID\""
            }
            ErrorCode::Compacted => "; read without --revision or --token, or a newer one",
            ErrorCode::Unauthorized => "; give a token with --token or ASPEN_TOKEN",
            ErrorCode::Timeout => "; give more time with --timeout",
            _ => "",
        };
        Self { exit, code: error.code.name(), message: format!("{}{advice}", error.message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_code_has_its_exit_code() {
        let exits: Vec<_> = ErrorCode::ALL
            .iter()
            .map(|code| Failure::from(ApiError::new(*code, "")).exit as u8)
            .collect();
        // In the order of the codes' numbers.
        assert_eq!(exits, [6, 6, 6, 9, 6, 5, 5, 2, 2, 1, 1, 7, 1, 3, 1, 1, 9, 9, 1]);
    }

    #[test]
    fn failures_have_one_json_shape() {
        let failure = Failure::from(ApiError::new(ErrorCode::NotFound, "no such lease"));
        let expected =
            json!({ "status": "error", "code": "NOT_FOUND", "message": "no such lease" });
        assert_eq!(failure.json(), expected);
    }
}
