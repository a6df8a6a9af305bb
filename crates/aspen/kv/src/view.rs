//! Reading the tables at a revision.
//!
//! Time: reads of the newest revision judge deadlines by the later of the view's time and the log
//! time applied, so that a value is gone the moment its deadline passes. Reads of an older revision
//! show what a reader saw then: history is not rewritten by expiry. A node that answers linearizable
//! reads should judge by the applied log time alone (pass 0), since a later leader may otherwise
//! still show what an earlier one did not.

use aspen_api::kv::{
    BatchRead, BatchReadResult, CountKeys, CountResult, Item, ReadKey, ReadResult, ScanKeys,
};
use aspen_api::lease::{
    LeaseInfo, LeaseList, LeaseListResult, LeaseTimeToLive, LeaseTimeToLiveResult,
};
use aspen_api::{Key, LeaseId, Request, Revision};
use net_types::limits::{MAX_BATCH_READ_BYTES, MAX_LEASE_LIST};

use crate::applier::load_header;
use crate::layout::{
    ItemMeta, Lease, decode_record, history_end, history_key, lease_key, split_be, stored_key,
};
use crate::lifetime::{end_of, load_lease};
use crate::scan::Page;
use crate::{Fault, Header, ReadError, ReadTables, Rows, StateError, TableId};

/// A request that a view answers.
pub trait Query: Request {
    /// The answer. The view is as fresh as the request asks.
    fn answer<T: ReadTables>(&self, view: &View<'_, T>)
    -> Result<Self::Reply, ReadError<T::Error>>;
}

/// Takes queries one by one, each of its own type.
pub(crate) trait QueryVisitor: Sized {
    /// Takes one more.
    fn visit<Q: Query>(self) -> Self;
}

macro_rules! queries {
    ($($(#[$meta:meta])* $family:ident { $($request:ident => $method:ident),* $(,)? })*) => { $(
        $(#[$meta])*
        pub(crate) fn $family<V: QueryVisitor>(visitor: V) -> V {
            visitor $(.visit::<$request>())*
        }

        $(
            impl Query for $request {
                fn answer<T: ReadTables>(
                    &self,
                    view: &View<'_, T>,
                ) -> Result<Self::Reply, ReadError<T::Error>> {
                    view.$method(self)
                }
            }
        )*
    )* };
}

queries! {
    /// Reads of keys.
    key_queries {
        ReadKey => read,
        BatchRead => batch_read,
        ScanKeys => scan,
        CountKeys => count,
    }
    /// Reads of leases.
    lease_queries {
        LeaseTimeToLive => lease_time_to_live,
        LeaseList => lease_list,
    }
}

/// The store at one moment: every answer of one view shows the same state.
pub struct View<'t, T> {
    pub(crate) tables: &'t T,
    pub(crate) header: Header,
    now_ms: u64,
}

impl<'t, T: ReadTables> View<'t, T> {
    /// Opens a view that judges deadlines by log time `now_ms`, or by the applied log time if that
    /// is later.
    pub fn open(tables: &'t T, now_ms: u64) -> Result<Self, Fault<T>> {
        Ok(Self::with_header(tables, load_header(tables)?, now_ms))
    }

    /// A view over tables whose header is known already.
    pub fn with_header(tables: &'t T, header: Header, now_ms: u64) -> Self {
        let now_ms = now_ms.max(header.log_time_ms);
        Self { tables, header, now_ms }
    }

    /// What the store knows of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Reads one key.
    pub fn read(&self, request: &ReadKey) -> Result<ReadResult, ReadError<T::Error>> {
        let revision = self.readable(request.revision)?;
        Ok(ReadResult { item: self.item(&request.key, revision)?, revision })
    }

    /// Reads several keys at one revision.
    pub fn batch_read(&self, request: &BatchRead) -> Result<BatchReadResult, ReadError<T::Error>> {
        let revision = self.readable(request.revision)?;
        let mut items = Vec::with_capacity(request.keys.len());
        let mut total = 0usize;
        for key in &request.keys {
            let item = self.item(key, revision)?;
            total += item.as_ref().map_or(0, |item| item.value.len());
            if total > MAX_BATCH_READ_BYTES {
                return Err(ReadError::TooLarge { limit: MAX_BATCH_READ_BYTES });
            }
            items.push(item);
        }
        Ok(BatchReadResult { items, revision })
    }

    /// One page of a count.
    pub fn count(&self, request: &CountKeys) -> Result<CountResult, ReadError<T::Error>> {
        let mut page = Page::counting();
        let token = request.continuation_token.as_ref();
        let (revision, continuation_token) =
            self.fill(&mut page, &request.prefix, token, request.revision)?;
        Ok(CountResult { count: page.found as u64, continuation_token, revision })
    }

    /// How long a lease lives and what it holds.
    pub fn lease_time_to_live(
        &self,
        request: &LeaseTimeToLive,
    ) -> Result<LeaseTimeToLiveResult, ReadError<T::Error>> {
        let id = request.lease_id;
        let lease = load_lease(self.tables, id)?.filter(|lease| lease.is_alive(self.now_ms));
        let info = self.lease_info(id, lease.ok_or(ReadError::NoLease)?);
        let keys = match request.should_include_keys {
            true => self.lease_keys(id)?,
            false => Vec::new(),
        };
        Ok(LeaseTimeToLiveResult {
            lease_id: id,
            granted_ttl_seconds: info.granted_ttl_seconds,
            remaining_ms: info.remaining_ms,
            key_count: info.key_count,
            keys,
        })
    }

    /// Leases by id. Looks at no more rows than it may return, so that a page can be short and
    /// still be followed by another.
    pub fn lease_list(&self, request: &LeaseList) -> Result<LeaseListResult, ReadError<T::Error>> {
        let limit = request.limit.map_or(MAX_LEASE_LIST, |l| (l as usize).min(MAX_LEASE_LIST));
        let from = LeaseId(request.after.map_or(0, |id| id.0.saturating_add(1)));
        let rows = self.tables.rows(TableId::Leases, &lease_key(from), None)?;
        let mut leases = Vec::new();
        for row in rows {
            let (row_key, row) = row?;
            let Some((id, [])) = split_be(row_key.as_ref()) else {
                return Err(StateError::Corrupt(TableId::Leases).into());
            };
            let lease: Lease =
                decode_record(TableId::Leases, row.as_ref()).map_err(StateError::from)?;
            if !lease.is_alive(self.now_ms) {
                continue;
            }
            if leases.len() == limit {
                return Ok(LeaseListResult { leases, is_truncated: true });
            }
            leases.push(self.lease_info(LeaseId(id), lease));
        }
        Ok(LeaseListResult { leases, is_truncated: false })
    }

    fn lease_info(&self, lease_id: LeaseId, lease: Lease) -> LeaseInfo {
        LeaseInfo {
            lease_id,
            granted_ttl_seconds: lease.ttl_seconds,
            remaining_ms: lease.deadline_ms.saturating_sub(self.now_ms),
            key_count: lease.key_count,
        }
    }

    fn lease_keys(&self, id: LeaseId) -> Result<Vec<Key>, Fault<T>> {
        let next = LeaseId(id.0.saturating_add(1));
        let rows = self.tables.rows(TableId::LeaseKeys, &lease_key(id), Some(&lease_key(next)))?;
        rows.take(MAX_LEASE_LIST)
            .map(|row| {
                let (row_key, _) = row?;
                let (_, key) =
                    split_be(row_key.as_ref()).ok_or(StateError::Corrupt(TableId::LeaseKeys))?;
                Ok(stored_key(key, TableId::LeaseKeys)?)
            })
            .collect()
    }

    /// The revision to read, if it is kept and reached.
    pub(crate) fn readable(
        &self,
        wanted: Option<Revision>,
    ) -> Result<Revision, ReadError<T::Error>> {
        let newest = self.header.applied_revision;
        match wanted {
            None => Ok(newest),
            Some(revision) if revision > newest => Err(ReadError::NotReached { newest }),
            Some(revision) if revision < self.header.oldest_revision => {
                Err(ReadError::Compacted { oldest: self.header.oldest_revision })
            }
            Some(revision) => Ok(revision),
        }
    }

    fn item(&self, key: &Key, at: Revision) -> Result<Option<Item>, Fault<T>> {
        if let Some(row) = self.tables.row(TableId::Live, key.as_bytes())? {
            let (meta, value) = ItemMeta::split(row.as_ref(), TableId::Live)?;
            if meta.mod_revision <= at {
                let is_visible = self.is_visible(&meta, at)?;
                return Ok(is_visible.then(|| meta.with_value(value)));
            }
        }
        if at == self.header.applied_revision {
            return Ok(None);
        }
        let (mut from, mut to) = (Vec::new(), Vec::new());
        history_key(key.as_bytes(), Revision(at.0.saturating_add(1)), &mut from);
        history_end(key.as_bytes(), &mut to);
        let mut rows = self.tables.rows(TableId::History, &from, Some(&to))?;
        let Some(row) = rows.next() else { return Ok(None) };
        let (_, row) = row?;
        let (meta, value) = ItemMeta::split(row.as_ref(), TableId::History)?;
        Ok((meta.mod_revision <= at).then(|| meta.with_value(value)))
    }

    /// Whether a live row that was written at or before `at` shows there.
    pub(crate) fn is_visible(&self, meta: &ItemMeta, at: Revision) -> Result<bool, Fault<T>> {
        let newest = self.header.applied_revision;
        if at == newest {
            return Ok(end_of(self.tables, meta, self.now_ms, newest)?.is_none());
        }
        let ended = end_of(self.tables, meta, self.header.log_time_ms, newest)?;
        Ok(ended.is_none_or(|ended| at < ended))
    }
}
