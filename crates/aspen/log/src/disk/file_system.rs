//! The kernel's files, and the lock that keeps a second process from a data folder.
//!
//! Invariant: only the owner may read what is created here.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation, fallocate, flock, statvfs};
use thiserror::Error;

use super::{Disk, DiskFile, DiskUsage};

const LOCK_NAME: &str = "lock";

/// A folder of the file system. Files are created with mode 0600.
#[derive(Clone, Debug)]
pub struct FsDisk {
    path: PathBuf,
}

impl FsDisk {
    /// The folder at `path`, created with its parents if missing.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        fs::create_dir_all(&path)?;
        Ok(Self { path })
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// Reserves space, so that writes within it change no metadata. On file systems without the call
/// the file is sparse, which costs speed alone.
fn reserve(file: &File, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::empty(), 0, len) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(len),
        Err(errno) => Err(errno.into()),
    }
}

impl Disk for FsDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(FsFile(options().open(self.path.join(name))?)))
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        let file = options().create(true).truncate(true).open(self.path.join(name))?;
        reserve(&file, len)?;
        Ok(Arc::new(FsFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn folder(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        Ok(Arc::new(Self::open(self.path.join(name))?))
    }

    fn usage(&self) -> io::Result<DiskUsage> {
        let stat = statvfs(&self.path)?;
        let blocks = |n: u64| n.saturating_mul(stat.f_frsize);
        // Blocks reserved for root are neither usable nor part of what can fill up.
        let reserved = stat.f_bfree.saturating_sub(stat.f_bavail);
        Ok(DiskUsage {
            total_bytes: blocks(stat.f_blocks.saturating_sub(reserved)),
            available_bytes: blocks(stat.f_bavail),
        })
    }
}

#[derive(Debug)]
struct FsFile(File);

impl DiskFile for FsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// Why a data folder could not be taken.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process uses the folder; nothing was changed.
    #[error("another process uses this data folder")]
    Held,
    /// The lock file could not be opened.
    #[error("cannot lock the data folder: {0}")]
    Io(#[from] io::Error),
}

/// Exclusive use of a data folder. The kernel releases it when the process ends in any way.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the lock of `folder`, which must exist.
    pub fn acquire(folder: &Path) -> Result<Self, LockError> {
        let file = options().create(true).truncate(false).open(folder.join(LOCK_NAME))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::Held),
            Err(errno) => Err(LockError::Io(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = FolderLock::acquire(dir.path()).unwrap();
        assert!(matches!(FolderLock::acquire(dir.path()), Err(LockError::Held)));
        drop(first);
        FolderLock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn files_are_reserved_written_renamed_and_listed() {
        let dir = tempfile::tempdir().unwrap();
        let disk = FsDisk::open(dir.path()).unwrap();
        let file = disk.create("a", 4_096).unwrap();
        assert_eq!(file.len().unwrap(), 4_096);
        file.write_at(b"hello", 10).unwrap();
        file.sync_data().unwrap();
        disk.rename("a", "b").unwrap();
        disk.sync_dir().unwrap();
        assert_eq!(disk.list().unwrap(), ["b"]);
        let mut buf = [0; 6];
        disk.open("b").unwrap().read_at(&mut buf, 9).unwrap();
        assert_eq!(&buf, b"\0hello");
        assert!(disk.usage().unwrap().total_bytes > 0);
    }
}
