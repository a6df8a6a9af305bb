//! Consensus: openraft on Net with a durable log and state.
