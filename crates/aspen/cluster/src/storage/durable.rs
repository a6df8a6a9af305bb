//! The log of a node, and what waits for its disk. Invariant: each append is completed once.

use std::io;

use aspen_log::{Completion, Log, LogError};
use openraft::storage::IOFlushed;
use tokio::sync::oneshot;

use crate::types::Types;

/// What waits for the disk.
pub(crate) enum Durable {
    /// openraft, for entries.
    Flushed(IOFlushed<Types>),
    /// A task.
    Task(oneshot::Sender<io::Result<()>>),
}

impl Completion for Durable {
    fn complete(self, result: io::Result<()>) {
        match self {
            Self::Flushed(callback) => callback.io_completed(result),
            // The task may have given up waiting.
            Self::Task(sender) => drop(sender.send(result)),
        }
    }
}

/// The log of a node.
pub(crate) type RaftLog = Log<Durable>;

/// Waits until the disk holds what `start` hands to the log.
pub(super) async fn durable(start: impl FnOnce(Durable) -> Result<(), LogError>) -> io::Result<()> {
    let (tx, rx) = oneshot::channel();
    start(Durable::Task(tx)).map_err(LogError::into_io)?;
    rx.await.map_err(io::Error::other)?
}

/// Waits until everything appended so far is durable.
pub(super) async fn flush(log: &RaftLog) -> io::Result<()> {
    durable(|done| log.barrier(done)).await
}
