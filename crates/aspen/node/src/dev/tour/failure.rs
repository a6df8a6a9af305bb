//! The leader dies while clients write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aspen_api::KeyValueStore;
use aspen_api::kv::{BatchRead, Consistency};
use tokio::time::Instant;

use super::{key, say};
use crate::dev::{DevCluster, DevError};

/// Clients that write while the leader dies.
const WRITERS: usize = 8;
/// Writing before the kill, and after writes succeed again.
const AROUND: Duration = Duration::from_secs(1);
/// Time for the cluster to accept writes again.
const RECOVERY: Duration = Duration::from_secs(30);
/// Pause between two looks at whether it does.
const LOOK: Duration = Duration::from_millis(5);

/// What is known after the leader was killed.
pub(super) struct Killed {
    /// The node that was killed.
    pub(super) node: u64,
    /// Keys whose writes were acknowledged; each holds its own name.
    acknowledged: Vec<String>,
}

/// One acknowledged write.
struct Acknowledged {
    name: String,
    begun: Instant,
    ended: Instant,
}

async fn writer(
    client: aspen_client::Client,
    writer: usize,
    should_stop: Arc<AtomicBool>,
    first_after: tokio::sync::watch::Receiver<Option<Instant>>,
    recovered: tokio::sync::mpsc::UnboundedSender<Instant>,
) -> Vec<Acknowledged> {
    let mut acknowledged = Vec::new();
    let mut number = 0u64;
    while !should_stop.load(Ordering::Relaxed) {
        let name = format!("failover/{writer}/{number:06}");
        number += 1;
        let Ok(key) = key(&name) else { continue };
        let begun = Instant::now();
        // A write that fails may or may not have happened; it promises nothing.
        if client.set(key, name.clone()).await.is_err() {
            continue;
        }
        let ended = Instant::now();
        if first_after.borrow().is_some_and(|killed| begun >= killed) {
            // The receiver only needs the first.
            let _ = recovered.send(ended);
        }
        acknowledged.push(Acknowledged { name, begun, ended });
    }
    client.shutdown().await;
    acknowledged
}

/// Kills the leader's process while clients write, and times the first write that was begun
/// afterwards and acknowledged.
pub(super) async fn kill_leader_while_writing(
    cluster: &mut DevCluster,
) -> Result<Killed, DevError> {
    let should_stop = Arc::new(AtomicBool::new(false));
    let (killed_tx, killed_rx) = tokio::sync::watch::channel(None);
    let (recovered_tx, mut recovered) = tokio::sync::mpsc::unbounded_channel();
    let mut writers = Vec::new();
    for i in 0..WRITERS {
        let client = cluster.new_client()?;
        let (stop, after) = (should_stop.clone(), killed_rx.clone());
        writers.push(tokio::spawn(writer(client, i, stop, after, recovered_tx.clone())));
    }
    tokio::time::sleep(AROUND).await;
    let node = cluster.leader().await?;
    cluster.node(node)?.kill();
    let killed = Instant::now();
    killed_tx.send_replace(Some(killed));
    let first = tokio::time::timeout(RECOVERY, recovered.recv()).await;
    let first = first.ok().flatten().ok_or_else(|| {
        DevError::Check(format!("no write succeeded within {} s", RECOVERY.as_secs()))
    })?;
    tokio::time::sleep(AROUND).await;
    should_stop.store(true, Ordering::Relaxed);
    let mut all = Vec::new();
    for writer in writers {
        all.extend(writer.await.map_err(|e| DevError::Check(e.to_string()))?);
    }
    let new_leader = new_leader(cluster, node).await?;
    let after = all.iter().filter(|a| a.begun >= killed && a.ended >= first).count();
    let gap = (first - killed).as_secs_f64() * 1e3;
    let text = format!(
        "node {node}, the leader, killed while {WRITERS} clients wrote; the next write succeeded after {gap:.0} ms, node {new_leader} leads, {after} more followed"
    );
    say("leader killed", &text);
    Ok(Killed { node, acknowledged: all.into_iter().map(|a| a.name).collect() })
}

async fn new_leader(cluster: &DevCluster, dead: u64) -> Result<u64, DevError> {
    let deadline = Instant::now() + RECOVERY;
    loop {
        match cluster.leader().await {
            Ok(leader) if leader != dead => return Ok(leader),
            _ if Instant::now() > deadline => {
                return Err(DevError::Check("no other node leads".to_owned()));
            }
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Reads every acknowledged key back.
pub(super) async fn verify_acknowledged(
    cluster: &DevCluster,
    killed: &Killed,
) -> Result<(), DevError> {
    let mut lost = 0;
    for names in killed.acknowledged.chunks(100) {
        let keys = names.iter().map(|name| key(name)).collect::<Result<_, _>>()?;
        let request = BatchRead { keys, consistency: Consistency::Linearizable, revision: None };
        let result = cluster.client().send(request).await;
        let items = result.map_err(DevError::request("reading back"))?.items;
        let holds = |(name, item): (&String, &Option<aspen_api::kv::Item>)| {
            item.as_ref().is_some_and(|item| item.value == name.as_bytes())
        };
        lost += names.len() - names.iter().zip(&items).filter(|pair| holds(*pair)).count();
    }
    let count = killed.acknowledged.len();
    if lost > 0 || count == 0 {
        return Err(DevError::Check(format!("{lost} of {count} acknowledged writes are lost")));
    }
    say(
        "nothing lost",
        &format!("all {count} acknowledged writes read back, through the new leader"),
    );
    Ok(())
}
