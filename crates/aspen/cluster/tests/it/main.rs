//! Behaviour of whole clusters on one thread, with a clock that only moves when all wait.

#![allow(clippy::unwrap_used)]

mod client;
mod cluster;
mod members;
mod mesh;
mod restart;
mod sim;
mod transport;
mod trust;
mod udp;
