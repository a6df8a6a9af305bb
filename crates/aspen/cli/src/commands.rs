//! Carrying out commands: requests in, outcomes out.

mod cluster;
mod kv;
mod lease;

use aspen_client::Client;

use crate::args::Command;
use crate::outcome::{Failure, Outcome};

/// Runs one command.
pub(crate) async fn run(client: &Client, command: Command) -> Result<Outcome, Failure> {
    match command {
        Command::Kv(command) => kv::run(client, command).await,
        Command::Lease(command) => lease::run(client, command).await,
        Command::Cluster(command) => cluster::run(client, command).await,
    }
}
