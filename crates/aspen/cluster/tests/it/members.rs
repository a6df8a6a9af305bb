//! Adding, promoting and removing members, snapshots to new ones, and handing on leadership.

use std::sync::Arc;
use std::time::Duration;

use aspen_api::cluster::HealthStatus;
use aspen_api::kv::Consistency;
use aspen_api::{ErrorCode, MemberId};
use aspen_cluster::disk::{FsDisk, MemoryDisk};
use aspen_cluster::{ClusterConfig, ClusterNode};
use net_types::PeerAddr;

use crate::client::{keys, put};
use crate::mesh::{Mesh, TestCluster, addr, config, entity, until};

#[tokio::test(start_paused = true)]
async fn a_learner_catches_up_and_is_promoted_under_the_rules() {
    let mut cluster = TestCluster::formed(3).await;
    for n in 0..30 {
        put(&cluster.nodes[&1], &format!("k{n:02}"), "v").await.unwrap();
    }
    cluster.start(4).await;
    let leader = cluster.nodes[&1].clone();
    let bare = PeerAddr { addrs: Vec::new(), ..addr(4) };
    let refused = leader.add_learner(MemberId(4), bare).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidRequest);
    let unknown = leader.promote(MemberId(4), None, true).await.unwrap_err();
    assert_eq!(unknown.code, ErrorCode::NotFound);
    let state = leader.add_learner(MemberId(4), addr(4)).await.unwrap();
    assert!(state.nodes.iter().any(|node| node.node_id == MemberId(4) && node.is_learner));
    let twice = leader.add_learner(MemberId(9), addr(4)).await.unwrap_err();
    assert_eq!(twice.code, ErrorCode::Conflict, "one identity, one member");
    cluster.settle().await;
    assert_eq!(keys(&cluster.nodes[&4], Consistency::Stale).await.len(), 30);

    let early = leader.promote(MemberId(4), None, false).await.unwrap_err();
    assert_eq!(early.code, ErrorCode::Conflict, "the voters changed just now");
    tokio::time::sleep(Duration::from_secs(301)).await;
    cluster.mesh.detach(4);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let away = leader.promote(MemberId(4), None, false).await.unwrap_err();
    assert_eq!(away.code, ErrorCode::Conflict, "it cannot be reached");
    let node = cluster.nodes[&4].clone();
    cluster.mesh.attach(4, &node);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let state = leader.promote(MemberId(4), Some(MemberId(2)), false).await.unwrap();
    let voters: Vec<u64> = state.nodes.iter().filter(|n| n.is_voter).map(|n| n.node_id.0).collect();
    assert_eq!(voters, [1, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_write_a_snapshot_goes_on_and_sends_it_later() {
    let folder = tempfile::tempdir().unwrap();
    let mesh = Mesh::default();
    let disk = Arc::new(FsDisk::open(folder.path()).unwrap());
    let leader = ClusterNode::start(config(1, disk), mesh.end(1)).await.unwrap();
    mesh.attach(1, &leader);
    leader.init().await.unwrap();
    for n in 0..100 {
        put(&leader, &format!("k{n:02}"), &"x".repeat(50_000)).await.unwrap();
    }
    leader.snapshot().await.unwrap();
    until(|| leader.raft_metrics().purged_index).await;
    // The name under which a snapshot is written is taken by something that is no file.
    let obstacle = folder.path().join("snapshots/outgoing.tmp");
    std::fs::create_dir(&obstacle).unwrap();
    let follower =
        ClusterNode::start(config(2, Arc::new(MemoryDisk::new())), mesh.end(2)).await.unwrap();
    mesh.attach(2, &follower);
    leader.add_learner(MemberId(2), addr(2)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(leader.is_alive());
    assert_eq!(follower.applied(), None);
    put(&leader, "later", "v").await.unwrap();
    std::fs::remove_dir(&obstacle).unwrap();
    until(|| (follower.applied() == leader.applied()).then_some(())).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_node_gets_a_snapshot_when_the_log_is_gone() {
    let mut cluster = TestCluster::formed(1).await;
    let leader = cluster.nodes[&1].clone();
    let large = "x".repeat(50_000);
    for n in 0..100 {
        put(&leader, &format!("k{n:02}"), &large).await.unwrap();
    }
    let taken = leader.snapshot().await.unwrap().snapshot_index.unwrap();
    until(|| leader.raft_metrics().purged_index.filter(|purged| *purged + 25 >= taken)).await;
    cluster.start(2).await;
    leader.add_learner(MemberId(2), addr(2)).await.unwrap();
    // Writes go on while the snapshot is made and sent.
    for n in 0..50 {
        put(&leader, &format!("more{n:02}"), "v").await.unwrap();
    }
    cluster.settle().await;
    assert!(cluster.mesh.snapshot_calls() >= 5, "5 MB need at least five parts");
    let expected = keys(&leader, Consistency::Linearizable).await;
    assert_eq!(expected.len(), 150);
    assert_eq!(keys(&cluster.nodes[&2], Consistency::Stale).await, expected);
    // What the snapshot brought survives a restart.
    cluster.stop(2).await;
    put(&leader, "late", "v").await.unwrap();
    cluster.start(2).await;
    cluster.settle().await;
    assert_eq!(keys(&cluster.nodes[&2], Consistency::Stale).await.len(), 151);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_goes_on_after_an_interruption() {
    let mut cluster = TestCluster::formed(1).await;
    let leader = cluster.nodes[&1].clone();
    let large = "x".repeat(500_000);
    for n in 0..40 {
        put(&leader, &format!("k{n:02}"), &large).await.unwrap();
    }
    let taken = leader.snapshot().await.unwrap().snapshot_index.unwrap();
    until(|| leader.raft_metrics().purged_index.filter(|purged| *purged + 25 >= taken)).await;
    cluster.start(2).await;
    leader.add_learner(MemberId(2), addr(2)).await.unwrap();
    until(|| (cluster.mesh.snapshot_calls() >= 10).then_some(())).await;
    cluster.mesh.cut(1, 2);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = cluster.mesh.snapshot_calls();
    cluster.mesh.heal();
    cluster.settle().await;
    let parts_after = cluster.mesh.snapshot_calls() - before;
    assert!(parts_after < 18, "of 21 parts it sent {parts_after} again");
    assert_eq!(keys(&cluster.nodes[&2], Consistency::Stale).await.len(), 40);
}

#[tokio::test(start_paused = true)]
async fn a_removed_leader_steps_down_and_the_rest_goes_on() {
    let cluster = TestCluster::formed(3).await;
    put(&cluster.nodes[&1], "a", "1").await.unwrap();
    let rest = [MemberId(2), MemberId(3)];
    cluster.nodes[&1].change_membership(&rest).await.unwrap();
    let leader = until(|| [2, 3].into_iter().find(|n| cluster.nodes[n].is_leader())).await;
    put(&cluster.nodes[&leader], "b", "2").await.unwrap();
    let state = cluster.nodes[&leader].cluster_state();
    assert_eq!(state.nodes.iter().map(|n| n.node_id.0).collect::<Vec<_>>(), [2, 3]);
    let unknown = cluster.nodes[&leader].change_membership(&[MemberId(7)]).await.unwrap_err();
    assert_eq!(unknown.code, ErrorCode::NotFound);
}

#[tokio::test(start_paused = true)]
async fn leadership_is_handed_on_without_an_election_timeout() {
    let cluster = TestCluster::formed(3).await;
    put(&cluster.nodes[&1], "a", "1").await.unwrap();
    cluster.settle().await;
    let start = tokio::time::Instant::now();
    cluster.nodes[&1].transfer_leader(Some(MemberId(3))).await.unwrap();
    until(|| cluster.nodes[&3].is_leader().then_some(())).await;
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    put(&cluster.nodes[&3], "b", "2").await.unwrap();
    cluster.nodes[&3].transfer_leader(None).await.unwrap();
    until(|| [1, 2].into_iter().find(|n| cluster.nodes[n].is_leader())).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_is_left_open_if_consensus_ends_or_the_lead_is_lost_after_the_append() {
    for is_stopped in [true, false] {
        let mut cluster = TestCluster::formed(3).await;
        cluster.settle().await;
        let old = cluster.nodes[&1].clone();
        let appended = old.raft_metrics().last_log_index;
        cluster.mesh.cut(1, 2);
        cluster.mesh.cut(1, 3);
        let caller = old.clone();
        let voters = [MemberId(1), MemberId(2)];
        let stuck = tokio::spawn(async move { caller.change_membership(&voters).await });
        until(|| (old.raft_metrics().last_log_index > appended).then_some(())).await;
        if is_stopped {
            cluster.stop(1).await;
        } else {
            until(|| [2, 3].into_iter().find(|n| cluster.nodes[n].is_leader())).await;
            cluster.mesh.heal();
        }
        let error = stuck.await.unwrap().unwrap_err();
        assert_eq!(error.code, ErrorCode::Timeout, "{error}");
        assert!(error.message.contains("unknown"), "told at once, not after a wait: {error}");
    }
}

/// Numbers of those that vote, as a node knows them: of the old and the new ones while they change.
fn voters(node: &ClusterNode) -> Vec<u64> {
    let members = node.cluster_state().nodes;
    members.iter().filter(|member| member.is_voter).map(|member| member.node_id.0).collect()
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_voters_that_was_left_half_way_is_finished() {
    for is_leader_lost in [true, false] {
        let mut cluster = TestCluster::formed(3).await;
        cluster.start(4).await;
        let leader = cluster.nodes[&1].clone();
        leader.add_learner(MemberId(4), addr(4)).await.unwrap();
        cluster.settle().await;
        cluster.mesh.cut(1, 2);
        cluster.mesh.cut(1, 3);
        let wanted = [1, 2, 4].map(MemberId);
        // The caller goes away before the first of the two entries is committed.
        tokio::select! {
            _ = leader.change_membership(&wanted) => panic!("without a quorum"),
            () = until(|| (voters(&leader).len() == 4).then_some(())) => {}
        }
        cluster.mesh.heal();
        cluster.settle().await;
        assert_eq!(voters(&leader), [1, 2, 3, 4]);
        if is_leader_lost {
            cluster.stop(1).await;
        }
        let begun = tokio::time::Instant::now();
        until(|| {
            let leads = cluster.nodes.values().find(|node| node.is_leader())?;
            (voters(leads) == [1, 2, 4]).then_some(())
        })
        .await;
        let patience = Duration::from_secs(if is_leader_lost { 10 } else { 40 });
        assert!(begun.elapsed() < patience, "{:?}", begun.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn the_ticket_names_this_node_first_and_all_members() {
    let cluster = TestCluster::formed(3).await;
    cluster.settle().await;
    let ticket = cluster.nodes[&2].ticket().unwrap();
    let peers: Vec<_> = ticket.peers().iter().map(|peer| peer.entity_id).collect();
    assert_eq!(peers, [entity(2), entity(1), entity(3)]);
    let other = cluster.nodes[&3].ticket().unwrap();
    assert_eq!(ticket.cluster_id, other.cluster_id);
}

#[tokio::test(start_paused = true)]
async fn who_joins_is_asked_for_its_number_and_its_cluster_first() {
    let mut cluster = TestCluster::formed(2).await;
    let leader = cluster.nodes[&1].clone();
    let silent = leader.add_learner(MemberId(3), addr(3)).await.unwrap_err();
    assert_eq!(silent.code, ErrorCode::Conflict);
    assert!(silent.message.contains("does not answer"), "{silent}");
    cluster.start(3).await;
    let misnamed = leader.add_learner(MemberId(7), addr(3)).await.unwrap_err();
    assert_eq!(misnamed.code, ErrorCode::InvalidRequest);
    assert!(misnamed.message.contains("is node 3, not 7"), "{misnamed}");
    cluster.start(4).await.init().await.unwrap();
    let foreign = leader.add_learner(MemberId(4), addr(4)).await.unwrap_err();
    assert_eq!(foreign.code, ErrorCode::Conflict);
    assert!(foreign.message.contains("a cluster of its own"), "{foreign}");
    assert_eq!(leader.cluster_state().nodes.len(), 2);
    leader.add_learner(MemberId(3), addr(3)).await.unwrap();
    // A member that was removed comes back with what it knows.
    leader.change_membership(&[MemberId(1)]).await.unwrap();
    leader.add_learner(MemberId(2), addr(2)).await.unwrap();
    let second = &cluster.nodes[&2];
    let members = |node: &ClusterNode| -> Vec<_> {
        let nodes = node.cluster_state().nodes;
        nodes.into_iter().map(|n| (n.node_id, n.addr, n.is_voter, n.is_leader)).collect()
    };
    until(|| (members(second) == members(&leader)).then_some(())).await;
    assert_eq!(leader.cluster_state().nodes.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_removed_leader_that_restarts_does_not_take_itself_for_the_leader() {
    let mut cluster = TestCluster::formed(3).await;
    cluster.nodes[&1].change_membership(&[MemberId(2), MemberId(3)]).await.unwrap();
    until(|| cluster.nodes[&2].leader_id().filter(|leader| *leader != MemberId(1))).await;
    cluster.stop(1).await;
    let removed = cluster.start(1).await;
    assert!(!removed.is_leader());
    assert_ne!(removed.leader_id(), Some(MemberId(1)));
    assert_ne!(removed.raft_metrics().leader, Some(MemberId(1)));
}

#[tokio::test(start_paused = true)]
async fn a_removed_leader_changes_no_members() {
    let cluster = TestCluster::formed(3).await;
    let leader = &cluster.nodes[&1];
    leader.change_membership(&[MemberId(2), MemberId(3)]).await.unwrap();
    let refused = leader.add_learner(MemberId(1), addr(1)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotLeader);
    assert!(leader.is_alive());
}

#[tokio::test(start_paused = true)]
async fn an_expunged_member_is_gone_for_good() {
    let mut cluster = TestCluster::formed(3).await;
    let leader = cluster.nodes[&1].clone();
    for n in [4, 5] {
        cluster.start(n).await;
        leader.add_learner(MemberId(n), addr(n)).await.unwrap();
    }
    until(|| (leader.health().status == HealthStatus::Healthy).then_some(())).await;
    assert_eq!(leader.health().reasons, []);
    // One voter and one learner are dead.
    cluster.stop(3).await;
    cluster.stop(4).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let health = leader.health();
    let reasons: Vec<_> = health.reasons.iter().map(|reason| reason.text.as_str()).collect();
    assert_eq!(health.status, HealthStatus::Degraded);
    assert_eq!(reasons, ["node 3 does not answer", "node 4 does not answer"]);

    let own = leader.expunge(MemberId(1)).await.unwrap_err();
    assert_eq!(own.code, ErrorCode::Conflict);
    let unknown = leader.expunge(MemberId(9)).await.unwrap_err();
    assert_eq!(unknown.code, ErrorCode::NotFound);
    let follower = cluster.nodes[&2].expunge(MemberId(4)).await.unwrap_err();
    assert_eq!(follower.code, ErrorCode::NotLeader);
    leader.expunge(MemberId(4)).await.unwrap();
    let state = leader.expunge(MemberId(3)).await.unwrap();
    assert_eq!(state.nodes.iter().map(|n| n.node_id.0).collect::<Vec<_>>(), [1, 2, 5]);
    until(|| (leader.health().status == HealthStatus::Healthy).then_some(())).await;

    // It comes back, and is neither heard nor added again; a new identity is.
    cluster.start(3).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(leader.is_leader());
    let refused = leader.add_learner(MemberId(3), addr(3)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Conflict);
    assert!(refused.message.contains("expunged"), "{}", refused.message);
    cluster.start(6).await;
    leader.add_learner(MemberId(6), addr(6)).await.unwrap();
}

/// Runs `first` to the point where it waits for others, then `second` to its end, then `first`.
async fn overtaken<A, B>(
    first: impl Future<Output = A>,
    second: impl Future<Output = B>,
) -> (A, B) {
    let mut first = std::pin::pin!(first);
    tokio::select! {
        biased;
        _ = &mut first => panic!("it does not wait"),
        () = std::future::ready(()) => {}
    }
    let second = second.await;
    (first.await, second)
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_expunged_takes_no_other_along() {
    let mut cluster = TestCluster::formed(3).await;
    cluster.start(4).await;
    let leader = cluster.nodes[&1].clone();
    leader.add_learner(MemberId(4), addr(4)).await.unwrap();
    let promoting = leader.promote(MemberId(4), None, true);
    let (expunged, promoted) = overtaken(leader.expunge(MemberId(3)), promoting).await;
    promoted.unwrap();
    let voters = expunged.unwrap().nodes;
    assert!(voters.iter().all(|node| node.is_voter));
    assert_eq!(voters.iter().map(|node| node.node_id.0).collect::<Vec<_>>(), [1, 2, 4]);
}

#[tokio::test(start_paused = true)]
async fn one_number_is_given_to_one_of_two_nodes_that_ask_for_it() {
    let mut cluster = TestCluster::formed(1).await;
    cluster.start(4).await;
    let twin = config(4, Arc::new(MemoryDisk::new()));
    let twin = ClusterConfig { addr: addr(44), ..twin };
    let twin = ClusterNode::start(twin, cluster.mesh.end(44)).await.unwrap();
    cluster.mesh.attach(44, &twin);
    let leader = cluster.nodes[&1].clone();
    let late = leader.add_learner(MemberId(4), addr(4));
    let (late, early) = overtaken(late, leader.add_learner(MemberId(4), addr(44))).await;
    early.unwrap();
    assert_eq!(late.unwrap_err().code, ErrorCode::Conflict);
    let state = leader.cluster_state();
    assert_eq!(state.nodes[1].addr, addr(44));
}
