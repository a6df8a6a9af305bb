//! One line for each node: redrawn in place on a terminal, printed on change elsewhere.

use std::time::Duration;

use aspen_api::cluster::{GetRaftMetrics, RaftMetricsResult};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::DevCluster;
use super::out;

/// Longest wait for one node's answer; a silent node shows as such.
const ANSWER_DEADLINE: Duration = Duration::from_millis(500);

/// The lines.
pub(crate) struct Lines {
    bars: Option<MultiProgress>,
    rows: Vec<(ProgressBar, String)>,
}

impl Lines {
    /// Lines for a terminal or for a file.
    pub(crate) fn new(is_terminal: bool) -> Self {
        Self { bars: is_terminal.then(MultiProgress::new), rows: Vec::new() }
    }

    /// Asks every node and shows what it says.
    pub(crate) async fn show(&mut self, cluster: &mut DevCluster) {
        let client = cluster.client().clone();
        let mut asked = Vec::new();
        for node in cluster.nodes() {
            asked.push((node.number, node.is_running(), node.addr().ok()));
        }
        for (i, (number, is_running, addr)) in asked.into_iter().enumerate() {
            let answer = match addr.filter(|_| is_running) {
                Some(addr) => {
                    let ask = client.send_to(&addr, GetRaftMetrics {});
                    tokio::time::timeout(ANSWER_DEADLINE, ask).await.ok().and_then(Result::ok)
                }
                None => None,
            };
            let text = describe(number, is_running, answer.as_ref());
            self.set(i, text);
        }
    }

    fn set(&mut self, i: usize, text: String) {
        while self.rows.len() <= i {
            let bar = ProgressBar::new_spinner().with_style(ProgressStyle::default_bar());
            let bar = match &self.bars {
                Some(bars) => bars.add(bar),
                None => bar,
            };
            if let Ok(style) = ProgressStyle::with_template("{msg}") {
                bar.set_style(style);
            }
            self.rows.push((bar, String::new()));
        }
        let (bar, last) = &mut self.rows[i];
        if *last == text {
            return;
        }
        match self.bars {
            Some(_) => bar.set_message(text.clone()),
            None => out::line(&text),
        }
        *last = text;
    }
}

fn describe(number: u64, is_running: bool, answer: Option<&RaftMetricsResult>) -> String {
    match answer {
        Some(m) => format!(
            "node {number}  {:9} term {}  log {}  applied {}",
            m.state.name(),
            m.term,
            m.last_log_index.unwrap_or(0),
            m.last_applied_index.unwrap_or(0),
        ),
        None if is_running => format!("node {number}  does not answer"),
        None => format!("node {number}  stopped"),
    }
}
