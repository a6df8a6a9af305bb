//! Snapshot files and the folder that holds them. Invariant: a file with its final name is whole.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};

use aspen_api::codec::{DecodeError, Input, Wire};
use aspen_kv::snapshot::SnapshotStream;
use net_types::limits::{MAX_SNAPSHOT_BYTES, SNAPSHOT_CHUNK_BYTES};

use crate::state::{Progress, StoreError, StoreView};
use aspen_log::EntryId;
use aspen_log::disk::{Disk, DiskFile};
use net_types::lock;

const MAGIC: [u8; 8] = *b"ASPENSNP";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 12;
/// A chunk holds about [`SNAPSHOT_CHUNK_BYTES`], more only for one large row.
const MAX_CHUNK_BYTES: usize = SNAPSHOT_CHUNK_BYTES + (2 << 20);
/// Bytes hashed at a time.
const HASH_RUN_BYTES: usize = 1 << 20;

/// BLAKE3 of a snapshot file: names its content wherever it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotId(pub [u8; 32]);

impl Wire for SnapshotId {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn take(input: &mut Input) -> Result<Self, DecodeError> {
        input.array().map(Self)
    }

    fn size_hint(&self) -> usize {
        32
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A whole snapshot file.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFile {
    /// How far the log is applied in it, and the members there.
    pub(crate) progress: Progress,
    /// Hash of its bytes.
    pub(crate) id: SnapshotId,
    /// Its length.
    pub(crate) len: u64,
    /// The open file.
    pub(crate) file: Arc<dyn DiskFile>,
}

fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(format!("snapshot file: {what}"))
}

impl SnapshotFile {
    /// Gives each chunk to `visit`.
    pub(crate) fn read_chunks(
        &self,
        mut visit: impl FnMut(&[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut head = [0; HEAD_BYTES];
        self.file.read_at(&mut head, 0)?;
        if head[..8] != MAGIC || head[8..] != VERSION.to_le_bytes() {
            return Err(damaged("not a snapshot of this version"));
        }
        let mut at = HEAD_BYTES as u64;
        let mut chunk = Vec::new();
        while at < self.len {
            let mut len = [0; 4];
            self.file.read_at(&mut len, at)?;
            let len = u32::from_le_bytes(len) as usize;
            let end = at + 4 + len as u64;
            if len > MAX_CHUNK_BYTES || end > self.len {
                return Err(damaged("a chunk's length"));
            }
            chunk.resize(len, 0);
            self.file.read_at(&mut chunk, at + 4)?;
            visit(&chunk)?;
            at = end;
        }
        Ok(())
    }
}

/// Hash of the first `len` bytes of a file.
pub(crate) fn hash_file(file: &dyn DiskFile, len: u64) -> io::Result<SnapshotId> {
    let mut hasher = blake3::Hasher::new();
    let mut buf = vec![0; HASH_RUN_BYTES];
    let mut at = 0;
    while at < len {
        let run = (len - at).min(HASH_RUN_BYTES as u64) as usize;
        file.read_at(&mut buf[..run], at)?;
        hasher.update(&buf[..run]);
        at += run as u64;
    }
    Ok(SnapshotId(*hasher.finalize().as_bytes()))
}

/// The newest snapshot file of a node, made when a follower first needs one and shared by all that
/// do.
pub(crate) struct Spool {
    disk: Arc<dyn Disk>,
    newest: Mutex<Option<SnapshotFile>>,
    /// One file is written at a time; a second task finds the first one's.
    writing: Mutex<()>,
}

/// Name under which a file is written.
const UNFINISHED: &str = "outgoing.tmp";

fn name_of(applied: EntryId) -> String {
    format!("{:016x}-{:016x}.snap", applied.term, applied.index)
}

impl Spool {
    /// The spool in `disk`. Files of an earlier run are removed: none is being sent.
    pub(crate) fn open(disk: Arc<dyn Disk>) -> io::Result<Self> {
        for name in disk.list()? {
            if name.ends_with(".snap") || name == UNFINISHED {
                disk.remove(&name)?;
            }
        }
        Ok(Self { disk, newest: Mutex::new(None), writing: Mutex::new(()) })
    }

    /// The newest file, if there is one.
    pub(crate) fn newest(&self) -> Option<SnapshotFile> {
        lock(&self.newest).clone()
    }

    /// The file of `view`. Blocks while it is written and synced.
    pub(crate) fn file_of(&self, view: &StoreView) -> Result<SnapshotFile, StoreError> {
        let progress = view.progress();
        let applied = progress.applied.ok_or_else(|| damaged("nothing is applied"))?;
        let _writing = lock(&self.writing);
        if let Some(file) = self.newest().filter(|file| file.progress.applied == Some(applied)) {
            return Ok(file);
        }
        let written = self.write(view, progress.clone(), applied)?;
        let mut newest = lock(&self.newest);
        if let Some(old) = newest.replace(written.clone())
            && let Some(applied) = old.progress.applied
        {
            // A transfer that still sends it holds it open.
            let _ = self.disk.remove(&name_of(applied));
        }
        Ok(written)
    }

    fn write(
        &self,
        view: &StoreView,
        progress: Progress,
        applied: EntryId,
    ) -> Result<SnapshotFile, StoreError> {
        let file = self.disk.create(UNFINISHED, 0)?;
        let mut hasher = blake3::Hasher::new();
        let mut len = 0u64;
        let mut put = |bytes: &[u8]| -> io::Result<()> {
            if len + bytes.len() as u64 > MAX_SNAPSHOT_BYTES {
                let what = format!("the state exceeds the limit of {MAX_SNAPSHOT_BYTES} bytes");
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
            }
            file.write_at(bytes, len)?;
            hasher.update(bytes);
            len += bytes.len() as u64;
            Ok(())
        };
        put(&[&MAGIC[..], &VERSION.to_le_bytes()].concat())?;
        let mut stream = SnapshotStream::new();
        let mut frame = Vec::with_capacity(SNAPSHOT_CHUNK_BYTES + 4);
        while let Some(chunk) = stream.next_chunk(view.tables())? {
            frame.clear();
            frame.extend_from_slice(&(chunk.len() as u32).to_le_bytes());
            frame.extend_from_slice(&chunk);
            if let Err(error) = put(&frame) {
                // It may be what fills the disk.
                let _ = self.disk.remove(UNFINISHED);
                return Err(error.into());
            }
        }
        let id = SnapshotId(*hasher.finalize().as_bytes());
        file.sync_data()?;
        self.disk.rename(UNFINISHED, &name_of(applied))?;
        self.disk.sync_dir()?;
        Ok(SnapshotFile { progress, id, len, file })
    }
}
