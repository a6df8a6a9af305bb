//! Consensus: openraft on Net with a durable log and state.

pub mod disk;
pub mod log;
