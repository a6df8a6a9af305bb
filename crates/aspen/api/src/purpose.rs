//! What each request is for, in one table: who can answer it, whether it is applied once under its
//! name, and whether a node without a cluster serves it.

use crate::Request;
use crate::kv::Consistency;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Asks what a node knows of itself or of the cluster. Any member answers.
    Tell,
    /// Changes the node that is asked, and no other.
    Node,
    /// Reads the store, as fresh as this says. Any member answers a stale read, the leader others.
    Read(Consistency),
    /// Changes the store. Applied by the leader, once however often it is repeated under its
    /// request id.
    Write,
    /// Changes who belongs to the cluster and who leads, or what history is kept: by the leader.
    Govern,
}

impl Request {
    /// What the request is for.
    pub fn purpose(&self) -> Purpose {
        match self {
            Self::Ping(_)
            | Self::GetHealth(_)
            | Self::GetMetrics(_)
            | Self::GetRaftMetrics(_)
            | Self::GetNodeInfo(_)
            | Self::GetLeader(_)
            | Self::GetClusterTicket(_)
            | Self::GetClusterState(_) => Purpose::Tell,
            Self::InitCluster(_) | Self::AddPeer(_) | Self::TriggerSnapshot(_) => Purpose::Node,
            Self::ReadKey(read) => Purpose::Read(read.consistency),
            Self::ScanKeys(scan) => Purpose::Read(scan.consistency),
            Self::BatchRead(read) => Purpose::Read(read.consistency),
            Self::LeaseTimeToLive(_) | Self::LeaseList(_) => {
                Purpose::Read(Consistency::Linearizable)
            }
            Self::WriteKey(_)
            | Self::WriteKeyWithTtl(_)
            | Self::WriteKeyWithLease(_)
            | Self::DeleteKey(_)
            | Self::CompareAndSwapKey(_)
            | Self::CompareAndDeleteKey(_)
            | Self::BatchWrite(_)
            | Self::ConditionalBatchWrite(_)
            | Self::Transact(_)
            | Self::LeaseGrant(_)
            | Self::LeaseRevoke(_)
            | Self::LeaseKeepalive(_) => Purpose::Write,
            Self::Compact(_)
            | Self::AddLearner(_)
            | Self::PromoteLearner(_)
            | Self::ChangeMembership(_)
            | Self::ExpungeNode(_)
            | Self::TransferLeader(_) => Purpose::Govern,
        }
    }

    /// Whether a node that belongs to no cluster serves the request.
    pub fn is_served_uninitialized(&self) -> bool {
        match self.purpose() {
            // There are no members to tell of, and there is nothing to take a snapshot of.
            Purpose::Tell => !matches!(self, Self::GetClusterState(_)),
            Purpose::Node => !matches!(self, Self::TriggerSnapshot(_)),
            Purpose::Read(_) | Purpose::Write | Purpose::Govern => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{GetClusterState, GetHealth, InitCluster, TriggerSnapshot};
    use crate::kv::{Compact, ReadKey, WriteKey};
    use crate::{Key, Revision};

    #[test]
    fn reads_writes_and_matters_of_nodes_and_clusters_are_told_apart() {
        let key: Key = "k".parse().unwrap();
        let read = ReadKey::newest(key.clone());
        let stale = ReadKey { consistency: Consistency::Stale, ..read.clone() };
        for (request, purpose, is_early) in [
            (read.into(), Purpose::Read(Consistency::Linearizable), false),
            (stale.into(), Purpose::Read(Consistency::Stale), false),
            (WriteKey { key, value: "v".into() }.into(), Purpose::Write, false),
            (Compact { revision: Revision(1) }.into(), Purpose::Govern, false),
            (GetHealth {}.into(), Purpose::Tell, true),
            (GetClusterState {}.into(), Purpose::Tell, false),
            (InitCluster {}.into(), Purpose::Node, true),
            (TriggerSnapshot {}.into(), Purpose::Node, false),
        ] {
            let request: Request = request;
            assert_eq!(request.purpose(), purpose, "{}", request.name());
            assert_eq!(request.is_served_uninitialized(), is_early, "{}", request.name());
        }
    }
}
