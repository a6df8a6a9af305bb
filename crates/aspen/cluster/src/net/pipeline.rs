//! Appends under way to one member, answered in the order they were sent.
//!
//! openraft sends a follower each advance of the commit point, in an append without entries if there
//! are none to send. While writes flow, entries that can carry the commit point follow soon, so an
//! append without entries is held back for up to [`COMMIT_HOLD`]. When a later append succeeds,
//! the earlier one counts as a success too: it asked for less.
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

use crate::types::{LogId, Types};

/// Longest time that a commit point waits for entries to ride on. Followers show writes this much
/// later when none follow.
const COMMIT_HOLD: Duration = Duration::from_millis(5);

/// Why an append has no answer.
pub(super) type RpcError = RPCError<Types>;
/// An answer for openraft.
type Answer = Result<StreamAppendResult<Types>, RpcError>;

/// Answers of one call, the held append's first, and whether more follow them.
struct Answered {
    held: Option<Option<LogId>>,
    result: Answer,
    more_follow: bool,
}

/// See the module. Invariant: at most [`MAX_PIPELINED_APPENDS`] calls are under way, and one append
/// more is held.
pub(super) struct Pipeline<S, F> {
    /// Sends one append.
    append: F,
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

impl<S, F, C> Pipeline<S, F>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Unpin,
    F: Fn(AppendEntriesRequest<Types>) -> C,
    C: Future<Output = Result<AppendEntriesResponse<Types>, RpcError>> + Send + 'static,
{
    /// Sends what `input` gives by `append`.
    pub(super) fn new(append: F, input: S) -> Self {
        Self {
            append,
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
        // The first append of a stream is a probe or a heartbeat, for which openraft waits.
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
        let call = (self.append)(rpc);
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

impl<S, F, C> Stream for Pipeline<S, F>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Unpin,
    F: Fn(AppendEntriesRequest<Types>) -> C + Unpin,
    C: Future<Output = Result<AppendEntriesResponse<Types>, RpcError>> + Send + 'static,
{
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
    use std::sync::Mutex;

    use aspen_log::{EntryId, LogEntry, RecordKind, StoredVote};
    use bytes::Bytes;
    use futures_util::stream;

    use super::*;
    use crate::types::{log_id, raft_entry, raft_vote};

    fn append_after(index: u64) -> AppendEntriesRequest<Types> {
        let id = |index| EntryId { term: 1, index };
        let entry = LogEntry { id: id(index + 1), kind: RecordKind::Blank, payload: Bytes::new() };
        AppendEntriesRequest {
            vote: raft_vote(StoredVote { term: 1, node: 1, committed: true }),
            prev_log_id: Some(log_id(id(index))),
            entries: vec![raft_entry(entry).unwrap()],
            leader_commit: None,
        }
    }

    /// What openraft receives for consecutive appends with these replies.
    async fn answers<const N: usize>(replies: [AppendEntriesResponse<Types>; N]) -> Vec<Answer> {
        let replies = Mutex::new(VecDeque::from(replies));
        let reply = |_| {
            let reply = replies.lock().unwrap().pop_front().expect("an answer for each call");
            std::future::ready(Ok(reply))
        };
        Pipeline::new(reply, stream::iter((1..).map(append_after).take(N))).collect().await
    }

    #[tokio::test]
    async fn a_follower_that_lacks_the_first_predecessor_conflicts() {
        let answers = answers([AppendEntriesResponse::Conflict]).await;
        let [Ok(Err(StreamAppendError::Conflict(_)))] = answers.as_slice() else {
            panic!("{answers:?}");
        };
    }

    #[tokio::test]
    async fn an_append_that_overtook_another_is_a_failed_call() {
        use AppendEntriesResponse::{Conflict, Success};
        let answers = answers([Success, Conflict, Success]).await;
        let [Ok(Ok(_)), Err(RPCError::Network(_))] = answers.as_slice() else {
            panic!("{answers:?}");
        };
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_point_rides_on_entries_or_goes_alone_after_its_hold() {
        let empty = |index| AppendEntriesRequest { entries: vec![], ..append_after(index) };
        let lens = Mutex::new(Vec::new());
        let append = |rpc: AppendEntriesRequest<Types>| {
            lens.lock().unwrap().push(rpc.entries.len());
            std::future::ready(Ok(AppendEntriesResponse::Success))
        };
        let input = [append_after(1), empty(2), append_after(2), empty(3)];
        let answers: Vec<_> = Pipeline::new(append, stream::iter(input)).collect().await;
        assert_eq!(answers.len(), 4, "each is answered");
        assert_eq!(*lens.lock().unwrap(), [1, 1, 0], "the first commit point rode along");
    }
}
