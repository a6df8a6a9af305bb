//! Real node processes: the tour, restarts, and what must be refused.
#![allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]

mod process;
mod single;
mod tour;
