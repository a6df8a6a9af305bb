//! Rounds, medians and the line that machines read.

use std::time::{Duration, Instant};

/// How long a measurement may take.
pub(crate) struct Plan {
    /// Interleaved rounds of ours and base.
    pub(crate) rounds: usize,
    /// Time of one side of one round.
    pub(crate) round_time: Duration,
}

impl Plan {
    pub(crate) fn new(quick: bool) -> Self {
        match quick {
            true => Self { rounds: 5, round_time: Duration::from_millis(1_000) },
            false => Self { rounds: 9, round_time: Duration::from_secs(3) },
        }
    }
}

/// Figures of one kind, one of each round.
#[derive(Default)]
pub(crate) struct Series(Vec<f64>);

impl Series {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    fn sorted(&self) -> Vec<f64> {
        let mut values = self.0.clone();
        values.sort_by(f64::total_cmp);
        values
    }

    pub(crate) fn median(&self) -> f64 {
        let values = self.sorted();
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn range(&self) -> (f64, f64) {
        let values = self.sorted();
        (values.first().copied().unwrap_or(f64::NAN), values.last().copied().unwrap_or(f64::NAN))
    }
}

/// What a measurement found.
pub(crate) struct Outcome {
    pub(crate) ours: Series,
    pub(crate) base: Series,
    /// What `base` is.
    pub(crate) base_name: &'static str,
    pub(crate) unit: &'static str,
    /// Operations of ours in all rounds.
    pub(crate) n: u64,
    /// More rows for people: name, value, unit.
    pub(crate) notes: Vec<(String, f64, &'static str)>,
}

impl Outcome {
    pub(crate) fn print(&self, name: &str) {
        let row = |what: &str, s: &Series| {
            let (low, high) = s.range();
            println!("  {what:34} {:>12.2} {} ({low:.2} to {high:.2})", s.median(), self.unit);
        };
        row("ours", &self.ours);
        row(self.base_name, &self.base);
        let ratio = self.ours.median() / self.base.median();
        println!("  {:34} {ratio:>12.2}", "ours / base");
        for (what, value, unit) in &self.notes {
            println!("  {what:34} {value:>12.2} {unit}");
        }
        let (low, high) = self.ours.range();
        let line = serde_json::json!({
            "name": name,
            "ours": self.ours.median(),
            "base": self.base.median(),
            "ratio": ratio,
            "unit": self.unit,
            "n": self.n,
            "spread": [low, high],
        });
        println!("{line}");
    }
}

/// Latencies of one round, nanoseconds.
#[derive(Default)]
pub(crate) struct Latencies(Vec<u32>);

impl Latencies {
    pub(crate) fn record(&mut self, since: Instant) {
        self.0.push(since.elapsed().as_nanos().min(u32::MAX.into()) as u32);
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The value below which `share` of the latencies lie, microseconds.
    pub(crate) fn percentile_us(&mut self, share: f64) -> f64 {
        self.0.sort_unstable();
        let at = ((self.0.len() as f64 * share) as usize).min(self.0.len().saturating_sub(1));
        self.0.get(at).map_or(f64::NAN, |ns| f64::from(*ns) / 1_000.0)
    }
}
