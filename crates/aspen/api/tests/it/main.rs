//! The wire format: pinned, bounded, and deaf to damage.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod damage;
mod golden;
mod postcard_layout;
mod samples;
