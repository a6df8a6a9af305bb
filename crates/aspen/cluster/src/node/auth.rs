//! Which caller may do what, decided before anything is done.
//!
//! Members are trusted in each other's requests by the identity of their sessions. Any other caller
//! shows a capability token (`aspen-auth`), or is trusted for holding the mesh's secret where tokens
//! are not required. Invariant: a token is remembered only for the identity that it was checked for.

use std::collections::HashMap;
use std::sync::Mutex;

use aspen_api::kv::{Consistency, ReadKey};
use aspen_api::lease::LeaseTimeToLive;
use aspen_api::service::Origin;
use aspen_api::{ApiError, ErrorCode, Key, LeaseId, Needs};
use aspen_auth::{Rejection, TokenId, Verified, Verifier, revocation_key};
use bytes::Bytes;
use net_types::limits::MAX_REMEMBERED_TOKENS;
use net_types::{EntityId, lock};
use openraft::Raft;
use openraft::async_runtime::watch::WatchReceiver;

use crate::clock::Clock;
use crate::condition::ensure;
use crate::state::Store;
use crate::storage::StateMachine;
use crate::types::{Membership, Types};

/// A call that is judged, and what the node knows.
pub struct AuthContext<'n> {
    pub(super) raft: &'n Raft<Types, StateMachine>,
    pub(super) store: &'n Store,
    pub(super) clock: &'n dyn Clock,
    /// The node's own identity.
    pub(super) own: EntityId,
    /// Where it comes from.
    pub origin: Origin,
    /// The token that it shows.
    pub token: Option<&'n Bytes>,
}

/// Decides whether a caller may do what it asks, before anything is done.
pub trait Authorizer: Send + Sync + 'static {
    /// `needs` is asked only if it matters.
    fn authorize<'r>(
        &self,
        call: &AuthContext<'_>,
        needs: &dyn Fn() -> Needs<'r>,
    ) -> Result<(), ApiError>;

    /// Whether every holder of the mesh's secret may do everything.
    fn trusts_mesh(&self) -> bool;
}

/// Trusts every caller that holds the mesh's secret, reserved prefixes included.
#[derive(Clone, Copy, Debug, Default)]
pub struct TrustMesh;

impl Authorizer for TrustMesh {
    fn authorize<'r>(
        &self,
        call: &AuthContext<'_>,
        needs: &dyn Fn() -> Needs<'r>,
    ) -> Result<(), ApiError> {
        match call.origin {
            Origin::Process | Origin::Mesh(_) => Ok(()),
            Origin::Door(_) if needs() == Needs::Open => Ok(()),
            Origin::Door(_) => Err(unauthorized("this node checks no tokens")),
        }
    }

    fn trusts_mesh(&self) -> bool {
        true
    }
}

/// Checks the tokens of requests.
#[derive(Debug)]
pub struct CheckTokens {
    /// Issuers that are trusted; none means this node and the members, so that a token of one of
    /// them holds wherever a client is sent.
    roots: Vec<EntityId>,
    /// Whether a request without a token is refused, instead of trusted.
    is_required: bool,
    /// Tokens whose signatures were checked, each for the identity that used it.
    verified: Mutex<HashMap<(TokenId, Option<EntityId>), Verified>>,
}

fn unauthorized(text: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::Unauthorized, text)
}

impl CheckTokens {
    /// Trusts `roots`, or the members if there are none.
    pub fn new(roots: Vec<EntityId>, is_required: bool) -> Self {
        Self { roots, is_required, verified: Mutex::default() }
    }

    fn verify(
        &self,
        call: &AuthContext<'_>,
        caller: Option<EntityId>,
        record: &Bytes,
    ) -> Result<Verified, Rejection> {
        let now = call.clock.wall().0 / 1_000;
        let roots = match self.roots.is_empty() {
            true => call.members_and_self(),
            false => self.roots.clone(),
        };
        let key = (TokenId::of(record), caller);
        let known = lock(&self.verified).get(&key).cloned();
        let holds = |known: &Verified| {
            (known.valid.0..=known.valid.1).contains(&now) && roots.contains(&known.root)
        };
        let verified = match known.filter(holds) {
            Some(known) => known,
            None => {
                let verified = Verifier { roots: &roots, caller, now }.verify(record.clone())?;
                let mut all = lock(&self.verified);
                if all.len() >= MAX_REMEMBERED_TOKENS {
                    all.clear();
                }
                all.insert(key, verified.clone());
                verified
            }
        };
        let is_revoked = verified.chain.iter().any(|token| call.is_revoked(token));
        ensure(!is_revoked, || Rejection::Revoked).map(|()| verified)
    }
}

impl Authorizer for CheckTokens {
    fn authorize<'r>(
        &self,
        call: &AuthContext<'_>,
        needs: &dyn Fn() -> Needs<'r>,
    ) -> Result<(), ApiError> {
        let caller = match call.origin {
            Origin::Process => return Ok(()),
            Origin::Mesh(caller) if call.is_member(caller) => {
                return Ok(());
            }
            Origin::Mesh(caller) => Some(caller),
            Origin::Door(_) => None,
        };
        let needs = needs();
        match (&needs, call.token) {
            (Needs::Open, _) => Ok(()),
            // A leader asks a node that is to join and knows no issuer yet.
            (Needs::AnyToken, _) if call.with_members(|all| all.nodes().next().is_none()) => Ok(()),
            (_, None) if self.is_required || caller.is_none() => {
                Err(unauthorized("a token is required"))
            }
            (_, None) => Ok(()),
            (_, Some(record)) => {
                let verified = self.verify(call, caller, record);
                let verified = verified.map_err(|error| unauthorized(error.to_string()))?;
                let permitted = verified.grant.permits(&needs, |lease| call.lease_keys(lease));
                permitted.map_err(|error| ApiError::new(ErrorCode::Forbidden, error.to_string()))
            }
        }
    }

    fn trusts_mesh(&self) -> bool {
        !self.is_required
    }
}

impl AuthContext<'_> {
    fn with_members<T>(&self, look: impl FnOnce(&Membership) -> T) -> T {
        look(self.raft.server_metrics().borrow_watched().membership_config.membership())
    }

    fn is_member(&self, entity: EntityId) -> bool {
        self.with_members(|all| all.nodes().any(|(_, member)| member.0.entity_id == entity))
    }

    fn members_and_self(&self) -> Vec<EntityId> {
        self.with_members(|all| {
            all.nodes().map(|(_, member)| member.0.entity_id).chain([self.own]).collect()
        })
    }

    /// Whether this node has seen a token be revoked. If its state cannot be read, it was.
    fn is_revoked(&self, token: &TokenId) -> bool {
        let read =
            ReadKey { key: revocation_key(token), consistency: Consistency::Stale, revision: None };
        let Ok(view) = self.store.view() else { return true };
        view.view().read(&read).map_or(true, |found| found.item.is_some())
    }

    /// The keys of a lease as this node has applied them, empty if there is no such lease; `None` if
    /// they are too many to list or cannot be read.
    fn lease_keys(&self, lease_id: LeaseId) -> Option<Vec<Key>> {
        let view = self.store.view().ok()?;
        let request = LeaseTimeToLive { lease_id, should_include_keys: true };
        match view.view().lease_time_to_live(&request) {
            Ok(lease) if lease.key_count == lease.keys.len() as u64 => Some(lease.keys),
            Ok(_) => None,
            Err(error) => (ApiError::from(error).code == ErrorCode::NotFound).then(Vec::new),
        }
    }
}
