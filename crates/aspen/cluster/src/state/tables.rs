//! The store's tables: changes in memory over the file of the last checkpoint.
//!
//! The newest layer takes the writes. While a checkpoint is being written, the layer that goes to
//! the file is between the two. Invariant: no row is before the first row that is remembered.

use std::iter::Peekable;
use std::sync::Arc;

use aspen_kv::{ReadTables, TableId, WriteTables};

use super::file::{FileRows, FileSlice, FileView};
use super::layer::{Layer, LayeredChanges, Row};

/// The first row of a table that is read from its front. Rows that were removed there hide the
/// file's until the next checkpoint, and must not be passed again with every look.
#[derive(Clone, Default)]
enum First {
    #[default]
    Unknown,
    Row(Row),
    /// The table has no rows.
    Nothing,
}

/// Whether a table is read from its front.
fn is_queue(table: TableId) -> bool {
    matches!(table, TableId::Expiry | TableId::Marks | TableId::ClientAges)
}

/// The tables at one moment. A copy is cheap and does not change.
#[derive(Clone)]
pub struct StoreTables {
    newest: Layer,
    /// What a checkpoint is writing to the file.
    frozen: Option<Layer>,
    file: Arc<FileView>,
    firsts: [First; TableId::COUNT],
}

impl StoreTables {
    /// What the file holds.
    pub(super) fn of_file(file: Arc<FileView>) -> Self {
        Self { newest: Layer::default(), frozen: None, file, firsts: Default::default() }
    }

    /// Memory that the rows take which the file does not hold, about.
    pub(super) fn memory_bytes(&self) -> usize {
        self.newest.bytes() + self.frozen.as_ref().map_or(0, Layer::bytes)
    }

    /// The part of it that no checkpoint is writing.
    pub(super) fn newest_bytes(&self) -> usize {
        self.newest.bytes()
    }

    /// Begins a checkpoint: what was written so far is frozen, for the file.
    pub(super) fn freeze(&mut self) -> Layer {
        self.thaw();
        let frozen = std::mem::take(&mut self.newest);
        self.frozen = Some(frozen.clone());
        frozen
    }

    /// Takes back a checkpoint that was not written.
    pub(super) fn thaw(&mut self) {
        if let Some(mut frozen) = self.frozen.take() {
            frozen.absorb(&self.newest);
            self.newest = frozen;
        }
    }

    /// Ends a checkpoint: `file` holds what was frozen.
    pub(super) fn settle(&mut self, file: Arc<FileView>) {
        self.frozen = None;
        self.file = file;
    }

    /// Whether a row is there below the newest layer.
    fn is_below(&self, table: TableId, key: &[u8]) -> Result<bool, redb::Error> {
        match self.frozen.as_ref().and_then(|layer| layer.get(table, key)) {
            Some(value) => Ok(value.is_some()),
            None => Ok(self.file.get(table, key)?.is_some()),
        }
    }

    fn seek(
        &self,
        table: TableId,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Rows<'_>, redb::Error> {
        if to.is_some_and(|to| to <= from) {
            return Ok(Rows::default());
        }
        let changes = LayeredChanges::new(&self.newest, self.frozen.as_ref(), table, from, to);
        let file = self.file.range(table, from, to)?;
        Ok(Rows { memory: Some(changes.peekable()), file, head: None })
    }

    /// Looks for the first row at or after `from`, before which there is none.
    fn find_first(&mut self, table: TableId, from: &[u8]) -> Result<(), redb::Error> {
        let first = match self.seek(table, from, None)?.next() {
            None => First::Nothing,
            Some(row) => First::Row(row?.0.as_ref().into()),
        };
        self.firsts[table as usize] = first;
        Ok(())
    }
}

/// A borrowed key or value.
pub struct Slice<'a>(Place<'a>);

enum Place<'a> {
    Memory(&'a [u8]),
    File(FileSlice<'a>),
}

impl AsRef<[u8]> for Slice<'_> {
    fn as_ref(&self) -> &[u8] {
        match &self.0 {
            Place::Memory(bytes) => bytes,
            Place::File(slice) => slice.as_ref(),
        }
    }
}

/// Rows of a range, ascending.
#[derive(Default)]
pub struct Rows<'a> {
    memory: Option<Peekable<LayeredChanges<'a>>>,
    file: FileRows<'a>,
    /// The file's row that comes next.
    head: Option<(FileSlice<'a>, FileSlice<'a>)>,
}

impl<'a> Iterator for Rows<'a> {
    type Item = Result<(Slice<'a>, Slice<'a>), redb::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.head.is_none() {
                match self.file.next() {
                    Some(Ok(row)) => self.head = Some(row),
                    Some(Err(error)) => return Some(Err(error)),
                    None => {}
                }
            }
            let file_key = self.head.as_ref().map(|(key, _)| key.as_ref());
            let change = self
                .memory
                .as_mut()
                .and_then(|memory| memory.next_if(|(key, _)| file_key.is_none_or(|f| *key <= f)));
            let Some((key, value)) = change else {
                let (key, value) = self.head.take()?;
                return Some(Ok((Slice(Place::File(key)), Slice(Place::File(value)))));
            };
            if file_key == Some(key) {
                self.head = None;
            }
            if let Some(value) = value {
                return Some(Ok((Slice(Place::Memory(key)), Slice(Place::Memory(value)))));
            }
        }
    }
}

impl ReadTables for StoreTables {
    type Error = redb::Error;
    type Slice<'a> = Slice<'a>;
    type Rows<'a> = Rows<'a>;

    fn get(&self, table: TableId, key: &[u8]) -> Result<Option<Slice<'_>>, redb::Error> {
        let layers = [Some(&self.newest), self.frozen.as_ref()];
        for layer in layers.into_iter().flatten() {
            if let Some(value) = layer.get(table, key) {
                return Ok(value.map(|value| Slice(Place::Memory(value))));
            }
        }
        Ok(self.file.get(table, key)?.map(|value| Slice(Place::File(value))))
    }

    fn range(
        &self,
        table: TableId,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Rows<'_>, redb::Error> {
        match &self.firsts[table as usize] {
            First::Nothing => Ok(Rows::default()),
            First::Row(first) => self.seek(table, from.max(first), to),
            First::Unknown => self.seek(table, from, to),
        }
    }
}

impl WriteTables for StoreTables {
    fn insert(&mut self, table: TableId, key: &[u8], value: &[u8]) -> Result<(), redb::Error> {
        let first = &mut self.firsts[table as usize];
        let is_first = match first {
            First::Unknown => false,
            First::Row(first) => key < &**first,
            First::Nothing => true,
        };
        if is_first {
            *first = First::Row(key.into());
        }
        self.newest.put(table, key, Some(value));
        Ok(())
    }

    fn remove(&mut self, table: TableId, key: &[u8]) -> Result<bool, redb::Error> {
        let known = self.newest.get(table, key).map(|value| value.is_some());
        if known == Some(false) {
            return Ok(false);
        }
        let is_below = self.is_below(table, key)?;
        match is_below {
            true => self.newest.put(table, key, None),
            false => self.newest.forget(table, key),
        }
        if is_queue(table) {
            match &self.firsts[table as usize] {
                First::Row(first) if **first == *key => self.find_first(table, key)?,
                First::Unknown => self.find_first(table, &[])?,
                First::Row(_) | First::Nothing => {}
            }
        }
        Ok(is_below || known.is_some())
    }
}
