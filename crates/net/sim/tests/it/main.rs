//! The simulator's promises: repeatable by seed, impairments that really happen, a disk that loses
//! what it may lose and nothing else, and faults in what it runs that do not go unnoticed.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod canary;
mod courier;
mod disk;
mod network;
mod world;
