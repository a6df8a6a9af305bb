//! What a leader proposes on its own: removal of what has ended, stamps of log time, and compaction.
//!
//! A follower proposes nothing, and nothing that readers see depends on when a leader does.

use aspen_api::Revision;
use aspen_api::kv::Compact;
use net_types::limits::{KEPT_REVISIONS, MAX_HISTORY_BYTES, STAMP_INTERVAL};

use crate::{Command, Header};

const STAMP_INTERVAL_MS: u64 = STAMP_INTERVAL.as_millis() as u64;

/// The command to propose now, if one is due. Ask again once it is applied.
///
/// `now_ms` is the leader's log clock ([`crate::LogClock`]).
pub fn maintenance(header: &Header, now_ms: u64) -> Option<Command> {
    let is_due = next_maintenance_ms(header).is_some_and(|due_ms| due_ms <= now_ms);
    if is_due || header.sweep.is_some() {
        return Some(Command::Tick {});
    }
    let (newest, oldest) = (header.applied_revision.0, header.oldest_revision.0);
    let kept = newest.saturating_sub(oldest);
    if header.history_count == 0 || kept == 0 {
        return None;
    }
    if kept > 2 * KEPT_REVISIONS {
        return Some(compact(newest - KEPT_REVISIONS));
    }
    (header.history_bytes > MAX_HISTORY_BYTES).then(|| compact(oldest + kept.div_ceil(2)))
}

fn compact(oldest: u64) -> Command {
    Command::Compact { request: Compact { revision: Revision(oldest) } }
}

/// The log time at which [`maintenance`] must be asked again although no entry was applied.
pub fn next_maintenance_ms(header: &Header) -> Option<u64> {
    let stamp_ms = header.log_time_ms.saturating_add(STAMP_INTERVAL_MS);
    (header.next_deadline_ms < u64::MAX).then(|| header.next_deadline_ms.min(stamp_ms))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::Sweep;

    fn header(newest: u64, oldest: u64, history_bytes: u64) -> Header {
        Header {
            applied_revision: Revision(newest),
            oldest_revision: Revision(oldest),
            history_count: u64::from(history_bytes > 0),
            history_bytes,
            ..Header::default()
        }
    }

    #[test]
    fn a_passed_deadline_an_old_stamp_or_an_open_sweep_asks_for_a_tick() {
        let mut quiet = header(5, 0, 10);
        assert_eq!((maintenance(&quiet, u64::MAX - 1), next_maintenance_ms(&quiet)), (None, None));
        quiet.next_deadline_ms = 100;
        assert_eq!((maintenance(&quiet, 99), next_maintenance_ms(&quiet)), (None, Some(100)));
        assert_eq!(maintenance(&quiet, 100), Some(Command::Tick {}));
        let long = Header { next_deadline_ms: 900_000, log_time_ms: 70, ..quiet };
        assert_eq!((maintenance(&long, 10_069), next_maintenance_ms(&long)), (None, Some(10_070)));
        assert_eq!(maintenance(&long, 10_070), Some(Command::Tick {}));
        let sweep = Sweep { cursor: Bytes::new(), is_again: false };
        let sweeping = Header { sweep: Some(sweep), ..header(5, 0, 10) };
        assert_eq!(maintenance(&sweeping, 0), Some(Command::Tick {}));
    }

    #[test]
    fn history_is_compacted_by_age_and_by_size() {
        assert_eq!(maintenance(&header(2 * KEPT_REVISIONS, 0, 10), 0), None);
        assert_eq!(
            maintenance(&header(2 * KEPT_REVISIONS + 1, 0, 10), 0),
            Some(compact(KEPT_REVISIONS + 1))
        );
        assert_eq!(maintenance(&header(u64::MAX, 0, 0), 0), None, "nothing to compact");
        let large = |newest, oldest| maintenance(&header(newest, oldest, MAX_HISTORY_BYTES + 1), 0);
        assert_eq!(large(9, 4), Some(compact(7)));
        assert_eq!(large(5, 4), Some(compact(5)));
        assert_eq!(large(5, 5), None, "nothing more to give up");
    }
}
