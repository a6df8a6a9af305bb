//! The multi-version key-value store as a pure function of its log.
//!
//! [`Applier`] turns log entries into changes of ordered tables, [`View`] reads them at any
//! revision that is still kept. Tables are behind a trait ([`ReadTables`], [`WriteTables`]), so that
//! the same code runs over memory and over a file. No clock, no randomness, no I/O of its own: time
//! is the log's, and the index of a log entry is the store's revision, one command to an entry.
//!
//! Layouts are in `layout.rs`; the log's content in [`Proposal`]; the snapshot's in [`snapshot`].

mod applier;
mod batch;
mod command;
mod dedup;
mod error;
mod event;
mod layout;
mod leases;
mod lifetime;
mod removal;
mod reply;
mod scan;
mod tables;
mod token;
mod versions;
mod view;

pub use applier::{Applier, load_header};
pub use command::{Command, Proposal};
pub use error::{ReadError, StateError};
pub use event::{Change, Event};
pub use layout::{Header, Sweep};
pub use reply::{Reply, TickResult};
pub use tables::{MemoryRows, MemoryTables, ReadTables, TableId, WriteTables};
pub use view::View;
