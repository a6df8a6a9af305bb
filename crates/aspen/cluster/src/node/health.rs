//! A node's judgement of its cluster, as a function of what it knows.

use aspen_api::cluster::HealthStatus;

/// Entries that a healthy follower may lag behind what it knows to be committed.
const HEALTHY_LAG: u64 = 1_000;

/// What a node knows of the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leadership {
    /// The node belongs to no cluster yet.
    NotInitialized,
    /// No leader is known.
    Unknown,
    /// This node leads; whether a quorum has answered it within a lease.
    Own { is_answered: bool },
    /// Another node leads; whether it was heard within a lease.
    Other { leader: u64, is_heard: bool },
}

impl Leadership {
    /// Why no leader can act, as far as this node knows.
    pub(super) fn lack(&self) -> Option<String> {
        match self {
            Self::NotInitialized => Some("this node belongs to no cluster yet".to_owned()),
            Self::Unknown => Some("no leader is known".to_owned()),
            Self::Own { is_answered: false } => {
                Some("no majority of the voters answers this leader".to_owned())
            }
            Self::Other { leader, is_heard: false } => {
                Some(format!("the leader, node {leader}, is not heard of"))
            }
            Self::Own { is_answered: true } | Self::Other { is_heard: true, .. } => None,
        }
    }
}

/// What a node knows of itself and its cluster.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    pub(super) is_damaged: bool,
    pub(super) has_log_failed: bool,
    pub(super) is_disk_full: bool,
    /// Whether consensus runs.
    pub(super) is_running: bool,
    pub(super) leadership: Leadership,
    /// Committed entries that are not applied here.
    pub(super) lag: u64,
    /// A leader's followers: entries that each lacks, and whether it answers.
    pub(super) followers: Vec<(u64, u64, bool)>,
}

/// The judgement, and what speaks against health, the worst first.
pub(super) fn judge(observed: &Observed) -> (HealthStatus, Vec<String>) {
    let mut broken = Vec::new();
    let mut note = |is_so: bool, text: &str| is_so.then(|| broken.push(text.to_owned()));
    note(observed.is_damaged, "the log is damaged: this node no longer votes");
    note(observed.has_log_failed, "the log takes no more writes: see the node's own log");
    note(!observed.is_running, "consensus has ended: see the node's own log");
    if observed.is_running {
        broken.extend(observed.leadership.lack());
    }
    let mut hampered = Vec::new();
    if observed.lag > HEALTHY_LAG {
        hampered.push(format!("{} committed entries are not applied here yet", observed.lag));
    }
    for (id, lag, answers) in &observed.followers {
        if *lag > HEALTHY_LAG {
            hampered.push(format!("node {id} is {lag} entries behind"));
        }
        if !answers {
            hampered.push(format!("node {id} does not answer"));
        }
    }
    if observed.is_disk_full {
        hampered.push("the data disk is almost full: writes are refused".to_owned());
    }
    let status = match (broken.is_empty(), hampered.is_empty()) {
        (false, _) => HealthStatus::Unhealthy,
        (true, false) => HealthStatus::Degraded,
        (true, true) => HealthStatus::Healthy,
    };
    broken.extend(hampered);
    (status, broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Observed {
        Observed {
            is_damaged: false,
            has_log_failed: false,
            is_disk_full: false,
            is_running: true,
            leadership: Leadership::Other { leader: 2, is_heard: true },
            lag: HEALTHY_LAG,
            followers: vec![(3, HEALTHY_LAG, true)],
        }
    }

    #[test]
    fn each_fault_has_its_status_and_says_what_it_is() {
        use HealthStatus::{Degraded, Healthy, Unhealthy};
        let own = |is_answered| Leadership::Own { is_answered };
        let led = |leadership| Observed { leadership, ..good() };
        let silent = Leadership::Other { leader: 2, is_heard: false };
        for (observed, status, reason) in [
            (good(), Healthy, None),
            (led(own(true)), Healthy, None),
            (led(own(false)), Unhealthy, Some("no majority")),
            (led(silent), Unhealthy, Some("node 2, is not heard")),
            (led(Leadership::Unknown), Unhealthy, Some("no leader")),
            (led(Leadership::NotInitialized), Unhealthy, Some("no cluster")),
            (Observed { is_damaged: true, ..good() }, Unhealthy, Some("damaged")),
            (Observed { has_log_failed: true, ..good() }, Unhealthy, Some("no more writes")),
            (Observed { is_running: false, ..led(silent) }, Unhealthy, Some("has ended")),
            (Observed { is_disk_full: true, ..good() }, Degraded, Some("almost full")),
            (Observed { lag: HEALTHY_LAG + 1, ..good() }, Degraded, Some("1001 committed")),
            (Observed { followers: vec![(3, 1_001, true)], ..good() }, Degraded, Some("behind")),
            (Observed { followers: vec![(3, 0, false)], ..good() }, Degraded, Some("answer")),
        ] {
            let (found, reasons) = judge(&observed);
            assert_eq!(found, status, "{observed:?}");
            assert_eq!(reasons.len(), usize::from(reason.is_some()), "{reasons:?}");
            let says = reason.is_none_or(|text| reasons[0].contains(text));
            assert!(says, "{reasons:?} {reason:?}");
        }
    }

    #[test]
    fn what_breaks_a_node_is_named_before_what_hampers_it() {
        let both = Observed { is_disk_full: true, is_damaged: true, ..good() };
        let (status, reasons) = judge(&both);
        assert_eq!(status, HealthStatus::Unhealthy);
        assert!(reasons[0].contains("damaged") && reasons[1].contains("almost full"));
    }
}
