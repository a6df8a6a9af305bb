//! What is done only with `--force`: to leave a cluster that cannot lose a member or cannot write,
//! and to expunge a member that lives.
//!
//! It guards against slips of the hand, on what this client sees; the cluster itself checks what
//! must hold in any case.

use std::collections::BTreeSet;
use std::time::Duration;

use aspen_api::MemberId;
use aspen_api::cluster::{ClusterNode, GetClusterState, Ping};
use aspen_client::Client;
use tokio::task::JoinSet;

use crate::outcome::{Exit, Failure};

/// Fewest voters of which one can fail.
const SAFE_VOTERS: usize = 3;
/// Time for a member to give a sign of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// Refuses a set of voters that should not be made by mistake.
pub(super) async fn voters(client: &Client, members: &[MemberId]) -> Result<(), Failure> {
    let nodes = client.send(GetClusterState {}).await?.nodes;
    // What names a stranger is refused by the cluster, with a reason of its own.
    let is_known = |member: &MemberId| nodes.iter().any(|node| node.node_id == *member);
    if !members.iter().all(is_known) {
        return Ok(());
    }
    let silent = silent(client, nodes.iter().filter(|node| members.contains(&node.node_id))).await;
    match objection(&nodes, members, &silent) {
        None => Ok(()),
        Some(text) => Err(refusal(&text)),
    }
}

/// Refuses to expunge a member that answers: it cannot come back, and its number may be a slip.
pub(super) async fn expunged(client: &Client, member: MemberId) -> Result<(), Failure> {
    let nodes = client.send(GetClusterState {}).await?.nodes;
    // A stranger and the leader are refused by the cluster, with reasons of its own.
    let found = nodes.iter().find(|node| node.node_id == member && !node.is_leader);
    if found.is_none() || !silent(client, found.into_iter()).await.is_empty() {
        return Ok(());
    }
    Err(refusal(&format!(
        "node {member} answers, and once it is expunged it cannot come back without an empty data \
         folder"
    )))
}

fn refusal(text: &str) -> Failure {
    Failure {
        exit: Exit::Negative,
        code: "CONFLICT",
        message: format!("not changed: {text}; to do it all the same give --force"),
    }
}

/// The members that give no sign of life here.
async fn silent(client: &Client, nodes: impl Iterator<Item = &ClusterNode>) -> BTreeSet<MemberId> {
    let mut silent = BTreeSet::new();
    let mut asked = JoinSet::new();
    for node in nodes {
        silent.insert(node.node_id);
        let (client, node_id, addr) = (client.clone(), node.node_id, node.addr.clone());
        asked.spawn(async move {
            let answer = tokio::time::timeout(SIGN_OF_LIFE, client.send_to(&addr, Ping {})).await;
            (node_id, answer.is_ok_and(|answer| answer.is_ok()))
        });
    }
    while let Some(answer) = asked.join_next().await {
        if let Ok((node_id, true)) = answer {
            silent.remove(&node_id);
        }
    }
    silent
}

fn objection(
    nodes: &[ClusterNode],
    members: &[MemberId],
    silent: &BTreeSet<MemberId>,
) -> Option<String> {
    let voters = nodes.iter().filter(|node| node.is_voter).count();
    let needed = members.len() / 2 + 1;
    if members.len().saturating_sub(silent.len()) < needed {
        let names: Vec<_> = silent.iter().map(ToString::to_string).collect();
        let (names, count) = (names.join(", "), members.len());
        return Some(format!(
            "{needed} of {count} voters must answer for the cluster to write, and these do not \
             answer here: {names}"
        ));
    }
    if members.len() < SAFE_VOTERS && members.len() < voters {
        return Some(format!(
            "of {voters} voters {} would be left, and with fewer than {SAFE_VOTERS} the loss of one \
             stops the cluster",
            members.len()
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use net_types::{EntityId, PeerAddr};

    use super::*;

    #[test]
    fn a_change_must_leave_three_voters_and_a_majority_that_answers() {
        let node = |id: u64, is_voter| ClusterNode {
            node_id: MemberId(id),
            addr: PeerAddr::direct(EntityId([id as u8; 32]), "127.0.0.1:1".parse().unwrap()),
            is_voter,
            is_learner: !is_voter,
            is_leader: id == 1,
            top_level: None,
        };
        let judge = |voters: u64, members: &[u64], silent: &[u64]| {
            let nodes: Vec<_> = (1..=5).map(|id| node(id, id <= voters)).collect();
            let ids = |ids: &[u64]| ids.iter().copied().map(MemberId).collect::<Vec<_>>();
            objection(&nodes, &ids(members), &ids(silent).into_iter().collect())
        };
        for (voters, members, silent, expected) in [
            (1, &[1, 2][..], &[][..], None),
            (1, &[1, 2], &[2], Some("2 of 2 voters must answer")),
            (3, &[1, 2, 3, 4, 5], &[4, 5], None),
            (3, &[1, 2, 4], &[4], None),
            (3, &[1, 4, 5], &[4, 5], Some("do not answer here: 4, 5")),
            (5, &[1, 2, 3], &[], None),
            (3, &[1, 2], &[], Some("of 3 voters 2 would be left")),
            (2, &[1], &[], Some("of 2 voters 1 would be left")),
            (2, &[1, 3], &[], None),
        ] {
            let found = judge(voters, members, silent);
            match expected {
                None => assert_eq!(found, None, "{voters} {members:?} {silent:?}"),
                Some(text) => assert!(found.as_ref().unwrap().contains(text), "{found:?}"),
            }
        }
    }
}
