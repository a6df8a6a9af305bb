//! What a node measures of its consensus, log and store.

use std::sync::atomic::{AtomicU64, Ordering};

use aspen_api::cluster::RaftState;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};

use super::ClusterNode;
use crate::families::{Families, counter, desc};

/// Consensus, log and store of a node.
struct NodeCollector {
    node: ClusterNode,
    descs: Vec<Desc>,
}

impl Collector for NodeCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut out = Families::default();
        self.node.collect_store(&mut out);
        self.node.collect_consensus(&mut out);
        out.0
    }
}

impl ClusterNode {
    /// What the node measures.
    pub fn collector(&self) -> Box<dyn Collector> {
        Box::new(NodeCollector { node: self.clone(), descs: desc("aspen_node") })
    }

    fn collect_store(&self, out: &mut Families) {
        let counters = &self.0.counters;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        out.counter("kv_writes_total", "Commands proposed.", count(&counters.writes));
        out.counter("kv_reads_total", "Reads of the store.", count(&counters.reads));
        out.counter(
            "read_confirmations_total",
            "Confirmations of leadership, shared by reads.",
            count(&counters.barriers),
        );
        out.counter("checkpoints_total", "Checkpoints begun.", count(&counters.checkpoints));
        let memory = self.0.state.store().memory_bytes() as f64;
        out.gauge("state_memory_bytes", "Rows that no checkpoint holds yet.", memory);
        if let Ok(view) = self.local_view() {
            let header = view.header();
            out.gauge("kv_keys", "Keys.", header.key_count as f64);
            out.gauge("kv_leases", "Leases.", header.lease_count as f64);
            out.gauge("kv_history_rows", "Superseded versions.", header.history_count as f64);
            out.gauge("kv_history_bytes", "Bytes of them.", header.history_bytes as f64);
            out.gauge("feature_level", "Feature level of the cluster.", header.level.0.into());
        }
    }

    fn collect_consensus(&self, out: &mut Families) {
        let raft = self.raft_metrics();
        let index = |index: Option<u64>| index.map_or(-1.0, |index| index as f64);
        out.gauge("raft_term", "Term.", raft.term as f64);
        let leads = f64::from(raft.state == RaftState::Leader);
        out.gauge("raft_is_leader", "Whether the node leads.", leads);
        out.gauge("raft_last_log_index", "End of the log.", index(raft.last_log_index));
        out.gauge("raft_applied_index", "Last applied entry.", index(raft.last_applied_index));
        out.gauge("raft_snapshot_index", "Last durable entry.", index(raft.snapshot_index));
        out.gauge("raft_purged_index", "Last dropped entry.", index(raft.purged_index));
        let log = self.0.log.counters();
        out.counter("log_entries_total", "Entries appended.", log.entries);
        out.counter("log_bytes_total", "Bytes written to the log.", log.bytes);
        out.counter("log_syncs_total", "Syncs of the log.", log.syncs);
        let seconds = counter(log.sync_us as f64 / 1e6, &[]);
        let (help, kind) = ("Time spent in syncs.", MetricType::COUNTER);
        out.add("log_sync_seconds_total", help, kind, vec![seconds]);
        let drift = self.0.dialing.drift.max().as_secs_f64();
        out.gauge("clock_drift_seconds", "Distance of the farthest peer's clock.", drift);
    }
}
