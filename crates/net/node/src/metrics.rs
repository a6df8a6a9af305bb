//! The node's counters as Prometheus text (exposition format 0.0.4).

use std::fmt::{Display, Write};
use std::time::Duration;

use net_mesh_core::{DropReason, PeerStatus, ResetReason};
use net_rpc::RpcError;
use net_types::NodeId;

use crate::node::Shared;
use crate::state::Core;

/// Peers that get rows of their own.
const MAX_PEER_ROWS: usize = 256;

/// Text under way.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn row(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    /// A family with one row.
    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.row(name, "", value);
    }

    /// A family with a row for each value of one label.
    fn labelled<'a>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        label: &str,
        rows: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        self.family(name, kind, help);
        for (value, count) in rows {
            self.row(name, &format!("{{{label}=\"{value}\"}}"), count);
        }
    }

    fn peers<T: Display>(
        &mut self,
        name: &str,
        help: &str,
        peers: &[(NodeId, PeerStatus)],
        of: impl Fn(&PeerStatus) -> T,
    ) {
        self.family(name, "gauge", help);
        for (peer, status) in peers {
            self.row(name, &format!("{{peer=\"{peer}\"}}"), of(status));
        }
    }
}

/// Renders every counter; labels come from fixed lists, so the text is bounded.
pub(crate) fn render(shared: &Shared) -> String {
    let core = shared.lock();
    let now = shared.now();
    let mut page = Page(String::with_capacity(8 << 10));
    let live = core.endpoint.connected(now).count();
    let peers: Vec<_> = core.endpoint.connected(now).take(MAX_PEER_ROWS).collect();
    packets(&mut page, &core);
    sessions(&mut page, &core, live as u64);
    let rtt = |s: &PeerStatus| s.rtt.as_secs_f64();
    page.peers("net_rtt_seconds", "Smoothed round-trip time of a session.", &peers, rtt);
    let mtu = |s: &PeerStatus| s.packet_bytes;
    page.peers("net_path_mtu_bytes", "Largest packet of a session's path.", &peers, mtu);
    let window = |s: &PeerStatus| s.cwnd_packets;
    page.peers("net_cwnd_packets", "Congestion window of a session.", &peers, window);
    calls(&mut page, &core);
    page.0
}

fn packets(page: &mut Page, core: &Core) {
    let c = core.endpoint.counters();
    let rows = [("in", c.packets_in), ("out", c.packets_out)];
    page.labelled("net_packets_total", "counter", "Session packets.", "dir", rows);
    let rows = [("in", c.bytes_in), ("out", c.bytes_out)];
    page.labelled("net_bytes_total", "counter", "Bytes of session packets.", "dir", rows);
    let rows = [("nack", c.retransmits_nack), ("timeout", c.retransmits_timeout)];
    page.labelled("net_retransmits_total", "counter", "Packets sent again.", "cause", rows);
    page.single("net_ack_packets_total", "counter", "Bare acknowledgements.", c.ack_packets);
    let rows = DropReason::ALL.iter().map(|r| (r.label(), core.drops(*r)));
    page.labelled("net_drops_total", "counter", "Packets and frames not used.", "reason", rows);
    // Unacknowledged packets are never given up for others; the name is for whoever watches it.
    let help = "Unacknowledged packets evicted.";
    page.single("net_untracked_evictions_total", "counter", help, 0);
}

fn sessions(page: &mut Page, core: &Core, live: u64) {
    let c = core.endpoint.counters();
    let rows = [("ok", c.handshakes_ok), ("failed", c.handshakes_failed)];
    page.labelled("net_handshakes_total", "counter", "Handshakes ended.", "result", rows);
    let population = core.endpoint.population();
    let provisional = population.provisional as u64;
    let draining = (population.sessions as u64).saturating_sub(live + provisional);
    let rows = [("live", live), ("draining", draining), ("provisional", provisional)];
    page.labelled("net_sessions", "gauge", "Sessions.", "state", rows);
    let rows = ResetReason::ALL.map(|r| (r.label(), c.stream_resets(r)));
    page.labelled("net_stream_resets_total", "counter", "Streams reset.", "reason", rows);
    page.single("net_path_changes_total", "counter", "Paths validated.", c.path_changes);
}

fn calls(page: &mut Page, core: &Core) {
    let c = &core.counts;
    page.single("nrpc_calls_total", "counter", "Own calls made.", c.made);
    let rows = RpcError::KINDS.into_iter().zip(c.errors);
    page.labelled("nrpc_errors_total", "counter", "Own calls without a reply.", "kind", rows);
    page.single("nrpc_in_flight_calls", "gauge", "Own calls open.", core.calls.len());
    let (name, help) = ("nrpc_call_latency_seconds", "From an own call to its reply.");
    page.family(name, "summary", help);
    page.row(name, "_sum", Duration::from_nanos(c.latency_ns).as_secs_f64());
    page.row(name, "_count", c.replies);
    let name = "nrpc_handler_invocations_total";
    page.single(name, "counter", "Calls that a handler was run for.", c.handled);
    let name = "nrpc_handler_panics_total";
    page.single(name, "counter", "Handlers that panicked.", c.handler_panics);
    let in_flight = core.services.in_flight();
    page.single("nrpc_handler_in_flight", "gauge", "Calls being served.", in_flight);
    let waiting = core.replies.bytes();
    page.single("nrpc_waiting_reply_bytes", "gauge", "Replies without room yet.", waiting);
    let malformed = core.malformed_frames;
    page.single("nrpc_malformed_frames_total", "counter", "Unreadable frames.", malformed);
    let name = "subprotocol_peer_auth_rejections";
    page.single(name, "counter", "Replies from the wrong session.", c.auth_rejections);
}
