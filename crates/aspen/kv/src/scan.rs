//! Scans: one page of keys in order, at one revision.
//!
//! The newest revision is a walk over the live rows. An older one merges live rows with the
//! history: for each key the live row if it is old enough, otherwise the history row whose interval
//! holds the revision. A page looks at a bounded number of rows, so that a stretch of rows which do
//! not show ends a page early instead of holding up the node; such a page may even be empty, and
//! its token leads on.
//!
//! Invariants: a page shows one revision; keys come in order, each once over all pages; the rows
//! that a page looks at are bounded.

use aspen_api::kv::{KeyValue, ScanKeys, ScanResult};
use aspen_api::{Key, Prefix, Revision};
use bytes::Bytes;
use net_types::limits::{DEFAULT_SCAN_LIMIT, MAX_SCAN_LIMIT, MAX_SCAN_PAGE_BYTES};

use crate::layout::{
    Damaged, ItemMeta, escape, history_end, history_key, prefix_end, split_history_key, unescape,
};
use crate::token::Token;
use crate::{Fault, FaultRows, ReadError, ReadTables, Rows, StateError, TableId, View};

/// Rows that one page looks at.
const MAX_ROWS_VISITED: usize = 10 * MAX_SCAN_LIMIT as usize;

/// A page being filled.
pub(crate) struct Page {
    /// What was found, for a page that shows it.
    entries: Option<Vec<KeyValue>>,
    /// How many keys were found.
    pub(crate) found: usize,
    limit: usize,
    bytes: usize,
    visited: usize,
    last_key: Option<Bytes>,
}

impl Page {
    /// A page that shows at most so many entries.
    fn showing(limit: usize) -> Self {
        Self { entries: Some(Vec::new()), limit, ..Self::counting() }
    }

    /// A page that only counts.
    pub(crate) fn counting() -> Self {
        let limit = MAX_SCAN_LIMIT as usize;
        Self { entries: None, found: 0, limit, bytes: 0, visited: 0, last_key: None }
    }

    /// Whether the next key, if there is one, belongs on the next page.
    fn is_full(&self) -> bool {
        self.found >= self.limit
            || self.bytes >= MAX_SCAN_PAGE_BYTES
            || self.visited >= MAX_ROWS_VISITED
    }

    /// Counts a key as looked at.
    fn visit(&mut self, key: &[u8]) -> Bytes {
        let key = Bytes::copy_from_slice(key);
        self.visited += 1;
        self.last_key = Some(key.clone());
        key
    }

    fn push(
        &mut self,
        key: Bytes,
        table: TableId,
        meta: ItemMeta,
        value: &[u8],
    ) -> Result<(), Damaged> {
        self.found += 1;
        // Also of a row that is only counted: the file is read with its value.
        self.bytes += key.len() + value.len();
        let Some(entries) = &mut self.entries else { return Ok(()) };
        let key = Key::new(key).map_err(|_| Damaged(table))?;
        entries.push(KeyValue { key, item: meta.with_value(value) });
        Ok(())
    }
}

impl<T: ReadTables> View<'_, T> {
    /// One page of a scan.
    pub fn scan(&self, request: &ScanKeys) -> Result<ScanResult, ReadError<T::Error>> {
        let limit = request.limit.unwrap_or(DEFAULT_SCAN_LIMIT).clamp(1, MAX_SCAN_LIMIT);
        let mut page = Page::showing(limit as usize);
        let token = request.continuation_token.as_ref();
        let (revision, continuation_token) =
            self.fill(&mut page, &request.prefix, token, request.revision)?;
        let entries = page.entries.unwrap_or_default();
        Ok(ScanResult { entries, continuation_token, revision })
    }

    /// Fills a page with the keys of a prefix, from where the page before ended; tells the revision
    /// that it shows and where the next page starts.
    pub(crate) fn fill(
        &self,
        page: &mut Page,
        prefix: &Prefix,
        token: Option<&Bytes>,
        revision: Option<Revision>,
    ) -> Result<(Revision, Option<Bytes>), ReadError<T::Error>> {
        let token = match token {
            None => None,
            Some(bytes) => Some(Token::decode(bytes, prefix).ok_or(ReadError::InvalidToken)?),
        };
        if let (Some(token), Some(wanted)) = (&token, revision)
            && token.revision != wanted
        {
            return Err(ReadError::InvalidToken);
        }
        let at = self.readable(token.as_ref().map(|t| t.revision).or(revision))?;
        let after = token.as_ref().map(|token| token.last_key.as_bytes());
        let is_complete = if at == self.header.applied_revision {
            self.scan_newest(prefix.as_bytes(), after, page)?
        } else {
            self.scan_history(prefix.as_bytes(), after, at, page)?
        };
        let next = match page.last_key.take() {
            Some(last_key) if !is_complete => {
                let last_key =
                    Key::new(last_key).map_err(|_| StateError::Corrupt(TableId::Live))?;
                Some(Token { revision: at, last_key }.encode(prefix))
            }
            Some(_) | None => None,
        };
        Ok((at, next))
    }

    /// Fills the page from live rows; whether the prefix has no further row.
    fn scan_newest(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        page: &mut Page,
    ) -> Result<bool, Fault<T>> {
        let from = live_start(prefix, after);
        let end = prefix_end(prefix);
        let rows = self.tables.rows(TableId::Live, &from, end.as_deref())?;
        for row in rows {
            let (key, row) = row?;
            if page.is_full() {
                return Ok(false);
            }
            let (meta, value) = ItemMeta::split(row.as_ref(), TableId::Live)?;
            let key = page.visit(key.as_ref());
            if self.is_visible(&meta, self.header.applied_revision)? {
                page.push(key, TableId::Live, meta, value)?;
            }
        }
        Ok(true)
    }

    /// Fills the page from live rows and history; whether the prefix has no further row.
    fn scan_history(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        at: Revision,
        page: &mut Page,
    ) -> Result<bool, Fault<T>> {
        let end = prefix_end(prefix);
        let mut live =
            self.tables.rows(TableId::Live, &live_start(prefix, after), end.as_deref())?.peekable();
        let mut history = History::start(self.tables, prefix, after)?;
        loop {
            let live_key = match live.peek() {
                None => None,
                Some(Ok((key, _))) => Some(key.as_ref()),
                Some(Err(_)) => match live.next() {
                    Some(Err(error)) => return Err(error),
                    _ => None,
                },
            };
            let is_live_next = match (live_key, history.key()) {
                (None, None) => return Ok(true),
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some(live_key), Some(old_key)) => live_key <= old_key,
            };
            if page.is_full() {
                return Ok(false);
            }
            if !is_live_next {
                history.take_into(at, page)?;
                continue;
            }
            let Some(row) = live.next() else { return Ok(true) };
            let (key, row) = row?;
            let key = key.as_ref();
            let (meta, value) = ItemMeta::split(row.as_ref(), TableId::Live)?;
            let is_in_history = history.key() == Some(key);
            if meta.mod_revision > at && is_in_history {
                history.take_into(at, page)?;
                continue;
            }
            let key = page.visit(key);
            if meta.mod_revision <= at && self.is_visible(&meta, at)? {
                page.push(key, TableId::Live, meta, value)?;
            }
            if is_in_history {
                history.skip_key()?;
            }
        }
    }
}

fn live_start(prefix: &[u8], after: Option<&[u8]>) -> Vec<u8> {
    match after {
        None => prefix.to_vec(),
        Some(key) => [key, &[0]].concat(),
    }
}

/// The history of the keys of a scan, key by key.
struct History<'t, T: ReadTables> {
    tables: &'t T,
    end: Option<Vec<u8>>,
    rows: FaultRows<T::Rows<'t>>,
    /// The first row of the key at hand.
    row: Option<(T::Slice<'t>, T::Slice<'t>)>,
    /// The key at hand.
    key: Vec<u8>,
    scratch: Vec<u8>,
}

impl<'t, T: ReadTables> History<'t, T> {
    fn start(tables: &'t T, prefix: &[u8], after: Option<&[u8]>) -> Result<Self, Fault<T>> {
        let mut from = Vec::new();
        match after {
            None => escape(prefix, &mut from),
            Some(key) => history_end(key, &mut from),
        }
        let mut escaped = Vec::new();
        escape(prefix, &mut escaped);
        let end = prefix_end(&escaped);
        let rows = tables.rows(TableId::History, &from, end.as_deref())?;
        let mut history =
            Self { tables, end, rows, row: None, key: Vec::new(), scratch: Vec::new() };
        history.advance()?;
        Ok(history)
    }

    fn key(&self) -> Option<&[u8]> {
        self.row.is_some().then_some(&self.key)
    }

    fn advance(&mut self) -> Result<(), Fault<T>> {
        self.row = self.rows.next().transpose()?;
        if let Some((row_key, _)) = &self.row {
            let (escaped, _) = split_history_key(row_key.as_ref())?;
            unescape(escaped, &mut self.key)?;
        }
        Ok(())
    }

    fn seek(&mut self) -> Result<(), Fault<T>> {
        self.rows = self.tables.rows(TableId::History, &self.scratch, self.end.as_deref())?;
        self.advance()
    }

    /// Moves to the next key.
    fn skip_key(&mut self) -> Result<(), Fault<T>> {
        history_end(&self.key, &mut self.scratch);
        self.seek()
    }

    /// Gives the page what the key at hand held at `at`, and moves to the next key.
    fn take_into(&mut self, at: Revision, page: &mut Page) -> Result<(), Fault<T>> {
        let key = page.visit(&self.key);
        let Some((row_key, _)) = &self.row else { return Ok(()) };
        if split_history_key(row_key.as_ref())?.1 <= at {
            history_key(&key, Revision(at.0.saturating_add(1)), &mut self.scratch);
            self.seek()?;
            if self.key() != Some(&key[..]) {
                return Ok(());
            }
        }
        if let Some((_, row)) = &self.row {
            let (meta, value) = ItemMeta::split(row.as_ref(), TableId::History)?;
            if meta.mod_revision <= at {
                page.push(key, TableId::History, meta, value)?;
            }
        }
        self.skip_key()
    }
}
