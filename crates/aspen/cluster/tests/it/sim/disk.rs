//! The simulator's disk as a node's data folder.
//!
//! Folders are prefixes of names. Syncing one folder makes the names of all durable, which a real
//! file system may do as well.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aspen_cluster::disk::{Disk, DiskFile, DiskUsage};

/// A node's disk; it outlives the node. Clones are handles of the same one.
#[derive(Clone)]
pub(crate) struct SimDisk {
    disk: net_sim::Disk,
    prefix: String,
    lies: Arc<AtomicBool>,
    is_full: Arc<AtomicBool>,
}

#[derive(Debug)]
struct SimFile {
    file: net_sim::DiskFile,
    lies: Arc<AtomicBool>,
}

impl SimDisk {
    pub(crate) fn new(seed: u64) -> Self {
        let disk = net_sim::Disk::new(seed, net_sim::DiskConfig::default());
        Self { disk, prefix: String::new(), lies: Arc::default(), is_full: Arc::default() }
    }

    /// From now on, syncs of files say that they are done and do nothing.
    pub(crate) fn lie(&self) {
        self.lies.store(true, Ordering::Relaxed);
    }

    /// Whether the disk shall say that it has hardly any room.
    pub(crate) fn set_full(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::Relaxed);
    }

    /// The disk itself, for faults.
    pub(crate) fn inner(&self) -> &net_sim::Disk {
        &self.disk
    }

    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn file(&self, file: net_sim::DiskFile) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { file, lies: self.lies.clone() })
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = self.disk.names();
        let own = names.iter().filter_map(|name| name.strip_prefix(&self.prefix));
        Ok(own.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.disk.open(&self.name(name))?))
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        let name = self.name(name);
        match self.disk.remove(&name) {
            Ok(()) | Err(net_sim::DiskError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let file = self.disk.create(&name)?;
        file.set_len(len)?;
        Ok(self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(self.disk.rename(&self.name(from), &self.name(to))?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(self.disk.remove(&self.name(name))?)
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(self.disk.sync_folder()?)
    }

    fn folder(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        Ok(Arc::new(Self { prefix: format!("{}{name}/", self.prefix), ..self.clone() }))
    }

    fn usage(&self) -> io::Result<DiskUsage> {
        let available_bytes = if self.is_full.load(Ordering::Relaxed) { 1 << 20 } else { 1 << 29 };
        Ok(DiskUsage { total_bytes: 1 << 30, available_bytes })
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.len_bytes()?)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        match self.file.read_at(offset, buf)? == buf.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        Ok(self.file.write_at(offset, buf)?)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Ok(self.file.set_len(len)?)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.lies.load(Ordering::Relaxed) {
            return Ok(());
        }
        Ok(self.file.sync()?)
    }
}
