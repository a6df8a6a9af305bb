//! The machines of a cluster: nodes on disks and clocks of their own, and what can be done to them.
//!
//! Losing power is modelled by what remains: the disk drops what was not synced and refuses the old
//! handles, and the network no longer knows the incarnation. What the old tasks still do then
//! is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aspen_api::cluster::HealthStatus;
use aspen_api::{ApiError, MemberId};
use aspen_cluster::log::WriterDrive;
use aspen_cluster::{CheckpointPolicy, ClusterConfig, ClusterNode, StoreView, Timing};
use aspen_kv::snapshot::SnapshotStream;
use aspen_kv::{ReadTables, TableId};
use bytes::Bytes;
use net_sim::SimRng;
use tokio::time::Instant;

use super::clock::SimClock;
use super::disk::SimDisk;
use super::network::{HostId, SimNet};
use crate::mesh::{addr, config};

/// The first members of a cluster.
pub(crate) const NODES: [HostId; 3] = [1, 2, 3];
/// Machines that may become members later.
pub(crate) const SPARES: [HostId; 2] = [4, 5];
/// Fewest voters that are left when others are removed.
const FEWEST_VOTERS: usize = 3;
/// Patience for a change of the members.
const CHANGE_PATIENCE: Duration = Duration::from_secs(8);

/// Short, so that a run sees many elections.
const TIMING: Timing = Timing {
    heartbeat: Duration::from_millis(50),
    election_min: Duration::from_millis(300),
    election_max: Duration::from_millis(600),
};

/// Frequent, so that nodes that were away need snapshots.
const CHECKPOINT: CheckpointPolicy = CheckpointPolicy {
    log_bytes: 32 << 10,
    memory_bytes: 64 << 10,
    entries: 60,
    age: Duration::from_secs(3),
    kept_entries: 20,
};

/// Until when a disk's syncs wait.
type StalledUntil = Arc<Mutex<Instant>>;

struct Machine {
    disk: SimDisk,
    clock: Arc<SimClock>,
    stalled_until: StalledUntil,
    node: Option<ClusterNode>,
}

pub(crate) struct World {
    seed: u64,
    pub(crate) net: SimNet,
    machines: Mutex<BTreeMap<HostId, Machine>>,
    /// Changes of the members that were confirmed.
    pub(crate) changes: Arc<AtomicU32>,
}

impl World {
    /// Machines without power, in a calm network; with clocks that agree or not, and three of them
    /// or also those to spare.
    pub(crate) fn new(seed: u64, has_good_clocks: bool, has_spares: bool) -> Self {
        let origin = Instant::now();
        let mut rng = SimRng::new(seed, "machines");
        let mut machine = |n: HostId| Machine {
            disk: SimDisk::new(seed ^ n),
            clock: Arc::new(SimClock::new(origin, &mut rng, has_good_clocks)),
            stalled_until: Arc::new(Mutex::new(origin)),
            node: None,
        };
        let spares = if has_spares { SPARES.as_slice() } else { &[] };
        let machines = NODES.iter().chain(spares).map(|n| (*n, machine(*n))).collect();
        Self {
            seed,
            net: SimNet::start(seed, origin),
            machines: Mutex::new(machines),
            changes: Arc::default(),
        }
    }

    fn with<T>(&self, n: HostId, act: impl FnOnce(&mut Machine) -> T) -> T {
        act(self.machines.lock().unwrap().get_mut(&n).unwrap())
    }

    /// All machines.
    pub(crate) fn hosts(&self) -> Vec<HostId> {
        self.machines.lock().unwrap().keys().copied().collect()
    }

    pub(crate) fn node(&self, n: HostId) -> Option<ClusterNode> {
        self.with(n, |machine| machine.node.clone())
    }

    fn config(&self, n: HostId) -> ClusterConfig {
        self.with(n, |machine| {
            let rng = Mutex::new(SimRng::new(self.seed ^ n, "syncs"));
            let stalled_until = machine.stalled_until.clone();
            let sync_time = move || {
                let stall = stalled_until.lock().unwrap().saturating_duration_since(Instant::now());
                stall + Duration::from_micros(200 + rng.lock().unwrap().below(3_000))
            };
            ClusterConfig {
                timing: TIMING,
                checkpoint: CHECKPOINT,
                writer: WriterDrive::Task(Arc::new(sync_time)),
                clock: machine.clock.clone(),
                ..config(n, Arc::new(machine.disk.clone()))
            }
        })
    }

    /// Starts node `n`, which must be off.
    pub(crate) async fn start(&self, n: HostId) -> Result<(), String> {
        self.net.record(format_args!("start {n}"));
        let started = ClusterNode::start(self.config(n), self.net.end(n)).await;
        let node = started.map_err(|error| format!("node {n} does not start: {error}"))?;
        self.net.attach(n, &node);
        self.with(n, |machine| machine.node = Some(node));
        Ok(())
    }

    /// Forms the cluster.
    pub(crate) async fn form(&self) -> Result<(), String> {
        for n in self.hosts() {
            self.start(n).await?;
        }
        let failed = |error: ApiError| format!("the cluster does not form: {error}");
        let first = self.node(1).ok_or("node 1 is off")?;
        first.init().await.map_err(failed)?;
        for n in &NODES[1..] {
            first.add_learner(MemberId(*n), addr(*n)).await.map_err(failed)?;
        }
        first.change_membership(&NODES.map(MemberId)).await.map(drop).map_err(failed)
    }

    pub(crate) fn leader(&self) -> Option<HostId> {
        self.hosts().into_iter().find(|n| self.node(*n).is_some_and(|node| node.is_leader()))
    }

    /// Takes the power from node `n` between two steps of its program.
    pub(crate) fn crash(&self, n: HostId) {
        self.net.detach(n);
        let node = self.with(n, |machine| {
            machine.disk.inner().crash();
            machine.disk.inner().clear_faults();
            machine.node.take()
        });
        if let Some(node) = node {
            self.net.record(format_args!("crash {n}"));
            // Frees its memory; what it holds can no longer do anything.
            tokio::spawn(async move { node.shutdown().await });
        }
    }

    /// Shuts node `n` down in good order and then takes the power from it.
    pub(crate) async fn stop(&self, n: HostId) {
        if let Some(node) = self.node(n) {
            self.net.record(format_args!("stop {n}"));
            node.shutdown().await;
        }
        self.crash(n);
    }

    /// Restarts node `n` as an operator does, and waits until it is healthy.
    pub(crate) async fn restart_in_order(&self, n: HostId) -> Result<(), String> {
        if let Some(node) = self.node(n).filter(|node| node.is_leader()) {
            let handed = node.transfer_leader(None).await;
            handed.map_err(|error| format!("node {n} keeps the lead: {error}"))?;
        }
        self.stop(n).await;
        self.start(n).await?;
        let node = self.node(n).ok_or("it was started")?;
        let patience = Instant::now() + Duration::from_secs(20);
        while node.health().status != HealthStatus::Healthy {
            if Instant::now() > patience {
                return Err(format!("node {n} does not become healthy: {:?}", node.health()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Cuts node `n` off from the other nodes, both ways.
    pub(crate) fn isolate(&self, n: HostId) {
        for other in self.hosts().into_iter().filter(|other| *other != n) {
            self.net.cut(n, other);
            self.net.cut(other, n);
        }
    }

    /// Lets the syncs of node `n` wait for `time`.
    pub(crate) fn stall(&self, n: HostId, time: Duration) {
        self.with(n, |machine| *machine.stalled_until.lock().unwrap() = Instant::now() + time);
    }

    /// Fails an operation of node `n`'s disk, after a few more.
    pub(crate) fn break_disk(&self, n: HostId, after_operations: u64) {
        let fault =
            net_sim::Fault { kind: net_sim::FaultKind::Io, after_operations, is_permanent: false };
        self.with(n, |machine| machine.disk.inner().inject(fault));
    }

    /// Lets writes of node `n`'s disk fail for want of space, after a few more and until it starts
    /// again or all is calm.
    pub(crate) fn exhaust_disk(&self, n: HostId, after_operations: u64) {
        let kind = net_sim::FaultKind::NoSpace;
        let fault = net_sim::Fault { kind, after_operations, is_permanent: true };
        self.with(n, |machine| machine.disk.inner().inject(fault));
    }

    /// Lets node `n`'s disk say that it is almost full, or that it has room again.
    pub(crate) fn fill_disk(&self, n: HostId, is_full: bool) {
        self.with(n, |machine| machine.disk.set_full(is_full));
    }

    /// Lets all disks lie about syncs.
    pub(crate) fn lie(&self) {
        self.hosts().iter().for_each(|n| self.with(*n, |machine| machine.disk.lie()));
    }

    pub(crate) fn jump_clock(&self, n: HostId, by_ms: i64) {
        self.with(n, |machine| machine.clock.jump(by_ms));
    }

    /// Ends all faults: every machine that is off or whose disk failed starts again.
    pub(crate) async fn calm(&self) -> Result<(), String> {
        self.net.record(format_args!("calm"));
        self.net.heal();
        self.net.set_weather(super::network::Weather::CALM);
        for n in self.hosts() {
            self.with(n, |machine| machine.disk.inner().clear_faults());
            self.fill_disk(n, false);
            self.stall(n, Duration::ZERO);
            if self.node(n).is_none_or(|node| !node.is_alive()) {
                self.crash(n);
                self.start(n).await?;
            }
        }
        Ok(())
    }

    /// Members as the leader knows them; none without a leader.
    fn members(&self) -> Vec<HostId> {
        let leader = self.leader().and_then(|n| self.node(n));
        let members = leader.map(|leader| leader.cluster_state().nodes).unwrap_or_default();
        members.iter().map(|member| member.node_id.0).collect()
    }

    /// Waits until all members show the same entry, and compares what they hold then.
    pub(crate) async fn converge(&self) -> Result<(), String> {
        let patience = Instant::now() + Duration::from_secs(60);
        loop {
            let members = self.members();
            let views: Result<Vec<_>, _> = members
                .iter()
                .filter_map(|n| self.node(*n))
                .map(|node| node.local_view())
                .collect();
            let views = views.map_err(|error| format!("a state cannot be read: {error}"))?;
            let applied: Vec<_> = views.iter().map(|view| view.applied()).collect();
            let has_all = !members.is_empty() && applied.len() == members.len();
            if has_all && applied.iter().all(|id| *id == applied[0]) {
                let states: Vec<_> = views.iter().map(|view| state_hash(view)).collect();
                self.net.record(format_args!("converged at {:?}: {}", applied[0], states[0]));
                return match states.iter().all(|state| *state == states[0]) {
                    true => Ok(()),
                    false => Err(format!(
                        "states differ at {:?}: {}",
                        applied[0],
                        difference(&members, &views)
                    )),
                };
            }
            if Instant::now() > patience {
                return Err(format!("members {members:?} do not converge: {applied:?}"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Has the leader add, promote or remove machine `n`, whichever is next for it, or another one
    /// if too few voters would be left. `random` decides whom it replaces, if anyone. Returns at
    /// once; the change may be overtaken by anything.
    pub(crate) fn change_members(&self, n: HostId, random: u64) {
        let Some(leader) = self.leader().and_then(|n| self.node(n)) else { return };
        let members = leader.cluster_state().nodes;
        let is_voter =
            |n| members.iter().find(|member| member.node_id.0 == n).map(|member| member.is_voter);
        let mut voters: Vec<_> =
            members.iter().filter(|member| member.is_voter).map(|member| member.node_id).collect();
        let n = match is_voter(n) {
            Some(true) if voters.len() <= FEWEST_VOTERS => {
                let spare = self.hosts().into_iter().find(|n| is_voter(*n) != Some(true));
                let Some(spare) = spare else { return };
                spare
            }
            _ => n,
        };
        let is_voter = is_voter(n);
        let (net, changes) = (self.net.clone(), self.changes.clone());
        tokio::spawn(async move {
            let change = async {
                match is_voter {
                    None => leader.add_learner(MemberId(n), addr(n)).await.map(drop),
                    Some(false) => {
                        let old = voters.get(random as usize % (2 * voters.len())).copied();
                        leader.promote(MemberId(n), old, true).await.map(drop)
                    }
                    Some(true) => {
                        voters.retain(|id| id.0 != n);
                        leader.change_membership(&voters).await.map(drop)
                    }
                }
            };
            let result = tokio::time::timeout(CHANGE_PATIENCE, change).await;
            if matches!(result, Ok(Ok(()))) {
                changes.fetch_add(1, Ordering::Relaxed);
            }
            net.record(format_args!("change of {n}, voting {is_voter:?}: {result:?}"));
        });
    }
}

/// Hash of a state as a snapshot carries it.
fn state_hash(view: &StoreView) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut stream = SnapshotStream::new();
    while let Some(chunk) = stream.next_chunk(view.tables()).unwrap() {
        hasher.update(&chunk);
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

/// The rows that not all states have.
fn difference(members: &[HostId], views: &[Arc<StoreView>]) -> String {
    let states: Vec<_> = views.iter().map(|view| rows(view)).collect();
    let is_common = |row: &String| states.iter().all(|state| state.contains(row));
    let mut text = String::new();
    for (n, state) in members.iter().zip(&states) {
        for row in state.iter().filter(|row| !is_common(row)) {
            text.push_str(&format!("\n  {n}: {row}"));
        }
    }
    text
}

fn rows(view: &StoreView) -> BTreeSet<String> {
    let row = |table, row: Result<_, _>| {
        let (key, value) = row.unwrap();
        let bytes = |slice: &dyn AsRef<[u8]>| Bytes::copy_from_slice(slice.as_ref());
        format!("{table:?} {:?} {:?}", bytes(&key), bytes(&value))
    };
    let of_table = |table: &TableId| {
        let rows = view.tables().range(*table, &[], None).unwrap();
        rows.map(|found| row(*table, found)).collect::<Vec<_>>()
    };
    TableId::ALL.iter().flat_map(of_table).collect()
}
