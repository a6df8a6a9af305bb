//! A client of a cluster.
//!
//! [`Client`] speaks every request of `aspen-api`, finds the leader, rotates over the members that
//! its ticket names and repeats what failed, so that a caller sees an answer or a final error. A
//! repeated write is applied once: its id stays the same through all attempts. [`Rotation`] holds
//! the decisions, without I/O.

mod attempts;
mod client;
mod dev_ticket;
mod judgement;
mod lookout;
mod peers;
mod request_ids;
mod requests;
mod rotation;
mod routing;
mod store;

pub use client::{Client, ClientOptions, ConnectError};
pub use dev_ticket::{
    TicketFileError, dev_ticket_path, read_secret_file, read_ticket_file, ticket_from,
};
pub use rotation::{Failure, Rotation, Step};
