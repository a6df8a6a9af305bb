//! Endpoints in a simulated network: handshakes, streams and paths under every impairment.

mod node;
mod transfer;
