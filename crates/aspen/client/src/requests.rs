//! One request, carried out in as many attempts as it takes.
//!
//! Invariants: a write has one id through all its attempts, or a new one only if none of them can
//! have been carried out; no more requests are under way than a node takes from one client.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aspen_api::cluster::GetRaftMetrics;
use aspen_api::codec::Wire;
use aspen_api::{
    ApiError, ClientId, ErrorCode, Kind, Request, RequestFrame, RequestId, Response, Revision,
    unreadable_answer,
};
use bytes::Bytes;
use net_node::RpcError;
use net_types::limits::MAX_REQUESTS_PER_CLIENT;
use net_types::lock;
use rand_core::{OsRng, RngCore};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::attempts::Attempts;
use crate::judgement::{Audience, may_have_run};
use crate::request_ids::RequestIds;
use crate::rotation::{Failure, Rotation, Step};
use crate::routing::Routing;

/// The requests of a client.
pub(crate) struct Requests {
    pub(crate) routing: Routing,
    /// Time for one request that names none.
    pub(crate) deadline: Duration,
    ids: Mutex<RequestIds>,
    /// As many requests under way as a node takes from one client.
    turns: Semaphore,
    origin: Instant,
}

/// What one attempt came to.
enum Attempt {
    Answer(Bytes),
    Failed(Failure),
    /// Refused for a reason that rotation cannot mend.
    Refused(ApiError),
}

/// The id of a write; given back when the request is over, however it ends.
struct OpenId<'a> {
    requests: &'a Requests,
    id: RequestId,
}

impl Drop for OpenId<'_> {
    fn drop(&mut self) {
        if self.id.some().is_some() {
            lock(&self.requests.ids).close(self.id);
        }
    }
}

impl Requests {
    /// Requests over `routing`.
    pub(crate) fn new(routing: Routing, deadline: Duration) -> Self {
        let turns = Semaphore::new(MAX_REQUESTS_PER_CLIENT);
        Self { routing, deadline, ids: Mutex::default(), turns, origin: Instant::now() }
    }

    pub(crate) async fn send<R: Request>(
        &self,
        request: R,
        deadline: Duration,
    ) -> Result<R::Reply, ApiError> {
        request.check()?;
        let kind = request.kind();
        let until = Instant::now() + deadline;
        if kind == Kind::Write && self.routing.seen() == Revision(0) {
            self.see_a_revision(deadline / 2).await;
        }
        let _turn = self.turn(until).await?;
        let id = match kind {
            Kind::Write => self.new_id()?,
            Kind::Local | Kind::Node | Kind::Read(_) | Kind::Membership => {
                OpenId { requests: self, id: RequestId::NONE }
            }
        };
        let body = self.routing.frame(&request, id.id);
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
        until: Instant,
    ) -> Result<Bytes, ApiError> {
        let audience = Audience::of(kind);
        let (is_write, is_change) = (id.id.some().is_some(), kind.is_change());
        let mut attempts = Attempts { is_write, is_change, ids: 1, ..Attempts::default() };
        let mut rotation = match audience {
            Audience::First => Rotation::start(1, 0, self.instant(until)),
            Audience::Leader | Audience::Any => {
                let first = *self.routing.first_choice(audience).borrow();
                Rotation::start(self.routing.known(audience), first, self.instant(until))
            }
        };
        loop {
            let peer = rotation.current();
            attempts.count += 1;
            tracing::trace!(peer, attempt = attempts.count, "asking");
            let failure = match self.attempt(peer, &body, until, audience, &mut attempts).await {
                Attempt::Answer(reply) => {
                    self.routing.choose(peer, audience);
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
            let known = self.routing.known(audience);
            let now = self.instant(Instant::now());
            match rotation.after(now, failure, known) {
                Step::GiveUp => return Err(attempts.error(known)),
                Step::Ask { wait, .. } if wait.is_zero() => {}
                Step::Ask { wait, .. } => tokio::time::sleep(wait).await,
            }
        }
    }

    /// Waits until one more request may be under way. The questions about the leader need no turn:
    /// each is asked for a request that waits elsewhere.
    pub(crate) async fn turn(&self, until: Instant) -> Result<SemaphorePermit<'_>, ApiError> {
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

    /// Asks one peer and, while it is silent, looks out for a better one.
    async fn attempt(
        &self,
        peer: usize,
        body: &Bytes,
        until: Instant,
        audience: Audience,
        attempts: &mut Attempts,
    ) -> Attempt {
        let left = until.saturating_duration_since(Instant::now());
        let patience = self.routing.patience(peer);
        let was_sent = AtomicBool::new(false);
        let answer = tokio::select! {
            biased;
            answer = self.routing.ask(peer, body.clone(), left, &was_sent) => answer,
            by = self.routing.better_than(peer, audience, patience) => {
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
                    RpcError::Timeout
                    | RpcError::Transport
                    | RpcError::Cancelled
                    | RpcError::NoRoute(_)
                    | RpcError::TooLarge(_) => Failure::Silent,
                })
            }
        }
    }

    fn judge(&self, error: ApiError, attempts: &mut Attempts) -> Attempt {
        let failure = match error.code {
            ErrorCode::NotLeader => {
                let hint = error.leader_hint.clone().and_then(|leader| self.routing.learn(leader));
                Failure::NotLeader { hint }
            }
            ErrorCode::ServiceUnavailable => Failure::Unavailable,
            ErrorCode::NotInitialized | ErrorCode::PluginLoading => Failure::NotReady,
            ErrorCode::Timeout if attempts.is_write => {
                // The entry may be in a log; the next leader recognizes it by its request id.
                attempts.is_open = true;
                Failure::Unavailable
            }
            ErrorCode::Timeout
            | ErrorCode::CapabilityUnavailable
            | ErrorCode::Unauthorized
            | ErrorCode::Forbidden
            | ErrorCode::InvalidRequest
            | ErrorCode::InvalidToken
            | ErrorCode::TooLarge
            | ErrorCode::RateLimited
            | ErrorCode::Compacted
            | ErrorCode::NotFound
            | ErrorCode::Conflict
            | ErrorCode::SessionExpired
            | ErrorCode::FeatureDisabled
            | ErrorCode::Unsupported
            | ErrorCode::InternalError => return Attempt::Refused(error),
        };
        attempts.last_refusal = Some(error);
        Attempt::Failed(failure)
    }

    fn new_id(&self) -> Result<OpenId<'_>, ApiError> {
        let since = self.routing.seen();
        let mut client = [0; 16];
        let mut failed = None;
        let id = lock(&self.ids).open(since, || {
            failed = OsRng.try_fill_bytes(&mut client).err();
            ClientId(client)
        });
        let id = OpenId { requests: self, id };
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

    /// Asks a peer how far it has applied the log, which [`Routing::ask`] takes note of.
    async fn look_at_revision(&self, peer: usize, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        let body = self.routing.frame(&GetRaftMetrics {}, RequestId::NONE);
        if let Err(error) = self.routing.ask(peer, body, left, &AtomicBool::new(false)).await {
            tracing::debug!(peer, %error, "the newest revision is not known");
        }
    }

    fn instant(&self, at: Instant) -> net_types::Instant {
        net_types::Instant::ZERO + at.saturating_duration_since(self.origin)
    }
}
