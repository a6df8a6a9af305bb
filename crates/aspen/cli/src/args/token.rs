//! `token`, as it is typed.

use std::path::PathBuf;
use std::time::Duration;

use aspen_auth::{Audience, Capability};
use clap::{Args, Subcommand};

/// Longest life of a token: ten years.
const MAX_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    #[command(flatten)]
    Offline(OfflineTokenCommand),
    /// Take a token back, and all that rest on it. Needs the capability `admin`.
    #[command(after_help = "\
Example:
  aspen-cli --token admin.token token revoke aspentoken...")]
    Revoke {
        /// The token's text, or a file that only you can read with it.
        token: String,
    },
}

/// What needs no cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum OfflineTokenCommand {
    /// Issue a token as a root, without asking a cluster.
    #[command(after_help = "\
Examples:
  aspen-cli token generate --key-file data/node_key --capability read:app/ --expires-in 30d
  aspen-cli token generate --key-file root_key --capability admin --audience <64 hex>")]
    Generate {
        #[command(flatten)]
        issue: Issue,
    },
    /// Show what a token says, and whether it is whole, without asking a cluster.
    #[command(after_help = "Example:\n  aspen-cli token inspect aspentoken...")]
    Inspect {
        /// The token's text, or a file that only you can read with it.
        token: String,
    },
    /// Hand on a narrower token, without asking a cluster. The token that is handed on must name the
    /// key as its audience and have the capability `delegate`.
    #[command(after_help = "\
Example:
  aspen-cli token delegate team.token --key-file my_key --capability read:app/public/")]
    Delegate {
        /// The token's text, or a file that only you can read with it.
        token: String,
        #[command(flatten)]
        issue: Issue,
    },
}

/// What a new token says.
#[derive(Debug, Args)]
pub(crate) struct Issue {
    /// The key that signs, as 64 hexadecimal digits in a file, like a node's `node_key`.
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: PathBuf,
    /// What it allows: read:PREFIX, write:PREFIX, delete:PREFIX, full:PREFIX, admin or delegate.
    /// Repeat it for more.
    #[arg(long = "capability", value_name = "CAPABILITY", required = true)]
    pub(crate) capabilities: Vec<Capability>,
    /// Who may use it: an entity id, or `bearer` for whoever has it.
    #[arg(long, value_name = "WHO", default_value = "bearer", value_parser = parse_audience)]
    pub(crate) audience: Audience,
    /// How long it lives, like 90s, 12h or 30d.
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = parse_life)]
    pub(crate) expires_in: Duration,
}

fn parse_audience(text: &str) -> Result<Audience, String> {
    match text {
        "bearer" => Ok(Audience::Bearer {}),
        _ => match text.parse() {
            Ok(key) => Ok(Audience::Key { key }),
            Err(_) => Err("write an entity id, which is 64 hexadecimal digits, or bearer".into()),
        },
    }
}

fn parse_life(text: &str) -> Result<Duration, String> {
    let life = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match life {
        _ if life < Duration::from_secs(1) => Err("at least 1s".into()),
        _ if life > MAX_LIFE => Err("at most ten years".into()),
        _ => Ok(life),
    }
}
