//! A member that has taken another address tells the others.

use std::net::SocketAddr;
use std::time::Duration;

use aspen_api::cluster::AddLearner;
use net_types::PeerAddr;
use net_types::limits::MAX_PEER_ADDRS;
use openraft::async_runtime::watch::WatchReceiver;

use super::ClusterNode;

/// Wait before the members are told again.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// `entry` with the addresses `new` in the place of `old`; addresses that somebody else gave stay.
fn moved(entry: &PeerAddr, old: SocketAddr, new: &[SocketAddr]) -> PeerAddr {
    let mut addrs = new.to_vec();
    addrs.extend(entry.addrs.iter().filter(|addr| **addr != old && !new.contains(addr)));
    addrs.truncate(MAX_PEER_ADDRS);
    PeerAddr { addrs, ..entry.clone() }
}

impl ClusterNode {
    /// Puts the node's own addresses in place of `old`, the one that members know, and returns once
    /// the membership has them. Without effect on a node that is no member.
    pub async fn announce_move(&self, old: SocketAddr) {
        let mut server = self.0.raft.server_metrics();
        loop {
            drop(server.borrow_and_update());
            let id = self.0.config.member_id;
            let entry = self.with_membership(|m| m.get_node(&id.0).map(|own| own.0.clone()));
            let Some(entry) = entry else { return };
            let wanted = moved(&entry, old, &self.0.config.addr.addrs);
            if wanted == entry {
                return;
            }
            self.tell_members(&wanted).await;
            tokio::select! {
                biased;
                changed = server.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(TELL_AGAIN) => {}
            }
        }
    }

    /// Has the leader change the membership. The member that is asked also learns the way to this
    /// node, since the question comes from its new address.
    async fn tell_members(&self, own: &PeerAddr) {
        let id = self.0.config.member_id;
        if self.is_leader() {
            if let Err(error) = self.add_learner(id, own.clone()).await {
                tracing::debug!(%error, "the new address was not taken");
            }
            return;
        }
        let leader = self.leader_id();
        let mut others: Vec<(bool, PeerAddr)> = self.with_membership(|membership| {
            let others = membership.nodes().filter(|(other, _)| **other != id.0);
            others
                .map(|(other, member)| (leader.is_some_and(|l| l.0 == *other), member.0.clone()))
                .collect()
        });
        others.sort_by_key(|(leads, _)| !leads);
        for (_, other) in others {
            let request = AddLearner { node_id: id, addr: own.clone() };
            if let Some(Ok(_)) = self.ask(&other, request).await {
                tracing::info!("the members know the new address");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use net_types::EntityId;

    use super::*;

    #[test]
    fn only_the_own_old_address_goes() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (old, new, public) = (addr("10.0.0.1:7"), addr("10.0.0.1:8"), addr("203.0.113.9:7"));
        let entry = |addrs: &[SocketAddr]| PeerAddr {
            addrs: addrs.to_vec(),
            ..PeerAddr::direct(EntityId([1; 32]), old)
        };
        assert_eq!(moved(&entry(&[old, public]), old, &[new]), entry(&[new, public]));
        assert_eq!(moved(&entry(&[public]), old, &[new]), entry(&[new, public]));
        let twice = moved(&entry(&[new, public]), old, &[new]);
        assert_eq!(twice, entry(&[new, public]), "what was told once is not told again");
    }
}
