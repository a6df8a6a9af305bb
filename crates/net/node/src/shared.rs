//! What the driver, the application and handler tasks share: the state under its lock, the socket and
//! the clock.
//!
//! Invariant: no code of applications runs, and nothing waits, while the lock is held.

use std::sync::{Mutex, MutexGuard};

use net_types::{Instant, lock};

use crate::socket::MeshSocket;
use crate::state::Core;

/// What the driver, the application and handler tasks share.
pub(crate) struct Shared {
    core: Mutex<Core>,
    pub(crate) socket: MeshSocket,
    origin: tokio::time::Instant,
}

impl Shared {
    pub(crate) fn new(core: Core, socket: MeshSocket) -> Self {
        Self { core: Mutex::new(core), socket, origin: tokio::time::Instant::now() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Core> {
        // No code of applications runs under the lock; a panic there is a fault of the mesh, after
        // which the node can still shut down.
        lock(&self.core)
    }

    pub(crate) fn now(&self) -> Instant {
        let since = tokio::time::Instant::now().saturating_duration_since(self.origin);
        Instant::ZERO + since
    }

    pub(crate) fn to_tokio(&self, at: Instant) -> tokio::time::Instant {
        self.origin + at.since(Instant::ZERO).min(FAR)
    }
}

/// The farthest alarm, which every system's clock can express: thirty years.
const FAR: std::time::Duration = std::time::Duration::from_secs(30 * 365 * 86_400);
