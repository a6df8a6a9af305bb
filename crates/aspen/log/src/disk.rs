//! Folders and files as storage needs them, so that a simulation can replace the kernel.
//!
//! Invariants of every implementation: a write is durable once a later `sync_data` returns; before
//! that a crash may keep any of its sectors of 512 bytes, each of them whole; `rename` replaces
//! atomically and is durable once `sync_dir` returns. After a failed `sync_data` nothing is known
//! about the file, so callers stop using it.

#[cfg(any(test, feature = "test-util"))]
pub mod crash;
mod file_system;
mod memory;

use std::fmt;
use std::io;
use std::sync::Arc;

pub use file_system::{FolderLock, FsDisk, LockError};
pub use memory::MemoryDisk;

/// Space of the medium that holds a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes of the medium.
    pub total_bytes: u64,
    /// Bytes this process may still use.
    pub available_bytes: u64,
}

impl DiskUsage {
    /// Whether more than `percent` of the medium is used.
    pub fn is_above(&self, percent: u64) -> bool {
        let used = self.total_bytes.saturating_sub(self.available_bytes);
        u128::from(used) * 100 > u128::from(self.total_bytes) * u128::from(percent)
    }
}

/// A folder of files with flat names.
pub trait Disk: Send + Sync + 'static {
    /// Names of the files, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates or replaces a file of `len` zero bytes whose space is reserved.
    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames a file, replacing `to`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes creations, renames and removals durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// The folder `name` below this one, created if missing.
    fn folder(&self, name: &str) -> io::Result<Arc<dyn Disk>>;
    /// Space of the medium.
    fn usage(&self) -> io::Result<DiskUsage>;
}

/// An open file. Positions are bytes; reads past the end are `UnexpectedEof`.
pub trait DiskFile: Send + Sync + fmt::Debug + 'static {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills `buf` from `offset`.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `buf` at `offset`, growing the file if needed.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts or grows the file with zero bytes.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Returns once everything written before is durable.
    fn sync_data(&self) -> io::Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fullness_is_exact_at_the_limit() {
        let usage = |available_bytes| DiskUsage { total_bytes: 1_000, available_bytes };
        assert!(!usage(50).is_above(95));
        assert!(usage(49).is_above(95));
        assert!(!DiskUsage { total_bytes: 0, available_bytes: 0 }.is_above(95));
    }
}
