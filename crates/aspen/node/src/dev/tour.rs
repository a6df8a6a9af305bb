//! `aspen-node dev --tour`: what a cluster does, step by step, every printed line checked.

mod failure;
mod load;

use std::time::Duration;

use aspen_api::KeyValueStore;
use aspen_api::cluster::{GetRaftMetrics, TriggerSnapshot};
use aspen_api::kv::{Consistency, Lifetime, ReadKey, ScanKeys};
use aspen_api::{Key, Prefix};
use tokio::time::Instant;

use super::out;
use super::{DevCluster, DevError};
use failure::{kill_leader_while_writing, verify_acknowledged};

/// Keys of the first step.
const KEYS: u64 = 10_000;
/// Clients of the first step, each with an identity and a socket of its own.
const CLIENTS: u64 = 32;
/// Bytes of a value.
const VALUE_BYTES: usize = 128;
/// Clients that race for one key, and how often.
const RACERS: usize = 16;
const RACES: usize = 50;
/// Time for a node to get everything, even on a busy machine.
const CATCH_UP: Duration = Duration::from_secs(60);
/// Pause between two looks at a node that catches up.
const LOOK: Duration = Duration::from_millis(10);

pub(crate) fn key(text: &str) -> Result<Key, DevError> {
    Key::new(text.to_owned()).map_err(|error| DevError::Check(format!("key {text:?}: {error}")))
}

fn tour_key(number: u64) -> Result<Key, DevError> {
    key(&format!("tour/{number:05}"))
}

fn say(step: &str, what: &str) {
    out::line(format!("{step:14} {what}"));
}

/// Runs every step on a cluster that has just started.
pub(crate) async fn run(cluster: &mut DevCluster) -> Result<(), DevError> {
    let started = Instant::now();
    let leader = cluster.leader().await?;
    say("cluster", &format!("{} nodes, separate processes; node {leader} leads", cluster.len()));
    load::write_keys(cluster).await?;
    scan(cluster).await?;
    race(cluster).await?;
    let killed = kill_leader_while_writing(cluster).await?;
    verify_acknowledged(cluster, &killed).await?;
    restart(cluster, killed.node).await?;
    grow(cluster).await?;
    say("done", &format!("every line above was checked; {:.1} s", started.elapsed().as_secs_f64()));
    Ok(())
}

/// Reads all keys back, page by page, at one revision.
async fn scan(cluster: &DevCluster) -> Result<(), DevError> {
    let prefix = Prefix::new("tour/").map_err(|e| DevError::Check(e.to_string()))?;
    let (start, mut token, mut count, mut pages) = (Instant::now(), None, 0u64, 0);
    let mut revision = None;
    loop {
        let request = ScanKeys {
            prefix: prefix.clone(),
            limit: None,
            continuation_token: token,
            consistency: Consistency::Linearizable,
            revision: None,
        };
        let page = cluster.client().send(request).await.map_err(DevError::request("scan"))?;
        pages += 1;
        if *revision.get_or_insert(page.revision) != page.revision {
            return Err(DevError::Check("two pages of one scan show two revisions".to_owned()));
        }
        for entry in &page.entries {
            if entry.key != tour_key(count)? {
                return Err(DevError::Check(format!("key {count} is missing or out of order")));
            }
            count += 1;
        }
        token = page.continuation_token;
        if token.is_none() {
            break;
        }
    }
    if count != KEYS {
        return Err(DevError::Check(format!("the scan found {count} of {KEYS} keys")));
    }
    let took = start.elapsed().as_secs_f64() * 1e3;
    say("scan", &format!("{count} keys in {pages} pages at one revision, in order, {took:.0} ms"));
    Ok(())
}

/// Many clients try to create the same key; exactly one may win each time.
async fn race(cluster: &DevCluster) -> Result<(), DevError> {
    let mut clients = Vec::new();
    for _ in 0..RACERS {
        clients.push(cluster.new_client()?);
    }
    for round in 0..RACES {
        let name = format!("race/{round:03}");
        let mut racers = Vec::new();
        for (i, client) in clients.iter().enumerate() {
            let (key, value, client) = (key(&name)?, format!("racer {i}"), client.clone());
            racers.push(tokio::spawn(async move {
                client.compare_and_swap(key, None, value, Lifetime::Forever {}).await
            }));
        }
        let mut winners = 0;
        for racer in racers {
            let joined = racer.await.map_err(|e| DevError::Check(e.to_string()))?;
            winners += usize::from(joined.map_err(DevError::request("race"))?.is_success);
        }
        if winners != 1 {
            return Err(DevError::Check(format!("{winners} clients created {name}")));
        }
    }
    for client in clients {
        client.shutdown().await;
    }
    let text =
        format!("{RACERS} clients raced {RACES} times to create one key: 1 winner each time");
    say("compare-swap", &text);
    Ok(())
}

/// Waits until a node has applied everything up to `index`.
async fn wait_applied(
    cluster: &mut DevCluster,
    number: u64,
    index: u64,
) -> Result<Duration, DevError> {
    let (start, client) = (Instant::now(), cluster.client().clone());
    let addr = cluster.node(number)?.addr()?;
    while start.elapsed() < CATCH_UP {
        let metrics = client.send_to(&addr, GetRaftMetrics {}).await;
        if metrics.is_ok_and(|m| m.last_applied_index >= Some(index)) {
            return Ok(start.elapsed());
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(cluster.node(number)?.failed("did not catch up"))
}

/// What the leader has applied.
async fn applied_by_leader(cluster: &mut DevCluster) -> Result<u64, DevError> {
    let leader = cluster.leader().await?;
    let addr = cluster.node(leader)?.addr()?;
    let metrics = cluster.client().send_to(&addr, GetRaftMetrics {}).await;
    let metrics = metrics.map_err(DevError::request("metrics of the leader"))?;
    Ok(metrics.last_applied_index.unwrap_or(0))
}

/// Brings the killed node back.
async fn restart(cluster: &mut DevCluster, number: u64) -> Result<(), DevError> {
    let index = applied_by_leader(cluster).await?;
    let begun = Instant::now();
    cluster.node(number)?.start().await?;
    let up = begun.elapsed().as_secs_f64() * 1e3;
    wait_applied(cluster, number, index).await?;
    let all = begun.elapsed().as_secs_f64() * 1e3;
    let text =
        format!("node {number} was up in {up:.0} ms and had all {index} entries in {all:.0} ms");
    say("restart", &text);
    Ok(())
}

/// Adds a node that can only catch up by a snapshot, since the log it needs is gone.
async fn grow(cluster: &mut DevCluster) -> Result<(), DevError> {
    let leader = cluster.leader().await?;
    let leader_addr = cluster.node(leader)?.addr()?;
    let client = cluster.client().clone();
    let begun = Instant::now();
    loop {
        let request = client.send_to(&leader_addr, TriggerSnapshot {}).await;
        request.map_err(DevError::request("snapshot"))?;
        let metrics = client.send_to(&leader_addr, GetRaftMetrics {}).await;
        let metrics = metrics.map_err(DevError::request("metrics"))?;
        if metrics.purged_index > Some(0) {
            break;
        }
        if begun.elapsed() > CATCH_UP {
            return Err(DevError::Check("the leader's log was not trimmed".to_owned()));
        }
        tokio::time::sleep(LOOK).await;
    }
    let begun = Instant::now();
    let index = applied_by_leader(cluster).await?;
    let number = cluster.add_learner().await?;
    wait_applied(cluster, number, index).await?;
    let all = begun.elapsed().as_secs_f64() * 1e3;
    let addr = cluster.node(number)?.addr()?;
    let metrics = client.send_to(&addr, GetRaftMetrics {}).await;
    let metrics = metrics.map_err(DevError::request("metrics"))?;
    if metrics.snapshot_index.is_none() {
        return Err(DevError::Check(format!("node {number} caught up without a snapshot")));
    }
    check_local(cluster, number).await?;
    cluster.promote(number).await?;
    let write = client.set(key("tour-after")?, "four voters");
    write.await.map_err(DevError::request("a write with four voters"))?;
    let text =
        format!("node {number} got a snapshot, had everything in {all:.0} ms, and votes now");
    say("grow", &text);
    Ok(())
}

/// A node's own copy answers for keys of the first step.
async fn check_local(cluster: &mut DevCluster, number: u64) -> Result<(), DevError> {
    let addr = cluster.node(number)?.addr()?;
    for n in [0, KEYS / 2, KEYS - 1] {
        let request =
            ReadKey { key: tour_key(n)?, consistency: Consistency::Stale, revision: None };
        let read = cluster.client().send_to(&addr, request).await;
        let item = read.map_err(DevError::request("a local read"))?.item;
        if item.is_none_or(|item| item.value != load::value(n)) {
            return Err(DevError::Check(format!("node {number} does not hold key {n}")));
        }
    }
    Ok(())
}
