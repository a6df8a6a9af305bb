//! One run: a cluster, its clients and its troubles under one seed, and the judgement.
//!
//! The seed decides what the world does: every delay, loss, crash, clock and choice of a client, and
//! the random numbers of consensus. Tasks run on one thread in the order in which they were woken,
//! and nothing that they wake each other through draws lots, so equal plans give equal traces: the
//! same messages at the same times, byte for byte.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aspen_api::kv::Consistency;
use net_sim::Trace;
use tokio::time::Instant;

use super::checker::check;
use super::clients::Client;
use super::history::{Action, History};
use super::nemesis::{Nemesis, Trouble};
use super::world::World;

/// Clients of a run.
pub(crate) const CLIENTS: usize = 5;
/// Operations that each of them must succeed with once all trouble is over.
const CALM_OPERATIONS: usize = 4;

/// What a run is made of.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) troubles: &'static [Trouble],
    /// Time with trouble.
    pub(crate) time: Duration,
    /// What reads ask for; they are judged as linearizable whatever it is.
    pub(crate) consistency: Consistency,
    /// Whether the machines' clocks agree, so that a leader trusts its lease.
    pub(crate) has_good_clocks: bool,
    /// Whether there are machines to spare, for changes of the members.
    pub(crate) has_spares: bool,
    /// Whether the disks say that they sync and do not.
    pub(crate) disks_lie: bool,
}

impl Plan {
    pub(crate) fn new(seed: u64, troubles: &'static [Trouble]) -> Self {
        Self {
            seed,
            troubles,
            time: Duration::from_secs(12),
            consistency: Consistency::Linearizable,
            has_good_clocks: false,
            has_spares: false,
            disks_lie: false,
        }
    }
}

/// What came of a run that nothing is wrong with.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) answered: usize,
    pub(crate) unanswered: usize,
    pub(crate) troubles: u32,
    /// Changes of the members that were confirmed.
    pub(crate) changes: u32,
}

/// Runs `plan` on this thread; what is wrong, if something is.
pub(crate) fn run(plan: Plan) -> Result<Summary, String> {
    let (result, trace) = run_traced(plan);
    result.map_err(|wrong| match std::env::var_os(net_sim::SEED_VARIABLE) {
        // Someone looks for the reason.
        Some(_) => format!("{wrong}\n{}", trace.text()),
        None => wrong,
    })
}

/// Runs `plan` on this thread; what came of it, and all that happened.
pub(crate) fn run_traced(plan: Plan) -> (Result<Summary, String>, Trace) {
    let run = async |world: &World| {
        let result = run_in(world, plan).await;
        (result, world.net.take_trace())
    };
    let world = || World::new(plan.seed, plan.has_good_clocks, plan.has_spares);
    in_world(plan.seed, world, run)
}

/// Runs `act` on this thread, in a world of its own.
pub(crate) fn in_world<T>(
    seed: u64,
    world: impl FnOnce() -> World,
    act: impl AsyncFnOnce(&World) -> T,
) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        aspen_cluster::seed_this_thread(seed);
        act(&world()).await
    })
}

async fn run_in(world: &World, plan: Plan) -> Result<Summary, String> {
    world.form().await?;
    if plan.disks_lie {
        world.lie();
    }
    let history = Arc::new(Mutex::new(History::default()));
    let end = Instant::now() + plan.time;
    let running: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (net, history) = (world.net.clone(), history.clone());
            let mut client = Client::new(plan.seed, number, net, history, plan.consistency);
            tokio::spawn(async move {
                client.run_until(end).await;
                client
            })
        })
        .collect();
    let troubles = Nemesis::new(plan.seed, world, plan.troubles).run_until(end).await?;
    let mut clients = Vec::new();
    for client in running {
        clients.push(client.await.map_err(|error| error.to_string())?);
    }
    world.calm().await?;
    operate_in_calm(&mut clients).await?;
    read_all(&mut clients[0], &history).await?;
    world.converge().await?;
    let history = history.lock().unwrap();
    for (key, operations) in history.keys() {
        check(operations).map_err(|violation| format!("key {key}: {violation}"))?;
    }
    let (answered, unanswered) = history.counts();
    let changes = world.changes.load(Ordering::Relaxed);
    Ok(Summary { answered, unanswered, troubles, changes })
}

/// Without trouble, everyone is served.
async fn operate_in_calm(clients: &mut Vec<Client>) -> Result<(), String> {
    let running: Vec<_> = std::mem::take(clients)
        .into_iter()
        .map(|mut client| {
            tokio::spawn(async move {
                let mut answered = 0;
                for _ in 0..CALM_OPERATIONS {
                    answered += usize::from(client.operate().await);
                }
                (client, answered)
            })
        })
        .collect();
    for running in running {
        let (client, answered) = running.await.map_err(|error| error.to_string())?;
        if answered < CALM_OPERATIONS {
            let lost = CALM_OPERATIONS - answered;
            return Err(format!("{lost} operations failed though nothing went wrong any more"));
        }
        clients.push(client);
    }
    Ok(())
}

/// Reads every key, so that the history shows whether something acknowledged is gone.
async fn read_all(client: &mut Client, history: &Mutex<History>) -> Result<(), String> {
    let keys: Vec<_> = history.lock().unwrap().keys().map(|(key, _)| key.to_owned()).collect();
    for key in keys {
        if client.perform(&key, Action::Read).await.is_none() {
            return Err(format!("key {key} cannot be read though nothing is wrong any more"));
        }
    }
    Ok(())
}
