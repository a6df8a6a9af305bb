//! What a stream is: how it delivers, how urgent it is, how much may be outstanding.
//!
//! Invariants: a stream in a session has a weight of 1 or more and a window of 1 to
//! [`MAX_STREAM_WINDOW_BYTES`] bytes; its parameters do not change while it is open.

use net_types::limits::{DEFAULT_STREAM_WINDOW_BYTES, MAX_STREAM_WINDOW_BYTES};
use net_wire::{Class, StreamMode, StreamOpen, Subprotocol};
use thiserror::Error;

/// Parameters of a stream, chosen by the side that opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    /// Delivery.
    pub mode: StreamMode,
    /// Scheduling class.
    pub class: Class,
    /// Share among streams of one class, 1..=255.
    pub weight: u8,
    /// Bytes that may be sent and not yet taken by the peer's application.
    pub window_bytes: u32,
    /// Who handles its messages.
    pub subprotocol: Subprotocol,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            mode: StreamMode::RELIABLE,
            class: Class::Foreground,
            weight: 16,
            window_bytes: DEFAULT_STREAM_WINDOW_BYTES,
            subprotocol: Subprotocol::EVENTS,
        }
    }
}

impl StreamConfig {
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        if self.weight == 0 {
            return Err(OpenError::Config { field: "weight" });
        }
        if self.window_bytes == 0 || self.window_bytes > MAX_STREAM_WINDOW_BYTES {
            return Err(OpenError::Config { field: "window_bytes" });
        }
        Ok(())
    }

    pub(crate) fn open_block(&self) -> StreamOpen {
        StreamOpen { mode: self.mode, weight: self.weight, window_bytes: self.window_bytes }
    }
}

/// Why a stream was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpenError {
    /// A parameter is zero or above its limit.
    #[error("stream parameter {field} is out of range")]
    Config {
        /// The parameter.
        field: &'static str,
    },
    /// The session has as many streams as it may.
    #[error("the session has no room for another stream")]
    TooManyStreams,
    /// The session is over.
    #[error("the session is closed")]
    Closed,
}
