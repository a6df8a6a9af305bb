//! The HTTP door, on loopback only: health, readiness and metrics for tools of this machine.

use std::net::{Ipv4Addr, SocketAddr};

use aspen_api::cluster::{GetHealth, GetMetrics, HealthResult};
use aspen_api::service::Services;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A running HTTP server.
pub(crate) struct HttpDoor {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    task: JoinHandle<()>,
}

impl HttpDoor {
    /// Listens on `port` of 127.0.0.1, on any free port if it is 0.
    pub(crate) async fn open(port: u16, services: Services) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let addr = listener.local_addr()?;
        let routes = Router::new()
            .route("/healthz", get(health))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(services);
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
async fn health(State(services): State<Services>) -> Response {
    judge(&services, |health| health.is_alive, "ok", "stopped after a storage error").await
}

/// 200 once the node belongs to a cluster and knows a leader.
async fn ready(State(services): State<Services>) -> Response {
    judge(&services, |health| health.is_ready, "ready", "not ready").await
}

async fn judge(
    services: &Services,
    is_well: fn(&HealthResult) -> bool,
    well: &'static str,
    ill: &'static str,
) -> Response {
    match services.call(None, GetHealth {}).await {
        Ok(health) if is_well(&health) => (StatusCode::OK, well).into_response(),
        Ok(_) | Err(_) => (StatusCode::SERVICE_UNAVAILABLE, ill).into_response(),
    }
}

async fn metrics(State(services): State<Services>) -> Response {
    match services.call(None, GetMetrics {}).await {
        Ok(metrics) => {
            let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
            (kind, metrics.text).into_response()
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response(),
    }
}
