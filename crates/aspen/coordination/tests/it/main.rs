//! Coordination primitives over a store in memory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod counter;
