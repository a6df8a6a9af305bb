//! Who is heard: members only, also those that a member has not heard of yet.

use std::sync::Arc;
use std::time::Duration;

use aspen_api::MemberId;
use aspen_api::kv::Consistency;
use aspen_cluster::disk::MemoryDisk;
use aspen_cluster::{CheckTokens, ClusterConfig, ClusterNode};

use crate::client::{keys, put};
use crate::mesh::{TestCluster, addr, config, until};

#[tokio::test(start_paused = true)]
async fn a_stranger_who_holds_the_secret_leads_nobody() {
    let cluster = TestCluster::formed(3).await;
    put(&cluster.nodes[&1], "ours", "v").await.unwrap();
    // Somewhere else node 9 leads a member that has the number and the identity of node 1.
    let mut elsewhere = TestCluster::unformed(0).await;
    elsewhere.start(9).await.init().await.unwrap();
    elsewhere.start(1).await;
    elsewhere.nodes[&9].add_learner(MemberId(1), addr(1)).await.unwrap();
    for _ in 0..5 {
        elsewhere.stop(9).await;
        elsewhere.start(9).await;
        elsewhere.settle().await;
    }
    let terms = |cluster: &TestCluster, n: u64| cluster.nodes[&n].raft_metrics().term;
    assert!(terms(&elsewhere, 9) > terms(&cluster, 1));
    elsewhere.stop(1).await;
    elsewhere.mesh.attach(1, &cluster.nodes[&1]);
    put(&elsewhere.nodes[&9], "theirs", "v").await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(terms(&elsewhere, 9) > terms(&cluster, 1), "the stranger's term was not taken on");
    put(&cluster.nodes[&1], "more", "v").await.unwrap();
    assert_eq!(keys(&cluster.nodes[&1], Consistency::Stale).await, ["more", "ours"]);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_was_away_while_all_voters_changed_follows_the_new_ones() {
    let mut cluster = TestCluster::formed(3).await;
    cluster.start(4).await;
    cluster.nodes[&1].add_learner(MemberId(4), addr(4)).await.unwrap();
    cluster.settle().await;
    cluster.stop(4).await;
    for n in 5..=7 {
        cluster.start(n).await;
        cluster.nodes[&1].add_learner(MemberId(n), addr(n)).await.unwrap();
    }
    let new = [MemberId(4), MemberId(5), MemberId(6), MemberId(7)];
    cluster.nodes[&1].change_membership(&new).await.unwrap();
    // Of those that node 4 knows, one is still there to be asked.
    cluster.stop(1).await;
    cluster.stop(2).await;
    let leader = cluster.leader().await;
    put(&cluster.nodes[&leader], "new", "v").await.unwrap();
    cluster.start(4).await;
    until(|| (cluster.nodes[&4].applied() == cluster.nodes[&leader].applied()).then_some(())).await;
    assert_eq!(keys(&cluster.nodes[&4], Consistency::Stale).await, ["new"]);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_was_away_follows_a_new_node_with_the_number_of_an_old_one() {
    let mut cluster = TestCluster::formed(4).await;
    cluster.settle().await;
    cluster.stop(4).await;
    // Another identity gets the number of node 3.
    cluster.nodes[&1].expunge(MemberId(3)).await.unwrap();
    cluster.stop(3).await;
    let successor = config(3, Arc::new(MemoryDisk::new()));
    let successor = ClusterConfig { addr: addr(33), ..successor };
    let successor = ClusterNode::start(successor, cluster.mesh.end(33)).await.unwrap();
    cluster.mesh.attach(33, &successor);
    cluster.nodes[&1].add_learner(MemberId(3), addr(33)).await.unwrap();
    let all: Vec<_> = (1..=4).map(MemberId).collect();
    cluster.nodes[&1].change_membership(&all).await.unwrap();
    cluster.nodes[&1].transfer_leader(Some(MemberId(3))).await.unwrap();
    put(&successor, "new", "v").await.unwrap();
    cluster.start(4).await;
    until(|| (cluster.nodes[&4].applied() == successor.applied()).then_some(())).await;
    assert!(successor.is_leader());
    let found = keys(&cluster.nodes[&4], Consistency::Stale).await;
    assert!(found.contains(&"new".to_owned()), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_missed_everything_helps_to_elect_one_that_it_does_not_know() {
    let mut cluster = TestCluster::formed(1).await;
    cluster.start(2).await;
    cluster.nodes[&1].add_learner(MemberId(2), addr(2)).await.unwrap();
    cluster.settle().await;
    cluster.start(3).await;
    cluster.mesh.cut(1, 2);
    cluster.mesh.cut(2, 3);
    // Node 2 misses that it votes, and that there is a node 3.
    cluster.nodes[&1].add_learner(MemberId(3), addr(3)).await.unwrap();
    let voters = [MemberId(1), MemberId(2), MemberId(3)];
    cluster.nodes[&1].change_membership(&voters).await.unwrap();
    put(&cluster.nodes[&1], "k", "v").await.unwrap();
    cluster.stop(1).await;
    cluster.mesh.heal();
    assert_eq!(cluster.leader().await, 3);
    put(&cluster.nodes[&3], "l", "v").await.unwrap();
    cluster.settle().await;
    assert_eq!(keys(&cluster.nodes[&2], Consistency::Stale).await, ["k", "l"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_needs_a_token_leads_nobody_even_while_the_others_are_gone() {
    let mut cluster = TestCluster::unformed(0).await;
    for n in 1..=3 {
        let authorizer = Arc::new(CheckTokens::new(Vec::new(), true));
        let guarded = ClusterConfig { authorizer, ..config(n, Arc::new(MemoryDisk::new())) };
        let node = ClusterNode::start(guarded, cluster.mesh.end(n)).await.unwrap();
        cluster.mesh.attach(n, &node);
        cluster.nodes.insert(n, node);
    }
    let victim = cluster.nodes[&1].clone();
    victim.init().await.unwrap();
    for n in 2..=3 {
        victim.add_learner(MemberId(n), addr(n)).await.unwrap();
    }
    victim.change_membership(&[1, 2, 3].map(MemberId)).await.unwrap();
    cluster.stop(2).await;
    cluster.stop(3).await;
    let mut elsewhere = TestCluster::unformed(0).await;
    elsewhere.start(9).await.init().await.unwrap();
    elsewhere.start(1).await;
    elsewhere.nodes[&9].add_learner(MemberId(1), addr(1)).await.unwrap();
    for _ in 0..5 {
        elsewhere.stop(9).await;
        elsewhere.start(9).await;
        elsewhere.settle().await;
    }
    elsewhere.stop(1).await;
    let state = || (victim.raft_metrics().term, victim.raft_metrics().last_log_index);
    let before = state();
    elsewhere.mesh.attach(1, &victim);
    put(&elsewhere.nodes[&9], "theirs", "v").await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(state(), before);
    assert!(elsewhere.nodes[&9].raft_metrics().term > before.0, "it would be followed if heard");
}
