//! What can be typed. Every command's help ends with examples.

use std::path::PathBuf;

use aspen_api::kv::Consistency;
use aspen_api::{Key, LeaseId, MemberId, Prefix, Revision};
use bytes::Bytes;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use net_types::PeerAddr;

use crate::values::{parse_addr, parse_assignment, parse_token};

/// The command line of an Aspen cluster.
#[derive(Debug, Parser)]
#[command(
    name = "aspen-cli",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  aspen-node dev                          start a local cluster; this tool finds it by itself
  aspen-cli kv set greeting hello
  aspen-cli kv get greeting
  aspen-cli --json cluster status
  ASPEN_TICKET=aspen... aspen-cli kv scan app/

Exit codes: 0 success, 1 negative outcome (conflict, limit), 2 usage, 3 not found, 5 permission,
6 not connected, 7 deadline, 9 capability unavailable."
)]
pub(crate) struct Cli {
    /// The cluster: a ticket's text, or a file that only you can read with a ticket in it. Without
    /// it the ticket of your local development cluster is used.
    #[arg(long, env = "ASPEN_TICKET", global = true, hide_env_values = true)]
    pub(crate) ticket: Option<String>,

    /// Capability token to send with each request. Stands before the command, as some commands have
    /// a --token of their own.
    #[arg(long, env = "ASPEN_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,

    /// Milliseconds for the whole command, retries included.
    #[arg(long, global = true, default_value_t = 30_000, value_name = "MS")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub(crate) timeout: u64,

    /// Print exactly one JSON document; errors are JSON on stderr.
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Say more on stderr; twice for details of every attempt.
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub(crate) verbose: u8,

    /// Say nothing on stderr but errors.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Read and write keys.
    #[command(subcommand)]
    Kv(KvCommand),
    /// Grant and use leases, which keys can live with.
    #[command(subcommand)]
    Lease(LeaseCommand),
    /// Look at and change the cluster.
    #[command(subcommand)]
    Cluster(ClusterCommand),
}

/// How fresh a read is.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Freshness {
    /// The leader confirms that it leads.
    #[default]
    Linearizable,
    /// The leader answers within its lease.
    Lease,
    /// Any node answers from what it has.
    Stale,
}

impl From<Freshness> for Consistency {
    fn from(freshness: Freshness) -> Self {
        match freshness {
            Freshness::Linearizable => Self::Linearizable,
            Freshness::Lease => Self::Lease,
            Freshness::Stale => Self::Stale,
        }
    }
}

/// Options of reads.
#[derive(Debug, Args)]
pub(crate) struct ReadOptions {
    /// How fresh the answer must be.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) consistency: Freshness,
    /// Read an older revision instead of the newest.
    #[arg(long)]
    pub(crate) revision: Option<Revision>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KvCommand {
    /// Print a key's value. A key that does not exist is no error.
    #[command(after_help = "\
Examples:
  aspen-cli kv get app/name
  aspen-cli kv get app/logo > logo.png        bytes are written as they are
  aspen-cli kv get app/name --revision 120    the value at an older revision")]
    Get {
        key: Key,
        #[command(flatten)]
        read: ReadOptions,
    },
    /// Set a key, which clears its time to live and its lease.
    #[command(after_help = "\
Examples:
  aspen-cli kv set app/name Aspen
  aspen-cli kv set app/logo --file logo.png
  date | aspen-cli kv set app/now --file -
  aspen-cli kv set session/7 alice --ttl-ms 60000
  aspen-cli kv set worker/1 up --lease 7")]
    Set {
        key: Key,
        /// The value; may be empty. One that starts with a hyphen stands after "--".
        #[arg(required_unless_present = "file", conflicts_with = "file")]
        #[arg(allow_negative_numbers = true)]
        value: Option<String>,
        /// Read the value from a file, or from standard input if it is "-".
        #[arg(long)]
        file: Option<PathBuf>,
        /// Milliseconds after which the key is gone.
        #[arg(long, value_name = "MS", conflicts_with = "lease")]
        ttl_ms: Option<u64>,
        /// Lease that the key lives with.
        #[arg(long, value_name = "ID")]
        lease: Option<LeaseId>,
    },
    /// Delete a key. Deleting one that does not exist succeeds.
    #[command(after_help = "Example:\n  aspen-cli kv delete app/name")]
    Delete { key: Key },
    /// List keys that start with a prefix, in byte order. All pages of a scan show one revision.
    #[command(after_help = "\
Examples:
  aspen-cli kv scan app/
  aspen-cli kv scan --limit 10                     the first ten keys of all
  aspen-cli kv scan app/ --limit 10 --token TOKEN  the next page")]
    Scan {
        /// The prefix; without it all keys.
        #[arg(default_value = "")]
        prefix: Prefix,
        /// Entries to show, at most 10,000.
        #[arg(long, default_value_t = 100)]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// Where the page before ended.
        #[arg(long = "token", id = "continuation", value_name = "TOKEN", value_parser = parse_token)]
        token: Option<Bytes>,
        #[command(flatten)]
        read: ReadOptions,
    },
    /// Replace a value if it is the expected one; the key then has no TTL and no lease. Exit code 1
    /// if it is not.
    #[command(after_help = "\
Examples:
  aspen-cli kv cas app/leader --new-value me                   only if the key does not exist
  aspen-cli kv cas app/leader --expected me --new-value you")]
    Cas {
        key: Key,
        /// The value it must have; without it the key must not exist.
        #[arg(long)]
        expected: Option<String>,
        /// The value to set.
        #[arg(long)]
        new_value: String,
    },
    /// Delete a key if it has the expected value. Exit code 1 if it has not.
    #[command(after_help = "Example:\n  aspen-cli kv cad app/leader --expected me")]
    Cad {
        key: Key,
        /// The value it must have.
        #[arg(long)]
        expected: String,
    },
    /// Read up to 100 keys at one revision.
    #[command(after_help = "Example:\n  aspen-cli kv batch-read app/name app/version")]
    BatchRead {
        #[arg(required = true, num_args = 1..=100)]
        keys: Vec<Key>,
        #[command(flatten)]
        read: ReadOptions,
    },
    /// Set up to 100 keys, all or none.
    #[command(after_help = "\
Example:
  aspen-cli kv batch-write app/name=Aspen app/version=1    the key ends at the first \"=\"")]
    BatchWrite {
        #[arg(required = true, num_args = 1..=100, value_name = "KEY=VALUE")]
        #[arg(value_parser = parse_assignment)]
        assignments: Vec<(Key, Bytes)>,
    },
}

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
    Revoke { id: LeaseId },
    /// Start a lease's time anew.
    #[command(after_help = "Example:\n  aspen-cli lease keepalive 7")]
    Keepalive { id: LeaseId },
    /// Show how long a lease lives.
    #[command(after_help = "Example:\n  aspen-cli lease ttl 7 --keys")]
    Ttl {
        id: LeaseId,
        /// List its keys as well.
        #[arg(long)]
        keys: bool,
    },
    /// List leases.
    #[command(after_help = "Example:\n  aspen-cli --json lease list")]
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Make the node that the ticket names first the single voter of a new cluster.
    #[command(after_help = "Example:\n  aspen-cli --ticket cluster-ticket.txt cluster init")]
    Init,
    /// List voters and learners.
    #[command(after_help = "Example:\n  aspen-cli --json cluster status")]
    Status,
    /// Show how a node is.
    #[command(after_help = "Example:\n  aspen-cli cluster health")]
    Health,
    /// Show the state of consensus on a node.
    #[command(after_help = "Example:\n  aspen-cli cluster metrics")]
    Metrics,
    /// Print a node's metrics as Prometheus text.
    #[command(after_help = "Example:\n  aspen-cli cluster prometheus | grep aspen_")]
    Prometheus,
    /// Print a ticket with all known members. It is a secret: it lets in whoever holds it.
    #[command(after_help = "\
Example:
  (umask 077; aspen-cli cluster ticket > ticket.txt)")]
    Ticket,
    /// Add a node that receives the log without voting.
    #[command(after_help = "\
Examples:
  aspen-cli cluster add-learner --node-id 2 --addr '{\"id\":\"<64 hex>\",\"addrs\":[{\"Ip\":\"10.0.0.2:7000\"}]}'
  aspen-cli cluster add-learner --node-id 2 --addr <64 hex>@10.0.0.2:7000")]
    AddLearner {
        /// Its number in the cluster.
        #[arg(long)]
        node_id: MemberId,
        /// Its identity and addresses.
        #[arg(long, value_parser = parse_addr)]
        addr: PeerAddr,
    },
    /// Make a learner a voter.
    #[command(after_help = "\
Examples:
  aspen-cli cluster promote 2
  aspen-cli cluster promote 4 --replace-node 2    4 votes instead of 2")]
    Promote {
        learner_id: MemberId,
        /// The voter that leaves in the same change.
        #[arg(long)]
        replace_node: Option<MemberId>,
        /// Skip the checks of lag, reachability and time since the last change.
        #[arg(long)]
        force: bool,
    },
    /// Replace the set of voters.
    #[command(after_help = "Example:\n  aspen-cli cluster change-membership 1 2 3")]
    ChangeMembership {
        #[arg(required = true, num_args = 1..=100)]
        members: Vec<MemberId>,
    },
    /// Tell the node that the ticket names first where a peer is.
    #[command(after_help = "\
Example:
  aspen-cli cluster update-peer --node-id 2 --addr <64 hex>@10.0.0.2:7000")]
    UpdatePeer {
        /// The peer's number in the cluster.
        #[arg(long)]
        node_id: MemberId,
        /// Its identity and addresses.
        #[arg(long, value_parser = parse_addr)]
        addr: PeerAddr,
    },
    /// Ask the leader to let another voter lead.
    #[command(after_help = "Example:\n  aspen-cli cluster transfer-leader --to 3")]
    TransferLeader {
        /// The voter; without it the leader chooses.
        #[arg(long)]
        to: Option<MemberId>,
    },
    /// Take a snapshot on the node that the ticket names first.
    #[command(after_help = "Example:\n  aspen-cli cluster snapshot")]
    Snapshot,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("aspen-cli").chain(line.split_whitespace()))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for line in ["--json --timeout 5 kv get k", "kv get k --json --timeout 5"] {
            let cli = parse(line).unwrap();
            assert_eq!((cli.json, cli.timeout), (true, 5), "{line}");
        }
        assert_eq!(parse("kv get k").unwrap().timeout, 30_000);
        assert!(parse("kv get k -v -q").is_err());
        assert!(parse("--timeout 0 kv get k").is_err());
    }

    #[test]
    fn the_scan_token_and_the_capability_token_are_two_options() {
        let cli = parse("--token cap kv scan app/ --token AQ").unwrap();
        assert_eq!(cli.token.as_deref(), Some("cap"));
        let Command::Kv(KvCommand::Scan { prefix, limit, token, .. }) = cli.command else {
            panic!("not a scan");
        };
        assert_eq!((prefix.as_str(), limit), ("app/", 100));
        assert_eq!(token, Some(Bytes::from_static(&[1])));
        assert!(parse("kv scan --limit 10001").is_err());
        assert!(parse("kv scan --token !").is_err());
    }

    #[test]
    fn a_value_comes_from_one_place() {
        for (line, is_fine) in [
            ("kv set k v", true),
            ("kv set k --file -", true),
            ("kv set k", false),
            ("kv set k v --file f", false),
            ("kv set k v --ttl-ms 1 --lease 2", false),
            ("kv set k -5", true),
            ("kv set -- k -v", true),
        ] {
            assert_eq!(parse(line).is_ok(), is_fine, "{line}");
        }
        assert!(Cli::try_parse_from(["aspen-cli", "kv", "set", "k", ""]).is_ok());
        assert!(Cli::try_parse_from(["aspen-cli", "kv", "set", "", "v"]).is_err());
    }

    #[test]
    fn batches_are_bounded_and_split_at_the_first_equals_sign() {
        let Command::Kv(KvCommand::BatchWrite { assignments }) =
            parse("kv batch-write a=1=2 b=").unwrap().command
        else {
            panic!("not a batch");
        };
        let found: Vec<_> = assignments.iter().map(|(k, v)| (k.as_str(), &v[..])).collect();
        assert_eq!(found, [("a", &b"1=2"[..]), ("b", &b""[..])]);
        assert!(parse("kv batch-write a").is_err());
        assert!(parse(&format!("kv batch-read {}", "k ".repeat(100))).is_ok());
        assert!(parse(&format!("kv batch-read {}", "k ".repeat(101))).is_err());
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command) {
            let is_leaf = command.get_subcommands().next().is_none();
            let help = command.get_after_help().map(|help| help.to_string()).unwrap_or_default();
            assert!(!is_leaf || help.contains("Example"), "{}", command.get_name());
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
