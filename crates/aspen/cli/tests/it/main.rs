//! The program itself, run as users run it, against a member in this process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod member;
mod program;
