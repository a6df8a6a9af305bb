//! A disk for tests that loses power and refuses writes on request.
//!
//! Invariant: equal seeds and equal calls give equal disks.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use super::{Disk, DiskFile, DiskUsage};
use net_types::lock;

const SECTOR: usize = 512;

/// How later calls fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Writes and syncs that still succeed; then every call fails with the error.
    pub fail_after: Option<(u64, io::ErrorKind)>,
}

#[derive(Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<(usize, usize)>,
}

#[derive(Debug, Default)]
struct Inner {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    faults: Faults,
    calls: u64,
    syncs: u64,
    rng: u64,
}

/// Files that survive [`CrashDisk::crash`] only as far as they were synced.
#[derive(Clone, Debug)]
pub struct CrashDisk(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct CrashFile(CrashDisk, usize);

impl CrashDisk {
    /// An empty disk; `seed` decides what crashes keep.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner { rng: seed | 1, ..Inner::default() })))
    }

    /// Sets how the calls from now on fail.
    pub fn set_faults(&self, faults: Faults) {
        let mut inner = lock(&self.0);
        inner.faults = faults;
        inner.calls = 0;
    }

    /// Syncs of files so far.
    pub fn syncs(&self) -> u64 {
        lock(&self.0).syncs
    }

    /// The disk after a loss of power at this moment: each unsynced sector is kept or lost at random,
    /// and the names are those of the last sync of the folder or the current ones.
    pub fn crash(&self) -> Self {
        let mut inner = lock(&self.0);
        let mut rng = inner.rng;
        let mut inodes = Vec::new();
        for inode in &inner.inodes {
            let mut bytes = inode.durable.clone();
            bytes.resize(inode.current.len().max(bytes.len()), 0);
            for (start, end) in &inode.unsynced {
                let mut at = *start;
                while at < *end {
                    let stop = ((at / SECTOR + 1) * SECTOR).min(*end);
                    if next(&mut rng) & 1 == 0 {
                        bytes[at..stop].copy_from_slice(&inode.current[at..stop]);
                    }
                    at = stop;
                }
            }
            inodes.push(Inode { durable: bytes.clone(), current: bytes, unsynced: Vec::new() });
        }
        let names = if next(&mut rng) & 1 == 0 { &inner.names } else { &inner.durable_names };
        let names = names.clone();
        inner.rng = rng;
        let after = Inner { inodes, durable_names: names.clone(), names, rng, ..Inner::default() };
        Self(Arc::new(Mutex::new(after)))
    }

    /// Changes durable bytes of a file, as a bad medium does.
    pub fn damage(&self, name: &str, change: impl FnOnce(&mut [u8])) {
        let mut inner = lock(&self.0);
        let id = inner.names[name];
        change(&mut inner.inodes[id].current);
        inner.inodes[id].durable = inner.inodes[id].current.clone();
    }
}

fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state >> 11
}

impl Inner {
    fn step(&mut self) -> io::Result<()> {
        self.calls += 1;
        match self.faults.fail_after {
            Some((allowed, kind)) if self.calls > allowed => Err(kind.into()),
            _ => Ok(()),
        }
    }

    fn id(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for CrashDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(lock(&self.0).names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let id = lock(&self.0).id(name)?;
        Ok(Arc::new(CrashFile(self.clone(), id)))
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut inner = lock(&self.0);
        inner.step()?;
        let bytes = vec![0; len as usize];
        inner.inodes.push(Inode { durable: bytes.clone(), current: bytes, unsynced: vec![] });
        let id = inner.inodes.len() - 1;
        inner.names.insert(name.into(), id);
        Ok(Arc::new(CrashFile(self.clone(), id)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = lock(&self.0);
        let id = inner.id(from)?;
        inner.step()?;
        inner.names.remove(from);
        inner.names.insert(to.into(), id);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = lock(&self.0);
        inner.id(name)?;
        inner.step()?;
        inner.names.remove(name);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut inner = lock(&self.0);
        inner.step()?;
        inner.durable_names = inner.names.clone();
        Ok(())
    }

    fn folder(&self, _: &str) -> io::Result<Arc<dyn Disk>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn usage(&self) -> io::Result<DiskUsage> {
        Ok(DiskUsage { total_bytes: 1 << 30, available_bytes: 1 << 29 })
    }
}

impl DiskFile for CrashFile {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.0.0).inodes[self.1].current.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let inner = lock(&self.0.0);
        let start = offset as usize;
        let bytes = inner.inodes[self.1].current.get(start..start + buf.len());
        buf.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut inner = lock(&self.0.0);
        inner.step()?;
        let inode = &mut inner.inodes[self.1];
        let (start, end) = (offset as usize, offset as usize + buf.len());
        if inode.current.len() < end {
            inode.current.resize(end, 0);
        }
        inode.current[start..end].copy_from_slice(buf);
        inode.unsynced.push((start, end));
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        lock(&self.0.0).inodes[self.1].current.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = lock(&self.0.0);
        inner.step()?;
        inner.syncs += 1;
        let inode = &mut inner.inodes[self.1];
        inode.durable = inode.current.clone();
        inode.unsynced.clear();
        Ok(())
    }
}
