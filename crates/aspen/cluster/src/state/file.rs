//! The tables in the state's file: redb over any [`DiskFile`].

use std::io;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use aspen_kv::{ReadTables, TableId, WriteTables};
use redb::{
    AccessGuard, BackendError, ReadOnlyTable, ReadTransaction, ReadableTable, StorageBackend,
    Table, TableDefinition, WriteTransaction,
};

use aspen_log::disk::DiskFile;

type Raw = &'static [u8];

fn definition(table: TableId) -> TableDefinition<'static, Raw, Raw> {
    TableDefinition::new(table.name())
}

/// A file as redb's storage. Exclusive use is the data folder's lock, not the file's.
#[derive(Debug)]
pub(crate) struct Backend(pub Arc<dyn DiskFile>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(data, offset)
    }

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}

/// A borrowed key or value.
pub(crate) struct FileSlice<'a>(AccessGuard<'a, Raw>);

impl AsRef<[u8]> for FileSlice<'_> {
    fn as_ref(&self) -> &[u8] {
        self.0.value()
    }
}

/// Rows of a range, ascending. A table that was never written has none.
#[derive(Default)]
pub(crate) struct FileRows<'a>(Option<redb::Range<'a, Raw, Raw>>);

impl<'a> Iterator for FileRows<'a> {
    type Item = Result<(FileSlice<'a>, FileSlice<'a>), redb::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some(row) = self.0.as_mut()?.next() else {
            self.0 = None;
            return None;
        };
        Some(row.map(|(key, value)| (FileSlice(key), FileSlice(value))).map_err(redb::Error::from))
    }
}

fn range_of<'a>(
    table: &'a impl ReadableTable<Raw, Raw>,
    from: &[u8],
    to: Option<&[u8]>,
) -> Result<FileRows<'a>, redb::Error> {
    let rows = match to {
        Some(to) if to <= from => None,
        Some(to) => Some(table.range::<&[u8]>(from..to)?),
        None => Some(table.range::<&[u8]>(from..)?),
    };
    Ok(FileRows(rows))
}

/// The tables as one transaction sees them, opened when they are first used.
struct Lazy<T>([OnceLock<T>; TableId::COUNT]);

impl<T> Lazy<T> {
    fn new() -> Self {
        Self(std::array::from_fn(|_| OnceLock::new()))
    }

    fn get<E>(&self, table: TableId, open: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        let cell = &self.0[table as usize];
        if let Some(open) = cell.get() {
            return Ok(open);
        }
        let opened = open()?;
        Ok(cell.get_or_init(|| opened))
    }
}

/// The tables inside a write transaction.
pub(crate) struct FileWriter<'t> {
    transaction: &'t WriteTransaction,
    tables: Lazy<Table<'t, Raw, Raw>>,
}

impl<'t> FileWriter<'t> {
    /// The tables of `transaction`; dropped before it commits.
    pub(crate) fn new(transaction: &'t WriteTransaction) -> Self {
        Self { transaction, tables: Lazy::new() }
    }

    fn table(&self, table: TableId) -> Result<&Table<'t, Raw, Raw>, redb::Error> {
        Ok(self.tables.get(table, || self.transaction.open_table(definition(table)))?)
    }

    fn table_mut(&mut self, table: TableId) -> Result<&mut Table<'t, Raw, Raw>, redb::Error> {
        self.table(table)?;
        let opened = self.tables.0[table as usize].get_mut();
        Ok(opened.expect("the table was opened two lines above"))
    }
}

impl ReadTables for FileWriter<'_> {
    type Error = redb::Error;
    type Slice<'a>
        = FileSlice<'a>
    where
        Self: 'a;
    type Rows<'a>
        = FileRows<'a>
    where
        Self: 'a;

    fn get(&self, table: TableId, key: &[u8]) -> Result<Option<FileSlice<'_>>, redb::Error> {
        Ok(self.table(table)?.get(key)?.map(FileSlice))
    }

    fn range(
        &self,
        table: TableId,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<FileRows<'_>, redb::Error> {
        range_of(self.table(table)?, from, to)
    }
}

impl WriteTables for FileWriter<'_> {
    fn insert(&mut self, table: TableId, key: &[u8], value: &[u8]) -> Result<(), redb::Error> {
        self.table_mut(table)?.insert(key, value)?;
        Ok(())
    }

    fn remove(&mut self, table: TableId, key: &[u8]) -> Result<bool, redb::Error> {
        Ok(self.table_mut(table)?.remove(key)?.is_some())
    }
}

/// The tables as they were when a read began.
pub(super) struct FileView {
    transaction: ReadTransaction,
    tables: Lazy<Option<ReadOnlyTable<Raw, Raw>>>,
}

impl FileView {
    /// The tables that `transaction` sees.
    pub(super) fn new(transaction: ReadTransaction) -> Self {
        Self { transaction, tables: Lazy::new() }
    }

    fn table(&self, table: TableId) -> Result<Option<&ReadOnlyTable<Raw, Raw>>, redb::Error> {
        let open = || match self.transaction.open_table(definition(table)) {
            Ok(open) => Ok(Some(open)),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(redb::Error::from(error)),
        };
        Ok(self.tables.get(table, open)?.as_ref())
    }
}

impl ReadTables for FileView {
    type Error = redb::Error;
    type Slice<'a> = FileSlice<'a>;
    type Rows<'a> = FileRows<'a>;

    fn get(&self, table: TableId, key: &[u8]) -> Result<Option<FileSlice<'_>>, redb::Error> {
        let Some(table) = self.table(table)? else { return Ok(None) };
        Ok(table.get(key)?.map(FileSlice))
    }

    fn range(
        &self,
        table: TableId,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<FileRows<'_>, redb::Error> {
        self.table(table)?.map_or(Ok(FileRows(None)), |table| range_of(table, from, to))
    }
}

/// Removes all rows of a table.
pub(crate) fn clear(transaction: &WriteTransaction, table: TableId) -> Result<(), redb::Error> {
    transaction.delete_table(definition(table))?;
    Ok(())
}
