//! The answering end: messages of other members, turned into calls of openraft. Invariant: openraft
//! hears only of members, and only what a correct member can send.

use std::io;
use std::sync::Arc;

use aspen_api::Level;
use aspen_api::codec::Wire;
use bytes::Bytes;
use net_types::{EntityId, Instant};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest,
};
use openraft::{Raft, Snapshot};
use tokio::sync::Mutex;

use super::message::{Refusal, Reply, ReplyFrame, Request, RequestFrame, are_consecutive};
use super::peers::Peers;
use super::standing::Standing;
use super::trust::Trust;
use crate::condition::{Condition, ensure};
use crate::runtime::Blocking;
use crate::snapshot::{ReceiveError, Receiver, SnapshotData, SnapshotFile, SnapshotId};
use crate::state::Progress;
use crate::storage::StateMachine;
use crate::types::{StoredMembership, Types, entry_id, log_id, raft_entry, raft_vote, stored_vote};
use aspen_log::{EntryId, LogEntry, StoredVote};

/// Answers the service `raft`.
pub(crate) struct RaftService {
    pub raft: Raft<Types, StateMachine>,
    pub peers: Arc<Peers>,
    pub trust: Trust,
    pub state: StateMachine,
    pub receiver: Arc<Mutex<Receiver>>,
    /// The highest feature level that this node understands.
    pub top_level: Level,
    pub blocking: Blocking,
    /// Until then no vote is given: before a restart this node may have promised a leader not to.
    pub votes_from: Instant,
    /// No vote is given once the log, on which votes depend, is damaged.
    pub condition: Arc<Condition>,
}

/// Farthest that a message's term may be ahead: thousands of years of elections.
const MAX_TERM_STEP: u64 = 1 << 32;

/// The vote of the leader or candidate that sends a message; `None` if the message needs none.
fn vote_of(request: &Request) -> Option<StoredVote> {
    match request {
        Request::Append { vote, .. }
        | Request::Vote { vote, .. }
        | Request::PreVote { vote, .. }
        | Request::SnapshotInstall { vote, .. }
        | Request::Transfer { vote, .. } => Some(*vote),
        Request::SnapshotOffer { .. } | Request::SnapshotPart { .. } => None,
    }
}

impl From<ReceiveError> for Refusal {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Io(_) | ReceiveError::TooLarge => Self::Storage,
            ReceiveError::Unknown => Self::NoTransfer,
            ReceiveError::Damaged | ReceiveError::Mismatch => Self::Damaged,
        }
    }
}

impl RaftService {
    /// Answers one message of `from`, whose identity the transport has authenticated.
    pub(crate) async fn handle(&self, from: EntityId, body: Bytes) -> Bytes {
        let reply = match RequestFrame::from_bytes(body) {
            Ok(frame) if !self.is_within_reach(&frame.request) => Err(Refusal::Malformed),
            Ok(frame) if !self.is_heard(&frame, from).await => Err(Refusal::NotMember),
            Ok(frame) => self.answer(frame.request).await,
            Err(_) => Err(Refusal::Malformed),
        };
        let reply = reply.unwrap_or_else(|reason| Reply::Refused { reason });
        ReplyFrame { wall_ms: self.peers.clock.wall().0, top_level: self.top_level, reply }
            .to_bytes()
    }

    /// Whether the sender is a member, and speaks for no other.
    async fn is_heard(&self, frame: &RequestFrame, from: EntityId) -> bool {
        let speaks_for = vote_of(&frame.request).map_or(frame.sender, |vote| vote.node);
        if speaks_for != frame.sender {
            return false;
        }
        let server = self.raft.server_metrics();
        let (standing, members) = {
            let metrics = server.borrow_watched();
            let members = &metrics.membership_config;
            let standing = self.trust.standing(members, frame.sender, from);
            (standing, (standing == Standing::Unknown).then(|| members.clone()))
        };
        match members {
            Some(members) => self.trust.ask_members(&members, frame.sender, from).await,
            None => standing == Standing::Member,
        }
    }

    /// Whether elections can have led to the term of a request. Terms must not run out, as they would
    /// after one message with the last of them.
    fn is_within_reach(&self, request: &Request) -> bool {
        let term = vote_of(request).map_or(0, |vote| vote.term);
        let own = self.raft.server_metrics().borrow_watched().vote.leader_id.term;
        term <= own.saturating_add(MAX_TERM_STEP)
    }

    async fn answer(&self, request: Request) -> Result<Reply, Refusal> {
        match request {
            Request::Append { vote, previous, committed, entries } => {
                self.append(vote, previous, committed, entries).await
            }
            Request::Vote { vote, last, is_transfer } => {
                self.may_vote()?;
                let mut rpc = VoteRequest::new(raft_vote(vote), last.map(log_id));
                rpc.leadership_transfer = is_transfer;
                self.raft.vote(rpc).await.map(vote_reply).map_err(|_| Refusal::Stopped)
            }
            Request::PreVote { vote, last } => {
                self.may_vote()?;
                let rpc = VoteRequest::new(raft_vote(vote), last.map(log_id));
                self.raft.pre_vote(rpc).await.map(vote_reply).map_err(|_| Refusal::Stopped)
            }
            Request::SnapshotOffer { id, len } => {
                let offset = self.receiver.lock().await.offer(id, len)?;
                Ok(Reply::SnapshotAt { offset })
            }
            Request::SnapshotPart { id, offset, crc, bytes } => {
                let offset = self.receiver.lock().await.part(id, offset, crc, &bytes)?;
                Ok(Reply::SnapshotAt { offset })
            }
            Request::SnapshotInstall { vote, id, applied, membership_at, membership } => {
                let membership = StoredMembership::new(membership_at.map(log_id), membership.0);
                let progress = Progress { applied: Some(applied), membership };
                self.install(vote, id, applied, progress).await
            }
            Request::Transfer { vote, to, last } => {
                let rpc = TransferLeaderRequest::new(raft_vote(vote), to, last.map(log_id));
                match self.raft.handle_transfer_leader(rpc).await {
                    Ok(Ok(())) => Ok(Reply::Transferred {}),
                    Ok(Err(_)) => Err(Refusal::NotNow),
                    Err(_) => Err(Refusal::Stopped),
                }
            }
        }
    }

    fn may_vote(&self) -> Result<(), Refusal> {
        ensure(!self.condition.is_damaged(), || Refusal::Storage)?;
        ensure(self.peers.clock.now() >= self.votes_from, || Refusal::TooEarly)
    }

    async fn append(
        &self,
        vote: StoredVote,
        previous: Option<EntryId>,
        committed: Option<EntryId>,
        entries: Vec<LogEntry>,
    ) -> Result<Reply, Refusal> {
        // openraft takes these for granted, since no correct leader breaks them.
        let fits = entries.iter().all(|entry| entry.id.term <= vote.term);
        if !vote.committed || !fits || !are_consecutive(previous, &entries) {
            return Err(Refusal::Malformed);
        }
        let entries: io::Result<Vec<_>> = entries.into_iter().map(raft_entry).collect();
        let rpc = AppendEntriesRequest {
            vote: raft_vote(vote),
            prev_log_id: previous.map(log_id),
            entries: entries.map_err(|_| Refusal::Malformed)?,
            leader_commit: committed.map(log_id),
        };
        let answer = self.raft.append_entries(rpc).await.map_err(|_| Refusal::Stopped)?;
        if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
            self.peers.note_leader(self.peers.clock.now());
        }
        Ok(match answer {
            AppendEntriesResponse::Success => Reply::Appended {},
            AppendEntriesResponse::PartialSuccess(last) => {
                Reply::AppendedUpTo { last: last.as_ref().map(entry_id) }
            }
            AppendEntriesResponse::Conflict => Reply::Conflict {},
            AppendEntriesResponse::HigherVote(vote) => {
                Reply::HigherVote { vote: stored_vote(&vote) }
            }
        })
    }

    async fn install(
        &self,
        vote: StoredVote,
        id: SnapshotId,
        applied: EntryId,
        progress: Progress,
    ) -> Result<Reply, Refusal> {
        let local = self.state.store().applied();
        let contradicts =
            local.is_some_and(|local| applied > local && applied.index <= local.index);
        if !vote.committed || applied.term > vote.term || contradicts {
            return Err(Refusal::Malformed);
        }
        let mut receiver = self.receiver.clone().lock_owned().await;
        let finish = move || receiver.finish(id, progress);
        let file: SnapshotFile =
            self.blocking.run(finish).await.map_err(|_| Refusal::Storage)??;
        let meta = file.progress.meta();
        let snapshot = Snapshot { meta, snapshot: SnapshotData::File(file) };
        let installed = self.raft.install_full_snapshot(raft_vote(vote), snapshot).await;
        let answer = installed.map_err(|_| Refusal::Stopped)?;
        Ok(Reply::Installed { vote: stored_vote(&answer.vote) })
    }
}

fn vote_reply(answer: openraft::raft::VoteResponse<Types>) -> Reply {
    Reply::Vote {
        vote: stored_vote(&answer.vote),
        is_granted: answer.vote_granted,
        last: answer.last_log_id.as_ref().map(entry_id),
    }
}
