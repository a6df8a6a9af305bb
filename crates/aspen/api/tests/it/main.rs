//! The wire format, pinned and bounded, and the registry of services.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod damage;
mod golden;
mod postcard_layout;
mod registry;
mod samples;
