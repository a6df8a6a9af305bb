//! A durable log of consensus entries: append-only segments, checksummed and hash-chained, with
//! one sync for each batch of appends.
//!
//! [`Log`] stores entries, votes, truncations and purges as records of one sequence. One writer
//! owns the files. It syncs after each batch, and what is appended during a sync becomes the next
//! batch. The newest entries stay in memory for replication and apply; older entries are read from
//! their segments. `docs/format-log.md` describes the bytes, and [`disk`] what a disk must promise.
//!
//! The log does not know what an entry means, who its leader is, or how members talk.
//!
//! Modules form a chain; each names only those before it: `disk`, `entry`, `record`, `error`,
//! `cache`, `index`, `segment`, `recover`, `executor`, `state`, `shared`, `read`, `writer`, `log`.

mod cache;
pub mod disk;
mod entry;
mod error;
mod executor;
mod index;
mod log;
mod read;
mod record;
mod recover;
mod segment;
mod shared;
mod state;
mod writer;

#[cfg(test)]
mod tests;

pub use entry::{EntryId, LogEntry, RecordKind, StoredVote};
pub use error::LogError;
pub use executor::WriterDrive;
pub use log::Log;
pub use state::{LogCounters, LogOptions};
pub use writer::Completion;
