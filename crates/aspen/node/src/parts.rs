//! Every part of a node, in the order in which it starts. They stop in the reverse order.
//!
//! Invariant: a part that runs needs only parts that started before it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aspen_api::service::{Registry, RegistryError};
use aspen_cluster::disk::{Disk, FolderLock, FsDisk, MemoryDisk};
use aspen_cluster::{
    ClusterConfig, ClusterNode, ClusterServices, MeshTransport, RequestServer, core_services,
};
use aspen_coordination::CoordinationService;
use aspen_door::Doors;
use net_node::{BindError, MeshConfig, MeshNode, PeerAddr};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use crate::http::HttpDoor;
use crate::identity::Identity;
use crate::run_error::RunError;
use crate::settings::{Settings, StorageBackend};
use crate::ticket_file::TicketFile;

/// Time for requests under way when the node stops.
const DRAIN: Duration = Duration::from_secs(30);
/// Time for connections of doors to finish when the node stops.
const CLOSE_DOORS: Duration = Duration::from_secs(5);
/// Time for another node to take the lead when this one stops.
const HAND_OVER: Duration = Duration::from_secs(5);

/// A running node.
pub(crate) struct Parts {
    // 1. The data folder is this process's alone.
    _lock: FolderLock,
    // 2. The mesh: identity, port, sessions.
    mesh: MeshNode,
    // 3. The cluster member: log, state, consensus.
    node: ClusterNode,
    // 4. What answers requests: the services of the registry, and their way from the mesh.
    server: RequestServer,
    services: ClusterServices,
    // 5. The doors for foreign protocols.
    doors: Doors,
    // 6. The ticket file, which tells others that the node can be reached.
    ticket: JoinHandle<()>,
    // 7. Telling the members where the node is, if they know another address.
    moving: Option<JoinHandle<()>>,
}

impl Parts {
    /// Starts every part. A folder that was never used becomes a cluster of one node at once,
    /// unless the settings name others to join.
    pub(crate) async fn start(settings: Settings) -> Result<Self, RunError> {
        Self::outlive_file_limits()?;
        let folder = settings.data_dir.clone();
        let path = || folder.display().to_string();
        let disk =
            FsDisk::open(&folder).map_err(|source| RunError::Folder { path: path(), source })?;
        let lock = FolderLock::acquire(&folder)
            .map_err(|source| RunError::Locked { path: path(), source })?;
        let joins = settings.ticket.is_some() || !settings.peers.is_empty();
        let identity = Identity::load(&folder, &settings, joins)?;
        let root_token = settings.tokens.write_root_token(&identity.keypair);
        root_token.map_err(RunError::RootToken)?;
        let known = Identity::known_address(&folder)?;
        let mesh = bind(known, &identity, settings.bind)?;
        let own = reachable(mesh.local_addr(), route_out, known);
        let addr = PeerAddr::direct(mesh.entity_id(), own);
        let node = start_node(&settings, &identity, &mesh, addr, disk).await?;
        let mut doors = Doors::new();
        let (server, services) = serve(&settings, &mesh, &node, &doors)?;
        introduce_peers(&settings, &mesh);
        if identity.is_forming {
            if !node.is_initialized() {
                node.init().await.map_err(RunError::Init)?;
            }
            Identity::formed(&folder)?;
        }
        server.registry().start().await.map_err(RunError::Service)?;
        let http = server.services(settings.http.origin());
        let http = doors.open(HttpDoor, settings.http.config(), http).await?;
        let ticket = keep_ticket(&folder, &node)?;
        let moving = keep_address(&folder, &node, known, own)?;
        tracing::info!(
            node_id = %node.member_id(), entity_id = %mesh.entity_id(), udp = %mesh.local_addr(),
            %http, initialized = node.is_initialized(), "serving"
        );
        say_what_it_is_in(&node, &folder, identity.is_forming);
        Ok(Self { _lock: lock, mesh, node, server, services, doors, ticket, moving })
    }

    /// Handles SIGXFSZ, so that a file which reaches the limit of its size is an error, handled like a
    /// full disk, and not the end of the process.
    pub(crate) fn outlive_file_limits() -> Result<(), RunError> {
        let limit = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
        // The handler stays when this is dropped.
        signal(limit).map(drop).map_err(RunError::Signal)
    }

    /// Returns once the process is asked to stop, or why the node cannot go on.
    pub(crate) async fn wait_for_end(&self) -> Result<(), RunError> {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signal)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signal)?;
        let mut hang_up = signal(SignalKind::hangup()).map_err(RunError::Signal)?;
        tokio::select! {
            biased;
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
            _ = hang_up.recv() => Ok(()),
            reason = self.node.ended() => Err(RunError::Ended(reason)),
        }
    }

    /// Hands leadership on, finishes what is under way and stops every part.
    pub(crate) async fn stop(self) {
        tracing::info!("stopping");
        self.ticket.abort();
        self.moving.iter().for_each(JoinHandle::abort);
        if self.node.is_leader() && self.node.cluster_state().nodes.iter().any(is_other_voter) {
            let hand_over = self.node.transfer_leader(None);
            match tokio::time::timeout(HAND_OVER, hand_over).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "leadership was not handed over"),
                Err(_) => tracing::warn!("leadership was not handed over in time"),
            }
        }
        if !self.server.drain(DRAIN).await {
            tracing::warn!("some requests were still under way");
        }
        if !self.doors.close(CLOSE_DOORS).await {
            tracing::warn!("some connections of doors were still open");
        }
        self.server.registry().stop(DRAIN).await;
        drop(self.services);
        self.node.shutdown().await;
        self.mesh.shutdown().await;
        tracing::info!("stopped");
    }
}

fn is_other_voter(node: &aspen_api::cluster::ClusterNode) -> bool {
    node.is_voter && !node.is_leader
}

/// Opens the port that is asked for; if none is, the one by which the other members know this node.
/// If that is taken, perhaps by a copy of this node, whose two votes would count, nothing is opened.
fn bind(
    known: Option<SocketAddr>,
    identity: &Identity,
    asked: SocketAddr,
) -> Result<MeshNode, RunError> {
    let open =
        |addr| MeshNode::bind(MeshConfig::new(identity.keypair.clone(), identity.secret(), addr));
    let Some(known) = known.filter(|_| asked.port() == 0) else { return Ok(open(asked)?) };
    open(SocketAddr::new(asked.ip(), known.port())).map_err(|error| match &error {
        BindError::Socket { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
            RunError::KnownPort(error)
        }
        _ => RunError::Bind(error),
    })
}

/// Notes under which address others know this node, once they do.
fn keep_address(
    folder: &Path,
    node: &ClusterNode,
    known: Option<SocketAddr>,
    own: SocketAddr,
) -> Result<Option<JoinHandle<()>>, RunError> {
    let Some(old) = known else {
        Identity::keep_address(folder, own)?;
        return Ok(None);
    };
    if old == own {
        return Ok(None);
    }
    let (node, folder) = (node.clone(), folder.to_path_buf());
    Ok(Some(tokio::spawn(async move {
        node.announce_move(old).await;
        if let Err(error) = Identity::keep_address(&folder, own) {
            tracing::warn!(%error, "the new address is not noted; it will be told again");
        }
    })))
}

/// The address under which others reach a socket: its own, or that of the interface that leads out
/// if it listens on all. While none does, as before a network is up, it is where others know the
/// node: they are not told to look for it on loopback.
fn reachable(
    local: SocketAddr,
    route_out: impl FnOnce(IpAddr) -> Option<IpAddr>,
    known: Option<SocketAddr>,
) -> SocketAddr {
    if !local.ip().is_unspecified() {
        return local;
    }
    let ip = route_out(local.ip()).or(known.map(|known| known.ip()));
    SocketAddr::new(ip.unwrap_or(Ipv4Addr::LOCALHOST.into()), local.port())
}

/// The address of the interface that leads out, of the same family as `local`.
fn route_out(local: IpAddr) -> Option<IpAddr> {
    // Connecting a datagram socket sends nothing; it only picks a route. 192.0.2.1 and 2001:db8::1
    // are reserved for documentation.
    let far = match local {
        IpAddr::V4(_) => "192.0.2.1:9",
        IpAddr::V6(_) => "[2001:db8::1]:9",
    };
    let socket = UdpSocket::bind((local, 0)).ok()?;
    socket.connect(far).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Every service of the node, in the order of their start.
fn services(node: &ClusterNode, metrics: &prometheus::Registry) -> Result<Registry, RegistryError> {
    core_services(node, metrics)?.with(CoordinationService(node.store()))
}

/// Builds what answers requests and offers it on the mesh.
fn serve(
    settings: &Settings,
    mesh: &MeshNode,
    node: &ClusterNode,
    doors: &Doors,
) -> Result<(RequestServer, ClusterServices), RunError> {
    let metrics = prometheus::Registry::new();
    let registry = services(node, &metrics)?;
    let own = registry.collectors();
    let server = RequestServer::new(node.clone(), registry, settings.max_clients);
    let collectors = [mesh.collector(), node.collector(), server.collector(), doors.collector()];
    for collector in collectors.into_iter().chain(own) {
        metrics.register(collector)?;
    }
    let services = ClusterServices::serve(mesh, node, &server)?;
    Ok((server, services))
}

async fn start_node(
    settings: &Settings,
    identity: &Identity,
    mesh: &MeshNode,
    addr: PeerAddr,
    folder: FsDisk,
) -> Result<ClusterNode, RunError> {
    let disk: Arc<dyn Disk> = match settings.storage_backend {
        StorageBackend::Redb => Arc::new(folder),
        StorageBackend::Inmemory => Arc::new(MemoryDisk::new()),
    };
    let config = ClusterConfig {
        mesh_key: Some(identity.mesh_key.clone()),
        timing: settings.timing,
        top_level: settings.top_level,
        authorizer: settings.tokens.authorizer(),
        ..ClusterConfig::new(identity.member_id, addr, disk)
    };
    let transport = Arc::new(MeshTransport::new(mesh.clone()));
    Ok(ClusterNode::start(config, transport).await?)
}

/// Tells the mesh where the peers are that the settings name.
fn introduce_peers(settings: &Settings, mesh: &MeshNode) {
    let from_ticket = settings.ticket.iter().flat_map(|ticket| ticket.peers());
    let others = from_ticket.chain(&settings.peers).filter(|p| p.entity_id != mesh.entity_id());
    others.for_each(|peer| mesh.add_peer(peer.clone()));
}

/// Writes the ticket now, and again whenever the members change.
fn keep_ticket(folder: &Path, node: &ClusterNode) -> Result<JoinHandle<()>, RunError> {
    let mut file = TicketFile::new(folder);
    file.update(node).map_err(RunError::Ticket)?;
    tracing::info!(path = %file.path().display(), "ticket written");
    let mut members = node.watch_members();
    let node = node.clone();
    Ok(tokio::spawn(async move {
        while members.changed().await {
            if let Err(error) = file.update(&node) {
                tracing::warn!(%error, "cannot write the ticket file");
            }
        }
    }))
}

/// Says what a new or waiting node is waiting for, and what to do if that was not meant.
fn say_what_it_is_in(node: &ClusterNode, folder: &Path, is_new_cluster: bool) {
    if !node.is_initialized() {
        tracing::info!(
            "waiting to be added: aspen-cli cluster add-learner --node-id {} --addr '{}'",
            node.member_id(),
            addr_json(node)
        );
        tracing::info!(
            "or, to make it a cluster of its own: aspen-cli --ticket '{}' cluster init",
            TicketFile::new(folder).path().display()
        );
    } else if is_new_cluster && std::env::var_os("ASPEN_TICKET").is_some_and(|t| !t.is_empty()) {
        tracing::warn!(
            "this node has begun a cluster of its own: ASPEN_TICKET is read by aspen-cli alone. To \
             join that cluster instead, start a node on an empty folder with --ticket \
             \"$ASPEN_TICKET\""
        );
    }
}

fn addr_json(node: &ClusterNode) -> String {
    let addr = node.info().addr;
    let addrs: Vec<_> =
        addr.addrs.iter().map(|ip| serde_json::json!({ "Ip": ip.to_string() })).collect();
    serde_json::json!({ "id": addr.entity_id.to_string(), "addrs": addrs }).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_node_without_a_network_stays_where_others_know_it() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let known = Some(addr("10.0.0.1:7000"));
        let no_route = |_| None;
        let all = addr("0.0.0.0:7000");
        assert_eq!(reachable(all, no_route, known), addr("10.0.0.1:7000"));
        assert_eq!(reachable(addr("[::]:7001"), no_route, known), addr("10.0.0.1:7001"));
        assert_eq!(reachable(all, no_route, None), addr("127.0.0.1:7000"));
        let route = |_| Some(addr("10.0.0.2:1").ip());
        assert_eq!(reachable(all, route, known), addr("10.0.0.2:7000"));
        assert_eq!(reachable(addr("127.0.0.1:9"), route, known), addr("127.0.0.1:9"));
    }
}
