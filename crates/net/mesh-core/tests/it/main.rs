//! Endpoints in a simulated network: handshakes, streams and paths under every impairment.
#![allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]

mod crossing;
mod handshake;
mod node;
mod transfer;
mod world;
