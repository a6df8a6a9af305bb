//! The HTTP door, on loopback only: health, readiness and metrics for tools of this machine.

use std::net::{Ipv4Addr, SocketAddr};

use aspen_cluster::ClusterNode;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use net_node::MeshNode;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

#[derive(Clone)]
struct Doors {
    node: ClusterNode,
    mesh: MeshNode,
}

/// A running HTTP server.
pub(crate) struct HttpDoor {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    task: JoinHandle<()>,
}

impl HttpDoor {
    /// Listens on `port` of 127.0.0.1, on any free port if it is 0.
    pub(crate) async fn open(
        port: u16,
        node: &ClusterNode,
        mesh: &MeshNode,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let addr = listener.local_addr()?;
        let routes = Router::new()
            .route("/healthz", get(health))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(Doors { node: node.clone(), mesh: mesh.clone() });
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                tracing::error!(%error, "the HTTP door closed");
            }
        });
        Ok(Self { addr, task })
    }

    /// Stops listening.
    pub(crate) fn close(self) {
        self.task.abort();
    }
}

/// 200 while the node can do its work at all: its log and consensus run.
async fn health(State(doors): State<Doors>) -> Response {
    answer(doors.node.is_alive(), "ok", "stopped after a storage error")
}

/// 200 once the node belongs to a cluster and knows a leader.
async fn ready(State(doors): State<Doors>) -> Response {
    answer(doors.node.is_ready(), "ready", "not ready")
}

fn answer(is_well: bool, well: &'static str, ill: &'static str) -> Response {
    match is_well {
        true => (StatusCode::OK, well).into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, ill).into_response(),
    }
}

async fn metrics(State(doors): State<Doors>) -> Response {
    let text = doors.node.prometheus_text() + &doors.mesh.prometheus_text();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}
