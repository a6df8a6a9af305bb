//! Counts of doors, one set for each door under the label `door`.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

/// The metrics of all doors.
#[derive(Clone)]
pub(crate) struct DoorMetrics {
    connections: IntGaugeVec,
    accepted: IntCounterVec,
    refused: IntCounterVec,
    tls_failures: IntCounterVec,
    received: IntCounterVec,
    sent: IntCounterVec,
}

/// The metrics of one door.
#[derive(Clone)]
pub(crate) struct Meter {
    /// Connections that hold a slot.
    pub(crate) connections: IntGauge,
    /// Connections that got a slot.
    pub(crate) accepted: IntCounter,
    /// Connections that were closed at once, for want of a slot.
    pub(crate) refused: IntCounter,
    /// TLS handshakes that failed or took too long.
    pub(crate) tls_failures: IntCounter,
    /// Bytes from clients, without those of TLS.
    pub(crate) received: IntCounter,
    /// Bytes to clients, without those of TLS.
    pub(crate) sent: IntCounter,
}

const LABEL: [&str; 1] = ["door"];
const VALID: &str = "names and labels are constants that Prometheus allows";

fn counter(name: &str, help: &str) -> IntCounterVec {
    IntCounterVec::new(Opts::new(format!("aspen_door_{name}"), help), &LABEL).expect(VALID)
}

impl DoorMetrics {
    pub(crate) fn new() -> Self {
        let open = Opts::new("aspen_door_connections", "Open connections.");
        Self {
            connections: IntGaugeVec::new(open, &LABEL).expect(VALID),
            accepted: counter("accepted_total", "Connections accepted."),
            refused: counter("refused_total", "Connections beyond a limit, closed at once."),
            tls_failures: counter("tls_failures_total", "TLS handshakes that failed."),
            received: counter("received_bytes_total", "Bytes from clients."),
            sent: counter("sent_bytes_total", "Bytes to clients."),
        }
    }

    pub(crate) fn of(&self, door: &str) -> Meter {
        let label = [door];
        Meter {
            connections: self.connections.with_label_values(&label),
            accepted: self.accepted.with_label_values(&label),
            refused: self.refused.with_label_values(&label),
            tls_failures: self.tls_failures.with_label_values(&label),
            received: self.received.with_label_values(&label),
            sent: self.sent.with_label_values(&label),
        }
    }

    fn all(&self) -> [&dyn Collector; 6] {
        [
            &self.connections,
            &self.accepted,
            &self.refused,
            &self.tls_failures,
            &self.received,
            &self.sent,
        ]
    }
}

impl Collector for DoorMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.all().into_iter().flat_map(Collector::collect).collect()
    }
}
