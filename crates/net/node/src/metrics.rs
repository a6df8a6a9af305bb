//! The counters of a node, for Prometheus.
//!
//! Invariants: names and labels are stable, since dashboards read them; labels come from fixed
//! lists and at most [`MAX_PEER_ROWS`] peers.

use std::time::Duration;

use net_mesh_core::{DropReason, PeerStatus, ResetReason};
use net_metrics::{Families, collector};
use net_rpc::RpcError;
use net_types::{Instant, NodeId};
use prometheus::core::Collector;

use crate::MeshNode;
use crate::state::Core;

/// Peers that get rows of their own.
const MAX_PEER_ROWS: usize = 256;

impl MeshNode {
    /// What the node measures. Labels come from fixed lists and a bounded number of peers.
    pub fn collector(&self) -> Box<dyn Collector> {
        let shared = self.shared.clone();
        collector("mesh", move |out| {
            let (core, now) = (shared.lock(), shared.now());
            collect_packets(out, &core);
            collect_sessions(out, &core, now);
            collect_peers(out, &core, now);
            collect_calls(out, &core);
        })
    }
}

fn collect_packets(out: &mut Families, core: &Core) {
    let c = core.mesh.endpoint().counters();
    let rows = [("in", c.packets_in), ("out", c.packets_out)];
    out.counters("net_packets_total", "Session packets.", "dir", rows);
    let rows = [("in", c.bytes_in), ("out", c.bytes_out)];
    out.counters("net_bytes_total", "Bytes of session packets.", "dir", rows);
    let rows = [("nack", c.retransmits_nack), ("timeout", c.retransmits_timeout)];
    out.counters("net_retransmits_total", "Packets sent again.", "cause", rows);
    out.counter("net_ack_packets_total", "Bare acknowledgements.", c.ack_packets);
    let rows = DropReason::ALL.iter().map(|r| (r.label(), c.drops(*r)));
    out.counters("net_drops_total", "Packets and frames not used.", "reason", rows);
    // Unacknowledged packets are never given up for others; dashboards look for the name.
    out.counter("net_untracked_evictions_total", "Unacknowledged packets evicted.", 0);
}

fn collect_sessions(out: &mut Families, core: &Core, now: Instant) {
    let c = core.mesh.endpoint().counters();
    let rows = [("ok", c.handshakes_ok), ("failed", c.handshakes_failed)];
    out.counters("net_handshakes_total", "Handshakes ended.", "result", rows);
    let population = core.mesh.endpoint().population();
    let live = core.mesh.endpoint().connected(now).count();
    let draining = population.sessions.saturating_sub(live + population.provisional);
    let rows = [("live", live), ("draining", draining), ("provisional", population.provisional)];
    let rows = rows.map(|(state, count)| (state, count as f64));
    out.gauges("net_sessions", "Sessions.", "state", rows);
    let rows = ResetReason::ALL.map(|r| (r.label(), c.stream_resets(r)));
    out.counters("net_stream_resets_total", "Streams reset.", "reason", rows);
    out.counter("net_path_changes_total", "Paths validated.", c.path_changes);
}

fn collect_peers(out: &mut Families, core: &Core, now: Instant) {
    let peers: Vec<(NodeId, PeerStatus)> =
        core.mesh.endpoint().connected(now).take(MAX_PEER_ROWS).collect();
    let mut each = |name, help, of: fn(&PeerStatus) -> f64| {
        let rows = peers.iter().map(|(peer, status)| (peer.to_string(), of(status)));
        out.gauges(name, help, "peer", rows);
    };
    let help = "Smoothed round-trip time of a session.";
    each("net_rtt_seconds", help, |s| s.rtt.as_secs_f64());
    let help = "Largest packet of a session's path.";
    each("net_path_mtu_bytes", help, |s| s.packet_bytes as f64);
    let help = "Congestion window of a session.";
    each("net_cwnd_packets", help, |s| s.cwnd_packets as f64);
}

fn collect_calls(out: &mut Families, core: &Core) {
    let rpc = core.mesh.get(core.rpc);
    let c = rpc.counts();
    out.counter("nrpc_calls_total", "Own calls made.", c.made);
    let rows = RpcError::KINDS.into_iter().zip(c.errors);
    out.counters("nrpc_errors_total", "Own calls without a reply.", "kind", rows);
    out.gauge("nrpc_in_flight_calls", "Own calls open.", rpc.open_calls() as f64);
    let seconds = Duration::from_nanos(c.latency_ns).as_secs_f64();
    let help = "From an own call to its reply.";
    out.summary("nrpc_call_latency_seconds", help, seconds, c.replies);
    let help = "Calls that a handler was run for.";
    out.counter("nrpc_handler_invocations_total", help, c.handled);
    out.counter("nrpc_handler_panics_total", "Handlers that panicked.", c.handler_panics);
    let in_flight = rpc.in_flight();
    out.gauge("nrpc_handler_in_flight", "Calls being served.", in_flight as f64);
    let waiting = rpc.waiting_reply_bytes();
    out.gauge("nrpc_waiting_reply_bytes", "Replies without room yet.", waiting as f64);
    out.counter("nrpc_malformed_frames_total", "Unreadable frames.", c.malformed);
    let help = "Frames that their call does not take.";
    out.counter("nrpc_unexpected_frames_total", help, c.unexpected);
    let name = "subprotocol_peer_auth_rejections";
    out.counter(name, "Replies from the wrong session.", c.auth_rejections);
}
