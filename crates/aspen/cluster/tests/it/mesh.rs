//! A network in memory between nodes of one thread: links can be cut, nodes taken off.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aspen_api::service;
use aspen_api::{MemberId, MeshKey};
use aspen_cluster::disk::{Disk, MemoryDisk};
use aspen_cluster::log::{LogOptions, WriterDrive};
use aspen_cluster::{
    Blocking, CheckpointPolicy, ClusterConfig, ClusterNode, Transport, TransportError,
    TransportFuture,
};
use bytes::Bytes;
use net_types::{EntityId, PeerAddr};
use net_wire::Class;

/// One way, everywhere.
const LATENCY: Duration = Duration::from_micros(200);

#[derive(Default)]
struct Inner {
    nodes: BTreeMap<EntityId, ClusterNode>,
    cut: BTreeSet<(EntityId, EntityId)>,
    snapshot_calls: u64,
}

/// The network.
#[derive(Clone, Default)]
pub(crate) struct Mesh(Arc<Mutex<Inner>>);

/// One node's end of it.
struct End {
    mesh: Mesh,
    own: EntityId,
}

pub(crate) fn entity(n: u64) -> EntityId {
    EntityId([n as u8; 32])
}

pub(crate) fn addr(n: u64) -> PeerAddr {
    PeerAddr::direct(entity(n), format!("127.0.0.1:{}", 4_000 + n).parse().unwrap())
}

impl Mesh {
    fn reach(&self, from: EntityId, to: EntityId) -> Result<ClusterNode, TransportError> {
        let inner = self.0.lock().unwrap();
        let is_cut = inner.cut.contains(&(from, to)) || inner.cut.contains(&(to, from));
        match inner.nodes.get(&to) {
            Some(node) if !is_cut => Ok(node.clone()),
            _ => Err(TransportError::Unreachable("no path".into())),
        }
    }

    pub(crate) fn attach(&self, n: u64, node: &ClusterNode) {
        self.0.lock().unwrap().nodes.insert(entity(n), node.clone());
    }

    pub(crate) fn detach(&self, n: u64) {
        self.0.lock().unwrap().nodes.remove(&entity(n));
    }

    pub(crate) fn cut(&self, a: u64, b: u64) {
        self.0.lock().unwrap().cut.insert((entity(a), entity(b)));
    }

    pub(crate) fn heal(&self) {
        self.0.lock().unwrap().cut.clear();
    }

    /// Messages sent as bulk so far: snapshots.
    pub(crate) fn snapshot_calls(&self) -> u64 {
        self.0.lock().unwrap().snapshot_calls
    }

    pub(crate) fn end(&self, n: u64) -> Arc<dyn Transport> {
        Arc::new(End { mesh: self.clone(), own: entity(n) })
    }
}

impl Transport for End {
    fn call(
        &self,
        peer: &PeerAddr,
        service: &'static str,
        class: Class,
        body: Bytes,
        deadline: Duration,
    ) -> TransportFuture {
        let (mesh, from, to) = (self.mesh.clone(), self.own, peer.entity_id);
        if class == Class::Background {
            mesh.0.lock().unwrap().snapshot_calls += 1;
        }
        Box::pin(async move {
            let call = async {
                tokio::time::sleep(LATENCY).await;
                let node = mesh.reach(from, to)?;
                let answer = match service {
                    service::RAFT => node.handle_raft(from, body).await,
                    service::CLIENT => crate::client::answer(&node, from, body).await,
                    other => return Err(TransportError::Failed(format!("no service {other}"))),
                };
                drop(node);
                tokio::time::sleep(LATENCY).await;
                // An answer over a link that was cut meanwhile is lost.
                mesh.reach(to, from)?;
                Ok(answer)
            };
            match tokio::time::timeout(deadline, call).await {
                Ok(result) => result,
                Err(_) => Err(TransportError::Timeout),
            }
        })
    }

    fn add_peer(&self, _: &PeerAddr) {}
}

/// Settings of node `n` on `disk`.
pub(crate) fn config(n: u64, disk: Arc<dyn Disk>) -> ClusterConfig {
    ClusterConfig {
        mesh_key: Some(MeshKey([7; 32])),
        writer: WriterDrive::Task(Arc::new(|| Duration::from_micros(100))),
        blocking: Blocking::Inline,
        log: LogOptions { segment_bytes: 64 << 10, cache_bytes: 64 << 10, read_bytes: 16 << 10 },
        checkpoint: CheckpointPolicy { kept_entries: 20, ..CheckpointPolicy::default() },
        state_cache_bytes: 1 << 20,
        ..ClusterConfig::new(MemberId(n), addr(n), disk)
    }
}

/// A cluster under test: its network, and the disks that outlive its nodes.
pub(crate) struct TestCluster {
    pub(crate) mesh: Mesh,
    pub(crate) nodes: BTreeMap<u64, ClusterNode>,
    pub(crate) disks: BTreeMap<u64, MemoryDisk>,
}

impl TestCluster {
    /// Nodes that belong to no cluster yet.
    pub(crate) async fn unformed(count: u64) -> Self {
        aspen_cluster::seed_this_thread(count);
        let mut cluster =
            Self { mesh: Mesh::default(), nodes: BTreeMap::new(), disks: BTreeMap::new() };
        for n in 1..=count {
            cluster.start(n).await;
        }
        cluster
    }

    /// A cluster of `count` voters, led by node 1.
    pub(crate) async fn formed(count: u64) -> Self {
        let cluster = Self::unformed(count).await;
        let first = &cluster.nodes[&1];
        first.init().await.unwrap();
        for n in 2..=count {
            first.add_learner(MemberId(n), addr(n)).await.unwrap();
        }
        if count > 1 {
            let voters: Vec<_> = (1..=count).map(MemberId).collect();
            first.change_membership(&voters).await.unwrap();
        }
        cluster
    }

    /// Starts node `n` on its disk.
    pub(crate) async fn start(&mut self, n: u64) -> &ClusterNode {
        let disk = self.disks.entry(n).or_default().clone();
        let node = ClusterNode::start(config(n, Arc::new(disk)), self.mesh.end(n)).await.unwrap();
        self.mesh.attach(n, &node);
        self.nodes.insert(n, node);
        &self.nodes[&n]
    }

    /// Stops node `n` and takes it off the network.
    pub(crate) async fn stop(&mut self, n: u64) {
        self.mesh.detach(n);
        self.nodes.remove(&n).unwrap().shutdown().await;
    }

    /// The node that leads, once exactly one of those that run says so.
    pub(crate) async fn leader(&self) -> u64 {
        until(|| {
            let mut leaders = self.nodes.iter().filter(|(_, node)| node.is_leader());
            match (leaders.next(), leaders.next()) {
                (Some((n, _)), None) => Some(*n),
                _ => None,
            }
        })
        .await
    }

    /// Waits until all running nodes have applied what the leader has.
    pub(crate) async fn settle(&self) {
        let leader = self.leader().await;
        until(|| {
            let wanted = self.nodes[&leader].applied();
            self.nodes.values().all(|node| node.applied() == wanted).then_some(())
        })
        .await;
    }
}

/// Looks again after each moment until there is something, at most a minute of paused time.
pub(crate) async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..60_000 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("nothing came of it in a minute");
}
