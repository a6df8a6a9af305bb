//! The upgrade gate: the feature level of the cluster and who holds it back.
//!
//! Members report the highest level that they understand with each answer to the leader. The leader
//! proposes the next level once every member, voter or learner, has reported one at least as high.
//! Nothing above the level that is applied is proposed, so no member meets what it cannot read.

use std::time::Duration;

use aspen_api::{ApiError, ErrorCode, Level};
use aspen_kv::Command;
use openraft::async_runtime::watch::WatchReceiver;

use super::ClusterNode;

/// Time between two looks at what the members report, while the level can rise.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

impl ClusterNode {
    /// The highest level that a member understands, as far as this node knows.
    pub(super) fn top_level_of(&self, id: u64) -> Option<Level> {
        if id == self.0.config.member_id.0 {
            return Some(self.0.config.top_level);
        }
        self.0.dialing.peers.top_level_of(id)
    }

    /// `UNSUPPORTED` for a command above the level of the cluster.
    pub(super) fn ensure_level(&self, command: &Command) -> Result<(), ApiError> {
        let (needed, level) = (command.level(), self.0.upkeep.level());
        let is_allowed = match command {
            Command::Step { .. } => true,
            Command::Transact { .. }
            | Command::LeaseGrant { .. }
            | Command::LeaseRevoke { .. }
            | Command::LeaseKeepalive { .. }
            | Command::Compact { .. }
            | Command::Tick {} => needed <= level,
        };
        match is_allowed {
            true => Ok(()),
            false => {
                let text = format!("it needs feature level {needed}; the cluster is at {level}");
                Err(ApiError::new(ErrorCode::Unsupported, text))
            }
        }
    }

    /// The level that every member understands; `None` while one of them has not reported.
    fn common_level(&self) -> Option<Level> {
        let members: Vec<u64> = self.with_membership(|m| m.nodes().map(|(id, _)| *id).collect());
        let levels: Option<Vec<Level>> = members.iter().map(|id| self.top_level_of(*id)).collect();
        levels?.into_iter().min()
    }

    /// While leading, raises the level as far as all members understand.
    pub(super) async fn keep_level(self) {
        let mut server = self.0.raft.server_metrics();
        loop {
            drop(server.borrow_and_update());
            let can_rise = self.is_leader() && self.0.upkeep.level() < self.0.config.top_level;
            if can_rise && self.has_applied_own_term() {
                self.raise_level().await;
            }
            let look_again = async {
                match can_rise {
                    true => tokio::time::sleep(LOOK_INTERVAL).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = server.changed() => if changed.is_err() { return },
                () = look_again => {}
            }
        }
    }

    async fn raise_level(&self) {
        let (level, Some(common)) = (self.0.upkeep.level(), self.common_level()) else { return };
        if common <= level {
            return;
        }
        match self.commit(Command::Step { level: common }, None).await {
            Ok(_) => tracing::info!(from = %level, to = %common, "the feature level has risen"),
            Err(error) => tracing::debug!(%error, "the feature level has not risen yet"),
        }
    }
}
