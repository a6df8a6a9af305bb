//! How doors are told to end.
//!
//! Phases follow each other and never go back: serving, draining, closed.

use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Connections are accepted.
    Serving,
    /// Open connections may finish.
    Draining,
    /// Every connection is cut.
    Closed,
}

/// Tells a door to end.
#[derive(Clone)]
pub struct Stop(watch::Receiver<Phase>);

impl Stop {
    pub(crate) fn new(phase: watch::Receiver<Phase>) -> Self {
        Self(phase)
    }

    /// Returns once the door is to accept no more connections and to finish those that are open.
    pub async fn requested(&mut self) {
        self.reached(Phase::Draining).await;
    }

    /// Returns once open connections are cut.
    pub(crate) async fn closed(&mut self) {
        self.reached(Phase::Closed).await;
    }

    async fn reached(&mut self, phase: Phase) {
        // An error means that the doors are gone, which closes them too.
        let _ = self.0.wait_for(|now| *now >= phase).await;
    }
}
