//! The asking end: openraft's calls to one member, turned into messages. Messages leave in the order in
//! which their futures are first polled.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use aspen_api::codec::Wire;
use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::stream::Stream;
use net_types::limits::SNAPSHOT_PART_BYTES;
use net_types::{PeerAddr, UnixMillis};
use net_wire::Class;
use openraft::alias::SnapshotOf;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RPCTypes};

use super::message::{Refusal, Reply, ReplyFrame, Request, RequestFrame};
use super::peers::Peers;
use super::pipeline::{Pipeline, RpcError};
use super::transport::TransportError;
use crate::runtime::Blocking;
use crate::snapshot::{SnapshotData, SnapshotFile, Spool};
use crate::state::StoreError;
use crate::types::{
    Member, MembershipRecord, RaftVote, Types, entry_id, log_entry, log_id, raft_vote, stored_vote,
};

/// Time for the checks and the installation of a snapshot, in addition to what its size takes.
const INSTALL_DEADLINE: Duration = Duration::from_secs(60);
/// Slowest installation that is waited for, bytes a second.
const INSTALL_BYTES_PER_SECOND: u64 = 4 << 20;
/// Time for one part of a snapshot.
const PART_DEADLINE: Duration = Duration::from_secs(30);
/// Parts that may be refused in one transfer before it is given up.
const MAX_PART_RETRIES: u32 = 8;
/// Waits before an unreachable peer is tried again.
const BACKOFF_MS: [u64; 5] = [50, 100, 200, 300, 500];

/// Makes the clients of a node.
#[derive(Clone)]
pub(crate) struct RaftDialer {
    pub peers: Arc<Peers>,
    pub spool: Arc<Spool>,
    pub blocking: Blocking,
    /// Time for one append: long enough for a slow disk, short enough to notice a dead peer.
    pub append_deadline: Duration,
}

impl RaftNetworkFactory<Types> for RaftDialer {
    type Network = RaftClient;

    async fn new_client(&mut self, target: u64, node: &Member) -> RaftClient {
        RaftClient { dialer: self.clone(), target, peer: node.0.clone() }
    }
}

/// Calls one member.
#[derive(Clone)]
pub(crate) struct RaftClient {
    dialer: RaftDialer,
    target: u64,
    peer: PeerAddr,
}

/// Why a call had no useful answer.
enum CallError {
    Transport(TransportError),
    Refused(Refusal),
    Malformed,
}

impl CallError {
    /// For openraft: the error of a call of `id` to `target`.
    fn into_rpc(self, action: RPCTypes, (id, target): (u64, u64), timeout: Duration) -> RpcError {
        match self {
            Self::Transport(TransportError::Timeout) => {
                RPCError::Timeout(Timeout { action, id, target, timeout })
            }
            Self::Transport(TransportError::Unreachable(text)) => {
                RPCError::Unreachable(Unreachable::from_string(text))
            }
            Self::Transport(TransportError::Failed(text)) => {
                RPCError::Network(NetworkError::from_string(text))
            }
            // A member that refuses for one of these reasons does so again at once.
            Self::Refused(reason @ (Refusal::Stopped | Refusal::Storage | Refusal::NotMember)) => {
                RPCError::Unreachable(Unreachable::from_string(format!("refused: {reason:?}")))
            }
            Self::Refused(
                reason @ (Refusal::TooEarly
                | Refusal::NoTransfer
                | Refusal::Malformed
                | Refusal::Damaged
                | Refusal::NotNow),
            ) => RPCError::Network(NetworkError::from_string(format!("refused: {reason:?}"))),
            Self::Malformed => {
                RPCError::Network(NetworkError::from_string("answer is not one to the request"))
            }
        }
    }
}

impl RaftClient {
    /// The numbers of the caller and the called.
    fn ends(&self) -> (u64, u64) {
        (self.dialer.peers.local, self.target)
    }

    /// Sends a request. The transport's part happens when the future is first polled.
    fn call(
        &self,
        request: Request,
        class: Class,
        deadline: Duration,
    ) -> impl Future<Output = Result<Reply, CallError>> + Send + use<> {
        let (peers, target) = (self.dialer.peers.clone(), self.target);
        let (sent_at, sent) = (peers.clock.now(), peers.clock.wall());
        let frame = RequestFrame { sender: peers.local, wall_ms: sent.0, request };
        let body = frame.to_bytes();
        let call =
            peers.transport.call(&self.peer, aspen_api::service::RAFT, class, body, deadline);
        async move {
            let bytes = call.await.map_err(CallError::Transport)?;
            let frame = ReplyFrame::from_bytes(bytes).map_err(|_| CallError::Malformed)?;
            let (took, theirs) = (peers.clock.now().since(sent_at), UnixMillis(frame.wall_ms));
            peers.drift.observe(target, took, sent, peers.clock.wall(), theirs);
            peers.note_level(target, frame.top_level);
            let Reply::Refused { reason } = frame.reply else { return Ok(frame.reply) };
            let is_disowned = reason == Refusal::NotMember;
            if peers.note_refusal(is_disowned) && is_disowned {
                tracing::warn!(
                    "node {target} does not count this node among the members; if it was removed \
                     or expunged, stop it: it comes back with an empty data folder"
                );
            }
            Err(CallError::Refused(reason))
        }
    }

    /// Sends a request of consensus; `read` takes what was asked for from the reply.
    fn exchange<T: 'static>(
        &self,
        action: RPCTypes,
        class: Class,
        request: Request,
        deadline: Duration,
        read: fn(Reply) -> Option<T>,
    ) -> impl Future<Output = Result<T, RpcError>> + Send + use<T> {
        let call = self.call(request, class, deadline);
        let ends = self.ends();
        async move {
            let answer = call.await.and_then(|reply| read(reply).ok_or(CallError::Malformed));
            answer.map_err(|error| error.into_rpc(action, ends, deadline))
        }
    }

    fn append(
        &self,
        rpc: AppendEntriesRequest<Types>,
    ) -> impl Future<Output = Result<AppendEntriesResponse<Types>, RpcError>> + Send + use<> {
        let request = Request::Append {
            vote: stored_vote(&rpc.vote),
            previous: rpc.prev_log_id.as_ref().map(entry_id),
            committed: rpc.leader_commit.as_ref().map(entry_id),
            entries: rpc.entries.into_iter().map(log_entry).collect(),
        };
        let deadline = self.dialer.append_deadline;
        self.exchange(RPCTypes::AppendEntries, Class::Realtime, request, deadline, append_answer)
    }

    async fn ask_vote(
        &self,
        request: Request,
        deadline: Duration,
    ) -> Result<VoteResponse<Types>, RpcError> {
        let read = |reply| match reply {
            Reply::Vote { vote, is_granted, last } => {
                Some(VoteResponse::new(raft_vote(vote), last.map(log_id), is_granted))
            }
            _ => None,
        };
        self.exchange(RPCTypes::Vote, Class::Realtime, request, deadline, read).await
    }

    async fn send_snapshot(
        &self,
        vote: RaftVote,
        data: SnapshotData,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let file = match data {
            SnapshotData::File(file) => file,
            SnapshotData::View(view) => {
                let spool = self.dialer.spool.clone();
                let written = self.dialer.blocking.run(move || spool.file_of(&view)).await;
                // The state itself is sound: a file that cannot be written, for want of room or
                // because it is too large, must not end the leader, but be tried again later.
                written.map_err(StoreError::from).and_then(|written| written).map_err(|error| {
                    tracing::error!(%error, "a follower needs a snapshot, which cannot be written");
                    Unreachable::new(&error)
                })?
            }
        };
        let action = RPCTypes::InstallSnapshot;
        let fail = |error: CallError| error.into_rpc(action, self.ends(), PART_DEADLINE);
        self.send_parts(&file).await.map_err(fail)?;
        let request = install_request(&vote, &file).ok_or_else(|| fail(CallError::Malformed))?;
        let deadline = INSTALL_DEADLINE + Duration::from_secs(file.len / INSTALL_BYTES_PER_SECOND);
        let read = |reply| match reply {
            Reply::Installed { vote } => Some(SnapshotResponse::new(raft_vote(vote))),
            _ => None,
        };
        Ok(self.exchange(action, Class::Background, request, deadline, read).await?)
    }

    async fn send_parts(&self, file: &SnapshotFile) -> Result<(), CallError> {
        let id = file.id;
        let send = |request| self.call(request, Class::Background, PART_DEADLINE);
        let offer = || send(Request::SnapshotOffer { id, len: file.len });
        let mut at = offset_of(offer().await?)?;
        let mut retries = 0;
        while at < file.len {
            let len = (file.len - at).min(SNAPSHOT_PART_BYTES as u64) as usize;
            let mut part = vec![0; len];
            file.file
                .read_at(&mut part, at)
                .map_err(|error| CallError::Transport(TransportError::Failed(error.to_string())))?;
            let (crc, bytes) = (crc32fast::hash(&part), Bytes::from(part));
            let request = Request::SnapshotPart { id, offset: at, crc, bytes };
            match send(request).await.and_then(offset_of) {
                Ok(next) => at = next,
                Err(CallError::Refused(Refusal::NoTransfer | Refusal::Damaged))
                    if retries < MAX_PART_RETRIES =>
                {
                    retries += 1;
                    at = offset_of(offer().await?)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// openraft's answer to an append; `None` if the reply is not one to an append.
fn append_answer(reply: Reply) -> Option<AppendEntriesResponse<Types>> {
    match reply {
        Reply::Appended {} => Some(AppendEntriesResponse::Success),
        Reply::AppendedUpTo { last } => {
            Some(AppendEntriesResponse::PartialSuccess(last.map(log_id)))
        }
        Reply::Conflict {} => Some(AppendEntriesResponse::Conflict),
        Reply::HigherVote { vote } => Some(AppendEntriesResponse::HigherVote(raft_vote(vote))),
        _ => None,
    }
}

/// Has the receiver install a snapshot of which it has every part; `None` for one of an empty state.
fn install_request(vote: &RaftVote, file: &SnapshotFile) -> Option<Request> {
    let membership = &file.progress.membership;
    Some(Request::SnapshotInstall {
        vote: stored_vote(vote),
        id: file.id,
        applied: file.progress.applied?,
        membership_at: membership.log_id().as_ref().map(entry_id),
        membership: MembershipRecord(membership.membership().clone()),
    })
}

fn offset_of(reply: Reply) -> Result<u64, CallError> {
    match reply {
        Reply::SnapshotAt { offset } => Ok(offset),
        _ => Err(CallError::Malformed),
    }
}

impl RaftNetworkV2<Types> for RaftClient {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RpcError> {
        self.append(rpc).await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<Types>, RpcError>>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        let client = self.clone();
        let pipeline = Pipeline::new(move |rpc| client.append(rpc), input);
        Box::pin(async move {
            let stream: BoxStream<'s, _> = Box::pin(pipeline);
            Ok(stream)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RpcError> {
        let request = Request::Vote {
            vote: stored_vote(&rpc.vote),
            last: rpc.last_log_id.as_ref().map(entry_id),
            is_transfer: rpc.leadership_transfer,
        };
        self.ask_vote(request, option.soft_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RpcError> {
        let request = Request::PreVote {
            vote: stored_vote(&rpc.vote),
            last: rpc.last_log_id.as_ref().map(entry_id),
        };
        self.ask_vote(request, option.soft_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: SnapshotOf<Types, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let cancel = pin!(cancel);
        let send = pin!(self.send_snapshot(vote, snapshot.snapshot));
        match select(cancel, send).await {
            Either::Left((closed, _)) => Err(closed.into()),
            Either::Right((result, _)) => result,
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RpcError> {
        let request = Request::Transfer {
            vote: stored_vote(req.from_leader()),
            to: *req.to_node_id(),
            last: req.last_log_id().map(entry_id),
        };
        let read = |reply| matches!(reply, Reply::Transferred {}).then_some(Ok(()));
        let (action, deadline) = (RPCTypes::TransferLeader, option.soft_ttl());
        self.exchange(action, Class::Realtime, request, deadline, read).await
    }

    fn backoff(&self) -> Option<Backoff> {
        let last = BACKOFF_MS[BACKOFF_MS.len() - 1];
        let waits = BACKOFF_MS.into_iter().chain(std::iter::repeat(last));
        Some(Backoff::new(waits.map(Duration::from_millis)))
    }
}
