//! The doors of a node: how they open, and how they close together.
//!
//! Invariant: a door that is open has one task, which ends before [`Doors::close`] returns.

use core::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use aspen_api::service::Services;
use prometheus::core::Collector;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::listener::{DoorConfig, Listener};
use crate::metrics::DoorMetrics;
use crate::stop::{Phase, Stop};

/// A listener for one foreign protocol.
pub trait Door: Send + 'static {
    /// Its name in logs, metrics and flags.
    const NAME: &'static str;

    /// Serves connections until `stop` is requested, then finishes those that are open and returns.
    /// Requests go to `services`, which stand for the origin of the door's callers.
    fn serve(
        self,
        listener: Listener,
        services: Services,
        stop: Stop,
    ) -> impl Future<Output = io::Result<()>> + Send;
}

/// Why a door does not open.
#[derive(Debug, Error)]
#[error("the {name} door cannot listen on TCP {addr}: {source}")]
pub struct OpenError {
    /// The door.
    pub name: &'static str,
    /// The address that it was to have.
    pub addr: SocketAddr,
    /// Why.
    pub source: io::Error,
}

/// The open doors of a node. Dropping them closes all at once.
pub struct Doors {
    metrics: DoorMetrics,
    phase: watch::Sender<Phase>,
    open: JoinSet<()>,
}

impl Default for Doors {
    fn default() -> Self {
        Self::new()
    }
}

impl Doors {
    /// None is open yet.
    pub fn new() -> Self {
        let phase = watch::Sender::new(Phase::Serving);
        Self { metrics: DoorMetrics::new(), phase, open: JoinSet::new() }
    }

    /// The metrics of all doors, those that open later included.
    pub fn collector(&self) -> Box<dyn Collector> {
        Box::new(self.metrics.clone())
    }

    /// Opens a door and returns the address that it listens on.
    pub async fn open<D: Door>(
        &mut self,
        door: D,
        config: DoorConfig,
        services: Services,
    ) -> Result<SocketAddr, OpenError> {
        let addr = config.addr;
        let failed = |source| OpenError { name: D::NAME, addr, source };
        let stop = Stop::new(self.phase.subscribe());
        let meter = self.metrics.of(D::NAME);
        let listener = Listener::bind(D::NAME, config, meter, stop.clone()).await;
        let listener = listener.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        self.open.spawn(async move {
            if let Err(error) = door.serve(listener, services, stop).await {
                tracing::error!(door = D::NAME, %error, "the door failed");
            }
        });
        Ok(addr)
    }

    /// Stops accepting, gives open connections the time `within` to finish, then cuts them. Returns
    /// whether all finished.
    pub async fn close(mut self, within: Duration) -> bool {
        self.phase.send_replace(Phase::Draining);
        let all = async { while self.open.join_next().await.is_some() {} };
        let have_finished = timeout(within, all).await.is_ok();
        self.phase.send_replace(Phase::Closed);
        self.open.shutdown().await;
        have_finished
    }
}
