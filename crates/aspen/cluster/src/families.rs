//! Metric families for Prometheus, collected from counters when they are asked for.

use prometheus::core::Desc;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// Metric families under way.
#[derive(Default)]
pub(crate) struct Families(pub(crate) Vec<MetricFamily>);

impl Families {
    pub(crate) fn add(&mut self, name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) {
        let mut family = MetricFamily::default();
        family.set_name(format!("aspen_{name}"));
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }

    pub(crate) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.add(name, help, MetricType::COUNTER, vec![counter(value as f64, &[])]);
    }

    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        self.add(name, help, MetricType::GAUGE, vec![Metric::from_gauge(gauge)]);
    }
}

/// One value of a counter, with its labels.
pub(crate) fn counter(value: f64, labels: &[(&str, &str)]) -> Metric {
    let label = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut metric = Metric::from_label(labels.iter().map(label).collect());
    metric.set_counter(counter);
    metric
}

/// Names a collector in its registry; the families name themselves.
pub(crate) fn desc(name: &str) -> Vec<Desc> {
    Desc::new(name.to_owned(), "A part of a node.".into(), Vec::new(), Default::default())
        .into_iter()
        .collect()
}
