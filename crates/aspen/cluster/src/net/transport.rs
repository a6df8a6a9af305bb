//! How a node reaches others.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use net_types::PeerAddr;
use net_wire::Class;
use thiserror::Error;

/// Why a call to another node has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TransportError {
    /// The peer cannot be reached now; trying at once is useless.
    #[error("peer is unreachable: {0}")]
    Unreachable(String),
    /// The deadline passed. The peer may have acted on the call.
    #[error("no answer in time")]
    Timeout,
    /// The peer refused or failed.
    #[error("peer failed: {0}")]
    Failed(String),
}

/// The answer to a call.
pub type TransportFuture = Pin<Box<dyn Future<Output = Result<Bytes, TransportError>> + Send>>;

/// Carries messages between nodes whose identity it has authenticated.
///
/// Calls to one peer, and their answers, may overtake each other; a call may be carried out though
/// nothing comes back. Calls that nothing overtakes arrive in the order in which their futures were
/// first polled. Dropping a future gives the call up.
pub trait Transport: Send + Sync + 'static {
    /// Calls `service` (see [`aspen_api::service`]) of `peer` and waits at most `deadline`.
    fn call(
        &self,
        peer: &PeerAddr,
        service: &'static str,
        class: Class,
        body: Bytes,
        deadline: Duration,
    ) -> TransportFuture;

    /// Tells the transport where a peer is.
    fn add_peer(&self, peer: &PeerAddr);
}
