//! Members that share one state machine and misbehave on demand.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aspen_api::cluster::{
    ExpungeNode, GetLeader, GetRaftMetrics, InitCluster, LeaderResult, Member, RaftMetricsResult,
    RaftState,
};
use aspen_api::codec::Wire;
use aspen_api::kv::{Consistency, ReadKey, Transact};
use aspen_api::{
    ApiError, ClusterId, ClusterTicket, EncodedReply, ErrorCode, MemberId, MeshKey, MeshTicket,
    Number, Request, RequestFrame, RequestId, Response, Revision, service,
};
use aspen_client::{Client, ClientOptions};
use aspen_kv::{Applier, MemoryTables, Mutation, Proposal, Query, Reply, View};
use bytes::Bytes;
use net_node::{
    EntityKeypair, HandlerFuture, MeshConfig, MeshNode, MeshSecret, PeerAddr, RpcContext,
    ServeHandle, ServiceName,
};

const MESH_KEY: [u8; 32] = [9; 32];

/// What a member does with requests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Carries them out.
    Leads,
    /// Names the leader, as far as there is one.
    Follows,
    /// Refuses with this code.
    Refuses(ErrorCode),
    /// Gives no answer.
    Silent,
    /// Carries them out and gives no answer.
    LosesAnswers,
    /// Carries them out and answers that the outcome is unknown, as a leader does whose consensus
    /// ends after it has sent the entry to the others.
    LeavesOpen,
    /// Carries them out and answers with bytes that are no response.
    AnswersUnreadably,
}

#[derive(Default)]
struct State {
    moods: Vec<Mood>,
    addrs: Vec<PeerAddr>,
    tables: MemoryTables,
    revision: u64,
    now_ms: u64,
    asked: Vec<(usize, &'static str, RequestId)>,
}

impl State {
    fn leader(&self) -> Option<Member> {
        let at = self.moods.iter().position(|mood| *mood == Mood::Leads)?;
        Some(Member { node_id: MemberId(at as u64), addr: self.addrs[at].clone() })
    }

    fn carry_out(&mut self, frame: RequestFrame) -> Result<Bytes, ApiError> {
        let body = frame.body.clone();
        match frame.number {
            GetLeader::NUMBER => Ok(LeaderResult { leader: self.leader() }.to_bytes()),
            GetRaftMetrics::NUMBER => Ok(self.metrics().to_bytes()),
            ReadKey::NUMBER => {
                let view = View::open(&self.tables, 0).unwrap();
                Ok(ReadKey::from_bytes(body).unwrap().answer(&view).unwrap().to_bytes())
            }
            Transact::NUMBER => {
                let request = Transact::from_bytes(body).unwrap();
                self.revision += 1;
                let request_id = frame.request_id.some();
                let command = request.into_command();
                let proposal = Proposal { log_time_ms: self.now_ms, request_id, command };
                let mut applier = Applier::open(&mut self.tables).unwrap();
                let reply = applier.apply(Revision(self.revision), &proposal).unwrap();
                applier.finish().unwrap();
                match reply {
                    Reply::Refused { error } => Err(error),
                    reply => Ok(Transact::reply(reply).unwrap().to_bytes()),
                }
            }
            _ => Err(ApiError::new(ErrorCode::Unsupported, "not scripted")),
        }
    }

    fn metrics(&self) -> RaftMetricsResult {
        RaftMetricsResult {
            node_id: MemberId(0),
            state: RaftState::Leader,
            leader: None,
            term: 1,
            last_log_index: Some(self.revision),
            last_applied_index: Some(self.revision),
            snapshot_index: None,
            purged_index: None,
            replication: vec![],
        }
    }

    fn answer(&mut self, member: usize, frame: RequestFrame) -> Option<Bytes> {
        // What a member says of itself does not depend on how it deals with requests.
        let is_of_itself = frame.number == GetRaftMetrics::NUMBER;
        let is_unreadable = self.moods[member] == Mood::AnswersUnreadably && !is_of_itself;
        let result = self.respond(member, frame)?.map(EncodedReply);
        match is_unreadable {
            true => Some(Bytes::from_static(&[1, 0xff, 0xff])),
            false => Some(Response { applied: Revision(self.revision), result }.encode()),
        }
    }

    fn respond(&mut self, member: usize, frame: RequestFrame) -> Option<Result<Bytes, ApiError>> {
        self.asked.push((member, name(frame.number), frame.request_id));
        let is_leader_question = frame.number == GetLeader::NUMBER;
        let is_of_itself = frame.number == GetRaftMetrics::NUMBER;
        match self.moods[member] {
            Mood::Silent => None,
            _ if is_of_itself => Some(self.carry_out(frame)),
            Mood::Leads | Mood::AnswersUnreadably => Some(self.carry_out(frame)),
            Mood::Follows if is_leader_question || is_stale(&frame) => Some(self.carry_out(frame)),
            Mood::Follows => {
                Some(Err(ApiError::not_leader(self.leader().map(|leader| leader.addr))))
            }
            Mood::Refuses(code) => Some(Err(ApiError::new(code, "scripted"))),
            Mood::LosesAnswers => {
                // The answer is lost.
                let _ = self.carry_out(frame);
                None
            }
            Mood::LeavesOpen => {
                let _ = self.carry_out(frame);
                Some(Err(ApiError::new(ErrorCode::Timeout, "the outcome is unknown")))
            }
        }
    }
}

fn name(number: Number) -> &'static str {
    match number {
        GetLeader::NUMBER => GetLeader::NAME,
        GetRaftMetrics::NUMBER => GetRaftMetrics::NAME,
        ReadKey::NUMBER => ReadKey::NAME,
        Transact::NUMBER => Transact::NAME,
        ExpungeNode::NUMBER => ExpungeNode::NAME,
        InitCluster::NUMBER => InitCluster::NAME,
        other => panic!("request {other}"),
    }
}

fn is_stale(frame: &RequestFrame) -> bool {
    let read = || ReadKey::from_bytes(frame.body.clone()).unwrap();
    frame.number == ReadKey::NUMBER && read().consistency == Consistency::Stale
}

/// Scripted members on loopback.
pub(crate) struct Members {
    state: Arc<Mutex<State>>,
    nodes: Vec<(MeshNode, ServeHandle)>,
}

pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub(crate) fn mesh_node(seed: u8) -> MeshNode {
    let identity = EntityKeypair::from_seed([seed; 32]);
    MeshNode::bind(MeshConfig::new(identity, MeshSecret::new(MESH_KEY), loopback())).unwrap()
}

impl Members {
    pub(crate) fn start(moods: &[Mood]) -> Self {
        let state = Arc::new(Mutex::new(State { moods: moods.to_vec(), ..State::default() }));
        let mut nodes = Vec::new();
        for member in 0..moods.len() {
            let node = mesh_node(1 + member as u8);
            let addr = PeerAddr::direct(node.entity_id(), node.local_addr());
            state.lock().unwrap().addrs.push(addr);
            let shared = state.clone();
            let handler = move |_: RpcContext, body: Bytes| {
                let frame = RequestFrame::decode(body).unwrap();
                match shared.lock().unwrap().answer(member, frame) {
                    Some(answer) => HandlerFuture::ready(Ok(answer)),
                    None => HandlerFuture::later(std::future::pending()),
                }
            };
            let name = ServiceName::new(service::CLIENT).unwrap();
            let handle = node.serve(name, Arc::new(handler)).unwrap();
            nodes.push((node, handle));
        }
        Self { state, nodes }
    }

    /// Lets log time pass.
    pub(crate) fn pass(&self, time: Duration) {
        self.state.lock().unwrap().now_ms += time.as_millis() as u64;
    }

    pub(crate) fn set_mood(&self, member: usize, mood: Mood) {
        self.state.lock().unwrap().moods[member] = mood;
    }

    /// Names of the requests that a member was asked, questions about the leader and about how far
    /// the log is apart.
    pub(crate) fn asked(&self, member: usize) -> Vec<&'static str> {
        let state = self.state.lock().unwrap();
        let of_member = state.asked.iter().filter(|asked| asked.0 == member);
        of_member
            .map(|asked| asked.1)
            .filter(|name| !["GetLeader", "GetRaftMetrics"].contains(name))
            .collect()
    }

    /// The ids under which writes came.
    pub(crate) fn request_ids(&self) -> Vec<RequestId> {
        let state = self.state.lock().unwrap();
        state.asked.iter().map(|asked| asked.2).filter(|id| id.some().is_some()).collect()
    }

    pub(crate) fn ticket(&self, members: &[usize]) -> ClusterTicket {
        let state = self.state.lock().unwrap();
        ticket(members.iter().map(|at| state.addrs[*at].clone()).collect())
    }

    /// A client whose ticket lists these members.
    pub(crate) fn client(&self, members: &[usize], deadline: Duration) -> Client {
        let options = ClientOptions { deadline, ..ClientOptions::default() };
        Client::connect(&self.ticket(members), options).unwrap()
    }

    pub(crate) async fn stop(&self, member: usize) {
        self.nodes[member].0.shutdown().await;
    }
}

pub(crate) fn ticket(peers: Vec<PeerAddr>) -> ClusterTicket {
    ClusterTicket {
        cluster_id: ClusterId([1; 32]),
        mesh_key: MeshKey(MESH_KEY),
        mesh: MeshTicket { label: "test".into(), peers },
    }
}
