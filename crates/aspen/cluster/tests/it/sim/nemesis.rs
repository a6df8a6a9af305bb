//! What goes wrong in a run, and when.

use std::time::Duration;

use net_sim::SimRng;
use tokio::time::Instant;

use super::network::{HostId, Weather};
use super::world::World;

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// A node loses power and starts again.
    Crash,
    /// The whole cluster loses power at once.
    Blackout,
    /// A node is shut down and started again.
    Restart,
    /// All nodes are restarted one after another, as an operator does it: each hands leadership on
    /// and is waited for until it is healthy again.
    Roll,
    /// A node is cut off, both ways or one way, or two nodes from each other.
    Cut,
    /// The leader is cut off from the other nodes both ways, and clients still reach it.
    Isolate,
    /// Messages are lost, repeated, late and overtaken.
    Weather,
    /// A disk takes long to sync.
    Stall,
    /// A disk reports an error, and the node ends for it.
    DiskError,
    /// A disk says that it is almost full, and later has room again.
    FullDisk,
    /// A disk takes no more writes at all, and the node ends for it.
    NoSpace,
    /// A member is added, promoted or removed while the next trouble comes.
    Members,
    /// A wall clock is set.
    Clock,
    /// A wall clock is set by up to an hour: further than answers to requests are remembered, so that
    /// those of all clients may be forgotten at once.
    FarClock,
}

impl Trouble {
    pub(crate) const ALL: &'static [Self] = &[
        Self::Crash,
        Self::Blackout,
        Self::Restart,
        Self::Cut,
        Self::Isolate,
        Self::Weather,
        Self::Stall,
        Self::DiskError,
        Self::FullDisk,
        Self::NoSpace,
        Self::Members,
        Self::Clock,
        Self::FarClock,
    ];
}

/// Largest steps of a wall clock.
const MAX_CLOCK_STEP_MS: u64 = 60_000;
const FAR_CLOCK_STEP_MS: u64 = 3_600_000;

pub(crate) struct Nemesis<'w> {
    world: &'w World,
    rng: SimRng,
    kinds: &'static [Trouble],
}

impl<'w> Nemesis<'w> {
    pub(crate) fn new(seed: u64, world: &'w World, kinds: &'static [Trouble]) -> Self {
        Self { world, rng: SimRng::new(seed, "nemesis"), kinds }
    }

    /// Makes trouble until `end`, one after another, each left alone for a while or not. Returns how
    /// often.
    pub(crate) async fn run_until(&mut self, end: Instant) -> Result<u32, String> {
        let mut troubles = 0;
        loop {
            let pause = 50 + self.rng.below(900);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if Instant::now() >= end || self.kinds.is_empty() {
                return Ok(troubles);
            }
            let kind = self.kinds[self.rng.below(self.kinds.len() as u64) as usize];
            self.world.net.record(format_args!("trouble: {kind:?}"));
            self.make(kind).await?;
            troubles += 1;
            self.revive().await?;
        }
    }

    /// Half of the time the leader, if there is one.
    fn victim(&mut self) -> HostId {
        match self.world.leader() {
            Some(leader) if self.rng.chance(500_000) => leader,
            _ => {
                let hosts = self.world.hosts();
                hosts[self.rng.below(hosts.len() as u64) as usize]
            }
        }
    }

    async fn wait(&mut self, longest_ms: u64) {
        let time = self.rng.below(longest_ms);
        tokio::time::sleep(Duration::from_millis(time)).await;
    }

    async fn make(&mut self, kind: Trouble) -> Result<(), String> {
        let world = self.world;
        let victim = self.victim();
        match kind {
            Trouble::Crash => {
                world.crash(victim);
                self.wait(2_000).await;
            }
            Trouble::Blackout => {
                world.hosts().iter().for_each(|n| world.crash(*n));
                self.wait(500).await;
            }
            Trouble::Restart => {
                world.stop(victim).await;
                self.wait(1_000).await;
            }
            Trouble::Roll => {
                for n in world.hosts() {
                    world.restart_in_order(n).await?;
                }
            }
            Trouble::Cut => {
                self.cut(victim);
                self.wait(3_000).await;
                world.net.heal();
            }
            Trouble::Isolate => {
                world.isolate(world.leader().unwrap_or(victim));
                self.wait(3_000).await;
                world.net.heal();
            }
            Trouble::Weather => {
                let weather = Weather::rough(&mut self.rng);
                world.net.set_weather(weather);
                self.wait(3_000).await;
                if self.rng.chance(500_000) {
                    world.net.set_weather(Weather::CALM);
                }
            }
            Trouble::Stall => {
                let time = self.rng.below(3_000);
                world.stall(victim, Duration::from_millis(time));
            }
            Trouble::DiskError => {
                world.break_disk(victim, self.rng.below(20));
                self.wait(1_500).await;
            }
            Trouble::FullDisk => {
                world.fill_disk(victim, true);
                self.wait(6_000).await;
                if self.rng.chance(800_000) {
                    world.fill_disk(victim, false);
                }
            }
            Trouble::NoSpace => {
                world.exhaust_disk(victim, self.rng.below(20));
                self.wait(1_500).await;
            }
            Trouble::Members => {
                let hosts = world.hosts();
                let n = hosts[self.rng.below(hosts.len() as u64) as usize];
                world.change_members(n, self.rng.below(u64::MAX));
            }
            Trouble::Clock => {
                world.jump_clock(victim, self.step_ms(MAX_CLOCK_STEP_MS));
            }
            Trouble::FarClock => {
                world.jump_clock(victim, self.step_ms(FAR_CLOCK_STEP_MS));
            }
        }
        Ok(())
    }

    fn step_ms(&mut self, limit: u64) -> i64 {
        self.rng.below(2 * limit) as i64 - limit as i64
    }

    fn cut(&mut self, victim: HostId) {
        let net = &self.world.net;
        let others: Vec<_> = self.world.hosts().into_iter().filter(|n| *n != victim).collect();
        match self.rng.below(4) {
            0 => others.iter().for_each(|n| net.cut(victim, *n)),
            1 => others.iter().for_each(|n| net.cut(*n, victim)),
            2 => {
                net.cut(victim, others[0]);
                net.cut(others[0], victim);
            }
            _ => self.world.isolate(victim),
        }
    }

    /// Starts most of what is off, so that the cluster has a majority more often than not.
    async fn revive(&mut self) -> Result<(), String> {
        for n in self.world.hosts() {
            let is_off = self.world.node(n).is_none_or(|node| !node.is_alive());
            if is_off && self.rng.chance(800_000) {
                self.world.crash(n);
                self.world.start(n).await?;
            }
        }
        Ok(())
    }
}
