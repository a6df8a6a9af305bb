//! Something that looks like a node and gives one answer to everything.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use aspen_api::codec::Wire;
use aspen_api::{
    ApiError, ClusterId, ClusterTicket, EncodedReply, MeshKey, MeshTicket, RequestFrame, Response,
    Revision, service,
};
use bytes::Bytes;
use net_node::{
    EntityKeypair, HandlerFuture, MeshConfig, MeshNode, MeshSecret, PeerAddr, RpcContext,
    ServeHandle, ServiceName,
};

use crate::ran::{Ran, isolated};

/// A running member.
pub(crate) struct Member {
    answer: Arc<Mutex<Response<EncodedReply>>>,
    tokens: Arc<Mutex<Vec<Option<Bytes>>>>,
    pub(crate) ticket: ClusterTicket,
    _node: MeshNode,
    _service: ServeHandle,
    _runtime: tokio::runtime::Runtime,
}

impl Member {
    pub(crate) fn start(reply: impl Wire) -> Self {
        let answer = response(Ok(EncodedReply(reply.to_bytes())));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let guard = runtime.enter();
        let secret = MeshSecret::new([9; 32]);
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let identity = EntityKeypair::from_seed([1; 32]);
        let node = MeshNode::bind(MeshConfig::new(identity, secret, loopback)).unwrap();
        let peers = vec![PeerAddr::direct(node.entity_id(), node.local_addr())];
        let ticket = ClusterTicket {
            cluster_id: ClusterId([1; 32]),
            mesh_key: MeshKey([9; 32]),
            mesh: MeshTicket { label: "test".into(), peers },
        };
        let (answer, tokens) = (Arc::new(Mutex::new(answer)), Arc::<Mutex<Vec<_>>>::default());
        let (given, seen) = (answer.clone(), tokens.clone());
        let handler = move |_: RpcContext, body: Bytes| {
            seen.lock().unwrap().push(RequestFrame::decode(body).unwrap().token);
            HandlerFuture::ready(Ok(given.lock().unwrap().encode()))
        };
        let name = ServiceName::new(service::CLIENT).unwrap();
        let service = node.serve(name, Arc::new(handler)).unwrap();
        drop(guard);
        Self { answer, tokens, ticket, _node: node, _service: service, _runtime: runtime }
    }

    pub(crate) fn fail(&self, error: ApiError) {
        *self.answer.lock().unwrap() = response(Err(error));
    }

    pub(crate) fn last_token(&self) -> Option<Bytes> {
        self.tokens.lock().unwrap().last().cloned().flatten()
    }

    /// Runs the program with the ticket in its environment.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        let mut command = program();
        command.env("ASPEN_TICKET", self.ticket.to_text().expose()).args(args);
        Ran::finish(command, b"")
    }
}

fn response(result: Result<EncodedReply, ApiError>) -> Response<EncodedReply> {
    Response { applied: Revision(1), result }
}

/// The program, away from any real cluster.
pub(crate) fn program() -> Command {
    isolated(Path::new(env!("CARGO_BIN_EXE_aspen-cli")))
}
