//! Two sessions, a link between them and a clock that jumps: what a session does by itself, without
//! the endpoint that owns it. One file for each behaviour.
#![allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]

mod credit;
mod drain;
mod finish;
mod liveness;
mod loss;
mod pair;
mod path;
mod pieces;
mod resets;
mod timers;
mod transfer;
