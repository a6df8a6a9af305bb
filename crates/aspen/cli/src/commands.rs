//! The commands. A file has what can be typed, whose help ends with examples, and what carries it
//! out: requests in, outcomes out.

mod cluster;
pub(crate) mod completions;
mod counter;
mod kv;
mod lease;
pub(crate) mod token;

use aspen_client::Client;

pub(crate) use cluster::ClusterCommand;
pub(crate) use counter::CounterCommand;
pub(crate) use kv::KvCommand;
pub(crate) use lease::LeaseCommand;
pub(crate) use token::TokenCommand;

use crate::args::Command;
use crate::outcome::{Failure, Outcome};

/// Refuses what was typed if it cannot be meant, before any cluster is asked.
pub(crate) fn check(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Kv(command) => kv::check(command),
        Command::Cluster(command) => cluster::check(command),
        Command::Lease(_)
        | Command::Counter(_)
        | Command::Token(_)
        | Command::Completions { .. } => Ok(()),
    }
}

/// Runs one command.
pub(crate) async fn run(client: &Client, command: Command) -> Result<Outcome, Failure> {
    match command {
        Command::Kv(command) => kv::run(client, command).await,
        Command::Lease(command) => lease::run(client, command).await,
        Command::Counter(command) => counter::run(client, command).await,
        Command::Cluster(command) => cluster::run(client, command).await,
        Command::Token(TokenCommand::Offline(command)) => token::offline(&command),
        Command::Token(TokenCommand::Revoke { token }) => token::revoke(client, &token).await,
        Command::Completions { shell } => Ok(completions::script(shell)),
    }
}
