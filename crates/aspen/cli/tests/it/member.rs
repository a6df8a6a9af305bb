//! A member of a one-node cluster, and the program pointed at it.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command as Process, Stdio};
use std::sync::{Arc, Mutex};

use aspen_api::cluster::{ClusterNode, ClusterStateResult, TicketResult};
use aspen_api::{
    ApiError, AuthenticatedRequest, ClusterId, ClusterTicket, ErrorCode, MemberId, MeshKey,
    MeshTicket, Request, Response, Revision, service,
};
use aspen_kv::{Applier, Command, MemoryTables, Proposal, View};
use bytes::Bytes;
use net_node::{
    EntityKeypair, HandlerFuture, MeshConfig, MeshNode, MeshSecret, PeerAddr, RpcContext,
    ServeHandle, ServiceName,
};
use serde_json::Value;
use tempfile::TempDir;

#[derive(Default)]
struct State {
    tables: MemoryTables,
    revision: u64,
    tokens: Vec<Option<Bytes>>,
    refusal: Option<ErrorCode>,
}

impl State {
    fn answer(&mut self, framed: AuthenticatedRequest, ticket: &ClusterTicket) -> Response {
        self.tokens.push(framed.token);
        if let Some(code) = self.refusal {
            return ApiError::new(code, "scripted").into();
        }
        match Command::from_request(framed.request) {
            Ok(command) => {
                self.revision += 1;
                let request_id = framed.request_id.named();
                let proposal = Proposal { log_time_ms: 0, request_id, command };
                let mut applier = Applier::open(&mut self.tables).unwrap();
                let reply = applier.apply(Revision(self.revision), &proposal).unwrap();
                applier.finish().unwrap();
                reply.into()
            }
            Err(Request::GetClusterTicket(_)) => TicketResult { ticket: ticket.to_text() }.into(),
            Err(Request::GetClusterState(_)) => {
                let node = ClusterNode {
                    node_id: MemberId(1),
                    addr: ticket.peers()[0].clone(),
                    is_voter: true,
                    is_learner: false,
                    is_leader: true,
                };
                ClusterStateResult { nodes: vec![node] }.into()
            }
            Err(other) => View::open(&self.tables, 0)
                .unwrap()
                .answer(&other)
                .unwrap_or_else(|| Err(ApiError::new(ErrorCode::Unsupported, "not here")))
                .unwrap_or_else(Response::Error),
        }
    }
}

/// What a run of the program left.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// The one document on stdout.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.text().lines().count(), 1, "{}", self.text());
        serde_json::from_slice(&self.stdout).unwrap()
    }
}

/// A running member with a folder for files.
pub(crate) struct Member {
    state: Arc<Mutex<State>>,
    pub(crate) ticket: ClusterTicket,
    pub(crate) folder: TempDir,
    _node: MeshNode,
    _service: ServeHandle,
    _runtime: tokio::runtime::Runtime,
}

impl Member {
    pub(crate) fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let guard = runtime.enter();
        let secret = MeshSecret::new([9; 32]);
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let identity = EntityKeypair::from_seed([1; 32]);
        let node = MeshNode::bind(MeshConfig::new(identity, secret, loopback)).unwrap();
        let ticket = ClusterTicket {
            cluster_id: ClusterId([1; 32]),
            mesh_key: MeshKey([9; 32]),
            mesh: MeshTicket {
                label: "test".into(),
                peers: vec![PeerAddr::direct(node.entity_id(), node.local_addr())],
            },
        };
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, own_ticket) = (state.clone(), ticket.clone());
        let handler = move |_: RpcContext, body: Bytes| {
            let framed = AuthenticatedRequest::decode(body).unwrap();
            let response = shared.lock().unwrap().answer(framed, &own_ticket);
            HandlerFuture::ready(Ok(response.encode()))
        };
        let name = ServiceName::new(service::CLIENT).unwrap();
        let service = node.serve(name, Arc::new(handler)).unwrap();
        drop(guard);
        let folder = tempfile::tempdir().unwrap();
        Self { state, ticket, folder, _node: node, _service: service, _runtime: runtime }
    }

    pub(crate) fn refuse(&self, code: Option<ErrorCode>) {
        self.state.lock().unwrap().refusal = code;
    }

    pub(crate) fn last_token(&self) -> Option<Bytes> {
        self.state.lock().unwrap().tokens.last().cloned().flatten()
    }

    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Runs the program with the ticket in its environment.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, b"")
    }

    pub(crate) fn run_with(&self, args: &[&str], stdin: &[u8]) -> Ran {
        let mut process = program();
        process.env("ASPEN_TICKET", self.ticket.to_text().expose()).args(args);
        finish(process, stdin)
    }
}

/// The program with an environment of its own, away from any real cluster.
pub(crate) fn program() -> Process {
    let mut process = Process::new(env!("CARGO_BIN_EXE_aspen-cli"));
    for name in ["ASPEN_TICKET", "ASPEN_TOKEN"] {
        process.env_remove(name);
    }
    process.env("XDG_RUNTIME_DIR", "/nonexistent");
    process
}

pub(crate) fn finish(mut process: Process, stdin: &[u8]) -> Ran {
    process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = process.spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
