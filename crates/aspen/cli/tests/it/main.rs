//! The program itself, run as users run it, against answers that a real node gives too rarely to
//! wait for. What it does with real nodes is tested beside `aspen-node`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod member;
mod program;
mod ran;
