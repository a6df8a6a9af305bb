//! `cluster`, as it is typed.

use aspen_api::MemberId;
use clap::{Args, Subcommand};
use net_types::PeerAddr;

use crate::values::parse_addr;

/// Which member is asked about itself.
#[derive(Debug, Args)]
pub(crate) struct AnyNode {
    /// Ask this member; without it the first that answers.
    #[arg(long, value_name = "ID")]
    pub(crate) node: Option<MemberId>,
}

/// Which member does something by itself.
#[derive(Debug, Args)]
pub(crate) struct FirstNode {
    /// Let this member do it; without it the one that the ticket names first.
    #[arg(long, value_name = "ID")]
    pub(crate) node: Option<MemberId>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Make the node that the ticket names first the single voter of a new cluster.
    #[command(after_help = "Example:\n  aspen-cli --ticket cluster-ticket.txt cluster init")]
    Init,
    /// List voters and learners.
    #[command(after_help = "Example:\n  aspen-cli --json cluster status")]
    Status,
    /// Show how a node is. Exit code 1 if it is unhealthy.
    #[command(after_help = "\
Examples:
  aspen-cli cluster health
  aspen-cli cluster health --node 2")]
    Health {
        #[command(flatten)]
        of: AnyNode,
    },
    /// Show the state of consensus on a node.
    #[command(after_help = "Example:\n  aspen-cli cluster metrics --node 2")]
    Metrics {
        #[command(flatten)]
        of: AnyNode,
    },
    /// Print a node's metrics as Prometheus text.
    #[command(after_help = "Example:\n  aspen-cli cluster prometheus | grep aspen_")]
    Prometheus {
        #[command(flatten)]
        of: AnyNode,
    },
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
        /// The learner's number.
        learner_id: MemberId,
        /// The voter that leaves in the same change.
        #[arg(long)]
        replace_node: Option<MemberId>,
        /// Skip the checks of lag, reachability and time since the last change.
        #[arg(long)]
        force: bool,
    },
    /// Replace the set of voters. Voters that are left out leave the cluster.
    #[command(after_help = "\
Examples:
  aspen-cli cluster change-membership 1 2 3
  aspen-cli cluster change-membership 1 --force    also with fewer than three voters")]
    ChangeMembership {
        /// The numbers of all voters afterwards.
        #[arg(required = true, num_args = 1..=100, value_name = "ID")]
        members: Vec<MemberId>,
        /// Also leave fewer voters than three, or too few that answer.
        #[arg(long)]
        force: bool,
    },
    /// Remove a dead member for good. Its identity is refused from now on.
    #[command(after_help = "\
Examples:
  aspen-cli cluster expunge 3
  aspen-cli cluster expunge 3 --force    also if it lives")]
    Expunge {
        /// The member's number.
        node_id: MemberId,
        /// Also remove a member that answers.
        #[arg(long)]
        force: bool,
    },
    /// Tell one node, and no other, where a peer is.
    #[command(after_help = "\
Example:
  aspen-cli cluster update-peer --node-id 2 --addr <64 hex>@10.0.0.2:7000 --node 3")]
    UpdatePeer {
        /// The peer's number in the cluster.
        #[arg(long)]
        node_id: MemberId,
        /// Its identity and addresses.
        #[arg(long, value_parser = parse_addr)]
        addr: PeerAddr,
        #[command(flatten)]
        at: FirstNode,
    },
    /// Ask the leader to let another voter lead.
    #[command(after_help = "Example:\n  aspen-cli cluster transfer-leader --to 3")]
    TransferLeader {
        /// The voter; without it the leader chooses.
        #[arg(long)]
        to: Option<MemberId>,
    },
    /// Take a snapshot on one node, and trim its log.
    #[command(after_help = "Example:\n  aspen-cli cluster snapshot --node 2")]
    Snapshot {
        #[command(flatten)]
        of: FirstNode,
    },
}
