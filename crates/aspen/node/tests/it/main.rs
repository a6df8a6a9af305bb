//! Real node processes and the command line: every verb, growth, fail-over, restarts, the tour, and
//! what must be refused.
#![allow(clippy::unwrap_used, reason = "a failed expectation is the test's failure")]

mod cli;
mod cluster;
mod counters;
mod dev;
mod http;
mod keys;
mod leases;
mod limits;
mod moves;
mod process;
#[path = "../../../cli/tests/it/ran.rs"]
mod ran;
mod refusals;
mod single;
mod three;
mod tokens;
mod tour;
mod transactions;
mod upgrades;
