//! Replies that found their stream full: each waits for its own stream, in order.
//!
//! Invariants: a peer that calls and does not take the replies holds up only itself; what waits for
//! all peers together is bounded, and beyond it the session with the most loses.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use net_mesh_core::SendError;
use net_types::limits::{MAX_WAITING_REPLY_BYTES, REFUSE_CALLS_ABOVE_REPLY_BYTES};
use net_types::{IdMap, SessionId, StreamId};

/// What a waiting reply costs beside its bytes.
const REPLY_OVERHEAD_BYTES: usize = 64;

#[derive(Default)]
pub(crate) struct WaitingReplies {
    queues: BTreeMap<(SessionId, StreamId), VecDeque<Bytes>>,
    by_session: IdMap<SessionId, usize>,
    bytes: usize,
}

fn cost(frame: &Bytes) -> usize {
    REPLY_OVERHEAD_BYTES + frame.len()
}

impl WaitingReplies {
    /// Whether a reply for this stream must wait behind others.
    pub(crate) fn is_waiting(&self, session: SessionId, stream: StreamId) -> bool {
        // The table is empty nearly always.
        !self.queues.is_empty() && self.queues.contains_key(&(session, stream))
    }

    /// Whether anything waits for a session.
    pub(crate) fn has_session(&self, session: SessionId) -> bool {
        self.by_session.contains_key(&session)
    }

    /// Whether so much waits for a session that it is to make no more calls.
    pub(crate) fn is_choked(&self, session: SessionId) -> bool {
        !self.queues.is_empty()
            && self.by_session.get(&session).is_some_and(|b| *b > REFUSE_CALLS_ABOVE_REPLY_BYTES)
    }

    /// Lets a reply wait. Returns the session that must be closed because too much waits in all; its
    /// replies are gone.
    pub(crate) fn push(
        &mut self,
        session: SessionId,
        stream: StreamId,
        frame: Bytes,
    ) -> Option<SessionId> {
        self.bytes += cost(&frame);
        *self.by_session.entry(session).or_default() += cost(&frame);
        self.queues.entry((session, stream)).or_default().push_back(frame);
        if self.bytes <= MAX_WAITING_REPLY_BYTES {
            return None;
        }
        let (&largest, _) = self.by_session.iter().max_by_key(|(id, bytes)| (**bytes, **id))?;
        self.forget(largest);
        Some(largest)
    }

    /// Sends what waits for a stream until `send` refuses one.
    pub(crate) fn retry(
        &mut self,
        session: SessionId,
        stream: StreamId,
        mut send: impl FnMut(Bytes) -> Result<(), SendError>,
    ) {
        let Some(queue) = self.queues.get_mut(&(session, stream)) else { return };
        let mut sent = 0;
        while let Some(frame) = queue.front() {
            if send(frame.clone()) == Err(SendError::Backpressure) {
                break;
            }
            sent += cost(frame);
            queue.pop_front();
        }
        if queue.is_empty() {
            self.queues.remove(&(session, stream));
        }
        self.bytes -= sent;
        if let Some(bytes) = self.by_session.get_mut(&session) {
            *bytes -= sent;
            if *bytes == 0 {
                self.by_session.remove(&session);
            }
        }
    }

    /// The session is over.
    pub(crate) fn forget(&mut self, session: SessionId) {
        let Some(bytes) = self.by_session.remove(&session) else { return };
        self.bytes -= bytes;
        self.queues.retain(|(s, _), _| *s != session);
    }

    /// Bytes that wait, with the cost of each reply.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Asserts that the sums are those of the replies that wait.
    pub(crate) fn check_invariants(&self) {
        let mut by_session = IdMap::<SessionId, usize>::default();
        for ((session, _), queue) in &self.queues {
            assert!(!queue.is_empty());
            *by_session.entry(*session).or_default() += queue.iter().map(cost).sum::<usize>();
        }
        assert_eq!(self.by_session, by_session);
        assert_eq!(self.bytes, by_session.values().sum::<usize>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: StreamId = StreamId(3);

    fn fill(replies: &mut WaitingReplies, session: u64, count: usize) -> Option<SessionId> {
        let frame = Bytes::from_static(&[0; 1 << 20]);
        (0..count).find_map(|_| replies.push(SessionId(session), STREAM, frame.clone()))
    }

    #[test]
    fn each_stream_waits_for_itself_and_in_order() {
        let mut replies = WaitingReplies::default();
        for (session, byte) in [(1, 1), (2, 2), (1, 3)] {
            replies.push(SessionId(session), STREAM, Bytes::copy_from_slice(&[byte]));
        }
        assert!(replies.is_waiting(SessionId(1), STREAM));
        assert!(!replies.is_waiting(SessionId(3), STREAM));
        let mut sent = Vec::new();
        let mut take = |frame: Bytes, room: usize| {
            if sent.len() >= room {
                return Err(SendError::Backpressure);
            }
            sent.push(frame[0]);
            Ok(())
        };
        replies.retry(SessionId(1), STREAM, |f| take(f, 1));
        replies.retry(SessionId(1), STREAM, |f| take(f, 9));
        replies.retry(SessionId(3), STREAM, |f| take(f, 9));
        assert_eq!(sent, [1, 3]);
        replies.forget(SessionId(2));
        assert_eq!((replies.bytes(), replies.by_session.len(), replies.queues.len()), (0, 0, 0));
    }

    #[test]
    fn what_waits_is_bounded_and_the_session_with_the_most_loses() {
        let mut replies = WaitingReplies::default();
        assert_eq!(fill(&mut replies, 1, 10), None);
        assert!(!replies.is_choked(SessionId(1)));
        assert_eq!(fill(&mut replies, 2, usize::MAX), Some(SessionId(2)));
        assert!(!replies.is_waiting(SessionId(2), STREAM));
        assert!(replies.is_waiting(SessionId(1), STREAM));
        fill(&mut replies, 1, 10);
        assert!(replies.is_choked(SessionId(1)) && !replies.is_choked(SessionId(2)));
        assert_eq!(replies.bytes(), 20 * ((1 << 20) + REPLY_OVERHEAD_BYTES));
    }
}
