//! Whole clusters in a world that one seed decides, and the judgement of what their clients saw.

mod checker;
mod checker_tests;
mod clients;
mod clock;
mod disk;
mod full_disk;
mod history;
mod lifetimes;
mod nemesis;
mod network;
mod run;
mod tests;
mod world;
