//! Doors over real sockets: limits, TLS, draining, counts and credentials.
#![allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]

mod credentials;
mod echo;
mod limits;
mod tls;
