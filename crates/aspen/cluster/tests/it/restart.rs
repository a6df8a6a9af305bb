//! Stopping and starting again, on disks that kept everything or were damaged.

use std::sync::Arc;

use aspen_api::kv::Consistency;
use aspen_cluster::disk::{Disk, FolderLock, FsDisk, LockError, MemoryDisk};
use aspen_cluster::log::{LogError, WriterDrive};
use aspen_cluster::{
    Blocking, CheckpointPolicy, ClusterConfig, ClusterNode, StartError, StoreError,
};

use crate::client::{get, keys, put};
use crate::mesh::{Mesh, TestCluster, addr, config, until};

#[tokio::test(start_paused = true)]
async fn a_restarted_node_holds_what_it_held_and_leads_again() {
    let mut cluster = TestCluster::formed(1).await;
    for n in 0..40 {
        put(&cluster.nodes[&1], &format!("k{n:02}"), "v").await.unwrap();
    }
    for round in 0..3 {
        cluster.stop(1).await;
        cluster.start(1).await;
        assert_eq!(cluster.leader().await, 1);
        let node = cluster.nodes[&1].clone();
        until(|| node.is_ready().then_some(())).await;
        assert_eq!(keys(&node, Consistency::Linearizable).await.len(), 40 + round);
        put(&node, &format!("round{round}"), "v").await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_restarts_has_to_be_elected_anew() {
    for count in [1, 3] {
        let mut cluster = TestCluster::formed(count).await;
        put(&cluster.nodes[&1], "a", "1").await.unwrap();
        let term = cluster.nodes[&1].raft_metrics().term;
        for n in 1..=count {
            cluster.stop(n).await;
        }
        // The leader starts before anyone else could be elected.
        for n in 1..=count {
            cluster.start(n).await;
        }
        assert!(!cluster.nodes[&1].is_leader());
        let leader = cluster.leader().await;
        assert!(cluster.nodes[&leader].raft_metrics().term > term);
    }
}

#[tokio::test(start_paused = true)]
async fn a_whole_cluster_restarts() {
    let mut cluster = TestCluster::formed(3).await;
    put(&cluster.nodes[&1], "a", "1").await.unwrap();
    for n in 1..=3 {
        cluster.stop(n).await;
    }
    for n in 1..=3 {
        cluster.start(n).await;
    }
    let leader = cluster.leader().await;
    assert_eq!(get(&cluster.nodes[&leader], "a").await.unwrap().as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn rows_in_memory_are_written_out_once_they_are_many_bytes() {
    let checkpoint = CheckpointPolicy { memory_bytes: 32 << 10, ..CheckpointPolicy::default() };
    let disk = Arc::new(MemoryDisk::default());
    let settings = ClusterConfig { checkpoint, ..config(1, disk.clone()) };
    let mesh = Mesh::default();
    let node = ClusterNode::start(settings.clone(), mesh.end(1)).await.unwrap();
    node.init().await.unwrap();
    let value = "v".repeat(1_000);
    for _ in 0..3 {
        let before = node.raft_metrics().last_applied_index;
        for n in 0..40 {
            put(&node, &format!("k{n:02}"), &value).await.unwrap();
        }
        until(|| (node.raft_metrics().snapshot_index > before).then_some(())).await;
    }
    let text = crate::client::metrics(&node);
    let begun = text.lines().find_map(|line| line.strip_prefix("aspen_checkpoints_total "));
    let begun: u64 = begun.unwrap().parse().unwrap();
    assert!((3..=9).contains(&begun), "one for each 32 KiB, not one for each write: {begun}");
    node.shutdown().await;
    drop(node);
    let node = ClusterNode::start(settings, mesh.end(1)).await.unwrap();
    assert_eq!(keys(&node, Consistency::Stale).await.len(), 40);
}

#[tokio::test(start_paused = true)]
async fn rolling_restarts_lose_nothing_that_was_acknowledged() {
    let mut cluster = TestCluster::formed(3).await;
    let mut written = 0;
    for round in 0..6 {
        let leader = cluster.leader().await;
        for _ in 0..10 {
            put(&cluster.nodes[&leader], &format!("k{written:03}"), "v").await.unwrap();
            written += 1;
        }
        let n = round % 3 + 1;
        cluster.stop(n).await;
        cluster.leader().await;
        cluster.start(n).await;
        cluster.settle().await;
    }
    for node in cluster.nodes.values() {
        assert_eq!(keys(node, Consistency::Stale).await.len(), written);
    }
}

/// Settings of a node on the file system, in real time.
fn real(path: &std::path::Path) -> ClusterConfig {
    ClusterConfig {
        writer: WriterDrive::Thread,
        blocking: Blocking::Pool,
        ..config(1, Arc::new(FsDisk::open(path).unwrap()))
    }
}

async fn start_real(path: &std::path::Path) -> Result<ClusterNode, StartError> {
    ClusterNode::start(real(path), Mesh::default().end(1)).await
}

async fn filled(path: &std::path::Path) {
    let node = start_real(path).await.unwrap();
    node.init().await.unwrap();
    for n in 0..20 {
        put(&node, &format!("k{n:02}"), "v").await.unwrap();
    }
    node.shutdown().await;
}

#[tokio::test]
async fn a_node_on_the_file_system_keeps_its_data() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let node = start_real(dir.path()).await.unwrap();
    assert_eq!(keys(&node, Consistency::Stale).await.len(), 20);
    node.shutdown().await;
}

#[tokio::test]
async fn a_second_user_of_a_data_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _held = FolderLock::acquire(dir.path()).unwrap();
    assert!(matches!(FolderLock::acquire(dir.path()), Err(LockError::Held)));
}

#[tokio::test]
async fn a_damaged_log_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let log = FsDisk::open(dir.path().join("log")).unwrap();
    let first = log.list().unwrap().into_iter().filter(|n| n.ends_with(".seg")).min().unwrap();
    log.open(&first).unwrap().write_at(b"damage", 400).unwrap();
    let refused = start_real(dir.path()).await.err().unwrap();
    assert!(matches!(refused, StartError::Log(LogError::Corrupt { .. })), "{refused}");
}

#[tokio::test]
async fn the_log_of_another_node_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let other = ClusterConfig { addr: addr(2), ..real(dir.path()) };
    let refused = ClusterNode::start(other, Mesh::default().end(2)).await.err().unwrap();
    assert!(matches!(refused, StartError::Log(LogError::Foreign)), "{refused}");
}

#[tokio::test]
async fn a_damaged_state_file_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path()).await;
    let disk = FsDisk::open(dir.path()).unwrap();
    let file = disk.open("state.redb").unwrap();
    file.write_at(&[0x55; 512], 0).unwrap();
    let refused = start_real(dir.path()).await.err().unwrap();
    assert!(matches!(refused, StartError::State(StoreError::Damaged(_))), "{refused}");
}
