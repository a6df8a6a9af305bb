//! Keys and leases that end: never before their time, for good once they have ended, and in the end
//! all of them.
//!
//! Time is log time. It follows the monotonic clock of the leader, which may be fast, and
//! stands still while there is no leader; so of a time to live a known part must pass before the end is
//! seen, however wall clocks are set, and no more can be said of when it is seen.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aspen_api::ErrorCode;
use aspen_api::kv::{Consistency, Lifetime, ReadKey};
use aspen_api::lease::{LeaseGrant, LeaseKeepalive};
use tokio::time::Instant;

use super::clients::Client;
use super::clock::MAX_DRIFT_PPM;
use super::history::History;
use super::nemesis::{Nemesis, Trouble};
use super::run::{CLIENTS, in_world};
use super::world::World;
use crate::client::{key, set};

/// Longest time to live.
const LONGEST: Duration = Duration::from_secs(5);
/// Log time counts milliseconds, and rounds down.
const ROUNDING: Duration = Duration::from_millis(2);

/// What is known of one key.
struct Life {
    name: String,
    /// Whether it was there at some time, for certain.
    has_begun: bool,
    /// Before this it may not be missed.
    safe_until: Instant,
    has_ended: bool,
}

/// Until when something lives at least that was asked for at `asked`.
fn at_least(asked: Instant, time_to_live: Duration) -> Instant {
    let fastest = 1.0 + MAX_DRIFT_PPM as f64 / 1e6;
    asked + time_to_live.div_f64(fastest).saturating_sub(ROUNDING)
}

impl Life {
    fn new(name: String) -> Self {
        Self { name, has_begun: false, safe_until: Instant::now(), has_ended: false }
    }

    /// Judges an answer that was asked for after the one before had come.
    fn observe(&mut self, is_there: bool) -> Result<(), String> {
        let now = Instant::now();
        match is_there {
            true if self.has_ended => Err(format!("{} is there again after its end", self.name)),
            true => {
                self.has_begun = true;
                Ok(())
            }
            false if self.has_begun && now < self.safe_until => {
                let early = self.safe_until - now;
                Err(format!("{} ended {early:?} too early", self.name))
            }
            false => {
                self.has_ended = self.has_begun;
                Ok(())
            }
        }
    }

    async fn look(&mut self, client: &mut Client) -> Result<(), String> {
        let consistency = Consistency::Linearizable;
        let read = ReadKey { key: key(&self.name), consistency, revision: None };
        match client.request(read).await {
            Some(Ok(read)) => self.observe(read.item.is_some()),
            Some(Err(code)) => Err(format!("{} cannot be read: {code:?}", self.name)),
            None => Ok(()),
        }
    }
}

/// Writes a key that lives for a time, and looks at it until some time after that.
async fn live_for_a_time(client: &mut Client) -> Result<Life, String> {
    let value = client.new_value();
    let mut life = Life::new(format!("ttl/{value}"));
    let time_to_live = Duration::from_millis(200 + client.below(LONGEST.as_millis() as u64 - 200));
    let asked = Instant::now();
    let ttl_ms = time_to_live.as_millis() as u64;
    let write = set(key(&life.name), "v".into(), Lifetime::Ttl { ttl_ms });
    if let Some(written) = client.request(write).await {
        written.map_err(|code| format!("{} is refused: {code:?}", life.name))?;
        life.safe_until = at_least(asked, time_to_live);
        life.has_begun = true;
    }
    let end = asked + time_to_live.mul_f64(1.3);
    while Instant::now() < end {
        life.look(client).await?;
        let pause = client.below(300);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    Ok(life)
}

/// Grants a lease, hangs a key on it, and keeps it alive until that fails.
async fn live_with_a_lease(client: &mut Client) -> Result<Option<Life>, String> {
    let value = client.new_value();
    let mut life = Life::new(format!("leased/{value}"));
    let ttl_seconds = 1 + client.below(LONGEST.as_secs() - 1);
    let time_to_live = Duration::from_secs(ttl_seconds);
    let asked = Instant::now();
    let Some(granted) = client.request(LeaseGrant { lease_id: None, ttl_seconds }).await else {
        return Ok(None);
    };
    let lease_id = granted.map_err(|code| format!("a lease is refused: {code:?}"))?.lease_id;
    life.safe_until = at_least(asked, time_to_live);
    let write = set(key(&life.name), "v".into(), Lifetime::Lease { lease_id });
    match client.request(write).await {
        Some(Ok(_)) => life.has_begun = true,
        Some(Err(ErrorCode::NotFound)) if Instant::now() >= life.safe_until => return Ok(None),
        Some(Err(code)) => return Err(format!("{}'s lease ended early: {code:?}", life.name)),
        None => {}
    }
    loop {
        let pause = client.below(time_to_live.as_millis() as u64 * 12 / 10);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        life.look(client).await?;
        let asked = Instant::now();
        match client.request(LeaseKeepalive { lease_id }).await {
            Some(Ok(_)) if life.has_ended => {
                return Err(format!("{}'s lease lives though it had ended", life.name));
            }
            Some(Ok(_)) => life.safe_until = at_least(asked, time_to_live),
            Some(Err(_)) if Instant::now() < life.safe_until => {
                return Err(format!("{}'s lease ended early", life.name));
            }
            // Its key has ended with it.
            Some(Err(_)) => {
                life.has_ended = life.has_begun;
                return Ok(Some(life));
            }
            None => return Ok(Some(life)),
        }
    }
}

async fn live_until(mut client: Client, end: Instant) -> Result<(Client, Vec<Life>), String> {
    let mut lives = Vec::new();
    while Instant::now() < end {
        match client.below(2) {
            0 => lives.push(live_for_a_time(&mut client).await?),
            _ => lives.extend(live_with_a_lease(&mut client).await?),
        }
        // Sometimes nothing is left that expires, and log time may follow a wall clock.
        let pause = client.below(1_500);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    Ok((client, lives))
}

/// Runs clients for `time` and then waits for all ends; how many lives ended.
async fn run(
    world: &World,
    seed: u64,
    troubles: &'static [Trouble],
    time: Duration,
) -> Result<usize, String> {
    world.form().await?;
    let end = Instant::now() + time;
    let running: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (net, history) = (world.net.clone(), Arc::new(Mutex::new(History::default())));
            let client = Client::new(seed, number, net, history, Consistency::Linearizable);
            tokio::spawn(live_until(client, end))
        })
        .collect();
    Nemesis::new(seed, world, troubles).run_until(end).await?;
    let mut all = Vec::new();
    for running in running {
        all.push(running.await.map_err(|error| error.to_string())??);
    }
    world.calm().await?;
    tokio::time::sleep(2 * LONGEST).await;
    let mut ended = 0;
    for (mut client, lives) in all {
        for mut life in lives {
            life.look(&mut client).await?;
            if life.has_begun && !life.has_ended {
                return Err(format!("{} does not end", life.name));
            }
            ended += usize::from(life.has_ended);
        }
    }
    world.converge().await?;
    Ok(ended)
}

fn all_end_in_time(seed: u64, troubles: &'static [Trouble]) {
    let ended = in_world(
        seed,
        || World::new(seed, false, false),
        async |world| {
            let result = run(world, seed, troubles, Duration::from_secs(15)).await;
            result.map_err(|wrong| match std::env::var_os(net_sim::SEED_VARIABLE) {
                Some(_) => format!("{wrong}\n{}", world.net.take_trace().text()),
                None => wrong,
            })
        },
    );
    let ended = ended.unwrap_or_else(|wrong| panic!("{wrong}"));
    assert!(ended > 5, "{ended}");
}

#[test]
fn lives_end_in_time_while_leaders_change_and_wall_clocks_jump_far() {
    net_sim::seeds!(3, |seed| {
        all_end_in_time(seed, &[Trouble::Crash, Trouble::FarClock, Trouble::FarClock]);
    });
}

#[test]
fn lives_end_in_time_whatever_goes_wrong() {
    net_sim::seeds!(3, |seed| {
        let troubles = &[
            Trouble::Crash,
            Trouble::Blackout,
            Trouble::Restart,
            Trouble::Cut,
            Trouble::Isolate,
            Trouble::Stall,
            Trouble::DiskError,
            Trouble::FarClock,
            Trouble::FarClock,
        ];
        all_end_in_time(seed, troubles);
    });
}
