//! The ordered tables under the store, as any backend provides them.
//!
//! Keys and values are byte strings; keys order by bytes. A backend knows nothing of what they
//! mean: their layouts are in [`crate::layout`]. Writes of one batch become durable together or
//! not at all; when that happens is the backend's caller's business.
//!
//! Invariants: a batch is visible to its own later reads; a scan sees a table in key order.

use std::collections::BTreeMap;
use std::convert::Infallible;

use aspen_api::numbers;

numbers! {
    /// The tables, each a keyspace of its own. Numbers are part of the snapshot format.
    #[derive(Default)]
    pub enum TableId {
        /// One row: the [`Header`](crate::Header).
        #[default]
        Meta = 0 as "kv-meta",
        /// Key to its newest version, for keys that have one.
        Live = 1 as "kv-live",
        /// (key, revision that ended it) to a superseded version.
        History = 2 as "kv-history",
        /// (deadline, key or lease) of everything that expires.
        Expiry = 3 as "kv-expiry",
        /// Log time to the first revision that had reached it, while removals lag behind.
        Marks = 4 as "kv-marks",
        /// Lease id to lease.
        Leases = 5 as "kv-leases",
        /// (lease id, key) of every attached key.
        LeaseKeys = 6 as "kv-lease-keys",
        /// Client id to when it last wrote.
        Clients = 7 as "kv-clients",
        /// (when it last wrote, client id).
        ClientAges = 8 as "kv-client-ages",
        /// (client id, slot) to the answer recorded there.
        Replies = 9 as "kv-replies",
    }
}

impl TableId {
    /// How many tables there are; numbers are below it.
    pub const COUNT: usize = Self::ALL.len();
}

/// Reading. All calls between two writes see the same rows.
pub trait ReadTables {
    /// What can go wrong in the backend.
    type Error: core::error::Error + Send + Sync + 'static;
    /// A borrowed key or value.
    type Slice<'a>: AsRef<[u8]>
    where
        Self: 'a;
    /// Rows in ascending key order.
    type Rows<'a>: Iterator<Item = Result<(Self::Slice<'a>, Self::Slice<'a>), Self::Error>>
    where
        Self: 'a;

    /// The value at `key`.
    fn get(&self, table: TableId, key: &[u8]) -> Result<Option<Self::Slice<'_>>, Self::Error>;

    /// The rows with `from <= key`, and `key < to` if there is a `to`. Empty if `to <= from`.
    fn range(
        &self,
        table: TableId,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<Self::Rows<'_>, Self::Error>;
}

/// Writing. Later calls see earlier writes.
pub trait WriteTables: ReadTables {
    /// Sets the value at `key`, replacing the one that was there.
    fn insert(&mut self, table: TableId, key: &[u8], value: &[u8]) -> Result<(), Self::Error>;

    /// Removes the row at `key`; whether there was one.
    fn remove(&mut self, table: TableId, key: &[u8]) -> Result<bool, Self::Error>;
}

/// Tables in memory: for tests, the simulator and nodes without a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryTables {
    tables: [BTreeMap<Vec<u8>, Vec<u8>>; TableId::COUNT],
}

impl MemoryTables {
    /// Empty tables.
    pub fn new() -> Self {
        Self::default()
    }
}

/// Rows of [`MemoryTables`].
pub struct MemoryRows<'a>(Option<std::collections::btree_map::Range<'a, Vec<u8>, Vec<u8>>>);

impl<'a> Iterator for MemoryRows<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), Infallible>;

    fn next(&mut self) -> Option<Self::Item> {
        let (key, value) = self.0.as_mut()?.next()?;
        Some(Ok((key, value)))
    }
}

impl ReadTables for MemoryTables {
    type Error = Infallible;
    type Slice<'a> = &'a [u8];
    type Rows<'a> = MemoryRows<'a>;

    fn get(&self, table: TableId, key: &[u8]) -> Result<Option<&[u8]>, Infallible> {
        Ok(self.tables[table as usize].get(key).map(Vec::as_slice))
    }

    fn range(
        &self,
        table: TableId,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Result<MemoryRows<'_>, Infallible> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let rows = match to {
            Some(to) if to <= from => None,
            Some(to) => {
                Some(self.tables[table as usize].range::<[u8], _>((Included(from), Excluded(to))))
            }
            None => Some(self.tables[table as usize].range::<[u8], _>((Included(from), Unbounded))),
        };
        Ok(MemoryRows(rows))
    }
}

impl WriteTables for MemoryTables {
    fn insert(&mut self, table: TableId, key: &[u8], value: &[u8]) -> Result<(), Infallible> {
        self.tables[table as usize].insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn remove(&mut self, table: TableId, key: &[u8]) -> Result<bool, Infallible> {
        Ok(self.tables[table as usize].remove(key).is_some())
    }
}
