//! The log and the state as openraft's storage.

mod durable;
mod log;
mod machine;
#[cfg(test)]
mod tests;

pub(crate) use durable::RaftLog;
pub(crate) use log::LogStore;
pub(crate) use machine::StateMachine;
