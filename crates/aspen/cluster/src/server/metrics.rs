//! What a server measures of its requests.

use aspen_api::service::RouteCounts;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};

use super::RequestServer;
use crate::families::{Families, counter, desc};

/// Requests of a node's clients.
struct ServerCollector {
    server: RequestServer,
    descs: Vec<Desc>,
}

impl Collector for ServerCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut out = Families::default();
        let each = |of: fn(&RouteCounts) -> u64| {
            let metric = |counts| counter(of(counts) as f64, &[("request", counts.name)]);
            self.server.counts().map(metric).collect()
        };
        let kind = MetricType::COUNTER;
        out.add("requests_total", "Requests that arrived.", kind, each(|c| c.requests()));
        out.add("errors_total", "Requests answered with an error.", kind, each(|c| c.errors()));
        let (clients, refused) = self.server.refusals();
        out.gauge("clients", "Clients with a place.", clients as f64);
        let help = "Requests of clients beyond the places.";
        out.counter("clients_refused_total", help, refused.clients);
        let help = "Requests beyond a client's limit.";
        out.counter("client_requests_refused_total", help, refused.requests);
        out.counter("request_bytes_refused_total", "Requests beyond the memory.", refused.bytes);
        out.0
    }
}

impl RequestServer {
    /// What the server measures.
    pub fn collector(&self) -> Box<dyn Collector> {
        Box::new(ServerCollector { server: self.clone(), descs: desc("aspen_requests") })
    }
}
