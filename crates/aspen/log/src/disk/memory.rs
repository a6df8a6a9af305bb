//! Files in memory, for the `inmemory` backend and for tests.
//!
//! Invariant: a folder is a prefix of names, so that all folders of a disk share one map.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use super::{Disk, DiskFile, DiskUsage};
use net_types::lock;

/// Files in memory. Clones share the files.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    files: Arc<Mutex<BTreeMap<String, Arc<MemoryFile>>>>,
    prefix: String,
}

#[derive(Debug)]
struct MemoryFile(Mutex<Vec<u8>>);

fn not_found(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file {name}"))
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

impl Disk for MemoryDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = lock(&self.files)
            .keys()
            .filter_map(|name| name.strip_prefix(&self.prefix))
            .filter(|name| !name.contains('/'))
            .map(str::to_owned)
            .collect();
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        match lock(&self.files).get(&self.full_name(name)) {
            Some(file) => Ok(file.clone()),
            None => Err(not_found(name)),
        }
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        // Zeroed pages are not resident before they are written.
        let (len, _) = range(len, 0)?;
        let file = Arc::new(MemoryFile(Mutex::new(vec![0; len])));
        lock(&self.files).insert(self.full_name(name), file.clone());
        Ok(file)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = lock(&self.files);
        let file = files.remove(&self.full_name(from)).ok_or_else(|| not_found(from))?;
        files.insert(self.full_name(to), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        lock(&self.files).remove(&self.full_name(name)).map(drop).ok_or_else(|| not_found(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn folder(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        Ok(Arc::new(Self { files: self.files.clone(), prefix: format!("{}{name}/", self.prefix) }))
    }

    fn usage(&self) -> io::Result<DiskUsage> {
        Ok(DiskUsage { total_bytes: u64::MAX, available_bytes: u64::MAX })
    }
}

fn range(offset: u64, len: usize) -> io::Result<(usize, usize)> {
    let start = usize::try_from(offset).map_err(io::Error::other)?;
    let end = start.checked_add(len).ok_or_else(|| io::Error::other("offset overflows"))?;
    Ok((start, end))
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.0).len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let (start, end) = range(offset, buf.len())?;
        let bytes = lock(&self.0);
        let source = bytes.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(source);
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let (start, end) = range(offset, buf.len())?;
        let mut bytes = lock(&self.0);
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[start..end].copy_from_slice(buf);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let (len, _) = range(len, 0)?;
        lock(&self.0).resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_apart_and_renames_replace() {
        let disk = MemoryDisk::new();
        let sub = disk.folder("log").unwrap();
        sub.create("a", 0).unwrap().write_at(b"x", 2).unwrap();
        disk.create("a", 0).unwrap();
        assert_eq!(disk.list().unwrap(), ["a"]);
        sub.rename("a", "b").unwrap();
        let mut buf = [9; 3];
        sub.open("b").unwrap().read_at(&mut buf, 0).unwrap();
        assert_eq!(buf, [0, 0, b'x']);
        assert_eq!(sub.open("a").unwrap_err().kind(), io::ErrorKind::NotFound);
        let end = disk.open("a").unwrap().read_at(&mut buf, 0).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }
}
