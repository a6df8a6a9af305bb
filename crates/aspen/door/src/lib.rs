//! Doors: listeners for foreign protocols, such as HTTP.
//!
//! A [`Door`] is a value that speaks one protocol. [`Doors`] opens it on a [`Listener`], which accepts
//! connections within limits, with TLS where it is configured, and survives a lack of descriptors. A
//! door sees the node through [`Services`](aspen_api::service::Services) alone and maps the credentials
//! of its callers to capability tokens ([`Credentials`]).
//!
//! Invariants: a door never holds more connections than its limit; each connection ends at the latest
//! when its door is closed; every refusal is counted.

mod connection;
mod credentials;
mod doors;
mod listener;
mod metrics;
mod stop;
mod tls;

pub use connection::Connection;
pub use credentials::{Credentials, CredentialsError};
pub use doors::{Door, Doors, OpenError};
pub use listener::{DoorConfig, DoorLimits, Listener};
pub use stop::Stop;
pub use tls::{Tls, TlsError};
