//! The commands. A file has what can be typed, whose help ends with examples, and what carries it
//! out: requests in, outcomes out.

mod cluster;
pub(crate) mod completions;
mod counter;
mod kv;
mod lease;
pub(crate) mod token;

use aspen_client::Client;
use clap::Subcommand;
use clap_complete::Shell;

pub(crate) use cluster::ClusterCommand;
pub(crate) use counter::CounterCommand;
pub(crate) use kv::KvCommand;
pub(crate) use lease::LeaseCommand;
pub(crate) use token::TokenCommand;

use crate::outcome::{Failure, Outcome};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    OfCluster(OfCluster),
    /// Print a script that completes this tool's commands in a shell.
    #[command(after_help = "\
Examples:
  source <(aspen-cli completions bash)
  aspen-cli completions fish > ~/.config/fish/completions/aspen-cli.fish")]
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Commands about a cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum OfCluster {
    /// Read and write keys.
    #[command(subcommand)]
    Kv(KvCommand),
    /// Grant and use leases, which keys can live with.
    #[command(subcommand)]
    Lease(LeaseCommand),
    /// Count across nodes and clients.
    #[command(subcommand)]
    Counter(CounterCommand),
    /// Look at and change the cluster.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Issue, look at, hand on and take back capability tokens.
    #[command(subcommand)]
    Token(TokenCommand),
}

/// Refuses what was typed if it cannot be meant, before any cluster is asked.
pub(crate) fn check(command: &OfCluster) -> Result<(), Failure> {
    match command {
        OfCluster::Kv(command) => kv::check(command),
        OfCluster::Cluster(command) => cluster::check(command),
        OfCluster::Lease(_) | OfCluster::Counter(_) | OfCluster::Token(_) => Ok(()),
    }
}

/// Runs one command.
pub(crate) async fn run(client: &Client, command: OfCluster) -> Result<Outcome, Failure> {
    match command {
        OfCluster::Kv(command) => kv::run(client, command).await,
        OfCluster::Lease(command) => lease::run(client, command).await,
        OfCluster::Counter(command) => counter::run(client, command).await,
        OfCluster::Cluster(command) => cluster::run(client, command).await,
        OfCluster::Token(TokenCommand::Offline(command)) => token::offline(&command),
        OfCluster::Token(TokenCommand::Revoke { token }) => token::revoke(client, &token).await,
    }
}
