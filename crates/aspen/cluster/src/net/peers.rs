//! What a node learns of its peers from their answers: their clocks and feature levels.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use aspen_api::Level;
use net_types::lock;
use tokio::sync::Notify;

use crate::clock::Drift;

/// What peers have reported.
#[derive(Default)]
pub(crate) struct PeerReports {
    /// How far their clocks are from this node's.
    pub(crate) drift: Drift,
    /// The highest feature level that each understands.
    top_levels: Mutex<BTreeMap<u64, Level>>,
    level_changed: Notify,
    /// Whether the last refusal was that of a member that does not know this node.
    was_disowned: AtomicBool,
}

impl PeerReports {
    pub(super) fn note_level(&self, peer: u64, level: Level) {
        if lock(&self.top_levels).insert(peer, level) != Some(level) {
            self.level_changed.notify_one();
        }
    }

    /// The highest level that `peer` understands, once it has answered.
    pub(crate) fn top_level_of(&self, peer: u64) -> Option<Level> {
        lock(&self.top_levels).get(&peer).copied()
    }

    /// Waits until a peer has reported another level than before. For one task.
    pub(crate) async fn level_changed(&self) {
        self.level_changed.notified().await;
    }

    /// Whether a refusal is the first of its kind in a row.
    pub(super) fn note_refusal(&self, is_disowned: bool) -> bool {
        !self.was_disowned.swap(is_disowned, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_level_is_told_of_once_until_it_changes() {
        let peers = PeerReports::default();
        peers.note_level(2, Level(1));
        assert_eq!((peers.top_level_of(2), peers.top_level_of(3)), (Some(Level(1)), None));
        assert!(peers.level_changed().now_or_never().is_some());
        peers.note_level(2, Level(1));
        assert!(peers.level_changed().now_or_never().is_none());
        peers.note_level(2, Level(2));
        assert!(peers.level_changed().now_or_never().is_some());
    }

    #[test]
    fn refusals_in_a_row_are_told_of_once() {
        let peers = PeerReports::default();
        assert!(peers.note_refusal(true));
        assert!(!peers.note_refusal(true));
        peers.note_refusal(false);
        assert!(peers.note_refusal(true));
    }
}
