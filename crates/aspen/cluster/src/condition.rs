//! What a node can still do: which requests it serves, and whether it votes.
//!
//! A condition that is damaged or stopping stays so; a full disk can have room again.

use std::sync::atomic::{AtomicBool, Ordering};

use aspen_api::{ApiError, ErrorCode};
use aspen_kv::Command;

/// The request was not carried out, and another node or a later try may do better.
pub(crate) fn unavailable(text: &str) -> ApiError {
    ApiError::new(ErrorCode::ServiceUnavailable, text)
}

/// The node has stopped, by request or after a storage error.
pub(crate) fn stopped() -> ApiError {
    unavailable("the node has stopped")
}

/// The `error`, unless it `is_so`.
pub(crate) fn ensure<E>(is_so: bool, error: impl FnOnce() -> E) -> Result<(), E> {
    if is_so { Ok(()) } else { Err(error()) }
}

/// The condition of a node.
#[derive(Default)]
pub(crate) struct Condition {
    is_damaged: AtomicBool,
    is_disk_full: AtomicBool,
    is_stopping: AtomicBool,
}

impl Condition {
    /// Stops the node; `false` if it was stopped before.
    pub(crate) fn stop(&self) -> bool {
        !self.is_stopping.swap(true, Ordering::AcqRel)
    }

    /// Notes that the log was found damaged while running.
    pub(crate) fn note_damage(&self) {
        self.is_damaged.store(true, Ordering::Relaxed);
    }

    /// Notes whether the disk is almost full; whether that is a change.
    pub(crate) fn note_disk(&self, is_full: bool) -> bool {
        self.is_disk_full.swap(is_full, Ordering::Relaxed) != is_full
    }

    pub(crate) fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Relaxed)
    }

    pub(crate) fn is_disk_full(&self) -> bool {
        self.is_disk_full.load(Ordering::Relaxed)
    }

    /// `SERVICE_UNAVAILABLE` once the node is stopping.
    pub(crate) fn ensure_serving(&self) -> Result<(), ApiError> {
        ensure(!self.is_stopping.load(Ordering::Relaxed), stopped)
    }

    /// `SERVICE_UNAVAILABLE` for what would grow the log of a node whose disk is almost full. Ticks
    /// pass, since they remove what has expired.
    pub(crate) fn ensure_writable(&self, command: &Command) -> Result<(), ApiError> {
        ensure(!self.is_disk_full() || matches!(command, Command::Tick {}), || {
            unavailable("the data disk is almost full; writes are refused")
        })
    }
}

#[cfg(test)]
mod tests {
    use aspen_api::Level;

    use super::*;

    #[test]
    fn a_full_disk_refuses_all_but_ticks_until_there_is_room() {
        let condition = Condition::default();
        let step = Command::Step { level: Level::FIRST };
        assert!(condition.note_disk(true), "news");
        assert!(!condition.note_disk(true), "known");
        assert!(condition.ensure_writable(&step).is_err());
        assert_eq!(condition.ensure_writable(&Command::Tick {}), Ok(()));
        assert!(condition.note_disk(false));
        assert_eq!(condition.ensure_writable(&step), Ok(()));
    }

    #[test]
    fn a_node_stops_once() {
        let condition = Condition::default();
        assert_eq!(condition.ensure_serving(), Ok(()));
        assert!(condition.stop());
        assert!(!condition.stop());
        assert_eq!(condition.ensure_serving(), Err(stopped()));
    }
}
