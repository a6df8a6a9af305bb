//! `cluster`.

mod guard;
mod one_node;

use std::collections::BTreeSet;

use aspen_api::MemberId;
use aspen_api::cluster::{
    AddLearner, AddPeer, ChangeMembership, ClusterNode, ClusterStateResult, ExpungeNode,
    GetClusterState, GetClusterTicket, GetHealth, GetMetrics, GetRaftMetrics, HealthResult,
    HealthStatus, InitCluster, PromoteLearner, RaftMetricsResult, RemoveLearner, TransferLeader,
    TriggerSnapshot,
};
use aspen_client::Client;
use clap::{Args, Subcommand};
use net_types::PeerAddr;
use serde_json::{Value, json};

use self::one_node::ask;
use crate::outcome::{Failure, Outcome};
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
    /// Print a ticket with all known members. It is a secret: every holder of it gets in.
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
    /// Take a learner out of the cluster. It can be added again.
    #[command(after_help = "Example:\n  aspen-cli cluster remove-learner 4")]
    RemoveLearner {
        /// The learner's number.
        node_id: MemberId,
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

/// Refuses what no cluster could carry out as it was meant.
pub(super) fn check(command: &ClusterCommand) -> Result<(), Failure> {
    let ClusterCommand::ChangeMembership { members, .. } = command else { return Ok(()) };
    let mut seen = BTreeSet::new();
    match members.iter().find(|member| !seen.insert(*member)) {
        Some(member) => Err(Failure::usage(format!("the voter {member} is given twice"))),
        None => Ok(()),
    }
}

pub(super) async fn run(client: &Client, command: ClusterCommand) -> Result<Outcome, Failure> {
    match command {
        ClusterCommand::Init => Ok(changed(&client.send(InitCluster {}).await?)),
        ClusterCommand::Status => Ok(status(&state(client).await?)),
        ClusterCommand::Health { of } => Ok(health(&ask(client, of.node, GetHealth {}).await?)),
        ClusterCommand::Metrics { of } => {
            Ok(metrics(&ask(client, of.node, GetRaftMetrics {}).await?))
        }
        ClusterCommand::Prometheus { of } => {
            let text = ask(client, of.node, GetMetrics {}).await?.text;
            Ok(Outcome::new(json!({ "text": text }), text.trim_end()))
        }
        ClusterCommand::Ticket => {
            let ticket = client.send(GetClusterTicket {}).await?.ticket;
            let text = ticket.expose();
            Ok(Outcome::new(json!({ "ticket": text }), text))
        }
        ClusterCommand::AddLearner { node_id, addr } => {
            Ok(changed(&client.send(AddLearner { node_id, addr }).await?))
        }
        ClusterCommand::Promote { learner_id, replace_node, force } => {
            let request = PromoteLearner { learner_id, replace_node, is_force: force };
            Ok(changed(&client.send(request).await?))
        }
        ClusterCommand::ChangeMembership { members, force } => {
            if !force {
                guard::voters(client, &members).await?;
            }
            Ok(changed(&client.send(ChangeMembership { members }).await?))
        }
        ClusterCommand::RemoveLearner { node_id } => {
            Ok(changed(&client.send(RemoveLearner { node_id }).await?))
        }
        ClusterCommand::Expunge { node_id, force } => {
            if !force {
                guard::expunged(client, node_id).await?;
            }
            Ok(changed(&client.send(ExpungeNode { node_id }).await?))
        }
        ClusterCommand::UpdatePeer { node_id, addr, at } => {
            ask(client, at.node, AddPeer { node_id, addr }).await?;
            Ok(Outcome::new(json!({ "status": "success", "node_id": node_id.0 }), "ok"))
        }
        ClusterCommand::TransferLeader { to } => {
            client.send(TransferLeader { target: to }).await?;
            Ok(Outcome::new(json!({ "status": "success" }), "ok"))
        }
        ClusterCommand::Snapshot { of } => {
            let index = ask(client, of.node, TriggerSnapshot {}).await?.snapshot_index;
            let json = json!({ "status": "success", "snapshot_index": index });
            let text = match index {
                Some(index) => format!("the newest snapshot holds the log up to {index}"),
                None => "a snapshot is being taken".to_owned(),
            };
            Ok(Outcome::new(json, text))
        }
    }
}

/// The members as the leader knows them, or as another member does if the leader does not answer:
/// only the leader hears what every member understands.
async fn state(client: &Client) -> Result<ClusterStateResult, Failure> {
    let state = client.send(GetClusterState {}).await?;
    let knows_all = state.nodes.iter().all(|node| node.top_level.is_some());
    let leader = state.nodes.iter().find(|node| node.is_leader);
    let Some(leader) = leader.filter(|_| !knows_all) else { return Ok(state) };
    let asked = client.send_to(&leader.addr, GetClusterState {});
    match tokio::time::timeout(one_node::SIGN_OF_LIFE, asked).await {
        Ok(Ok(of_leader)) => Ok(of_leader),
        Ok(Err(_)) | Err(_) => Ok(state),
    }
}

fn node_json(node: &ClusterNode) -> Value {
    json!({
        "node_id": node.node_id.0,
        "endpoint_id": node.addr.entity_id.to_string(),
        "is_leader": node.is_leader,
        "is_voter": node.is_voter,
        "is_learner": node.is_learner,
        "addrs": node.addr.addrs.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "top_level": node.top_level.map(|level| level.0),
    })
}

fn nodes_text(nodes: &[ClusterNode]) -> String {
    let lines: Vec<_> = nodes
        .iter()
        .map(|node| {
            let role = match (node.is_leader, node.is_voter) {
                (true, _) => "leader",
                (false, true) => "voter",
                (false, false) => "learner",
            };
            let addrs: Vec<_> = node.addr.addrs.iter().map(ToString::to_string).collect();
            format!("{}\t{role}\t{}\t{}", node.node_id, node.addr.entity_id, addrs.join(","))
        })
        .collect();
    lines.join("\n")
}

fn status(state: &ClusterStateResult) -> Outcome {
    let nodes: Vec<_> = state.nodes.iter().map(node_json).collect();
    let json = json!({ "nodes": nodes, "feature_level": state.level.0 });
    let outcome = Outcome::new(json, nodes_text(&state.nodes));
    match held_back(state) {
        Some(text) => outcome.with_note(text),
        None => outcome,
    }
}

/// Which members keep the feature level from rising to what others understand.
fn held_back(state: &ClusterStateResult) -> Option<String> {
    let wanted = state.nodes.iter().filter_map(|node| node.top_level).max()?;
    if wanted <= state.level {
        return None;
    }
    let holding = state.nodes.iter().filter(|node| node.top_level.is_none_or(|top| top < wanted));
    let holding: Vec<_> = holding
        .map(|node| match node.top_level {
            Some(top) => format!("node {} understands level {top}", node.node_id),
            None => format!("node {} has not reported", node.node_id),
        })
        .collect();
    let level = state.level;
    Some(match holding.is_empty() {
        true => format!("the cluster is at feature level {level} and about to rise to {wanted}"),
        false => format!(
            "the cluster is at feature level {level} and waits for {wanted}: {}",
            holding.join(", ")
        ),
    })
}

fn changed(state: &ClusterStateResult) -> Outcome {
    let mut outcome = status(state);
    outcome.json["status"] = "success".into();
    outcome
}

fn health(health: &HealthResult) -> Outcome {
    let status = health.status.name();
    let json = json!({
        "status": status,
        // The number by which every other command names the node.
        "node_id": health.raft_node_id.0,
        "raft_node_id": health.raft_node_id.0,
        "mesh_node_id": health.node_id.to_string(),
        "endpoint_id": health.entity_id.to_string(),
        "uptime_seconds": health.uptime_seconds,
        "is_initialized": health.is_initialized,
        "is_alive": health.is_alive,
        "is_ready": health.is_ready,
        "membership_node_count": health.membership_node_count,
        "reasons": health.reasons.iter().map(|reason| &reason.text[..]).collect::<Vec<_>>(),
    });
    let place = match (health.is_initialized, health.membership_node_count) {
        (false, _) => "waits to be added to a cluster".to_owned(),
        (true, 1) => "is a cluster of one node".to_owned(),
        (true, count) => format!("is in a cluster of {count} nodes"),
    };
    let (number, uptime) = (health.raft_node_id, health.uptime_seconds);
    let mut text = format!("node {number} is {status}, {place}, and runs for {uptime} s");
    for reason in &health.reasons {
        text.push_str("\n  ");
        text.push_str(&reason.text);
    }
    let outcome = Outcome::new(json, text);
    match health.status {
        HealthStatus::Unhealthy => outcome.negative(),
        HealthStatus::Healthy | HealthStatus::Degraded => outcome,
    }
}

fn metrics(metrics: &RaftMetricsResult) -> Outcome {
    let state = metrics.state.name();
    let replication: Vec<_> = metrics
        .replication
        .iter()
        .map(|to| json!({ "node_id": to.node_id.0, "matched_index": to.matched_index }))
        .collect();
    let json = json!({
        "node_id": metrics.node_id.0,
        "state": state,
        "leader": metrics.leader.map(|leader| leader.0),
        "term": metrics.term,
        "last_log_index": metrics.last_log_index,
        "last_applied_index": metrics.last_applied_index,
        "snapshot_index": metrics.snapshot_index,
        "purged_index": metrics.purged_index,
        "replication": replication,
    });
    let index = |index: Option<u64>| index.map_or("-".to_owned(), |index| index.to_string());
    let mut lines = vec![
        format!("node\t{}", metrics.node_id),
        format!("state\t{state}"),
        format!("leader\t{}", index(metrics.leader.map(|leader| leader.0))),
        format!("term\t{}", metrics.term),
        format!("last log\t{}", index(metrics.last_log_index)),
        format!("applied\t{}", index(metrics.last_applied_index)),
        format!("snapshot\t{}", index(metrics.snapshot_index)),
        format!("purged\t{}", index(metrics.purged_index)),
    ];
    lines.extend(
        metrics
            .replication
            .iter()
            .map(|to| format!("follower {}\t{}", to.node_id, index(to.matched_index))),
    );
    Outcome::new(json, lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use aspen_api::cluster::HealthReason;
    use aspen_api::{Level, MemberId};
    use net_types::{EntityId, NodeId, PeerAddr};

    use super::*;
    use crate::outcome::{Exit, Text};

    fn node(id: u64, is_voter: bool, is_leader: bool) -> ClusterNode {
        ClusterNode {
            node_id: MemberId(id),
            addr: PeerAddr::direct(EntityId([id as u8; 32]), "127.0.0.1:1".parse().unwrap()),
            is_voter,
            is_learner: !is_voter,
            is_leader,
            top_level: None,
        }
    }

    #[test]
    fn status_lists_voters_and_learners() {
        let state = ClusterStateResult {
            nodes: vec![node(1, true, true), node(2, false, false)],
            level: Level(1),
        };
        let outcome = status(&state);
        let (one, two) = ("01".repeat(32), "02".repeat(32));
        let expected = json!({ "nodes": [
            { "node_id": 1, "endpoint_id": one, "is_leader": true, "is_voter": true,
              "is_learner": false, "addrs": ["127.0.0.1:1"], "top_level": null },
            { "node_id": 2, "endpoint_id": two, "is_leader": false, "is_voter": false,
              "is_learner": true, "addrs": ["127.0.0.1:1"], "top_level": null },
        ], "feature_level": 1 });
        assert_eq!(outcome.json, expected);
        let lines = format!("1\tleader\t{one}\t127.0.0.1:1\n2\tlearner\t{two}\t127.0.0.1:1");
        assert_eq!(outcome.text, Text::Lines(lines));
        assert_eq!(changed(&state).json["status"], "success");
        assert_eq!(outcome.note, None);
    }

    #[test]
    fn status_names_who_holds_the_feature_level_back() {
        let with = |tops: [Option<u32>; 2]| {
            let nodes = [(1, tops[0]), (2, tops[1])];
            let nodes = nodes.map(|(id, top)| ClusterNode {
                top_level: top.map(Level),
                ..node(id, true, id == 1)
            });
            held_back(&ClusterStateResult { nodes: nodes.to_vec(), level: Level(1) })
        };
        assert_eq!(with([Some(1), Some(1)]), None);
        assert!(with([Some(2), Some(1)]).unwrap().contains("node 2 understands level 1"));
        assert!(with([Some(2), None]).unwrap().contains("node 2 has not reported"));
        assert!(with([Some(2), Some(3)]).unwrap().contains("node 1 understands level 2"));
    }

    #[test]
    fn an_unhealthy_node_is_a_negative_outcome() {
        let mut result = HealthResult {
            status: HealthStatus::Unhealthy,
            node_id: NodeId(7),
            raft_node_id: MemberId(1),
            entity_id: EntityId([1; 32]),
            uptime_seconds: 9,
            is_initialized: true,
            is_alive: true,
            is_ready: true,
            membership_node_count: 3,
            reasons: vec![HealthReason { text: "no leader is known".into() }],
        };
        assert_eq!(health(&result).exit, Exit::Negative);
        let text = "node 1 is unhealthy, is in a cluster of 3 nodes, and runs for 9 s\n  \
                    no leader is known";
        assert_eq!(health(&result).text, Text::Lines(text.to_owned()));
        assert_eq!(health(&result).json["reasons"], json!(["no leader is known"]));
        result.status = HealthStatus::Degraded;
        let outcome = health(&result);
        assert_eq!(outcome.exit, Exit::Success);
        assert_eq!(outcome.json["status"], "degraded");
        assert_eq!(outcome.json["membership_node_count"], 3);
        assert_eq!(
            (&outcome.json["node_id"], &outcome.json["raft_node_id"]),
            (&json!(1), &json!(1))
        );
    }
}
