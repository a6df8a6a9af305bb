//! The public face of a node.
//!
//! Invariants: a method holds the lock for a bounded piece of work and never while it waits; what
//! may leave packets to send wakes the driver; after [`MeshNode::shutdown`] no session is made.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use net_crypto::{RngCore, Seeded};
use net_mesh_core::{CloseReason, Cx, DialError, Endpoint, Entry, Protocol};
use net_types::{EntityId, Instant, NodeId, PeerAddr, lock};
use rand_core::OsRng;
use tokio::task::JoinHandle;

use crate::driver::Driver;
use crate::shared::Shared;
use crate::socket::MeshSocket;
use crate::state::Core;
use crate::{BindError, ConnectError, MeshConfig, PeerStatus};

/// One node of the mesh: an identity, a UDP port, sessions to peers. Cheap to clone. Dropping
/// the last clone does not stop the node, [`MeshNode::shutdown`] does.
#[derive(Clone)]
pub struct MeshNode {
    pub(crate) shared: Arc<Shared>,
    driver: Arc<Mutex<Option<JoinHandle<()>>>>,
    entity: EntityId,
}

impl MeshNode {
    /// Binds the port and starts the driver on the present tokio runtime.
    pub fn bind(config: MeshConfig) -> Result<Self, BindError> {
        let mut seed = [0u8; 32];
        OsRng.try_fill_bytes(&mut seed).map_err(|e| BindError::Random(e.to_string()))?;
        let mut rng = Seeded::from_seed(seed);
        let entity = config.endpoint.identity.entity_id();
        let endpoint = Endpoint::new(Instant::ZERO, config.endpoint, rng.seed_32())?;
        let addr = config.bind;
        let socket = MeshSocket::bind(addr, config.socket_buffer_bytes)
            .map_err(|source| BindError::Socket { addr, source })?;
        let core = Core::new(endpoint, rng, config.protocols);
        let shared = Arc::new(Shared::new(core, socket));
        let driver = tokio::spawn(Driver::new(shared.clone()));
        Ok(Self { shared, driver: Arc::new(Mutex::new(Some(driver))), entity })
    }

    /// Where the node listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.socket.local_addr()
    }

    /// The node's identity.
    pub fn entity_id(&self) -> EntityId {
        self.entity
    }

    /// The node's routing address.
    pub fn node_id(&self) -> NodeId {
        self.entity.node_id()
    }

    /// Keeps a peer's address. Calls to it dial when there is no session, and a session whose
    /// peer goes silent is dialled again. Without effect, beside a warning in the log, when another
    /// identity has the peer's node id or when the address book is full.
    pub fn add_peer(&self, addr: PeerAddr) {
        let entity = addr.entity_id;
        if let Err(error) = self.shared.lock().mesh.endpoint_mut().add_peer(addr) {
            tracing::warn!(target: "net::node", %entity, %error, "the peer's address is not kept");
        }
    }

    /// Forgets a peer's address. A session with it stays until it ends.
    pub fn remove_peer(&self, peer: NodeId) {
        self.shared.lock().mesh.endpoint_mut().remove_peer(peer);
    }

    /// Peers with a session in use, by node id.
    pub fn peers(&self) -> Vec<(NodeId, PeerStatus)> {
        let now = self.shared.now();
        self.shared.lock().mesh.endpoint().connected(now).collect()
    }

    /// Waits for a session with a peer, dialling it if there is none.
    pub async fn connect(&self, addr: &PeerAddr) -> Result<NodeId, ConnectError> {
        self.shared.lock().mesh.endpoint_mut().add_peer(addr.clone())?;
        let peer = addr.entity_id.node_id();
        self.ensure_session(peer).await?;
        // A peer that called meanwhile may have the same node id.
        let live = self.shared.lock().mesh.endpoint().live_entity(peer);
        if live.is_some_and(|entity| entity != addr.entity_id) {
            return Err(DialError::NodeIdCollision.into());
        }
        Ok(peer)
    }

    /// Waits for a session with a peer that [`MeshNode::add_peer`] knows.
    pub(crate) async fn ensure_session(&self, peer: NodeId) -> Result<(), ConnectError> {
        let waiter = {
            let now = self.shared.now();
            let mut core = self.shared.lock();
            if core.is_closed {
                return Err(ConnectError::Closed);
            }
            let endpoint = core.mesh.endpoint_mut();
            if endpoint.live_session(peer).is_some() {
                return Ok(());
            }
            let addr = endpoint.peer_addr(peer).cloned().ok_or(DialError::NoAddress)?;
            endpoint.dial(now, &addr)?;
            let dials = core.dials;
            let waiter = core.mesh.with(now, dials, |dials, _| dials.wait(peer));
            core.wake();
            waiter
        };
        waiter.await.map_err(|_| ConnectError::Closed)?.map_err(ConnectError::Dial)
    }

    /// Acts on a protocol of [`MeshConfig::protocols`], under the node's lock: `act` must neither wait
    /// nor use the node.
    pub fn with_protocol<P: Protocol, T>(
        &self,
        entry: Entry<P>,
        act: impl FnOnce(&mut P, &mut Cx<'_>) -> T,
    ) -> T {
        let now = self.shared.now();
        let mut core = self.shared.lock();
        let out = core.mesh.with(now, entry, act);
        core.mesh.process(now);
        core.wake();
        out
    }

    /// Ends the session with a peer; its calls and streams fail.
    pub fn disconnect(&self, peer: NodeId) {
        let now = self.shared.now();
        let mut core = self.shared.lock();
        if let Some(session) = core.mesh.endpoint().live_session(peer) {
            core.mesh.endpoint_mut().close_session(now, session, CloseReason::Disconnected);
            core.mesh.process(now);
            core.wake();
        }
    }

    /// Tells the peers, fails what is open and stops the driver.
    pub async fn shutdown(&self) {
        let now = self.shared.now();
        self.shared.lock().close(now);
        let driver = lock(&self.driver).take();
        if let Some(driver) = driver {
            // The driver contains panics of handlers; its own end is all that is waited for.
            let _ = driver.await;
        }
    }
}

impl std::fmt::Debug for MeshNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MeshNode")
            .field("entity", &self.entity)
            .field("addr", &self.local_addr())
            .finish_non_exhaustive()
    }
}
