//! The client: one request at a time for the caller, rotation and retries underneath.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aspen_api::cluster::GetRaftMetrics;
use aspen_api::codec::Wire;
use aspen_api::{
    ApiError, ClientId, ClusterTicket, EncodedReply, ErrorCode, Kind, Request, RequestFrame,
    RequestId, Response, Revision, service, unreadable_answer,
};
use bytes::Bytes;
use net_node::{
    BindError, CallOptions, EntityKeypair, MeshConfig, MeshNode, MeshSecret, PeerAddr, RpcError,
    ServiceName,
};
use net_types::limits::{DEFAULT_REQUEST_DEADLINE, MAX_REQUESTS_PER_CLIENT};
use net_types::{EntityId, Instant, NodeId, lock};
use rand_core::{OsRng, RngCore};
use thiserror::Error;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::judgement::{Audience, is_definitive, may_have_run, unanswered};
use crate::peers::Peers;
use crate::request_ids::RequestIds;
use crate::rotation::{Failure, Rotation, Step};

/// Ids that one write is given at most. More than one only if the store has forgotten answers since
/// the last that this client has seen of it.
const MAX_IDS: u32 = 4;

/// Settings of a client.
pub struct ClientOptions {
    /// Time for one request, all attempts together.
    pub deadline: Duration,
    /// The identity to appear with; absent makes one up.
    pub identity: Option<EntityKeypair>,
    /// Whether to ask a leader that is named by a member but not in the ticket.
    pub should_follow_leader: bool,
    /// A capability token to send with every request.
    pub token: Option<Bytes>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            deadline: DEFAULT_REQUEST_DEADLINE,
            identity: None,
            should_follow_leader: true,
            token: None,
        }
    }
}

/// Why there is no client.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The ticket names no member.
    #[error("the ticket names no member of the cluster")]
    NoPeers,
    /// The system gives no randomness.
    #[error("the system's random source failed: {0}")]
    Random(String),
    /// No socket.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// A cluster, as a program holds it. Cheap to clone; clones share sessions and what is known about
/// the leader.
///
/// A write keeps one name through all its attempts, so that it is applied at most once however
/// often it had to be sent.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    node: MeshNode,
    service: ServiceName,
    deadline: Duration,
    token: Option<Bytes>,
    should_follow_leader: bool,
    pub(crate) peers: Mutex<Peers>,
    /// The peer to ask first what only the leader answers: the one that did so last, or was found to
    /// lead.
    pub(crate) preferred: watch::Sender<usize>,
    /// The peer to ask first what any can answer.
    pub(crate) answering: watch::Sender<usize>,
    ids: Mutex<RequestIds>,
    /// The newest revision seen in an answer.
    seen: AtomicU64,
    /// As many requests under way as a node takes from one client.
    turns: Semaphore,
    /// When somebody may ask again who leads.
    pub(crate) next_probe: Mutex<Option<tokio::time::Instant>>,
    origin: tokio::time::Instant,
}

/// What one attempt came to.
enum Attempt {
    Answer(Bytes),
    Failed(Failure),
    /// Refused for a reason that rotation cannot mend.
    Refused(ApiError),
}

/// What is known of the attempts so far, for the error when time runs out.
#[derive(Default)]
struct Attempts {
    /// Whether it has a name, under which the store remembers what became of it.
    is_write: bool,
    /// Whether it changes anything.
    is_change: bool,
    count: u32,
    ids: u32,
    /// An attempt may have been carried out, or may yet be, without an answer that says so.
    is_open: bool,
    last_refusal: Option<ApiError>,
    last_silence: Option<String>,
}

impl Client {
    /// A client of the cluster that a ticket names, on a node of its own, which runs on the present
    /// tokio runtime. Sessions are made when they are first needed.
    pub fn connect(ticket: &ClusterTicket, options: ClientOptions) -> Result<Self, ConnectError> {
        let peers = ticket.peers();
        let bind = bind_address(peers).ok_or(ConnectError::NoPeers)?;
        let identity = match options.identity.clone() {
            Some(identity) => identity,
            None => {
                let mut seed = [0; 32];
                OsRng
                    .try_fill_bytes(&mut seed)
                    .map_err(|error| ConnectError::Random(error.to_string()))?;
                EntityKeypair::from_seed(seed)
            }
        };
        let secret = MeshSecret::new(ticket.mesh_key.0);
        let node = MeshNode::bind(MeshConfig::new(identity, secret, bind))?;
        Self::over(node, peers.to_vec(), options)
    }

    /// A client over a node that exists already. `peers` are the members to ask, in order.
    pub fn over(
        node: MeshNode,
        peers: Vec<PeerAddr>,
        options: ClientOptions,
    ) -> Result<Self, ConnectError> {
        if peers.is_empty() {
            return Err(ConnectError::NoPeers);
        }
        let inner = Inner {
            node,
            service: ServiceName::new(service::CLIENT).expect("a constant name is valid"),
            deadline: options.deadline,
            token: options.token,
            should_follow_leader: options.should_follow_leader,
            peers: Mutex::new(Peers::new(peers)),
            preferred: watch::Sender::new(0),
            answering: watch::Sender::new(0),
            ids: Mutex::default(),
            seen: AtomicU64::new(0),
            turns: Semaphore::new(MAX_REQUESTS_PER_CLIENT),
            next_probe: Mutex::new(None),
            origin: tokio::time::Instant::now(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Carries out one request within the client's deadline.
    ///
    /// `TIMEOUT`, `SESSION_EXPIRED` and `INTERNAL_ERROR` leave open whether a write happened; with
    /// any other error it did not and will not. A write that a node leaves open is asked again; if
    /// no answer settles it, `TIMEOUT` is returned, whatever later attempts were refused with.
    pub async fn send<R: Request>(&self, request: R) -> Result<R::Reply, ApiError> {
        self.send_within(request, self.inner.deadline).await
    }

    /// Carries out one request within a deadline of its own.
    pub async fn send_within<R: Request>(
        &self,
        request: R,
        deadline: Duration,
    ) -> Result<R::Reply, ApiError> {
        self.inner.send(request, deadline).await
    }

    /// Asks one node, once: what it says of itself.
    pub async fn send_to<R: Request>(
        &self,
        peer: &PeerAddr,
        request: R,
    ) -> Result<R::Reply, ApiError> {
        request.check()?;
        let until = tokio::time::Instant::now() + self.inner.deadline;
        let _turn = self.inner.turn(until).await?;
        let body = self.inner.frame(&request, RequestId::NONE);
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        let answer = self.inner.call(peer, body, left, &AtomicBool::new(false)).await;
        let reply = answer.map_err(|error| unanswered(&error))?.result?;
        R::Reply::from_bytes(reply.0).map_err(|error| unreadable_answer(&error))
    }

    /// The mesh node underneath.
    pub fn node(&self) -> &MeshNode {
        &self.inner.node
    }

    /// Ends all sessions. Requests under way fail.
    pub async fn shutdown(&self) {
        self.inner.node.shutdown().await;
    }
}

/// The id of a write; given back when the request is over, however it ends.
struct OpenId<'a> {
    inner: &'a Inner,
    id: RequestId,
}

impl Drop for OpenId<'_> {
    fn drop(&mut self) {
        if self.id.some().is_some() {
            lock(&self.inner.ids).close(self.id);
        }
    }
}

impl Inner {
    async fn send<R: Request>(&self, request: R, deadline: Duration) -> Result<R::Reply, ApiError> {
        request.check()?;
        let kind = request.kind();
        let until = tokio::time::Instant::now() + deadline;
        if kind == Kind::Write && self.seen.load(Ordering::Relaxed) == 0 {
            self.see_a_revision(deadline / 2).await;
        }
        let _turn = self.turn(until).await?;
        let id = match kind {
            Kind::Write => self.new_id()?,
            Kind::Local | Kind::Node | Kind::Read(_) | Kind::Membership => {
                OpenId { inner: self, id: RequestId::NONE }
            }
        };
        let body = self.frame(&request, id.id);
        drop(request);
        let reply = self.carry_out(kind, id, body, until).await?;
        R::Reply::from_bytes(reply).map_err(|error| unreadable_answer(&error))
    }

    /// Has the request in `body` answered by some member, in as many attempts as it takes.
    async fn carry_out(
        &self,
        kind: Kind,
        mut id: OpenId<'_>,
        mut body: Bytes,
        until: tokio::time::Instant,
    ) -> Result<Bytes, ApiError> {
        let audience = Audience::of(kind);
        let (is_write, is_change) = (id.id.some().is_some(), kind.is_change());
        let mut attempts = Attempts { is_write, is_change, ids: 1, ..Attempts::default() };
        let mut rotation = match audience {
            Audience::First => Rotation::start(1, 0, self.instant(until)),
            _ => {
                let first = *self.first_choice(audience).borrow();
                Rotation::start(self.known(audience), first, self.instant(until))
            }
        };
        loop {
            let peer = rotation.current();
            attempts.count += 1;
            tracing::trace!(peer, attempt = attempts.count, "asking");
            let failure = match self.attempt(peer, &body, until, audience, &mut attempts).await {
                Attempt::Answer(reply) => {
                    self.choose(peer, audience);
                    return Ok(reply);
                }
                Attempt::Refused(error) if attempts.may_have_new_id(&error) => {
                    attempts.ids += 1;
                    self.look_at_revision(peer, until).await;
                    (id, body) = self.replace_id(id, &body)?;
                    continue;
                }
                Attempt::Refused(error) => return Err(attempts.refusal(error)),
                Attempt::Failed(failure) => failure,
            };
            tracing::debug!(peer, ?failure, "request will be repeated");
            let known = self.known(audience);
            let now = self.instant(tokio::time::Instant::now());
            match rotation.after(now, failure, known) {
                Step::GiveUp => return Err(attempts.error(known)),
                Step::Ask { wait, .. } if wait.is_zero() => {}
                Step::Ask { wait, .. } => tokio::time::sleep(wait).await,
            }
        }
    }

    /// Waits until one more request may be under way. The questions about the leader need no turn:
    /// each is asked for a request that waits elsewhere.
    async fn turn(&self, until: tokio::time::Instant) -> Result<SemaphorePermit<'_>, ApiError> {
        match tokio::time::timeout_at(until, self.turns.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(ApiError::new(
                ErrorCode::ServiceUnavailable,
                format!(
                    "not sent: {MAX_REQUESTS_PER_CLIENT} requests of this client were under way \
                     all the time; use more clients, or give it more time"
                ),
            )),
        }
    }

    /// How many peers may be asked.
    pub(crate) fn known(&self, audience: Audience) -> usize {
        match audience {
            Audience::First => 1,
            Audience::Leader | Audience::Any => lock(&self.peers).len(),
        }
    }

    /// Asks one peer and, while it is silent, looks out for a better one.
    async fn attempt(
        &self,
        peer: usize,
        body: &Bytes,
        until: tokio::time::Instant,
        audience: Audience,
        attempts: &mut Attempts,
    ) -> Attempt {
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        let patience = self.patience(peer);
        let was_sent = AtomicBool::new(false);
        let answer = tokio::select! {
            biased;
            answer = self.ask(peer, body.clone(), left, &was_sent) => answer,
            by = self.better_than(peer, audience, patience) => {
                attempts.is_open |= was_sent.load(Ordering::Relaxed);
                return Attempt::Failed(Failure::Superseded { by });
            }
        };
        match answer {
            Ok(Response { result: Ok(reply), .. }) => Attempt::Answer(reply.0),
            Ok(Response { result: Err(error), .. }) => self.judge(error, attempts),
            Err(RpcError::TooLarge(text)) => {
                Attempt::Refused(ApiError::new(ErrorCode::TooLarge, text))
            }
            Err(error) => {
                attempts.is_open |= may_have_run(&error);
                attempts.last_silence = Some(error.to_string());
                Attempt::Failed(match error {
                    RpcError::ServerError { .. } => Failure::Unavailable,
                    RpcError::Backpressure => Failure::NotReady,
                    _ => Failure::Silent,
                })
            }
        }
    }

    fn judge(&self, error: ApiError, attempts: &mut Attempts) -> Attempt {
        let failure = match error.code {
            ErrorCode::NotLeader => {
                let hint = error.leader_hint.clone().and_then(|leader| self.learn(leader));
                Failure::NotLeader { hint }
            }
            ErrorCode::ServiceUnavailable => Failure::Unavailable,
            ErrorCode::NotInitialized | ErrorCode::PluginLoading => Failure::NotReady,
            ErrorCode::Timeout if attempts.is_write => {
                // The entry may lie in a log; under its name the next leader takes it for the same.
                attempts.is_open = true;
                Failure::Unavailable
            }
            _ => return Attempt::Refused(error),
        };
        attempts.last_refusal = Some(error);
        Attempt::Failed(failure)
    }

    /// Calls a member by index, with a session of its own if there is none. `was_sent` says from when
    /// on the member may have the request.
    pub(crate) async fn ask(
        &self,
        peer: usize,
        body: Bytes,
        deadline: Duration,
        was_sent: &AtomicBool,
    ) -> Result<Response<EncodedReply>, RpcError> {
        let route = lock(&self.peers).route(peer);
        if let Some(other) = route.end {
            self.node.disconnect(other);
        }
        let answer = match &route.dial {
            Some(addr) => self.call(addr, body, deadline, was_sent).await,
            None => {
                was_sent.store(true, Ordering::Relaxed);
                self.call_node(route.node, body, deadline).await
            }
        };
        match &answer {
            Ok(answer) => {
                self.seen.fetch_max(answer.applied.0, Ordering::Relaxed);
            }
            // Dialled again next time, perhaps at another address.
            Err(_) => lock(&self.peers).forget_session(peer),
        }
        answer
    }

    /// Makes a session, then calls.
    async fn call(
        &self,
        peer: &PeerAddr,
        body: Bytes,
        deadline: Duration,
        was_sent: &AtomicBool,
    ) -> Result<Response<EncodedReply>, RpcError> {
        let until = tokio::time::Instant::now() + deadline;
        // What fails before there is a session was never sent, whatever the time.
        let node = tokio::time::timeout_at(until, self.node.connect(peer))
            .await
            .map_err(|_| RpcError::NoRoute("no session before the deadline".into()))?
            .map_err(|error| RpcError::NoRoute(error.to_string()))?;
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        was_sent.store(true, Ordering::Relaxed);
        self.call_node(node, body, left).await
    }

    async fn call_node(
        &self,
        node: NodeId,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Response<EncodedReply>, RpcError> {
        let options = CallOptions::with_deadline(deadline);
        let reply = self.node.call(node, &self.service, body, options).await?;
        Ok(Response::decode(reply.body).unwrap_or_else(|error| Response {
            applied: Revision(0),
            result: Err(unreadable_answer(&error)),
        }))
    }

    pub(crate) fn frame<R: Request>(&self, request: &R, id: RequestId) -> Bytes {
        RequestFrame::of(request, id, self.token.as_ref())
    }

    fn new_id(&self) -> Result<OpenId<'_>, ApiError> {
        let since = Revision(self.seen.load(Ordering::Relaxed));
        let mut client = [0; 16];
        let mut failed = None;
        let id = lock(&self.ids).open(since, || {
            failed = OsRng.try_fill_bytes(&mut client).err();
            ClientId(client)
        });
        let id = OpenId { inner: self, id };
        match failed {
            None => Ok(id),
            // Without randomness two clients could take each other's answers.
            Some(error) => Err(ApiError::new(
                ErrorCode::InternalError,
                format!("the system's random source failed: {error}"),
            )),
        }
    }

    /// Gives the write in `body`, which was not carried out, a new id instead of `old`.
    fn replace_id<'a>(
        &'a self,
        old: OpenId<'a>,
        body: &Bytes,
    ) -> Result<(OpenId<'a>, Bytes), ApiError> {
        drop(old);
        let id = self.new_id()?;
        let frame = RequestFrame::decode(body.clone())?;
        let frame = RequestFrame { request_id: id.id, ..frame };
        Ok((id, frame.encode()))
    }

    /// Asks any member how far the log is applied, so that the id of the first write has a revision. A
    /// store that has forgotten answers refuses an id without one; if several members were asked by
    /// then, it would stay open whether the write was carried out.
    async fn see_a_revision(&self, deadline: Duration) {
        let looking = Box::pin(self.send(GetRaftMetrics {}, deadline));
        if let Err(error) = looking.await {
            // The write itself will tell what is wrong.
            tracing::debug!(%error, "the newest revision is not known");
        }
    }

    /// Asks a peer how far it has applied the log, which [`Inner::ask`] takes note of.
    async fn look_at_revision(&self, peer: usize, until: tokio::time::Instant) {
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        let body = self.frame(&GetRaftMetrics {}, RequestId::NONE);
        if let Err(error) = self.ask(peer, body, left, &AtomicBool::new(false)).await {
            tracing::debug!(peer, %error, "the newest revision is not known");
        }
    }

    /// The index of a member that was named as the leader.
    pub(crate) fn learn(&self, leader: PeerAddr) -> Option<usize> {
        lock(&self.peers).learn(leader, self.should_follow_leader)
    }

    /// The peer that is asked first.
    pub(crate) fn first_choice(&self, audience: Audience) -> &watch::Sender<usize> {
        match audience {
            Audience::Leader => &self.preferred,
            Audience::Any | Audience::First => &self.answering,
        }
    }

    /// Has a peer asked first from now on, and those whose peer is silent told.
    pub(crate) fn choose(&self, peer: usize, audience: Audience) {
        let set = |choice: &watch::Sender<usize>| {
            choice.send_if_modified(|chosen| std::mem::replace(chosen, peer) != peer);
        };
        match audience {
            // The leader answers everything, and there is a session with it.
            Audience::Leader => {
                set(&self.preferred);
                set(&self.answering);
            }
            Audience::Any => set(&self.answering),
            Audience::First => {}
        }
    }

    fn instant(&self, at: tokio::time::Instant) -> Instant {
        Instant::ZERO + at.saturating_duration_since(self.origin)
    }
}

impl Attempts {
    /// Whether a write that was refused for its old name can be asked again under a new one: no
    /// attempt can have been carried out.
    fn may_have_new_id(&self, error: &ApiError) -> bool {
        let is_unheard = self.is_write && !self.is_open && self.ids < MAX_IDS;
        is_unheard && error.code == ErrorCode::SessionExpired
    }

    /// The error of a request that was refused for good, perhaps after other attempts.
    fn refusal(self, error: ApiError) -> ApiError {
        let speaks_for_all = self.is_write && is_definitive(error.code);
        if !self.is_open || !self.is_change || speaks_for_all {
            return error;
        }
        let text = format!(
            "the outcome of an attempt is unknown and a later one was refused ({error}); the \
             request may or may not have been carried out"
        );
        ApiError::new(ErrorCode::Timeout, text)
    }

    /// The error of a request whose time ran out.
    fn error(self, peers: usize) -> ApiError {
        if self.is_open {
            let doubt = match self.is_change {
                true => "; the request may or may not have been carried out",
                false => "",
            };
            let text = format!("no final answer after {} attempts{doubt}", self.count);
            return ApiError::new(ErrorCode::Timeout, text);
        }
        self.last_refusal.unwrap_or_else(|| {
            let whom = match peers {
                1 => "the member that was asked cannot be reached".to_owned(),
                _ => format!("none of {peers} members can be reached"),
            };
            let text = format!(
                "{whom} after {} attempts ({}); is the cluster running, and is the ticket current?",
                self.count,
                self.last_silence.as_deref().unwrap_or("no answer")
            );
            ApiError::new(ErrorCode::ServiceUnavailable, text)
        })
    }
}

/// Any port of the family of the first address, on loopback if all addresses are.
fn bind_address(peers: &[PeerAddr]) -> Option<SocketAddr> {
    let mut addrs = peers.iter().flat_map(|peer| &peer.addrs);
    let is_loopback = addrs.clone().all(|addr| addr.ip().is_loopback());
    let ip = match (addrs.next()?, is_loopback) {
        (SocketAddr::V4(_), true) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        (SocketAddr::V4(_), false) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        (SocketAddr::V6(_), true) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        (SocketAddr::V6(_), false) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    Some(SocketAddr::new(ip, 0))
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let peers: Vec<EntityId> = lock(&self.inner.peers).entities().collect();
        f.debug_struct("Client").field("peers", &peers).finish_non_exhaustive()
    }
}
