//! Appends under way to one member, answered in the order they were sent.
//!
//! openraft sends a follower each advance of the commit point, in an append without entries if no
//! entry is at hand. While writes flow, entries that carry it along are a moment away, so such an
//! append is held back for that moment. When an append that follows it has succeeded, so has it:
//! it asked for less.
//!
//! An append that overtakes the one before it on the way finds its predecessor missing. openraft
//! would take that for a follower that has lost entries; here it counts as a failed call, after
//! which openraft sends again what was not answered.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{FuturesOrdered, Stream, StreamExt};
use net_types::limits::MAX_PIPELINED_APPENDS;
use openraft::base::BoxFuture;
use openraft::entry::RaftEntry;
use openraft::errors::{NetworkError, RPCError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult,
};

use super::client::{RaftClient, RpcError};
use crate::types::{LogId, Types};

/// Longest time that a commit point waits for entries to ride on. Followers show writes this much
/// later when none follow.
const COMMIT_HOLD: Duration = Duration::from_millis(5);

/// An answer for openraft.
type Answer = Result<StreamAppendResult<Types>, RpcError>;

/// Answers of one call, the held append's first, and whether more follow them.
struct Answered {
    held: Option<Option<LogId>>,
    result: Answer,
    more_follow: bool,
}

/// See the module.
pub(super) struct Pipeline<S> {
    client: RaftClient,
    input: Option<S>,
    /// An append without entries, and when it goes at the latest.
    held: Option<(AppendEntriesRequest<Types>, Pin<Box<tokio::time::Sleep>>)>,
    calls: FuturesOrdered<BoxFuture<'static, Answered>>,
    ready: VecDeque<Answer>,
    has_sent: bool,
    /// Whether the follower has confirmed an append of this stream; each later one continues it.
    has_matched: bool,
    is_over: bool,
}

impl<S: Stream<Item = AppendEntriesRequest<Types>> + Unpin> Pipeline<S> {
    /// Sends what `input` gives through `client`.
    pub(super) fn new(client: RaftClient, input: S) -> Self {
        Self {
            client,
            input: Some(input),
            held: None,
            calls: FuturesOrdered::new(),
            ready: VecDeque::new(),
            has_sent: false,
            has_matched: false,
            is_over: false,
        }
    }

    fn take(&mut self, rpc: AppendEntriesRequest<Types>) {
        // The first append of a stream is a probe or a sign of life, which somebody waits for.
        if rpc.entries.is_empty() && self.has_sent && self.held.is_none() {
            self.held = Some((rpc, Box::pin(tokio::time::sleep(COMMIT_HOLD))));
            return;
        }
        self.send(rpc);
    }

    fn send(&mut self, rpc: AppendEntriesRequest<Types>) {
        self.has_sent = true;
        let held = self.held.take().map(|(held, _)| held.prev_log_id);
        let previous = rpc.prev_log_id;
        let last = rpc.entries.last().map(|entry| entry.log_id()).or(previous);
        let call = self.client.append(rpc);
        self.calls.push_back(Box::pin(async move {
            let (result, more_follow) = of_call(call.await, previous, last);
            Answered { held, result, more_follow }
        }));
    }

    fn poll_input(&mut self, cx: &mut Context<'_>) {
        while self.calls.len() < MAX_PIPELINED_APPENDS
            && let Some(input) = &mut self.input
        {
            match input.poll_next_unpin(cx) {
                Poll::Ready(Some(rpc)) => self.take(rpc),
                Poll::Ready(None) => self.input = None,
                Poll::Pending => break,
            }
        }
        let is_due = match &mut self.held {
            Some((_, hold)) => self.input.is_none() || hold.as_mut().poll(cx).is_ready(),
            None => false,
        };
        if is_due && let Some((rpc, _)) = self.held.take() {
            self.send(rpc);
        }
    }
}

fn of_call(
    result: Result<AppendEntriesResponse<Types>, RpcError>,
    previous: Option<LogId>,
    last: Option<LogId>,
) -> (Answer, bool) {
    let answer = match result {
        Ok(answer) => answer,
        Err(error) => return (Err(error), false),
    };
    if previous.is_none() && answer.is_conflict() {
        // Nothing precedes the log's start, so nothing can conflict with it.
        let error = NetworkError::from_string("conflict before the first entry");
        return (Err(RPCError::Network(error)), false);
    }
    let is_whole = match &answer {
        AppendEntriesResponse::Success => true,
        AppendEntriesResponse::PartialSuccess(reached) => *reached == last,
        AppendEntriesResponse::Conflict | AppendEntriesResponse::HigherVote(_) => false,
    };
    (Ok(answer.into_stream_result(previous, last)), is_whole)
}

impl<S: Stream<Item = AppendEntriesRequest<Types>> + Unpin> Stream for Pipeline<S> {
    type Item = Answer;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(answer) = this.ready.pop_front() {
            return Poll::Ready(Some(answer));
        }
        if this.is_over {
            return Poll::Ready(None);
        }
        this.poll_input(cx);
        match this.calls.poll_next_unpin(cx) {
            Poll::Ready(Some(Answered { held, result, more_follow })) => {
                this.is_over = !more_follow;
                let result = match result {
                    Ok(Err(StreamAppendError::Conflict(_))) if this.has_matched => {
                        let error = NetworkError::from_string("an append overtook another");
                        Err(RPCError::Network(error))
                    }
                    result => result,
                };
                this.has_matched |= result.as_ref().is_ok_and(Result::is_ok);
                match held.filter(|_| result.as_ref().is_ok_and(Result::is_ok)) {
                    Some(reached) => {
                        this.ready.push_back(result);
                        Poll::Ready(Some(Ok(Ok(reached))))
                    }
                    None => Poll::Ready(Some(result)),
                }
            }
            Poll::Ready(None) if this.input.is_none() && this.held.is_none() => Poll::Ready(None),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use aspen_api::Level;
    use aspen_api::codec::Wire;
    use bytes::Bytes;
    use futures_util::stream;
    use net_types::{EntityId, PeerAddr};
    use net_wire::Class;

    use openraft::network::RaftNetworkFactory;

    use super::super::client::{Dialing, RaftDialer};
    use super::super::message::{Reply, ReplyFrame};
    use super::super::{Transport, TransportFuture};
    use super::*;
    use crate::clock::{Drift, SystemClock};
    use crate::disk::MemoryDisk;
    use crate::log::{EntryId, LogEntry, RecordKind, StoredVote};
    use crate::raft_log::from_log;
    use crate::snapshot::Spool;
    use crate::state::Blocking;
    use crate::types::{Member, log_id, raft_vote};

    /// Answers calls one after another.
    struct Script(Mutex<VecDeque<Reply>>);

    impl Transport for Script {
        fn call(
            &self,
            _: &PeerAddr,
            _: &'static str,
            _: Class,
            _: Bytes,
            _: Duration,
        ) -> TransportFuture {
            let reply = self.0.lock().unwrap().pop_front().expect("an answer for each call");
            Box::pin(async {
                Ok(ReplyFrame { wall_ms: 1, top_level: Level::TOP, reply }.to_bytes())
            })
        }

        fn add_peer(&self, _: &PeerAddr) {}
    }

    fn append_after(index: u64) -> AppendEntriesRequest<Types> {
        let id = |index| EntryId { term: 1, index };
        let entry = LogEntry { id: id(index + 1), kind: RecordKind::Blank, payload: Bytes::new() };
        AppendEntriesRequest {
            vote: raft_vote(StoredVote { term: 1, node: 1, committed: true }),
            prev_log_id: Some(log_id(id(index))),
            entries: vec![from_log(entry).unwrap()],
            leader_commit: None,
        }
    }

    /// What openraft hears of appends that follow each other when they are answered so.
    async fn answers(replies: impl IntoIterator<Item = Reply>) -> Vec<Answer> {
        let replies: VecDeque<_> = replies.into_iter().collect();
        let input = stream::iter((1..).map(append_after).take(replies.len()));
        let peer = PeerAddr { entity_id: EntityId([2; 32]), addrs: vec![], relays: vec![] };
        let dialing = Arc::new(Dialing {
            transport: Arc::new(Script(Mutex::new(replies))),
            local: 1,
            clock: Arc::new(SystemClock::new()),
            drift: Drift::default(),
            spool: Arc::new(Spool::open(Arc::new(MemoryDisk::new())).unwrap()),
            blocking: Blocking::Inline,
            was_disowned: std::sync::atomic::AtomicBool::new(false),
            top_levels: Mutex::default(),
            append_deadline: Duration::from_secs(1),
        });
        let client = RaftDialer(dialing).new_client(2, &Member(peer)).await;
        Pipeline::new(client, input).collect().await
    }

    #[tokio::test]
    async fn a_follower_that_lacks_the_first_predecessor_conflicts() {
        let answers = answers([Reply::Conflict {}]).await;
        let [Ok(Err(StreamAppendError::Conflict(_)))] = answers.as_slice() else {
            panic!("{answers:?}");
        };
    }

    #[tokio::test]
    async fn an_append_that_overtook_another_is_a_failed_call() {
        let answers = answers([Reply::Appended {}, Reply::Conflict {}, Reply::Appended {}]).await;
        let [Ok(Ok(_)), Err(RPCError::Network(_))] = answers.as_slice() else {
            panic!("{answers:?}");
        };
    }
}
