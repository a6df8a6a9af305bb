//! Applying log entries, in order, as a pure function of the tables and the entry.
//!
//! Invariants:
//! - The same entries on the same tables leave the same bytes, on every backend.
//! - A command is judged whole before its first write: a refused command changes nothing.
//! - Log time never goes back; an entry that carries an older stamp is applied at the newest one.
//! - Beside its own work an entry removes at most [`EXPIRED_PER_ENTRY`] expired rows, a
//!   [`Command::Tick`] at most [`REMOVED_PER_TICK`] rows.
//!
//! Expired rows are removed both by ordinary entries, so that a busy store needs no extra entry,
//! and by ticks, which a leader proposes when a deadline passes in a quiet store (see
//! [`crate::maintenance`]). Neither affects what readers see: that follows from log time alone.

use aspen_api::codec::Wire;
use aspen_api::kv::{CompactResult, Lifetime};
use aspen_api::{ApiError, ErrorCode, Level, Revision};
use bytes::Bytes;
use net_types::limits::{EXPIRED_PER_ENTRY, MAX_LOG_TIME_MS, MAX_TIME_TO_LIVE, REMOVED_PER_TICK};

use crate::layout::{HEADER_KEY, LAYOUT_VERSION, Sweep, decode_record};
use crate::lifetime::load_lease;
use crate::{
    Command, Event, Fault, Header, Proposal, ReadTables, Reply, Rows, StateError, StepResult,
    TableId, TickResult, WriteTables,
};

/// Reads the header; that of an empty store if there is none.
pub fn load_header<T: ReadTables>(tables: &T) -> Result<Header, Fault<T>> {
    let Some(row) = tables.row(TableId::Meta, HEADER_KEY)? else {
        return Ok(Header::default());
    };
    let header: Header = decode_record(TableId::Meta, row.as_ref())?;
    if header.layout_version != LAYOUT_VERSION {
        return Err(StateError::Corrupt(TableId::Meta));
    }
    Ok(header)
}

/// Applies a batch of entries to tables.
///
/// The header is read once by [`Applier::open`] and written once by [`Applier::finish`]; the
/// backend must make everything between the two durable together. After an error the batch must be
/// given up, not finished.
pub struct Applier<'t, T> {
    pub(crate) tables: &'t mut T,
    pub(crate) header: Header,
    /// The entry being applied.
    pub(crate) revision: Revision,
    /// The live row found last.
    pub(crate) row: Vec<u8>,
    /// A key being composed.
    pub(crate) key_scratch: Vec<u8>,
    /// A row being composed.
    pub(crate) row_scratch: Vec<u8>,
    events: Option<&'t mut dyn FnMut(Event)>,
}

impl<'t, T: WriteTables> Applier<'t, T> {
    /// Begins a batch.
    pub fn open(tables: &'t mut T) -> Result<Self, Fault<T>> {
        let header = load_header(tables)?;
        Ok(Self {
            revision: header.applied_revision,
            tables,
            header,
            row: Vec::new(),
            key_scratch: Vec::new(),
            row_scratch: Vec::new(),
            events: None,
        })
    }

    /// Begins a batch whose changes are also given to `events`.
    pub fn open_watched(
        tables: &'t mut T,
        events: &'t mut dyn FnMut(Event),
    ) -> Result<Self, Fault<T>> {
        Ok(Self { events: Some(events), ..Self::open(tables)? })
    }

    /// The header as of the newest entry applied.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The tables as the entries so far have left them, but for the header.
    pub fn tables(&self) -> &T {
        self.tables
    }

    /// Applies the entry at log index `revision`.
    ///
    /// The proposal must have passed [`Command::admit`] where it was proposed.
    pub fn apply(&mut self, revision: Revision, proposal: &Proposal) -> Result<Reply, Fault<T>> {
        self.begin(revision)?;
        let stamp_ms = proposal.log_time_ms.min(MAX_LOG_TIME_MS);
        self.header.log_time_ms = self.header.log_time_ms.max(stamp_ms);
        let mut budget = match proposal.command {
            Command::Tick {} => REMOVED_PER_TICK,
            Command::Transact { .. }
            | Command::LeaseGrant { .. }
            | Command::LeaseRevoke { .. }
            | Command::LeaseKeepalive { .. }
            | Command::Compact { .. }
            | Command::Step { .. } => EXPIRED_PER_ENTRY,
        };
        self.remove_due(&mut budget)?;

        if let Some(id) = proposal.request_id
            && let Some(reply) = self.recorded(id)?
        {
            return Ok(reply);
        }
        let reply = self.execute(&proposal.command, &mut budget)?;
        if let Some(id) = proposal.request_id {
            self.record(id, &reply)?;
        }
        Ok(reply)
    }

    /// Passes over the entry at log index `revision`, which holds no command.
    pub fn skip(&mut self, revision: Revision) -> Result<(), Fault<T>> {
        self.begin(revision)
    }

    /// Ends the batch: writes the header and returns it.
    pub fn finish(self) -> Result<Header, Fault<T>> {
        let row = self.header.to_bytes();
        self.tables.put_row(TableId::Meta, HEADER_KEY, &row)?;
        Ok(self.header)
    }

    fn begin(&mut self, revision: Revision) -> Result<(), Fault<T>> {
        let applied = self.header.applied_revision;
        if revision <= applied {
            return Err(StateError::OutOfOrder { applied, revision });
        }
        self.header.applied_revision = revision;
        self.revision = revision;
        Ok(())
    }

    fn execute(&mut self, command: &Command, budget: &mut usize) -> Result<Reply, Fault<T>> {
        match command {
            Command::Transact { request } => self.transact(request),
            Command::LeaseGrant { request } => {
                self.grant_lease(request.lease_id, request.ttl_seconds)
            }
            Command::LeaseRevoke { request } => self.revoke_lease(request.lease_id, budget),
            Command::LeaseKeepalive { request } => self.keep_lease_alive(request.lease_id),
            Command::Compact { request } => Ok(self.compact(request.revision)),
            Command::Step { level } => Ok(self.step_to(*level)),
            Command::Tick {} => self.tick(budget),
        }
    }

    /// Raises the feature level. One that is reached already stays.
    fn step_to(&mut self, level: Level) -> Reply {
        self.header.level = self.header.level.max(level);
        Reply::Step { result: StepResult { level: self.header.level } }
    }

    fn compact(&mut self, oldest: Revision) -> Reply {
        if oldest > self.revision {
            let message = "a revision that is not reached yet cannot be compacted to";
            return refused(ErrorCode::InvalidRequest, message);
        }
        if oldest > self.header.oldest_revision {
            self.header.oldest_revision = oldest;
            match &mut self.header.sweep {
                Some(sweep) => sweep.is_again = true,
                None if self.header.history_count > 0 => {
                    self.header.sweep = Some(Sweep { cursor: Bytes::new(), is_again: false });
                }
                None => {}
            }
        }
        let result = CompactResult { oldest_revision: self.header.oldest_revision };
        Reply::Compact { result }
    }

    fn tick(&mut self, budget: &mut usize) -> Result<Reply, Fault<T>> {
        self.sweep_history(budget)?;
        let removed = (REMOVED_PER_TICK - *budget) as u32;
        let is_more = self.is_backlogged() || self.header.sweep.is_some();
        Ok(Reply::Tick { result: TickResult { removed, is_more } })
    }

    /// Why a value cannot have this lifetime; `None` if it can.
    pub(crate) fn refuse_lifetime(
        &self,
        lifetime: &Lifetime,
    ) -> Result<Option<ApiError>, Fault<T>> {
        match lifetime {
            Lifetime::Forever {} => Ok(None),
            Lifetime::Ttl { ttl_ms } if (1..=MAX_TTL_MS).contains(ttl_ms) => Ok(None),
            Lifetime::Ttl { .. } => {
                let message = "a time to live is from 1 ms to ten years";
                Ok(Some(ApiError::new(ErrorCode::InvalidRequest, message)))
            }
            Lifetime::Lease { lease_id } => {
                let lease = load_lease(self.tables, *lease_id)?;
                let is_alive = lease.is_some_and(|l| l.is_alive(self.header.log_time_ms));
                Ok((!is_alive).then(no_lease))
            }
        }
    }

    /// Gives a change to the watchers; `event` is only built if there is one.
    pub(crate) fn emit(&mut self, event: impl FnOnce(Revision) -> Event) {
        if let Some(events) = &mut self.events {
            events(event(self.revision));
        }
    }
}

/// [`MAX_TIME_TO_LIVE`] in milliseconds.
pub(crate) const MAX_TTL_MS: u64 = MAX_TIME_TO_LIVE.as_secs() * 1_000;

/// A reply that says why nothing was done.
pub(crate) fn refused(code: ErrorCode, message: &str) -> Reply {
    Reply::Refused { error: ApiError::new(code, message) }
}

/// The error for a lease that is not there.
pub(crate) fn no_lease() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "the lease does not exist or has ended")
}
