//! The multi-version key-value store as a pure function of its log.
//!
//! [`Applier`] turns log entries into changes of ordered tables, [`View`] reads them at any
//! revision that is still kept. Tables are behind a trait ([`ReadTables`], [`WriteTables`]), so that
//! the same code runs over memory and over a file. No clock, no randomness, no I/O of its own: time
//! is the log's, and the index of a log entry is the store's revision, one command to an entry.
//!
//! Layouts are in `layout.rs`; the log's content in [`Proposal`]; the snapshot's in [`snapshot`].

mod applier;
mod command;
pub mod conformance;
mod consensus;
mod dedup;
mod error;
mod event;
mod invariants;
mod layout;
mod leases;
mod lifetime;
mod log_clock;
mod maintenance;
mod memory_store;
mod removal;
mod reply;
mod rows;
mod scan;
mod service;
pub mod snapshot;
mod tables;
mod token;
mod transact;
mod versions;
mod view;

pub use applier::{Applier, load_header};
pub use command::{Command, Mutation, Proposal, ProposalError};
pub use consensus::{Consensus, Store};
pub use error::{ReadError, StateError};
pub use event::{Change, Event};
pub use invariants::check_invariants;
pub use layout::{Header, Sweep};
pub use log_clock::LogClock;
pub use maintenance::{maintenance, next_maintenance_ms};
pub use memory_store::MemoryStore;
pub use reply::{Reply, StepResult, TickResult};
pub(crate) use rows::{Fault, FaultRows, Rows};
pub use service::{KvService, LeaseService};
pub use tables::{MemoryRows, MemoryTables, ReadTables, TableId, WriteTables};
pub use view::{Query, View};
