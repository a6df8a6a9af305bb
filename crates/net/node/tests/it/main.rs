//! Real nodes on real sockets.
#![allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]

mod calls;
mod pair;
mod protocols;
mod streams;
