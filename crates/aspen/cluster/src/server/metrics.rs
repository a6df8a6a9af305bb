//! What a server measures of its requests.

use aspen_api::service::RouteCounts;
use net_metrics::{Families, collector};
use prometheus::core::Collector;

use super::RequestServer;

impl RequestServer {
    /// What the server measures.
    pub fn collector(&self) -> Box<dyn Collector> {
        let server = self.clone();
        collector("requests", move |out| server.collect(out))
    }

    fn collect(&self, out: &mut Families) {
        let each = |of: fn(&RouteCounts) -> u64| self.counts().map(move |c| (c.name, of(c)));
        let (name, help) = ("aspen_requests_total", "Requests that arrived.");
        out.counters(name, help, "request", each(|c| c.requests()));
        let (name, help) = ("aspen_errors_total", "Requests answered with an error.");
        out.counters(name, help, "request", each(|c| c.errors()));
        let (clients, refused) = self.refusals();
        out.gauge("aspen_clients", "Clients with a place.", clients as f64);
        let help = "Requests of clients beyond the places.";
        out.counter("aspen_clients_refused_total", help, refused.clients);
        let help = "Requests beyond a client's limit.";
        out.counter("aspen_client_requests_refused_total", help, refused.requests);
        let help = "Requests beyond the memory.";
        out.counter("aspen_request_bytes_refused_total", help, refused.bytes);
    }
}
