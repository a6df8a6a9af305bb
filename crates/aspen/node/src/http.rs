//! The HTTP door: health, readiness and metrics.
//!
//! On loopback its callers are those of this machine and need no token. Beyond loopback it speaks TLS
//! only, `/healthz` and `/readyz` answer everyone, and `/metrics` needs a capability token.

use std::io;
use std::net::SocketAddr;

use aspen_api::cluster::{GetHealth, GetMetrics, HealthResult};
use aspen_api::service::{Origin, Services};
use aspen_api::{ApiError, ErrorCode};
use aspen_door::{Connection, Credentials, Door, DoorConfig, DoorLimits, Listener, Stop, Tls};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// Where the HTTP door listens.
#[derive(Clone)]
pub(crate) struct HttpSettings {
    pub(crate) addr: SocketAddr,
    pub(crate) tls: Option<Tls>,
}

impl HttpSettings {
    /// What requests count as that come through the door.
    pub(crate) fn origin(&self) -> Origin {
        match self.addr.ip().is_loopback() {
            true => Origin::Process,
            false => Origin::Door(HttpDoor::NAME),
        }
    }

    pub(crate) fn config(&self) -> DoorConfig {
        DoorConfig { addr: self.addr, tls: self.tls.clone(), limits: DoorLimits::default() }
    }
}

/// HTTP/1.1.
pub(crate) struct HttpDoor;

impl Door for HttpDoor {
    const NAME: &'static str = "http";

    async fn serve(self, listener: Listener, services: Services, mut stop: Stop) -> io::Result<()> {
        let routes = Router::new()
            .route("/healthz", get(health))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .with_state(services);
        let stopped = async move { stop.requested().await };
        axum::serve(Incoming(listener), routes).with_graceful_shutdown(stopped).await
    }
}

/// The listener as axum takes it.
struct Incoming(Listener);

impl axum::serve::Listener for Incoming {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let connection = self.0.accept().await;
        let peer = connection.peer();
        (connection, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
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

async fn metrics(State(services): State<Services>, headers: HeaderMap) -> Response {
    let shown = headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    let answer = match Credentials::bearer(shown) {
        Ok(credentials) => services.call(credentials.token(), GetMetrics {}).await,
        Err(error) => Err(error.into()),
    };
    match answer {
        Ok(metrics) => {
            let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
            (kind, metrics.text).into_response()
        }
        Err(error) => refusal(&error),
    }
}

/// The answer that says why a request was refused.
fn refusal(error: &ApiError) -> Response {
    let text = error.to_string();
    match error.code {
        ErrorCode::Unauthorized => {
            let scheme = [(header::WWW_AUTHENTICATE, "Bearer")];
            (StatusCode::UNAUTHORIZED, scheme, text).into_response()
        }
        ErrorCode::Forbidden => (StatusCode::FORBIDDEN, text).into_response(),
        _ => (StatusCode::SERVICE_UNAVAILABLE, text).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_tells_a_missing_token_from_one_that_does_not_suffice() {
        for (code, status, asks) in [
            (ErrorCode::Unauthorized, StatusCode::UNAUTHORIZED, true),
            (ErrorCode::Forbidden, StatusCode::FORBIDDEN, false),
            (ErrorCode::ServiceUnavailable, StatusCode::SERVICE_UNAVAILABLE, false),
        ] {
            let response = refusal(&ApiError::new(code, "why"));
            assert_eq!(response.status(), status);
            assert_eq!(response.headers().contains_key(header::WWW_AUTHENTICATE), asks);
        }
    }
}
