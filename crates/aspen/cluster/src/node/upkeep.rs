//! What a node does without being asked: remove what has expired, make the state durable, watch
//! the disk, the members and the log.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aspen_api::{Level, RequestId, Revision};
use aspen_kv::{Header, maintenance, next_maintenance_ms};
use net_types::limits::{DISK_FULL_PERCENT, DISK_RESERVE_BYTES};
use net_types::{Instant, lock};
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::Notify;

use super::ClusterNode;
use crate::state::{AppliedBatch, Store};

/// Time between two looks at the disk and at the age of what is not durable.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Time between two passes over the log's hash chain.
const VERIFY_INTERVAL: Duration = Duration::from_secs(300);
/// Entries of one pass.
const VERIFY_ENTRIES: u64 = 1_000;
/// Wait before a proposal of the node itself is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// Log time as the state has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reached {
    /// The newest stamp applied, in milliseconds.
    pub(crate) log_time_ms: u64,
    /// When an entry with a stamp was last applied, so not before it was stamped.
    pub(crate) at: Instant,
}

/// What the state tells after each batch.
pub(crate) struct Upkeep {
    reached: Mutex<Reached>,
    next_deadline_ms: AtomicU64,
    /// Newest revision of which an answer was forgotten.
    forgotten_revision: AtomicU64,
    applied_revision: AtomicU64,
    level: AtomicU32,
    /// Whether maintenance may be due because of what was applied.
    has_work: AtomicBool,
    changed: Notify,
    /// Whether something was applied since the last look.
    is_dirty: AtomicBool,
    /// Index from which on a checkpoint is due.
    checkpoint_at: AtomicU64,
    /// Memory above which one is due.
    checkpoint_above: AtomicUsize,
    /// Whether it was above that after the last batch.
    was_large: AtomicBool,
    checkpoint_due: Notify,
}

impl Upkeep {
    /// Listens to `store`.
    pub(crate) fn new(store: &Arc<Store>, now: Instant) -> Self {
        let upkeep = Self {
            reached: Mutex::new(Reached { log_time_ms: 0, at: now }),
            next_deadline_ms: AtomicU64::new(u64::MAX),
            forgotten_revision: AtomicU64::new(0),
            applied_revision: AtomicU64::new(0),
            level: AtomicU32::new(Level::FIRST.0),
            has_work: AtomicBool::new(false),
            changed: Notify::new(),
            is_dirty: AtomicBool::new(false),
            checkpoint_at: AtomicU64::new(u64::MAX),
            checkpoint_above: AtomicUsize::new(usize::MAX),
            was_large: AtomicBool::new(false),
            checkpoint_due: Notify::new(),
        };
        if let Ok(view) = store.view() {
            upkeep.applied(view.header(), AppliedBatch { memory_bytes: 0, is_stamped: true }, now);
        }
        upkeep
    }

    /// Takes in the state after a batch. Called while it is applied, so it does not block.
    pub(crate) fn applied(&self, header: &Header, batch: AppliedBatch, now: Instant) {
        if batch.is_stamped {
            let mut reached = lock(&self.reached);
            *reached = Reached { log_time_ms: header.log_time_ms, at: now };
        }
        let before = self.next_deadline_ms.swap(header.next_deadline_ms, Ordering::Relaxed);
        self.forgotten_revision.store(header.forgotten_revision.0, Ordering::Relaxed);
        self.applied_revision.store(header.applied_revision.0, Ordering::Relaxed);
        self.level.store(header.level.0, Ordering::Relaxed);
        self.is_dirty.store(true, Ordering::Relaxed);
        let has_work = maintenance(header, 0).is_some();
        if has_work {
            self.has_work.store(true, Ordering::Relaxed);
        }
        if has_work || header.next_deadline_ms < before {
            self.changed.notify_one();
        }
        let is_long = header.applied_revision.0 >= self.checkpoint_at.load(Ordering::Relaxed);
        let is_large = batch.memory_bytes >= self.checkpoint_above.load(Ordering::Relaxed);
        let was_large = self.was_large.swap(is_large, Ordering::Relaxed);
        if is_long || (is_large && !was_large) {
            self.checkpoint_at.store(u64::MAX, Ordering::Relaxed);
            self.checkpoint_due.notify_one();
        }
    }

    /// The newest revision applied.
    pub(crate) fn applied_revision(&self) -> Revision {
        Revision(self.applied_revision.load(Ordering::Relaxed))
    }

    /// The feature level of the cluster, as far as it is applied here.
    pub(crate) fn level(&self) -> Level {
        Level(self.level.load(Ordering::Relaxed))
    }

    /// Log time of the state, and whether anything in it expires.
    pub(crate) fn log_time(&self) -> (Reached, bool) {
        let deadline = self.next_deadline_ms.load(Ordering::Relaxed);
        (*lock(&self.reached), deadline < u64::MAX)
    }

    /// Whether a name is older than answers that were forgotten, so that it may be refused.
    pub(crate) fn may_be_too_old(&self, id: RequestId) -> bool {
        id.since.0 < self.forgotten_revision.load(Ordering::Relaxed)
    }
}

impl ClusterNode {
    /// Starts the node's own tasks. During `patience` it does not stand for election.
    pub(super) fn spawn_upkeep(&self, patience: Option<Duration>) {
        let tasks = [
            tokio::spawn(self.clone().keep_store()),
            tokio::spawn(self.clone().keep_durable()),
            tokio::spawn(self.clone().keep_members()),
            tokio::spawn(self.clone().keep_log()),
            tokio::spawn(self.clone().keep_level()),
        ];
        let mut running = lock(&self.0.tasks);
        running.extend(tasks);
        if let Some(patience) = patience {
            let node = self.clone();
            running.push(tokio::spawn(async move {
                tokio::time::sleep(patience).await;
                node.0.raft.runtime_config().elect(true);
            }));
        }
    }

    /// While leading, proposes the removal of what has ended, when it has ended.
    async fn keep_store(self) {
        let mut server = self.0.raft.server_metrics();
        loop {
            let wait = match self.is_leader() {
                true => self.maintain().await,
                false => None,
            };
            let changed = self.0.upkeep.changed.notified();
            tokio::select! {
                biased;
                () = changed => {}
                result = server.changed() => if result.is_err() { return },
                () = sleep_or_forever(wait) => {}
            }
        }
    }

    /// Proposes what is due and returns when to look again.
    async fn maintain(&self) -> Option<Duration> {
        self.0.upkeep.has_work.store(false, Ordering::Relaxed);
        if !self.has_applied_own_term() {
            // It knows neither what is due nor what time it is.
            return Some(RETRY);
        }
        let view = self.local_view().ok()?;
        let now_ms = self.log_now_ms(false);
        if let Some(command) = maintenance(view.header(), now_ms) {
            return match self.commit(command, None).await {
                Ok(_) => Some(Duration::ZERO),
                Err(_) => Some(RETRY),
            };
        }
        let due_ms = next_maintenance_ms(view.header())?;
        Some(Duration::from_millis(due_ms.saturating_sub(now_ms)))
    }

    /// Makes the state durable by size, number and age, and drops the log before it.
    async fn keep_durable(self) {
        let policy = self.0.config.checkpoint;
        let mut interval = tokio::time::interval(LOOK_INTERVAL.min(policy.age));
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut dirty_since = None;
        let mut log_bytes_at = self.0.log.counters().bytes;
        let member = self.member_id().0;
        let first = next_turn(self.0.state.store().durable_next(), policy.entries, member);
        self.0.upkeep.checkpoint_at.store(first, Ordering::Relaxed);
        self.0.upkeep.checkpoint_above.store(policy.memory_bytes, Ordering::Relaxed);
        loop {
            let was_asked = tokio::select! {
                biased;
                () = self.0.upkeep.checkpoint_due.notified() => true,
                _ = interval.tick() => false,
            };
            let has_room = self.look_at_disk();
            let now = self.0.config.clock.now();
            if self.0.upkeep.is_dirty.swap(false, Ordering::Relaxed) {
                dirty_since.get_or_insert(now);
            }
            let Some(since) = dirty_since else { continue };
            let log_bytes = self.0.log.counters().bytes;
            let is_due = was_asked
                || log_bytes.saturating_sub(log_bytes_at) >= policy.log_bytes
                // One that was asked for while another was under way was not heard.
                || self.0.state.store().newest_bytes() >= policy.memory_bytes
                || (self.undurable_entries() > 0 && now.since(since) >= policy.age);
            // One that fails would end consensus. The log holds everything until there is room, or
            // until memory is full, if others still lead writes here.
            if is_due && has_room {
                dirty_since = None;
                log_bytes_at = log_bytes;
                let applied = self.applied().map_or(0, |id| id.index);
                let next = next_turn(applied, policy.entries, member);
                self.0.upkeep.checkpoint_at.store(next, Ordering::Relaxed);
                self.0.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
                if self.0.raft.trigger().snapshot().await.is_err() {
                    return;
                }
            }
        }
    }

    fn undurable_entries(&self) -> u64 {
        let next = self.applied().map_or(0, |id| id.index + 1);
        next.saturating_sub(self.0.state.store().durable_next())
    }

    /// Refuses writes while the disk is almost full; whether it has room for a checkpoint.
    fn look_at_disk(&self) -> bool {
        let Ok(usage) = self.0.config.disk.usage() else { return true };
        let is_full =
            usage.is_above(DISK_FULL_PERCENT) || usage.available_bytes < DISK_RESERVE_BYTES;
        if self.0.is_disk_full.swap(is_full, Ordering::Relaxed) != is_full {
            match is_full {
                true => tracing::error!("the data disk is almost full; writes are refused"),
                false => tracing::info!("the data disk has room again; writes are accepted"),
            }
        }
        // Each page that a row touches is copied.
        usage.available_bytes / 2 >= self.0.state.store().memory_bytes() as u64
    }

    /// Follows changes of the members and the leader.
    async fn keep_members(self) {
        let mut server = self.0.raft.server_metrics();
        let mut voters: Option<Vec<u64>> = None;
        let mut leader = None;
        // What an operator said meanwhile of where a peer is holds until the members change.
        let mut introduced = *self.0.state.store().progress().membership.log_id();
        loop {
            let (membership, now_leading) = {
                let metrics = server.borrow_and_update();
                (metrics.membership_config.clone(), metrics.current_leader)
            };
            if introduced != *membership.log_id() {
                introduced = *membership.log_id();
                self.introduce_members(membership.membership());
            }
            let now_voting: Vec<u64> = membership.voter_ids().collect();
            // That a cluster is begun is no change after which anybody has to settle.
            let has_begun = |before: &Vec<u64>| before.is_empty();
            if voters.as_ref().is_some_and(|before| *before != now_voting && !has_begun(before)) {
                tracing::info!(voters = ?now_voting, "voters changed");
                *lock(&self.0.voters_changed_at) = Some(self.0.config.clock.now());
            }
            voters = Some(now_voting);
            if leader != now_leading {
                tracing::info!(leader = ?now_leading, "leader changed");
                leader = now_leading;
            }
            if server.changed().await.is_err() {
                return;
            }
        }
    }

    /// Recomputes the log's hash chain, a piece at a time. A node whose log is damaged stops
    /// standing for election and says so.
    async fn keep_log(self) {
        let mut from = 0;
        loop {
            tokio::time::sleep(VERIFY_INTERVAL).await;
            let log = self.0.log.clone();
            // Entries that are dropped during a pass look like damage to it, but not to the next.
            let pass = move || log.verify(from, VERIFY_ENTRIES);
            let verify = move || pass().or_else(|_| pass());
            match self.0.config.blocking.run(verify).await {
                Ok(Ok(next)) => from = next.unwrap_or(0),
                Ok(Err(error)) => {
                    tracing::error!(%error, "the log is damaged; this node no longer votes");
                    self.0.is_damaged.store(true, Ordering::Relaxed);
                    self.0.service.stop_voting();
                    self.0.raft.runtime_config().elect(false);
                    return;
                }
                Err(_) => return,
            }
        }
    }
}

/// The next index after `applied` at which it is the member's turn for a checkpoint, half of `period`
/// later at the least. Members apply the same entries at the same time: without turns all of them
/// would write at once, and no majority would be left that is quick.
fn next_turn(applied: u64, period: u64, member: u64) -> u64 {
    // Multiples of the golden ratio spread over the period, however many there are (Knuth, TAOCP 3,
    // section 6.4).
    let share = u128::from(member.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let period = u128::from(period.max(1));
    let phase = (share * period) >> 64;
    let earliest = u128::from(applied) + period / 2;
    let wait = (phase + period - earliest % period) % period;
    u64::try_from(earliest + wait).unwrap_or(u64::MAX)
}

async fn sleep_or_forever(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_take_turns_far_from_each_other() {
        const PERIOD: u64 = 50_000;
        for count in 3..=7 {
            let mut turns: Vec<u64> =
                (1..=count).map(|n| next_turn(0, PERIOD, n) % PERIOD).collect();
            turns.sort_unstable();
            turns.push(turns[0] + PERIOD);
            let nearest = turns.windows(2).map(|pair| pair[1] - pair[0]).min();
            assert!(nearest >= Some(PERIOD / (2 * count)), "{count} members: {turns:?}");
        }
    }

    #[test]
    fn turns_come_once_a_period_and_not_too_soon() {
        for member in [1, 2, 3, u64::MAX] {
            for applied in [0, 1, 49_999, 123_456] {
                let turn = next_turn(applied, 50_000, member);
                assert!((applied + 25_000..applied + 75_000).contains(&turn));
                assert_eq!(next_turn(turn, 50_000, member), turn + 50_000);
            }
        }
        assert_eq!(next_turn(7, 0, 3), 7);
        assert_eq!(next_turn(u64::MAX, u64::MAX, u64::MAX), u64::MAX);
    }
}
