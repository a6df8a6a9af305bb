//! What a node decides about a request before its service sees it.

use std::sync::atomic::Ordering;

use aspen_api::service::{Guard, Origin};
use aspen_api::{ApiError, ErrorCode, Kind, Level, Needs, Revision};
use bytes::Bytes;

use super::ClusterNode;
use super::errors::stopped;

impl ClusterNode {
    /// `NOT_INITIALIZED` if the node belongs to no cluster.
    pub(crate) fn ensure_initialized(&self) -> Result<(), ApiError> {
        match self.is_initialized() {
            true => Ok(()),
            false => {
                let text = "this node belongs to no cluster yet";
                Err(ApiError::new(ErrorCode::NotInitialized, text))
            }
        }
    }
}

impl Guard for ClusterNode {
    fn authorize<'r>(
        &self,
        origin: Origin,
        token: Option<&Bytes>,
        needs: &dyn Fn() -> Needs<'r>,
    ) -> Result<(), ApiError> {
        self.0.config.authorizer.authorize(self, origin, token, needs)
    }

    fn admit(&self, kind: Kind) -> Result<(), ApiError> {
        if self.0.is_stopping.load(Ordering::Relaxed) {
            return Err(stopped());
        }
        match kind {
            Kind::Local | Kind::Node => Ok(()),
            Kind::Read(_) | Kind::Write | Kind::Membership => {
                self.ensure_initialized()?;
                match kind.is_for_leader() && !self.is_leader() {
                    true => Err(ApiError::not_leader(self.leader_addr())),
                    false => Ok(()),
                }
            }
        }
    }

    fn level(&self) -> Level {
        self.0.upkeep.level()
    }

    fn applied(&self) -> Revision {
        self.0.upkeep.applied_revision()
    }

    /// A caller is not to wait for a leader that is gone.
    fn explain(&self, error: ApiError) -> ApiError {
        match error.leader_hint.is_some() && self.live_leader().is_none() {
            true => ApiError::not_leader(None),
            false => error,
        }
    }
}
