//! Metric families for Prometheus, read from a part's own counters when they are asked for.
//!
//! A part counts in its own fields, under its own lock, and knows nothing of registries. Its
//! [`collector`] reads them when a registry gathers, and fills [`Families`].
//!
//! Invariants: names and labels follow Prometheus: counters end in `_total`, times are in seconds,
//! sizes in bytes; the values of a label come from a list with an end; a family without rows is
//! left out.

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType, Summary};

/// A collector for a registry, which calls `collect` for each gathering. `part` tells it from the
/// other collectors of that registry.
pub fn collector(
    part: &str,
    collect: impl Fn(&mut Families) + Send + Sync + 'static,
) -> Box<dyn Collector> {
    // The families name themselves; a description has no other use than to tell collectors apart.
    let desc = Desc::new(part.to_owned(), "A part.".into(), Vec::new(), Default::default());
    Box::new(Part { descs: desc.into_iter().collect(), collect })
}

struct Part<F> {
    descs: Vec<Desc>,
    collect: F,
}

impl<F: Fn(&mut Families) + Send + Sync> Collector for Part<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Families::default();
        (self.collect)(&mut families);
        families.0
    }
}

/// Metric families under way.
#[derive(Default)]
pub struct Families(Vec<MetricFamily>);

impl Families {
    /// A counter: it only grows.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.add(name, help, MetricType::COUNTER, vec![counter(value as f64)]);
    }

    /// A counter of time, in seconds.
    pub fn seconds(&mut self, name: &str, help: &str, seconds: f64) {
        self.add(name, help, MetricType::COUNTER, vec![counter(seconds)]);
    }

    /// A counter with a row for each value of a label.
    pub fn counters<V: Into<String>>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        rows: impl IntoIterator<Item = (V, u64)>,
    ) {
        let row = |(value, count): (V, u64)| labelled(counter(count as f64), label, value.into());
        self.add(name, help, MetricType::COUNTER, rows.into_iter().map(row).collect());
    }

    /// A gauge: it goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.add(name, help, MetricType::GAUGE, vec![gauge(value)]);
    }

    /// A gauge with a row for each value of a label.
    pub fn gauges<V: Into<String>>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        rows: impl IntoIterator<Item = (V, f64)>,
    ) {
        let row = |(value, size): (V, f64)| labelled(gauge(size), label, value.into());
        self.add(name, help, MetricType::GAUGE, rows.into_iter().map(row).collect());
    }

    /// How often something happened and how long it took in all, without quantiles.
    pub fn summary(&mut self, name: &str, help: &str, seconds: f64, count: u64) {
        let mut summary = Summary::default();
        summary.set_sample_sum(seconds);
        summary.set_sample_count(count);
        let mut metric = Metric::default();
        metric.set_summary(summary);
        self.add(name, help, MetricType::SUMMARY, vec![metric]);
    }

    /// A family without rows is left out: the text format has no way to write one.
    fn add(&mut self, name: &str, help: &str, kind: MetricType, rows: Vec<Metric>) {
        if rows.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(rows);
        self.0.push(family);
    }
}

fn counter(value: f64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut metric = Metric::default();
    metric.set_counter(counter);
    metric
}

fn gauge(value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    Metric::from_gauge(gauge)
}

fn labelled(mut metric: Metric, name: &str, value: String) -> Metric {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value);
    metric.set_label(vec![label]);
    metric
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use prometheus::{Registry, TextEncoder};

    use super::*;

    #[test]
    fn a_registry_gathers_what_the_parts_count() {
        let registry = Registry::new();
        let none: [(&str, f64); 0] = [];
        let door = collector("door", move |out| {
            out.counters("packets_total", "Packets.", "dir", [("in", 2), ("out", 3)]);
            out.gauges("rtt_seconds", "Round trips.", "peer", none);
            out.summary("call_seconds", "Calls.", 0.5, 4);
        });
        registry.register(door).unwrap();
        registry.register(collector("store", |out| out.gauge("keys", "Keys.", 7.0))).unwrap();
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "# TYPE packets_total counter",
            "packets_total{dir=\"in\"} 2",
            "packets_total{dir=\"out\"} 3",
            "call_seconds_sum 0.5",
            "call_seconds_count 4",
            "keys 7",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
        assert!(!text.contains("rtt_seconds"), "{text}");
    }
}
