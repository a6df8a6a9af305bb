//! Rows in memory that the file does not hold yet.
//!
//! A layer is cheap to copy: copies share their rows until one of them changes. So a reader keeps
//! its rows while later batches are applied. Invariant: `bytes` is the cost of the rows.

use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;

use aspen_kv::TableId;
use imbl::OrdMap;
use imbl::shared_ptr::DefaultSharedPtr;

/// A key or a value.
pub(super) type Row = Arc<[u8]>;
/// What a layer knows of a key: its value, or that it is gone.
type Change = Option<Row>;

/// What a row costs in addition to its bytes: two counted allocations and its share of tree nodes.
const ROW_OVERHEAD_BYTES: usize = 128;

fn cost(key: &[u8], change: &Change) -> usize {
    ROW_OVERHEAD_BYTES + key.len() + change.as_ref().map_or(0, |value| value.len())
}

/// Changes of the tables since the last checkpoint.
#[derive(Clone, Default)]
pub(super) struct Layer {
    tables: [OrdMap<Row, Change>; TableId::COUNT],
    bytes: usize,
}

impl Layer {
    /// Memory that the rows take, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the layer knows of `key`: a value, that there is none, or nothing.
    pub(super) fn get(&self, table: TableId, key: &[u8]) -> Option<Option<&[u8]>> {
        self.tables[table as usize].get(key).map(Option::as_deref)
    }

    /// Sets a value, or hides the one below.
    pub(super) fn put(&mut self, table: TableId, key: &[u8], value: Option<&[u8]>) {
        self.put_row(table, key.into(), value.map(Row::from));
    }

    fn put_row(&mut self, table: TableId, key: Row, change: Change) {
        let key_len = key.len();
        self.bytes += cost(&key, &change);
        if let Some(old) = self.tables[table as usize].insert(key, change) {
            self.bytes -= ROW_OVERHEAD_BYTES + key_len + old.map_or(0, |value| value.len());
        }
    }

    /// Takes back what the layer knows of `key`.
    pub(super) fn forget(&mut self, table: TableId, key: &[u8]) {
        if let Some(old) = self.tables[table as usize].remove(key) {
            self.bytes -= cost(key, &old);
        }
    }

    /// Adds what a newer layer knows.
    pub(super) fn absorb(&mut self, newer: &Self) {
        for table in TableId::ALL {
            for (key, change) in &newer.tables[*table as usize] {
                self.put_row(*table, key.clone(), change.clone());
            }
        }
    }

    /// Every change of a table, in key order.
    pub(super) fn changes(
        &self,
        table: TableId,
    ) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> + '_ {
        self.tables[table as usize].iter().map(|(key, change)| (&**key, change.as_deref()))
    }

    fn range(&self, table: TableId, from: &[u8], to: Option<&[u8]>) -> Changes<'_> {
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        Changes(self.tables[table as usize].range::<_, [u8]>((Bound::Included(from), to)))
    }
}

/// Changes in a range, in key order.
struct Changes<'a>(imbl::ordmap::RangedIter<'a, Row, Change, DefaultSharedPtr>);

impl<'a> Iterator for Changes<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(key, change)| (&**key, change.as_deref()))
    }
}

/// Changes of one layer over another, in key order; where both know a key, the newer one's.
pub(super) struct LayeredChanges<'a> {
    newer: Peekable<Changes<'a>>,
    older: Option<Peekable<Changes<'a>>>,
}

impl<'a> LayeredChanges<'a> {
    /// The changes with `from <= key < to`; `from` is below `to`.
    pub(super) fn new(
        newer: &'a Layer,
        older: Option<&'a Layer>,
        table: TableId,
        from: &[u8],
        to: Option<&[u8]>,
    ) -> Self {
        Self {
            newer: newer.range(table, from, to).peekable(),
            older: older.map(|layer| layer.range(table, from, to).peekable()),
        }
    }
}

impl<'a> Iterator for LayeredChanges<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let Some(older) = &mut self.older else { return self.newer.next() };
        match (self.newer.peek(), older.peek()) {
            (Some((new, _)), Some((old, _))) if new == old => {
                older.next();
                self.newer.next()
            }
            (Some((new, _)), Some((old, _))) if new < old => self.newer.next(),
            (_, Some(_)) => older.next(),
            (_, None) => self.newer.next(),
        }
    }
}
