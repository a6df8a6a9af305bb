//! The first step: many clients write at once.

use std::io::IsTerminal;

use aspen_api::KeyValueStore;
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::{CLIENTS, KEYS, VALUE_BYTES, say, tour_key};
use crate::dev::{DevCluster, DevError};

/// The value of a key of this step.
pub(super) fn value(number: u64) -> Bytes {
    let mut value = format!("value {number} ").into_bytes();
    value.resize(VALUE_BYTES, b'.');
    Bytes::from(value)
}

fn progress_bar() -> ProgressBar {
    if !std::io::stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(KEYS);
    match ProgressStyle::with_template("write          {bar:30} {pos}/{len} {per_sec}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Writes all keys and prints throughput and latencies.
pub(super) async fn write_keys(cluster: &DevCluster) -> Result<(), DevError> {
    let bar = progress_bar();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(cluster.new_client()?);
    }
    let start = Instant::now();
    let mut writers = Vec::new();
    for (i, client) in (0..CLIENTS).zip(clients) {
        let bar = bar.clone();
        writers.push(tokio::spawn(async move {
            let mut latencies = Vec::new();
            for number in (i..KEYS).step_by(CLIENTS as usize) {
                let (key, value) = (tour_key(number)?, value(number));
                let begun = Instant::now();
                client.set(key, value).await.map_err(DevError::request("a write"))?;
                latencies.push(begun.elapsed());
                bar.inc(1);
            }
            client.shutdown().await;
            Ok::<_, DevError>(latencies)
        }));
    }
    let mut latencies = Vec::new();
    for writer in writers {
        latencies.extend(writer.await.map_err(|e| DevError::Check(e.to_string()))??);
    }
    let elapsed = start.elapsed().as_secs_f64();
    bar.finish_and_clear();
    if latencies.len() as u64 != KEYS {
        return Err(DevError::Check(format!("{} of {KEYS} writes", latencies.len())));
    }
    latencies.sort_unstable();
    let at = |share: usize| latencies[latencies.len() * share / 100].as_secs_f64() * 1e3;
    let text = format!(
        "{KEYS} keys from {CLIENTS} clients, each on disk at a majority: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms",
        KEYS as f64 / elapsed,
        at(50),
        at(99)
    );
    say("write", &text);
    Ok(())
}
