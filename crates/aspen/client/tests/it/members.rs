//! Members that share one state machine and misbehave on demand.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aspen_api::cluster::{LeaderResult, Member, RaftMetricsResult, RaftState};
use aspen_api::{
    ApiError, AuthenticatedRequest, ClusterId, ClusterTicket, ErrorCode, MemberId, MeshKey,
    MeshTicket, Request, RequestId, Response, Revision, service,
};
use aspen_client::{Client, ClientOptions};
use aspen_kv::{Applier, Command, MemoryTables, Proposal, View};
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
    /// Carries them out and answers with a number that is not in this build.
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

    fn carry_out(&mut self, framed: AuthenticatedRequest) -> Response {
        let command = match Command::from_request(framed.request) {
            Ok(command) => command,
            Err(Request::GetLeader(_)) => return LeaderResult { leader: self.leader() }.into(),
            Err(Request::GetRaftMetrics(_)) => return self.metrics().into(),
            Err(other) => {
                let view = View::open(&self.tables, 0).unwrap();
                return view.answer(&other).unwrap().unwrap_or_else(Response::Error);
            }
        };
        self.revision += 1;
        let request_id = framed.request_id.named();
        let proposal = Proposal { log_time_ms: self.now_ms, request_id, command };
        let mut applier = Applier::open(&mut self.tables).unwrap();
        let reply = applier.apply(Revision(self.revision), &proposal).unwrap();
        applier.finish().unwrap();
        reply.into()
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

    fn answer(&mut self, member: usize, framed: AuthenticatedRequest) -> Option<Bytes> {
        // What a member says of itself does not depend on how it deals with requests.
        let is_of_itself = matches!(framed.request, Request::GetRaftMetrics(_));
        let is_unreadable = self.moods[member] == Mood::AnswersUnreadably && !is_of_itself;
        let response = self.respond(member, framed)?;
        match is_unreadable {
            true => Some(Bytes::from_static(&[1, 0xff, 0xff])),
            false => Some(response.encode()),
        }
    }

    fn respond(&mut self, member: usize, framed: AuthenticatedRequest) -> Option<Response> {
        self.asked.push((member, framed.request.name(), framed.request_id));
        let is_leader_question = matches!(framed.request, Request::GetLeader(_));
        let is_of_itself = matches!(framed.request, Request::GetRaftMetrics(_));
        match self.moods[member] {
            Mood::Silent => None,
            _ if is_of_itself => Some(self.carry_out(framed)),
            Mood::Leads | Mood::AnswersUnreadably => Some(self.carry_out(framed)),
            Mood::Follows if is_leader_question || is_stale(&framed.request) => {
                Some(self.carry_out(framed))
            }
            Mood::Follows => {
                Some(ApiError::not_leader(self.leader().map(|leader| leader.addr)).into())
            }
            Mood::Refuses(code) => Some(ApiError::new(code, "scripted").into()),
            Mood::LosesAnswers => {
                self.carry_out(framed);
                None
            }
            Mood::LeavesOpen => {
                self.carry_out(framed);
                Some(ApiError::new(ErrorCode::Timeout, "the outcome is unknown").into())
            }
        }
    }
}

fn is_stale(request: &Request) -> bool {
    matches!(request, Request::ReadKey(r) if r.consistency == aspen_api::kv::Consistency::Stale)
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
                let framed = AuthenticatedRequest::decode(body).unwrap();
                match shared.lock().unwrap().answer(member, framed) {
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

    /// The names under which writes came.
    pub(crate) fn request_ids(&self) -> Vec<RequestId> {
        let state = self.state.lock().unwrap();
        state.asked.iter().map(|asked| asked.2).filter(|id| id.named().is_some()).collect()
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
