//! What tests of services and doors share.

use bytes::Bytes;

use crate::service::{Guard, Origin};
use crate::{ApiError, Kind, Level, Needs, Revision};

/// Lets every request pass, at the highest feature level.
#[derive(Clone, Copy, Debug)]
pub struct OpenGuard;

impl Guard for OpenGuard {
    fn authorize<'r>(
        &self,
        _: Origin,
        _: Option<&Bytes>,
        _: &dyn Fn() -> Needs<'r>,
    ) -> Result<(), ApiError> {
        Ok(())
    }

    fn admit(&self, _: Kind) -> Result<(), ApiError> {
        Ok(())
    }

    fn level(&self) -> Level {
        Level::TOP
    }

    fn applied(&self) -> Revision {
        Revision(0)
    }
}
