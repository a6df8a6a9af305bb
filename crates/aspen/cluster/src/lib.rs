//! Consensus: openraft on Net with a durable log and state.

pub mod disk;
pub mod log;
mod raft_log;
mod runtime;
mod snapshot;
mod state;
mod types;
