//! The whole store as a stream of bounded chunks, and back.
//!
//! Rows travel as they are stored, in table and key order, so that the same state gives the same
//! bytes from every backend. Tables restored from a stream are equal to those it was made from.
//!
//! ```text
//! chunk  version u8 = 1 · kind u8 · sequence u32 le, from 0 · body · xxh3-64 le of all before
//! rows   kind 1; body: rows to the end: table u8 · key length · key · value length · value (LEB128)
//! end    kind 2; body: row count u64 le · digest u64 le: the checksums before, chained from 0 by
//!        xxh3-64 of (digest, checksum)
//! ```

use aspen_api::codec::put_varint;
use bytes::Bytes;
use net_types::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES, SNAPSHOT_CHUNK_BYTES};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use crate::applier::load_header;
use crate::layout::take_varint;
use crate::{Fault, Header, ReadTables, Rows, StateError, TableId, WriteTables};

const VERSION: u8 = 1;
const KIND_ROWS: u8 = 1;
const KIND_END: u8 = 2;
const FRAME_BYTES: usize = 6;
const CHECKSUM_BYTES: usize = 8;
/// No key is longer: an escaped key with its frame.
const MAX_ROW_KEY_BYTES: usize = 2 * MAX_KEY_BYTES + 32;
/// No value is longer: an item with its numbers, or the answer to a transaction.
const MAX_ROW_VALUE_BYTES: usize = MAX_VALUE_BYTES + 256;

/// Why a chunk cannot be restored.
#[derive(Debug, Error)]
pub enum RestoreError<E> {
    /// The tables failed.
    #[error(transparent)]
    State(#[from] StateError<E>),
    /// The tables are not empty; restoring into them would mix two states.
    #[error("the tables already hold a state")]
    NotEmpty,
    /// The chunk is damaged. It can be sent again.
    #[error("the snapshot chunk is damaged")]
    Damaged,
    /// The chunk is of a version that this build does not read.
    #[error("unknown snapshot version {0}")]
    UnknownVersion(u8),
    /// The chunk is not the one that follows.
    #[error("snapshot chunk {found} follows {expected} chunks")]
    OutOfOrder {
        /// Chunks restored so far, which is the sequence expected.
        expected: u32,
        /// The sequence found.
        found: u32,
    },
    /// The stream is intact but not one that a snapshot produces.
    #[error("malformed snapshot: {0}")]
    Malformed(&'static str),
}

/// Produces the chunks of a snapshot.
///
/// It holds no borrow of the tables: each call must see the same state, for example through one
/// read transaction.
#[derive(Debug)]
pub struct SnapshotStream {
    /// Where the next row is; `None` after the last.
    position: Option<(usize, Vec<u8>)>,
    sequence: u32,
    rows: u64,
    digest: u64,
    is_done: bool,
}

impl Default for SnapshotStream {
    fn default() -> Self {
        Self::new()
    }
}

impl SnapshotStream {
    /// A stream at its first chunk.
    pub fn new() -> Self {
        Self { position: Some((0, Vec::new())), sequence: 0, rows: 0, digest: 0, is_done: false }
    }

    /// The next chunk, or `None` after the last. A chunk has about [`SNAPSHOT_CHUNK_BYTES`], more
    /// only if a single row does.
    pub fn next_chunk<T: ReadTables>(&mut self, tables: &T) -> Result<Option<Bytes>, Fault<T>> {
        if self.is_done {
            return Ok(None);
        }
        let mut chunk = Vec::with_capacity(SNAPSHOT_CHUNK_BYTES + 1_024);
        chunk.extend_from_slice(&[VERSION, KIND_ROWS]);
        chunk.extend_from_slice(&self.sequence.to_le_bytes());
        while let Some((table, from)) = self.position.take() {
            let Some(&id) = TableId::ALL.get(table) else { break };
            match self.fill(tables, id, &from, &mut chunk)? {
                Some(next) => {
                    self.position = Some((table, next));
                    break;
                }
                None => self.position = Some((table + 1, Vec::new())),
            }
        }
        if chunk.len() == FRAME_BYTES {
            chunk[1] = KIND_END;
            chunk.extend_from_slice(&self.rows.to_le_bytes());
            chunk.extend_from_slice(&self.digest.to_le_bytes());
            self.is_done = true;
        }
        self.sequence += 1;
        let checksum = xxh3_64(&chunk).to_le_bytes();
        self.digest = chain(self.digest, &checksum);
        chunk.extend_from_slice(&checksum);
        Ok(Some(chunk.into()))
    }

    /// Appends rows of one table until the chunk is full; where to go on, or `None` at its end.
    fn fill<T: ReadTables>(
        &mut self,
        tables: &T,
        table: TableId,
        from: &[u8],
        chunk: &mut Vec<u8>,
    ) -> Result<Option<Vec<u8>>, Fault<T>> {
        for row in tables.rows(table, from, None)? {
            let (key, value) = row?;
            let (key, value) = (key.as_ref(), value.as_ref());
            let row_bytes = key.len() + value.len() + 8;
            if chunk.len() > FRAME_BYTES && chunk.len() + row_bytes > SNAPSHOT_CHUNK_BYTES {
                return Ok(Some(key.to_vec()));
            }
            chunk.push(table as u8);
            put_varint(key.len() as u64, chunk);
            chunk.extend_from_slice(key);
            put_varint(value.len() as u64, chunk);
            chunk.extend_from_slice(value);
            self.rows += 1;
        }
        Ok(None)
    }
}

/// Restores a snapshot into empty tables, chunk by chunk.
///
/// A chunk is checked before its rows are written, but the stream as a whole only with its last
/// chunk: until [`Restore::push`] returned a header the tables must not be used, and after an error
/// other than [`RestoreError::Damaged`] or [`RestoreError::OutOfOrder`] they must be thrown away.
#[derive(Debug)]
pub struct Restore {
    sequence: u32,
    rows: u64,
    digest: u64,
    last: Option<(u8, Vec<u8>)>,
}

impl Restore {
    /// Begins with empty tables.
    pub fn begin<T: ReadTables>(tables: &T) -> Result<Self, RestoreError<T::Error>> {
        for table in TableId::ALL {
            let mut rows = tables.rows(*table, &[], None)?;
            if rows.next().is_some() {
                return Err(RestoreError::NotEmpty);
            }
        }
        Ok(Self { sequence: 0, rows: 0, digest: 0, last: None })
    }

    /// Chunks restored so far: the sequence of the one expected next.
    pub fn expected(&self) -> u32 {
        self.sequence
    }

    /// Restores one chunk; with the last one returns the state's header.
    pub fn push<T: WriteTables>(
        &mut self,
        tables: &mut T,
        chunk: &[u8],
    ) -> Result<Option<Header>, RestoreError<T::Error>> {
        let Chunk { kind, body, checksum } = self.open_chunk(chunk)?;
        let header = match kind {
            KIND_ROWS => {
                self.restore_rows(tables, body)?;
                None
            }
            KIND_END => {
                let expected = [self.rows.to_le_bytes(), self.digest.to_le_bytes()];
                if body != expected.as_flattened() {
                    return Err(RestoreError::Malformed("its rows are not those that were sent"));
                }
                Some(load_header(tables)?)
            }
            _ => return Err(RestoreError::Malformed("unknown chunk")),
        };
        self.digest = chain(self.digest, &checksum);
        self.sequence += 1;
        Ok(header)
    }

    /// Checks a chunk's frame.
    fn open_chunk<'c, E>(&self, chunk: &'c [u8]) -> Result<Chunk<'c>, RestoreError<E>> {
        let (rest, checksum) =
            chunk.split_last_chunk::<CHECKSUM_BYTES>().ok_or(RestoreError::Damaged)?;
        if *checksum != xxh3_64(rest).to_le_bytes() {
            return Err(RestoreError::Damaged);
        }
        let (frame, body) = rest.split_first_chunk::<FRAME_BYTES>().ok_or(RestoreError::Damaged)?;
        let [version, kind, sequence @ ..] = *frame;
        if version != VERSION {
            return Err(RestoreError::UnknownVersion(version));
        }
        let found = u32::from_le_bytes(sequence);
        if found != self.sequence {
            return Err(RestoreError::OutOfOrder { expected: self.sequence, found });
        }
        Ok(Chunk { kind, body, checksum: *checksum })
    }

    fn restore_rows<T: WriteTables>(
        &mut self,
        tables: &mut T,
        mut body: &[u8],
    ) -> Result<(), RestoreError<T::Error>> {
        while let Some((&number, rest)) = body.split_first() {
            body = rest;
            let table = TableId::ALL
                .get(usize::from(number))
                .copied()
                .ok_or(RestoreError::Malformed("unknown table"))?;
            let key = take_field(&mut body, MAX_ROW_KEY_BYTES)
                .ok_or(RestoreError::Malformed("a key's length"))?;
            let value = take_field(&mut body, MAX_ROW_VALUE_BYTES)
                .ok_or(RestoreError::Malformed("a value's length"))?;
            let is_ascending = self.last.as_ref().is_none_or(|(last_table, last_key)| {
                (*last_table, last_key.as_slice()) < (number, key)
            });
            if !is_ascending {
                return Err(RestoreError::Malformed("rows out of order"));
            }
            tables.put_row(table, key, value)?;
            self.rows += 1;
            match &mut self.last {
                Some((last_table, last_key)) => {
                    *last_table = number;
                    last_key.clear();
                    last_key.extend_from_slice(key);
                }
                None => self.last = Some((number, key.to_vec())),
            }
        }
        Ok(())
    }
}

/// A chunk whose frame is intact.
struct Chunk<'c> {
    kind: u8,
    body: &'c [u8],
    checksum: [u8; CHECKSUM_BYTES],
}

fn chain(digest: u64, checksum: &[u8; CHECKSUM_BYTES]) -> u64 {
    xxh3_64([digest.to_le_bytes(), *checksum].as_flattened())
}

fn take_field<'b>(body: &mut &'b [u8], limit: usize) -> Option<&'b [u8]> {
    let len = usize::try_from(take_varint(body)?).ok().filter(|len| *len <= limit)?;
    let (field, rest) = body.split_at_checked(len)?;
    *body = rest;
    Some(field)
}
