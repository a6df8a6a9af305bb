//! The node's counters as Prometheus text (exposition format 0.0.4).

use std::fmt::Write;

use net_mesh_core::DropReason;

use crate::node::Shared;

/// Renders every counter; labels come from fixed lists, so the text is bounded.
pub(crate) fn render(shared: &Shared) -> String {
    let core = shared.lock();
    let now = shared.now();
    let c = core.endpoint.counters();
    let mut out = String::with_capacity(4 << 10);
    let mut family = |name: &str, kind: &str, help: &str, rows: &[(&str, u64)]| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in rows {
            let _ = writeln!(out, "{name}{labels} {value}");
        }
    };
    let counter = "counter";
    let packets = [("{dir=\"in\"}", c.packets_in), ("{dir=\"out\"}", c.packets_out)];
    family("net_packets_total", counter, "Session packets.", &packets);
    let bytes = [("{dir=\"in\"}", c.bytes_in), ("{dir=\"out\"}", c.bytes_out)];
    family("net_bytes_total", counter, "Bytes of session packets.", &bytes);
    let results =
        [("{result=\"ok\"}", c.handshakes_ok), ("{result=\"failed\"}", c.handshakes_failed)];
    family("net_handshakes_total", counter, "Handshakes ended.", &results);
    let causes =
        [("{cause=\"nack\"}", c.retransmits_nack), ("{cause=\"timeout\"}", c.retransmits_timeout)];
    family("net_retransmits_total", counter, "Packets sent again.", &causes);
    family("net_stream_resets_total", counter, "Streams reset.", &[("", c.stream_resets)]);
    family("net_ack_packets_total", counter, "Bare acknowledgements.", &[("", c.ack_packets)]);
    let sessions = core.endpoint.connected(now).count() as u64;
    family("net_sessions", "gauge", "Sessions in use.", &[("", sessions)]);
    family("nrpc_pending_calls", "gauge", "Own calls open.", &[("", core.calls.len() as u64)]);
    let in_flight = core.services.in_flight() as u64;
    family("nrpc_handler_in_flight", "gauge", "Calls being served.", &[("", in_flight)]);
    let waiting = core.replies.bytes() as u64;
    family("nrpc_waiting_reply_bytes", "gauge", "Replies without room yet.", &[("", waiting)]);
    let malformed = core.malformed_frames;
    family("nrpc_malformed_frames_total", counter, "Unreadable frames.", &[("", malformed)]);
    let _ = writeln!(out, "# HELP net_drops_total Packets and frames not used.");
    let _ = writeln!(out, "# TYPE net_drops_total counter");
    for reason in DropReason::ALL {
        let count = core.drops(*reason);
        let _ = writeln!(out, "net_drops_total{{reason=\"{}\"}} {count}", reason.label());
    }
    let _ = writeln!(out, "# HELP net_rtt_seconds Smoothed round-trip time of a session.");
    let _ = writeln!(out, "# TYPE net_rtt_seconds gauge");
    for (peer, status) in core.endpoint.connected(now).take(MAX_PEER_ROWS) {
        let _ = writeln!(out, "net_rtt_seconds{{peer=\"{peer}\"}} {}", status.rtt.as_secs_f64());
    }
    out
}

/// Peers that get a row of their own.
const MAX_PEER_ROWS: usize = 256;
