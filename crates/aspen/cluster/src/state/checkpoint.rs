//! Writing the state to its file: checkpoints, and snapshots that replace it. Invariant: one task writes
//! at a time, and the file holds the state as of one entry.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use aspen_kv::{TableId, WriteTables, load_header};
use net_types::lock;
use redb::{Durability, ReadableDatabase, WriteTransaction};

use super::error::StoreError;
use super::file::{FileView, FileWriter, clear};
use super::layer::Layer;
use super::progress::{Progress, write_progress};
use super::store::{AppliedBatch, Current, Store, ensure_level, next_of};
use super::tables::StoreTables;

/// What a checkpoint writes.
pub(crate) struct Frozen {
    layer: Layer,
    progress: Progress,
}

impl Store {
    /// Begins a checkpoint, unless the file holds everything. The caller holds `writing`.
    pub(crate) fn freeze(&self) -> Option<Frozen> {
        let mut current = lock(&self.current);
        let is_written = self.durable_next() == next_of(current.state.progress.applied);
        if is_written && current.state.tables.memory_bytes() == 0 {
            return None;
        }
        let layer = current.state.tables.freeze();
        Some(Frozen { layer, progress: current.state.progress.clone() })
    }

    /// Writes a checkpoint and says how far it goes. Blocks on the medium. What cannot be written
    /// stays in memory.
    pub(crate) fn write(&self, frozen: &Frozen) -> Result<Progress, StoreError> {
        let written = self.commit(frozen);
        let mut current = lock(&self.current);
        match written {
            Ok(file) => {
                current.state.tables.settle(file);
                current.view = None;
                drop(current);
                self.durable_next.fetch_max(next_of(frozen.progress.applied), Ordering::AcqRel);
                Ok(frozen.progress.clone())
            }
            Err(error) => {
                current.state.tables.thaw();
                Err(error)
            }
        }
    }

    fn commit(&self, frozen: &Frozen) -> Result<Arc<FileView>, StoreError> {
        let transaction = self.begin()?;
        let mut tables = FileWriter::new(&transaction);
        for table in TableId::ALL {
            for (key, value) in frozen.layer.changes(*table) {
                match value {
                    Some(value) => tables.insert(*table, key, value)?,
                    None => drop(tables.remove(*table, key)?),
                }
            }
        }
        drop(tables);
        self.finish(transaction, &frozen.progress)
    }

    /// Replaces the whole state by what `fill` writes, durably and at once; nothing changes if that is
    /// above this program's feature level. The caller holds `writing`.
    pub(crate) fn replace(
        &self,
        progress: Progress,
        fill: impl FnOnce(&mut FileWriter<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let transaction = self.begin()?;
        for table in TableId::ALL {
            clear(&transaction, *table)?;
        }
        let mut tables = FileWriter::new(&transaction);
        fill(&mut tables)?;
        ensure_level(load_header(&tables)?.level, self.top)?;
        drop(tables);
        let file = self.finish(transaction, &progress)?;
        let next = Current::new(StoreTables::of_file(file), progress)?;
        let header = next.state.header.clone();
        // Set and not raised: the state may have moved to another line of history.
        self.durable_next.store(next_of(next.state.progress.applied), Ordering::Release);
        *lock(&self.current) = next;
        self.tell(&header, AppliedBatch { memory_bytes: 0, is_stamped: true });
        Ok(())
    }

    fn begin(&self) -> Result<WriteTransaction, StoreError> {
        let mut transaction = self.db.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        // Without it, opening after a crash would read the whole file.
        transaction.set_quick_repair(true);
        Ok(transaction)
    }

    fn finish(
        &self,
        transaction: WriteTransaction,
        progress: &Progress,
    ) -> Result<Arc<FileView>, StoreError> {
        write_progress(&transaction, progress)?;
        transaction.commit()?;
        Ok(Arc::new(FileView::new(self.db.begin_read()?)))
    }
}
