//! `lease`, as it is typed.

use aspen_api::LeaseId;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum LeaseCommand {
    /// Grant a lease.
    #[command(after_help = "\
Examples:
  aspen-cli lease grant 60            a generated id
  aspen-cli lease grant 60 --id 7")]
    Grant {
        /// Seconds it lives without a keepalive.
        ttl_seconds: u64,
        /// The id to use.
        #[arg(long)]
        id: Option<LeaseId>,
    },
    /// End a lease and delete its keys.
    #[command(after_help = "Example:\n  aspen-cli lease revoke 7")]
    Revoke {
        /// The lease.
        id: LeaseId,
    },
    /// Start a lease's time anew.
    #[command(after_help = "Example:\n  aspen-cli lease keepalive 7")]
    Keepalive {
        /// The lease.
        id: LeaseId,
    },
    /// Show how long a lease lives.
    #[command(after_help = "Example:\n  aspen-cli lease ttl 7 --keys")]
    Ttl {
        /// The lease.
        id: LeaseId,
        /// List its keys as well.
        #[arg(long)]
        keys: bool,
    },
    /// List leases.
    #[command(after_help = "Example:\n  aspen-cli --json lease list")]
    List,
}
