//! The state that the log leads to: the store's tables, how far the log is applied, and the members.
//!
//! Entries are applied in memory, on top of a file that holds the last checkpoint; the log is what
//! makes them durable. From time to time a checkpoint writes to the file what memory holds, in one
//! synced transaction, and only then may the log before it be dropped. After a crash the state
//! is that of the last checkpoint and the log is applied again from there. Reads see the state as
//! of the last whole batch and never wait.

mod apply;
mod checkpoint;
mod error;
mod file;
mod layer;
mod progress;
mod store;
mod tables;
#[cfg(test)]
mod tests;

pub use error::StoreError;
pub(crate) use file::FileWriter;
pub(crate) use progress::Progress;
pub use store::StoreView;
pub(crate) use store::{AppliedBatch, Store};
pub use tables::{Rows, Slice, StoreTables};
