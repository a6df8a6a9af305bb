//! Behaviour of the store: against a naive model, over its life, and on damaged input.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod damage;
mod dedup;
mod expiry;
mod golden;
mod history;
mod memory_store;
mod model;
mod operations;
mod store;
