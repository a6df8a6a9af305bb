//! Behaviour of the store: against a naive model, over its life, and on damaged input.

mod damage;
mod dedup;
mod expiry;
mod golden;
mod history;
mod memory_store;
mod model;
mod operations;
mod store;
