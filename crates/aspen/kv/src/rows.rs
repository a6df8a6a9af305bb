//! Tables as the state machine uses them: their errors are its own.

use crate::{ReadTables, StateError, TableId, WriteTables};

/// What stops the state machine over tables.
pub(crate) type Fault<T> = StateError<<T as ReadTables>::Error>;

/// Rows whose errors are the state machine's.
pub(crate) struct FaultRows<R>(R);

impl<R: Iterator<Item = Result<I, E>>, I, E> Iterator for FaultRows<R> {
    type Item = Result<I, StateError<E>>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.next()?.map_err(StateError::Tables))
    }
}

/// Tables as the state machine reads and writes them.
pub(crate) trait Rows: ReadTables {
    /// The value at `key`.
    fn row(&self, table: TableId, key: &[u8]) -> Result<Option<Self::Slice<'_>>, Fault<Self>> {
        self.get(table, key).map_err(StateError::Tables)
    }

    /// The rows with `from <= key`, and `key < to` if there is a `to`.
    fn rows(
        &self,
        table: TableId,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<FaultRows<Self::Rows<'_>>, Fault<Self>> {
        self.range(table, from, to).map(FaultRows).map_err(StateError::Tables)
    }

    /// Sets the value at `key`.
    fn put_row(&mut self, table: TableId, key: &[u8], value: &[u8]) -> Result<(), Fault<Self>>
    where
        Self: WriteTables,
    {
        self.insert(table, key, value).map_err(StateError::Tables)
    }

    /// Removes the row at `key`; whether there was one.
    fn delete_row(&mut self, table: TableId, key: &[u8]) -> Result<bool, Fault<Self>>
    where
        Self: WriteTables,
    {
        self.remove(table, key).map_err(StateError::Tables)
    }
}

impl<T: ReadTables> Rows for T {}
