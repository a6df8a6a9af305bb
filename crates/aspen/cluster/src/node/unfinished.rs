//! Changes of the voters that were begun and left: by a leader that was lost, or by a caller that
//! went away.
//!
//! A change takes two entries. Between them every decision needs a majority of the old voters and
//! one of the new, and nothing but another change ends that; so the leader sees to the second.

use std::collections::BTreeSet;
use std::time::Duration;

use net_types::limits::MEMBERSHIP_TIMEOUT;
use openraft::async_runtime::watch::WatchReceiver;

use super::ClusterNode;

/// Wait before a change of a leader before is finished, and before another try.
const PAUSE: Duration = Duration::from_millis(200);

/// The first of two entries, without the second.
struct Unfinished {
    /// Whether this leader began it, and may be about to finish it.
    is_own: bool,
    /// Who votes in the end.
    voters: BTreeSet<u64>,
}

impl ClusterNode {
    /// While leading, finishes changes that were left open.
    pub(super) async fn finish_changes(self) {
        let mut server = self.0.raft.server_metrics();
        loop {
            drop(server.borrow_and_update());
            let Some(found) = self.unfinished_change() else {
                if server.changed().await.is_err() {
                    return;
                }
                continue;
            };
            tokio::select! {
                biased;
                // Term, leader or members are others now.
                result = server.changed() => match result {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                () = tokio::time::sleep(if found.is_own { MEMBERSHIP_TIMEOUT } else { PAUSE }) => {}
            }
            tracing::info!(voters = ?found.voters, "finishing a change of the voters");
            if let Err(error) = self.0.raft.change_membership(found.voters, false).await {
                tracing::debug!(%error, "the change is not finished yet");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// The change that is under way, if this node leads.
    fn unfinished_change(&self) -> Option<Unfinished> {
        if !self.is_leader() {
            return None;
        }
        let server = self.0.raft.server_metrics();
        let server = server.borrow_watched();
        let (term, stored) = (server.vote.leader_id.term, &server.membership_config);
        let configs = stored.membership().get_joint_config();
        let voters = configs.last().filter(|_| configs.len() > 1)?.clone();
        let is_own = stored.log_id().is_some_and(|id| id.committed_leader_id().term == term);
        Some(Unfinished { is_own, voters })
    }
}
