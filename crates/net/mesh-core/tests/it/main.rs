//! Endpoints in a simulated network: handshakes, streams and paths under every impairment.
#![allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]

mod acks;
mod crossing;
mod epochs;
mod handshake;
mod load;
mod node;
mod paths;
mod protocols;
mod relay;
mod replay;
mod streams;
mod transfer;
mod world;
