//! What a node measures of its consensus, log and store.

use std::sync::atomic::{AtomicU64, Ordering};

use aspen_api::cluster::RaftState;
use net_metrics::{Families, collector};
use prometheus::core::Collector;

use super::ClusterNode;

impl ClusterNode {
    /// What the node measures.
    pub fn collector(&self) -> Box<dyn Collector> {
        let node = self.clone();
        collector("node", move |out| {
            node.collect_store(out);
            node.collect_consensus(out);
        })
    }

    fn collect_store(&self, out: &mut Families) {
        let counters = &self.0.counters;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        out.counter("aspen_kv_writes_total", "Commands proposed.", count(&counters.writes));
        out.counter("aspen_kv_reads_total", "Reads of the store.", count(&counters.reads));
        out.counter(
            "aspen_read_confirmations_total",
            "Confirmations of leadership, shared by reads.",
            count(&counters.barriers),
        );
        out.counter("aspen_checkpoints_total", "Checkpoints begun.", count(&counters.checkpoints));
        let memory = self.0.state.store().memory_bytes() as f64;
        out.gauge("aspen_state_memory_bytes", "Rows that no checkpoint holds yet.", memory);
        if let Ok(view) = self.local_view() {
            let header = view.header();
            out.gauge("aspen_kv_keys", "Keys.", header.key_count as f64);
            out.gauge("aspen_kv_leases", "Leases.", header.lease_count as f64);
            out.gauge("aspen_kv_history_rows", "Superseded versions.", header.history_count as f64);
            out.gauge("aspen_kv_history_bytes", "Bytes of them.", header.history_bytes as f64);
            out.gauge(
                "aspen_feature_level",
                "Feature level of the cluster.",
                header.level.0.into(),
            );
        }
    }

    fn collect_consensus(&self, out: &mut Families) {
        let raft = self.raft_metrics();
        let index = |index: Option<u64>| index.map_or(-1.0, |index| index as f64);
        out.gauge("aspen_raft_term", "Term.", raft.term as f64);
        let leads = f64::from(raft.state == RaftState::Leader);
        out.gauge("aspen_raft_is_leader", "Whether the node leads.", leads);
        out.gauge("aspen_raft_last_log_index", "End of the log.", index(raft.last_log_index));
        out.gauge(
            "aspen_raft_applied_index",
            "Last applied entry.",
            index(raft.last_applied_index),
        );
        out.gauge("aspen_raft_snapshot_index", "Last durable entry.", index(raft.snapshot_index));
        out.gauge("aspen_raft_purged_index", "Last dropped entry.", index(raft.purged_index));
        let log = self.0.log.counters();
        out.counter("aspen_log_entries_total", "Entries appended.", log.entries);
        out.counter("aspen_log_bytes_total", "Bytes written to the log.", log.bytes);
        out.counter("aspen_log_syncs_total", "Syncs of the log.", log.syncs);
        let seconds = log.sync_us as f64 / 1e6;
        out.seconds("aspen_log_sync_seconds_total", "Time spent in syncs.", seconds);
        let drift = self.0.dialing.peers.drift.max().as_secs_f64();
        out.gauge("aspen_clock_drift_seconds", "Distance of the farthest peer's clock.", drift);
    }
}
