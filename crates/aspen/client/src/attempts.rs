//! What the attempts at one request have shown so far, and which error they add up to.
//!
//! Invariant: once an attempt may have been carried out, the request is open until an answer that
//! speaks for all attempts settles it.

use aspen_api::{ApiError, ErrorCode};

use crate::judgement::is_definitive;

/// Ids that one write is given at most. More than one only if the store has forgotten answers since
/// the last that this client has seen of it.
const MAX_IDS: u32 = 4;

/// What is known of the attempts so far, for the error when time runs out.
#[derive(Default)]
pub(crate) struct Attempts {
    /// Whether it has an id, under which the store remembers its outcome.
    pub(crate) is_write: bool,
    /// Whether it changes anything.
    pub(crate) is_change: bool,
    pub(crate) count: u32,
    pub(crate) ids: u32,
    /// An attempt may have been carried out, or may yet be, without an answer that says so.
    pub(crate) is_open: bool,
    pub(crate) last_refusal: Option<ApiError>,
    pub(crate) last_silence: Option<String>,
}

impl Attempts {
    /// Whether a write that was refused for its old id can be asked again under a new one: no
    /// attempt can have been carried out.
    pub(crate) fn may_have_new_id(&self, error: &ApiError) -> bool {
        let is_unheard = self.is_write && !self.is_open && self.ids < MAX_IDS;
        is_unheard && error.code == ErrorCode::SessionExpired
    }

    /// The error of a request that was refused for good, perhaps after other attempts.
    pub(crate) fn refusal(self, error: ApiError) -> ApiError {
        let speaks_for_all = self.is_write && is_definitive(error.code);
        if !self.is_open || !self.is_change || speaks_for_all {
            return error;
        }
        let text = format!(
            "the outcome of an attempt is unknown and a later one was refused ({error}); the \
             request may or may not have been carried out"
        );
        ApiError::new(ErrorCode::Timeout, text)
    }

    /// The error of a request whose time ran out.
    pub(crate) fn error(self, peers: usize) -> ApiError {
        if self.is_open {
            let doubt = match self.is_change {
                true => "; the request may or may not have been carried out",
                false => "",
            };
            let text = format!("no final answer after {} attempts{doubt}", self.count);
            return ApiError::new(ErrorCode::Timeout, text);
        }
        self.last_refusal.unwrap_or_else(|| {
            let whom = match peers {
                1 => "the member that was asked cannot be reached".to_owned(),
                _ => format!("none of {peers} members can be reached"),
            };
            let text = format!(
                "{whom} after {} attempts ({}); is the cluster running, and is the ticket current?",
                self.count,
                self.last_silence.as_deref().unwrap_or("no answer")
            );
            ApiError::new(ErrorCode::ServiceUnavailable, text)
        })
    }
}
