//! Parts of a node alone: one voter on a disk in memory, without a network.

use std::sync::Arc;
use std::time::Duration;

use aspen_api::kv::{Consistency, ReadKey, Transact, WriteOperation};
use aspen_api::{ErrorCode, Key, Level, MemberId};
use aspen_kv::{Command, Reply};
use aspen_log::WriterDrive;
use aspen_log::disk::MemoryDisk;
use bytes::Bytes;

use super::config::ClusterConfig;
use super::handle::{ClusterNode, Parts};
use crate::runtime::Blocking;
use crate::testing::{Nowhere, addr};

async fn alone() -> ClusterNode {
    let config = ClusterConfig {
        writer: WriterDrive::Task(Arc::new(|| Duration::ZERO)),
        blocking: Blocking::Inline,
        ..ClusterConfig::new(MemberId(1), addr(1), Arc::new(MemoryDisk::new()))
    };
    let node = ClusterNode::start(config, Arc::new(Nowhere)).await.unwrap();
    node.init().await.unwrap();
    node
}

fn set(key: &Key) -> Command {
    let write = WriteOperation::set(key.clone(), Bytes::from_static(b"v"));
    Command::Transact { request: Transact::always([write]) }
}

#[tokio::test(start_paused = true)]
async fn what_a_proposer_refuses_is_not_proposed() {
    let node = alone().await;
    let Parts { replica, condition, .. } = &*node.0;
    let key = Key::new("k").unwrap();
    let proposals = || replica.proposer.proposals.load(std::sync::atomic::Ordering::Relaxed);
    let before = proposals();
    condition.note_disk(true);
    let refused = replica.proposer.commit(set(&key), None).await.unwrap_err();
    assert_eq!((refused.code, proposals()), (ErrorCode::ServiceUnavailable, before));
    condition.note_disk(false);
    let written = replica.proposer.commit(set(&key), None).await.unwrap();
    assert!(matches!(written, Reply::Transact { .. }), "{written:?}");
    assert_eq!(proposals(), before + 1);
    node.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_confirms_leadership_for_linearizable_reads_alone() {
    let node = alone().await;
    let reader = &node.0.replica.reader;
    let key = Key::new("k").unwrap();
    node.0.replica.proposer.commit(set(&key), None).await.unwrap();
    for (consistency, rounds) in [(Consistency::Stale, 0), (Consistency::Linearizable, 1)] {
        let before = reader.barrier.rounds();
        let found = reader.answer(consistency, &ReadKey::newest(key.clone())).await.unwrap();
        assert!(found.item.is_some());
        assert_eq!(reader.barrier.rounds() - before, rounds, "{consistency:?}");
    }
    node.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_lone_member_raises_the_level_to_its_own() {
    let node = alone().await;
    let consensus = &node.0.consensus;
    while consensus.applied.level() < Level::TOP {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(node.0.members.next_level(), None);
    node.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn upkeep_ends_with_the_node() {
    let node = alone().await;
    let upkeep = Arc::downgrade(&node.0.upkeep);
    node.shutdown().await;
    assert!(net_types::lock(&node.0.upkeep.tasks).is_empty());
    assert_eq!(upkeep.strong_count(), 1, "no task holds it");
}
