//! What a stream does when nothing arrives: it resends, gives up, or asks for credit.
//!
//! Invariants: a reliable packet is not given up, only its whole stream is, after [`MAX_RETRIES`]
//! timeouts without a window from the peer; an unreliable packet is not sent again, unless it ends
//! the stream.

use core::time::Duration;
use std::collections::BTreeSet;

use net_types::Instant;
use net_types::limits::{MAX_RETRIES, RTO_MAX};

use super::{Lost, SendStream, Sent, State};

/// What is sent again when the timer runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resend {
    /// The oldest packet and the newest: whatever arrives makes the peer say what it has and what it
    /// misses (RFC 8985, 7; RFC 9002, 6.2.4).
    Probe,
    /// Everything: the probe was not answered.
    All,
}

/// When a blocked stream asks for its window again.
#[derive(Clone, Copy, Debug)]
pub(super) struct WindowProbe {
    pub(super) at: Instant,
    pub(super) sent: u32,
}

impl SendStream {
    /// Whether data waits for credit that nothing under way will bring.
    pub(crate) fn is_blocked(&self) -> bool {
        self.in_flight.is_empty() && !self.queue.is_empty() && !self.is_sendable()
    }

    /// The sequence to repeat, empty, when the stream is blocked: the peer answers a packet it
    /// already has with its window, which repeats a grant that was lost. The wait doubles, since a
    /// reader may pause for any time.
    pub(crate) fn poll_window_probe(&mut self, now: Instant, timeout: Duration) -> Option<u64> {
        if !self.is_blocked() {
            self.probe = None;
            return None;
        }
        let probe = self.probe.get_or_insert(WindowProbe { at: now, sent: 0 });
        if probe.at > now {
            return None;
        }
        probe.sent += 1;
        probe.at = now + (timeout * (1 << probe.sent.min(10))).min(RTO_MAX);
        self.base.checked_sub(1)
    }

    /// When the stream wants a timeout next, if it waits for anything.
    pub(crate) fn next_timeout(&self, now: Instant, timeout: Duration) -> Option<Instant> {
        if self.is_blocked() {
            return Some(self.probe.map_or(now + timeout, |p| p.at));
        }
        let head = self.in_flight.front()?;
        // What is in line to be sent again is timed from then on.
        let from = if head.state == State::Lost { now } else { head.sent_at };
        Some(from.max(self.progress_at) + timeout)
    }

    /// The timer ran out: marks packets lost that were sent at least `timeout` ago, all of them or
    /// those of a probe. Unreliable packets are given up instead, all but the stream's end. Returns
    /// false when it ran out too often without a word from the peer about the stream: it has failed.
    ///
    /// The timer is that of the oldest packet, and restarts with every progress (RFC 6298, 5.3).
    /// While it is sent again, later ones may have arrived and cannot be acknowledged.
    pub(crate) fn on_timeout(
        &mut self,
        now: Instant,
        timeout: Duration,
        resend: Resend,
        mut lost: impl FnMut(Lost),
    ) -> bool {
        if self.next_timeout(now, timeout).is_none_or(|at| at > now) {
            return true;
        }
        if !self.is_reliable() {
            self.give_up_old(now, timeout, &mut lost);
        }
        let is_late = |i: usize, sent: &Sent| {
            let is_kept = self.config.mode.is_reliable || sent.is_fin;
            // The oldest one arrived if a report says so, but not its acknowledgement: sending it
            // again asks for that.
            let is_waiting = sent.state == State::InFlight || (i == 0 && sent.state != State::Lost);
            is_kept && is_waiting && now.since(sent.sent_at) >= timeout
        };
        let late = |(i, sent): (usize, &Sent)| is_late(i, sent).then_some(i);
        let packets = || self.in_flight.iter().enumerate();
        let late: Vec<usize> = match resend {
            Resend::All => packets().filter_map(late).collect(),
            Resend::Probe => {
                let ends = [packets().find_map(late), packets().rev().find_map(late)];
                BTreeSet::from(ends).into_iter().flatten().collect()
            }
        };
        if late.is_empty() {
            return true;
        }
        if self.timeouts >= MAX_RETRIES {
            return false;
        }
        self.timeouts += 1;
        for i in late {
            self.lost.insert(self.base + i as u64);
            let sent = &mut self.in_flight[i];
            if sent.state == State::Settled {
                sent.state = State::Lost;
            } else {
                self.flying -= 1;
                lost(sent.lose());
            }
        }
        true
    }

    fn give_up_old(&mut self, now: Instant, timeout: Duration, lost: &mut impl FnMut(Lost)) {
        for sent in self.in_flight.iter_mut().filter(|s| !s.is_fin) {
            if now.since(sent.sent_at) < timeout {
                break;
            }
            if sent.state == State::InFlight {
                self.flying -= 1;
                lost(sent.lose());
                sent.state = State::Settled;
            }
        }
        self.forget_settled();
    }
}
