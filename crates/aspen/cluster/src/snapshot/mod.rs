//! Snapshots: the whole state as bytes, for nodes that are new or too far behind for the log.
//!
//! A node's snapshot is its state itself; only when a follower needs one is it written to a file,
//! from one read transaction, while writes continue. The same state gives the same bytes, so a
//! transfer that broke off continues where it stopped, even from another leader. The receiver checks
//! the whole file against its hash before anything of its own state changes.
//!
//! ```text
//! file   magic "ASPENSNP" · version u32 = 1 · chunks, each length u32 and bytes
//! ```
//!
//! Chunks are those of [`aspen_kv::snapshot`]; integers are little-endian.

mod file;
mod receive;

use std::sync::Arc;

use aspen_kv::snapshot::{Restore, SnapshotStream};

pub(crate) use file::{SnapshotFile, SnapshotId, Spool};
pub(crate) use receive::{ReceiveError, Receiver};

use crate::condition::ensure;
use crate::state::{FileWriter, StoreError, StoreView};

/// A snapshot's content.
pub(crate) enum SnapshotData {
    /// A state in memory and redb, at one moment.
    View(Arc<StoreView>),
    /// A file, whole and checked.
    File(SnapshotFile),
}

impl SnapshotData {
    /// Writes the content into empty tables.
    pub(crate) fn install(&self, tables: &mut FileWriter<'_>) -> Result<(), StoreError> {
        let mut restore = Restore::begin(tables)?;
        let mut is_whole = false;
        let mut push = |chunk: &[u8]| {
            if is_whole {
                return Err(StoreError::Damaged("the snapshot continues behind its end".into()));
            }
            is_whole = restore.push(tables, chunk)?.is_some();
            Ok(())
        };
        match self {
            Self::View(view) => {
                let mut stream = SnapshotStream::new();
                while let Some(chunk) = stream.next_chunk(view.tables())? {
                    push(&chunk)?;
                }
            }
            Self::File(file) => file.read_chunks(push)?,
        }
        ensure(is_whole, || StoreError::Damaged("the snapshot ends early".into()))?;
        #[cfg(debug_assertions)]
        aspen_kv::check_invariants(tables)?;
        Ok(())
    }
}
