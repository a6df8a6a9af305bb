//! The receiving side of a snapshot transfer.
//!
//! One transfer at a time. Its file is named by the content's hash, so a transfer that is offered
//! again, after any interruption on either side, continues at the offset reached.

use std::io;
use std::sync::Arc;

use net_types::limits::MAX_SNAPSHOT_BYTES;
use thiserror::Error;

use super::file::{SnapshotFile, SnapshotId, hash_file};
use crate::state::Progress;
use aspen_log::disk::{Disk, DiskFile};

/// Why a part of a snapshot was not taken.
#[derive(Debug, Error)]
pub(crate) enum ReceiveError {
    /// The medium failed or is full.
    #[error("cannot store the snapshot: {0}")]
    Io(#[from] io::Error),
    /// The part does not belong to the transfer under way; offer it again.
    #[error("no such transfer")]
    Unknown,
    /// The part's checksum is wrong or it goes past the end.
    #[error("the part is damaged")]
    Damaged,
    /// The whole file is not what was offered; it was thrown away.
    #[error("the snapshot does not match its hash")]
    Mismatch,
    /// It is larger than this node accepts.
    #[error("the snapshot is too large")]
    TooLarge,
}

struct Transfer {
    id: SnapshotId,
    len: u64,
    received: u64,
    file: Arc<dyn DiskFile>,
}

/// Takes snapshots from leaders.
pub(crate) struct Receiver {
    disk: Arc<dyn Disk>,
    transfer: Option<Transfer>,
}

fn part_name(id: &SnapshotId) -> String {
    format!("{id}.part")
}

impl Receiver {
    /// A receiver whose files are in `disk`.
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self { disk, transfer: None }
    }

    /// Begins or resumes the transfer of `len` bytes named `id`; returns the offset to continue from.
    pub(crate) fn offer(&mut self, id: SnapshotId, len: u64) -> Result<u64, ReceiveError> {
        if len > MAX_SNAPSHOT_BYTES {
            return Err(ReceiveError::TooLarge);
        }
        if let Some(transfer) = &self.transfer
            && transfer.id == id
            && transfer.len == len
        {
            return Ok(transfer.received);
        }
        self.transfer = None;
        let name = part_name(&id);
        for other in self.disk.list()? {
            if other.ends_with(".part") && other != name {
                self.disk.remove(&other)?;
            }
        }
        let (file, received) = match self.disk.open(&name) {
            Ok(file) => (file.clone(), file.len()?.min(len)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (self.disk.create(&name, 0)?, 0)
            }
            Err(error) => return Err(error.into()),
        };
        self.transfer = Some(Transfer { id, len, received, file });
        Ok(received)
    }

    /// Takes bytes at `offset`; returns the offset expected next. Bytes that are there already are
    /// passed over, bytes ahead of the end are not taken.
    pub(crate) fn part(
        &mut self,
        id: SnapshotId,
        offset: u64,
        crc: u32,
        bytes: &[u8],
    ) -> Result<u64, ReceiveError> {
        let transfer = self.transfer.as_mut().ok_or(ReceiveError::Unknown)?;
        if transfer.id != id {
            return Err(ReceiveError::Unknown);
        }
        let end = offset.checked_add(bytes.len() as u64).ok_or(ReceiveError::Damaged)?;
        if end > transfer.len || crc32fast::hash(bytes) != crc {
            return Err(ReceiveError::Damaged);
        }
        if offset == transfer.received {
            transfer.file.write_at(bytes, offset)?;
            transfer.received = end;
        }
        Ok(transfer.received)
    }

    /// Checks the whole file and hands it over. Blocks while it is read and synced.
    pub(crate) fn finish(
        &mut self,
        id: SnapshotId,
        progress: Progress,
    ) -> Result<SnapshotFile, ReceiveError> {
        let transfer = self.transfer.take_if(|t| t.id == id).ok_or(ReceiveError::Unknown)?;
        if transfer.received < transfer.len {
            self.transfer = Some(transfer);
            return Err(ReceiveError::Unknown);
        }
        transfer.file.sync_data()?;
        let found = hash_file(&*transfer.file, transfer.len)?;
        // Open files outlive their names, and what was not installed can be sent again.
        self.disk.remove(&part_name(&id))?;
        if found != id {
            return Err(ReceiveError::Mismatch);
        }
        Ok(SnapshotFile { progress, id, len: transfer.len, file: transfer.file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aspen_log::disk::MemoryDisk;

    fn id_of(bytes: &[u8]) -> SnapshotId {
        SnapshotId(*blake3::hash(bytes).as_bytes())
    }

    fn send(receiver: &mut Receiver, id: SnapshotId, all: &[u8], from: usize, to: usize) -> u64 {
        let part = &all[from..to];
        receiver.part(id, from as u64, crc32fast::hash(part), part).unwrap()
    }

    #[test]
    fn a_transfer_resumes_where_it_stopped_even_after_a_restart() {
        let disk = Arc::new(MemoryDisk::new());
        let all: Vec<u8> = (0..1_000u32).map(|n| n as u8).collect();
        let id = id_of(&all);
        let mut receiver = Receiver::new(disk.clone());
        assert_eq!(receiver.offer(id, 1_000).unwrap(), 0);
        assert_eq!(send(&mut receiver, id, &all, 0, 300), 300);
        assert_eq!(send(&mut receiver, id, &all, 0, 300), 300, "a repeated part changes nothing");
        assert_eq!(send(&mut receiver, id, &all, 600, 700), 300, "a part ahead is not taken");
        let mut receiver = Receiver::new(disk.clone());
        assert_eq!(receiver.offer(id, 1_000).unwrap(), 300);
        assert_eq!(send(&mut receiver, id, &all, 300, 1_000), 1_000);
        let file = receiver.finish(id, Progress::default()).unwrap();
        assert_eq!(hash_file(&*file.file, file.len).unwrap(), id);
        assert_eq!(disk.list().unwrap(), [] as [&str; 0]);
    }

    #[test]
    fn damage_is_noticed_in_a_part_and_in_the_whole() {
        let disk = Arc::new(MemoryDisk::new());
        let mut receiver = Receiver::new(disk);
        let all = [5u8; 100];
        let id = id_of(&all);
        receiver.offer(id, 100).unwrap();
        assert!(matches!(receiver.part(id, 0, 1, &all), Err(ReceiveError::Damaged)));
        assert!(matches!(receiver.part(id, 90, 1, &all), Err(ReceiveError::Damaged)));
        assert!(matches!(receiver.finish(id, Progress::default()), Err(ReceiveError::Unknown)));
        let other = [6u8; 100];
        assert_eq!(receiver.part(id, 0, crc32fast::hash(&other), &other).unwrap(), 100);
        assert!(matches!(receiver.finish(id, Progress::default()), Err(ReceiveError::Mismatch)));
        assert_eq!(receiver.offer(id, 100).unwrap(), 0, "it can start again");
    }

    #[test]
    fn another_offer_replaces_the_transfer_and_a_huge_one_is_refused() {
        let disk = Arc::new(MemoryDisk::new());
        let mut receiver = Receiver::new(disk.clone());
        receiver.offer(id_of(b"a"), 1).unwrap();
        receiver.offer(id_of(b"b"), 1).unwrap();
        assert_eq!(disk.list().unwrap().len(), 1);
        assert!(matches!(receiver.part(id_of(b"a"), 0, 0, b""), Err(ReceiveError::Unknown)));
        let huge = receiver.offer(id_of(b"c"), MAX_SNAPSHOT_BYTES + 1);
        assert!(matches!(huge, Err(ReceiveError::TooLarge)));
    }
}
