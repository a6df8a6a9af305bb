//! A client against members on real sockets whose behaviour is scripted.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod members;
mod retries;
