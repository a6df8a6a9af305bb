//! Replication, elections and reads.

use std::time::Duration;

use aspen_api::ErrorCode;
use aspen_api::cluster::{Done, GetClusterState, HealthStatus, Ping, RaftState};
use aspen_api::kv::Consistency;
use aspen_api::{ApiError, KeyValueStore, RequestId, Response, Revision};
use aspen_cluster::{ClusterNode, Timing};
use net_types::limits::STAMP_INTERVAL;

use crate::client::{answer, cas, get, get_at, keys, metrics, put, put_for, request_id, send};
use crate::mesh::{TestCluster, addr, until};

fn code<T: std::fmt::Debug>(result: Result<T, ApiError>) -> ErrorCode {
    result.unwrap_err().code
}

#[tokio::test(start_paused = true)]
async fn one_node_serves_alone_once_it_is_initialized() {
    let cluster = TestCluster::unformed(1).await;
    let node = &cluster.nodes[&1];
    send(node, Ping {}).await.unwrap();
    assert_eq!(code(put(node, "a", "1").await), ErrorCode::NotInitialized);
    assert_eq!(code(get(node, "a").await), ErrorCode::NotInitialized);
    assert!(!node.is_ready());
    node.init().await.unwrap();
    assert_eq!(code(node.init().await), ErrorCode::Conflict);
    assert!(node.is_ready());
    put(node, "a", "1").await.unwrap();
    assert_eq!(get(node, "a").await.unwrap().as_deref(), Some("1"));
    assert_eq!(node.health().status, HealthStatus::Healthy);
    assert_eq!(node.raft_metrics().state, RaftState::Leader);
    assert!(metrics(node).contains("aspen_kv_writes_total 1\n"));
}

#[tokio::test(start_paused = true)]
async fn three_nodes_hold_the_same_and_followers_name_the_leader() {
    let cluster = TestCluster::formed(3).await;
    for n in 0..50 {
        put(&cluster.nodes[&1], &format!("k{n:02}"), "v").await.unwrap();
    }
    cluster.settle().await;
    let expected = keys(&cluster.nodes[&1], Consistency::Linearizable).await;
    assert_eq!(expected.len(), 50);
    for n in [2, 3] {
        let follower = &cluster.nodes[&n];
        assert_eq!(keys(follower, Consistency::Stale).await, expected);
        for refused in [put(follower, "x", "y").await.map(drop), get(follower, "x").await.map(drop)]
        {
            let error = refused.unwrap_err();
            assert_eq!((error.code, error.leader_hint), (ErrorCode::NotLeader, Some(addr(1))));
        }
        assert_eq!(follower.raft_metrics().term, cluster.nodes[&1].raft_metrics().term);
        let lease = get_at(follower, "k00", Consistency::Lease).await;
        assert_eq!(code(lease), ErrorCode::NotLeader);
    }
    let lease = get_at(&cluster.nodes[&1], "k00", Consistency::Lease).await.unwrap();
    assert_eq!(lease.as_deref(), Some("v"));
    let state = send(&cluster.nodes[&2], GetClusterState {}).await.unwrap();
    assert!(state.nodes.iter().all(|node| node.is_voter && !node.is_learner));
    assert_eq!(state.nodes.iter().filter(|node| node.is_leader).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn health_tells_of_silent_members_and_a_survivor_alone_is_not_healthy() {
    for survivor in [1, 2] {
        let mut cluster = TestCluster::formed(3).await;
        let status = |cluster: &TestCluster, n: u64| cluster.nodes[&n].health().status;
        until(|| (1..=3).all(|n| status(&cluster, n) == HealthStatus::Healthy).then_some(())).await;
        cluster.stop(3).await;
        until(|| (status(&cluster, 1) == HealthStatus::Degraded).then_some(())).await;
        assert_eq!(status(&cluster, 2), HealthStatus::Healthy, "it knows nothing of node 3");
        cluster.stop(3 - survivor).await;
        // Longer than any lease, and for good: no leader can be elected.
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert_eq!(status(&cluster, survivor), HealthStatus::Unhealthy);
            assert!(!cluster.nodes[&survivor].is_ready());
        }
        cluster.start(3).await;
        cluster.start(3 - survivor).await;
        until(|| (1..=3).all(|n| status(&cluster, n) == HealthStatus::Healthy).then_some(())).await;
    }
}

#[tokio::test(start_paused = true)]
async fn writes_within_the_process_reach_the_leader_from_any_node() {
    let cluster = TestCluster::formed(3).await;
    let follower = &cluster.nodes[&2];
    let key = crate::client::key("inner");
    let store = follower.store();
    store.set(key.clone(), "1").await.unwrap();
    let read = store.get(key).await.unwrap();
    assert_eq!(read.item.unwrap().value.as_ref(), b"1");
}

#[tokio::test(start_paused = true)]
async fn a_lost_leader_is_replaced_and_nothing_acknowledged_is_lost() {
    let mut cluster = TestCluster::formed(3).await;
    for n in 0..20 {
        put(&cluster.nodes[&1], &format!("before{n:02}"), "v").await.unwrap();
    }
    cluster.stop(1).await;
    let killed_at = tokio::time::Instant::now();
    let leader = cluster.leader().await;
    put(&cluster.nodes[&leader], "after", "v").await.unwrap();
    assert!(killed_at.elapsed() < Duration::from_secs(10));
    let found = keys(&cluster.nodes[&leader], Consistency::Linearizable).await;
    assert_eq!(found.len(), 21);
    cluster.start(1).await;
    cluster.settle().await;
    assert_eq!(keys(&cluster.nodes[&1], Consistency::Stale).await, found);
}

#[tokio::test(start_paused = true)]
async fn a_minority_acknowledges_nothing_and_still_shows_what_it_has() {
    let cluster = TestCluster::formed(3).await;
    put(&cluster.nodes[&1], "a", "1").await.unwrap();
    cluster.mesh.cut(1, 2);
    cluster.mesh.cut(1, 3);
    let old = cluster.nodes[&1].clone();
    let stuck = tokio::spawn(async move { put(&old, "lost", "1").await });
    let majority = until(|| [2, 3].into_iter().find(|n| cluster.nodes[n].is_leader())).await;
    put(&cluster.nodes[&majority], "a", "2").await.unwrap();
    let old = &cluster.nodes[&1];
    assert_ne!(get(old, "a").await.map(|value| value.unwrap()), Ok("1".to_owned()), "stale");
    assert!(get_at(old, "a", Consistency::Lease).await.is_err(), "the lease is long over");
    assert_eq!(get_at(old, "a", Consistency::Stale).await.unwrap().as_deref(), Some("1"));
    cluster.mesh.heal();
    let answer = stuck.await.unwrap();
    assert!(answer.is_err(), "{answer:?}");
    cluster.settle().await;
    let now = cluster.leader().await;
    assert_eq!(get(&cluster.nodes[&now], "lost").await.unwrap(), None);
    assert_eq!(get(&cluster.nodes[&now], "a").await.unwrap().as_deref(), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn a_repeated_write_applies_once_even_at_another_leader() {
    let mut cluster = TestCluster::formed(3).await;
    let first = &cluster.nodes[&1];
    assert!(cas(first, "c", None, "1", request_id(1)).await.unwrap());
    assert!(cas(first, "c", None, "1", request_id(1)).await.unwrap(), "the same answer again");
    assert!(!cas(first, "c", None, "1", request_id(2)).await.unwrap(), "a new request");
    cluster.settle().await;
    cluster.stop(1).await;
    let leader = cluster.leader().await;
    let node = &cluster.nodes[&leader];
    assert!(cas(node, "c", Some("1"), "2", request_id(3)).await.unwrap());
    assert!(cas(node, "c", None, "1", request_id(1)).await.unwrap(), "remembered by the log");
    assert_eq!(get(node, "c").await.unwrap().as_deref(), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn a_named_write_is_left_open_if_consensus_ends_or_the_lead_is_lost_after_the_append() {
    for is_stopped in [true, false] {
        let mut cluster = TestCluster::formed(3).await;
        cluster.settle().await;
        let old = cluster.nodes[&1].clone();
        let appended = old.raft_metrics().last_log_index;
        cluster.mesh.cut(1, 2);
        cluster.mesh.cut(1, 3);
        let caller = old.clone();
        let stuck = tokio::spawn(async move { cas(&caller, "c", None, "1", request_id(1)).await });
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
        let leader = cluster.leader().await;
        let again = cas(&cluster.nodes[&leader], "c", None, "1", request_id(1)).await;
        assert!(again.unwrap(), "under its name it may be repeated");
    }
}

#[tokio::test(start_paused = true)]
async fn keys_with_a_time_to_live_end_on_every_node_without_another_write() {
    let cluster = TestCluster::formed(3).await;
    put_for(&cluster.nodes[&1], "short", 2_000).await.unwrap();
    put_for(&cluster.nodes[&1], "long", 600_000).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(get(&cluster.nodes[&1], "short").await.unwrap().is_some());
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(get(&cluster.nodes[&1], "short").await.unwrap(), None);
    cluster.settle().await;
    for node in cluster.nodes.values() {
        assert_eq!(keys(node, Consistency::Stale).await, ["long"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_lengthens_a_life_by_no_more_than_its_election() {
    let mut cluster = TestCluster::formed(3).await;
    put_for(&cluster.nodes[&1], "k", 600_000).await.unwrap();
    let ends = tokio::time::Instant::now() + Duration::from_secs(600);
    // Just before the next stamp.
    tokio::time::sleep(Duration::from_secs(599)).await;
    cluster.stop(1).await;
    let node = cluster.nodes[&cluster.leader().await].clone();
    tokio::time::sleep_until(ends + 2 * Timing::default().election_max).await;
    assert_eq!(get(&node, "k").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn leaders_that_have_restarted_lengthen_a_life_by_the_time_between_two_stamps() {
    let mut cluster = TestCluster::formed(3).await;
    let minute = Duration::from_secs(60);
    put_for(&cluster.nodes[&1], "k", 600_000).await.unwrap();
    let ends = tokio::time::Instant::now() + 10 * minute;
    cluster.settle().await;
    // Nothing is written meanwhile, and leaders come and go.
    for n in [1, 2] {
        tokio::time::sleep(4 * minute).await;
        cluster.stop(n).await;
        cluster.leader().await;
        cluster.start(n).await;
    }
    let node = cluster.nodes[&cluster.leader().await].clone();
    assert!(get(&node, "k").await.unwrap().is_some());
    let late = 2 * (Timing::default().election_max + STAMP_INTERVAL);
    tokio::time::sleep_until(ends + late).await;
    assert_eq!(get(&node, "k").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn reads_that_wait_together_share_confirmations() {
    let cluster = TestCluster::formed(3).await;
    put(&cluster.nodes[&1], "a", "1").await.unwrap();
    let confirmations = |node: &ClusterNode| {
        let text = metrics(node);
        let line = text.lines().find(|l| l.starts_with("aspen_read_confirmations_total ")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let before = confirmations(&cluster.nodes[&1]);
    let reads: Vec<_> = (0..200)
        .map(|_| {
            let node = cluster.nodes[&1].clone();
            tokio::spawn(async move { get(&node, "a").await.unwrap() })
        })
        .collect();
    for read in reads {
        assert_eq!(read.await.unwrap().as_deref(), Some("1"));
    }
    assert!(confirmations(&cluster.nodes[&1]) - before <= 2);
}

#[tokio::test(start_paused = true)]
async fn malformed_and_foreign_messages_are_answered_with_errors() {
    let cluster = TestCluster::formed(1).await;
    let node = &cluster.nodes[&1];
    let from = crate::mesh::entity(50);
    for body in [&b""[..], b"\x01", b"\x09\x00", &[0xff; 64]] {
        let answer = answer(node, from, bytes::Bytes::copy_from_slice(body)).await;
        assert!(Response::<Done>::decode(answer).unwrap().result.is_err());
        let answer = node.handle_raft(from, bytes::Bytes::copy_from_slice(body)).await;
        assert_eq!(answer.last(), Some(&6), "refused as malformed");
    }
    // A vote in the name of member 1, from someone else's identity.
    let forged = [1, 1, 0, 2, 9, 1, 0, 0, 0];
    let answer = node.handle_raft(from, bytes::Bytes::copy_from_slice(&forged)).await;
    assert_eq!(answer.last(), Some(&1), "refused as not a member");
    // A vote of an unknown member in a term that no election leads to, and in one that may be.
    let far = [1, 50, 0, 2, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 50, 0, 0, 0];
    let answer = node.handle_raft(from, bytes::Bytes::copy_from_slice(&far)).await;
    assert_eq!(answer.last(), Some(&6), "refused as malformed");
    assert!(node.raft_metrics().term < 10);
    let near = [1, 50, 0, 2, 9, 50, 0, 0, 0];
    let answer = node.handle_raft(from, bytes::Bytes::copy_from_slice(&near)).await;
    assert_ne!(answer.last(), Some(&6));
}

#[tokio::test(start_paused = true)]
async fn a_name_older_than_what_was_forgotten_costs_no_entry() {
    let cluster = TestCluster::formed(3).await;
    let leader = &cluster.nodes[&1];
    assert!(cas(leader, "k", None, "1", request_id(1)).await.unwrap());
    // A lease makes time go on in the log, and the client's answers are forgotten.
    put_for(leader, "clock", 3_600_000).await.unwrap();
    tokio::time::sleep(Duration::from_secs(800)).await;
    put(leader, "later", "v").await.unwrap();
    cluster.settle().await;
    let last = |node: &ClusterNode| node.raft_metrics().last_log_index;
    let before = last(leader);
    let refused = cas(leader, "k", Some("1"), "2", request_id(2)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::SessionExpired);
    assert_eq!(last(leader), before);
    // A name that was given after it is taken.
    let since = Revision(before.unwrap());
    let id = RequestId { since, ..request_id(3) };
    assert!(cas(leader, "k", Some("1"), "2", id).await.unwrap());
    assert_eq!(get(leader, "k").await.unwrap().as_deref(), Some("2"));
}
