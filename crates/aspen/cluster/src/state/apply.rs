//! Applying entries of the log to the newest state.
//!
//! A batch changes the state as a whole or ends it: after an error the state takes no more entries.

use aspen_api::Revision;
use aspen_kv::{Applier, Header, Proposal, ProposalError, Reply, StateError, WriteTables};
use net_types::limits::MAX_STATE_MEMORY_BYTES;
use net_types::lock;
use openraft::entry::RaftEntry as _;
use openraft::impls::EntryPayload;

use super::error::StoreError;
use super::progress::Progress;
use super::store::{AppliedBatch, Store, StoreView};
use super::tables::StoreTables;
use crate::types::{Applied, RaftEntry, StoredMembership, entry_id};

impl Store {
    /// The command in an entry; `None` for entries of consensus itself.
    fn proposal_in(&self, entry: &RaftEntry) -> Result<Option<Proposal>, StoreError> {
        let EntryPayload::Normal(command) = &entry.payload else { return Ok(None) };
        let index = entry.log_id().index();
        match Proposal::decode(command.0.clone(), self.top) {
            Ok(proposal) => Ok(Some(proposal)),
            Err(ProposalError::TooNew { level, top }) => {
                let what = format!("entry {index} of the log");
                Err(StoreError::TooNew { what, level, top })
            }
            Err(ProposalError::Malformed(error)) => {
                Err(StoreError::Damaged(format!("entry {index} of the log: {error}")))
            }
        }
    }

    /// Applies entries as one batch and answers each: all of them, or so many, at least one, that
    /// memory is full. Blocks on nothing but rows that only the file holds.
    pub(crate) fn apply(&self, entries: &[RaftEntry]) -> Result<Vec<Applied>, StoreError> {
        // Before anything is changed: an entry that this program cannot read stops it.
        let proposals: Result<Vec<_>, _> =
            entries.iter().map(|entry| self.proposal_in(entry)).collect();
        let mut current = lock(&self.current);
        current.ensure_sound()?;
        let StoreView { tables, progress, .. } = &mut current.state;
        let applied =
            proposals.and_then(|proposals| apply_all(tables, progress, entries, &proposals));
        let (header, replies) =
            applied.inspect_err(|error| current.failure = Some(error.to_string()))?;
        let is_stamped = replies.iter().any(|reply| reply.0.is_some());
        let batch = AppliedBatch { memory_bytes: current.state.tables.newest_bytes(), is_stamped };
        current.state.header = header.clone();
        current.view = None;
        if cfg!(debug_assertions) {
            current.check_invariants(self.durable_next());
        }
        drop(current);
        self.tell(&header, batch);
        Ok(replies)
    }
}

fn apply_all(
    tables: &mut StoreTables,
    progress: &mut Progress,
    entries: &[RaftEntry],
    proposals: &[Option<Proposal>],
) -> Result<(Header, Vec<Applied>), StoreError> {
    let mut applier = Applier::open(tables)?;
    let mut replies = Vec::with_capacity(entries.len());
    for (entry, proposal) in entries.iter().zip(proposals) {
        let id = entry.log_id();
        replies.push(Applied(apply_one(&mut applier, entry, proposal.as_ref())?));
        if let EntryPayload::Membership(membership) = &entry.payload {
            progress.membership = StoredMembership::new(Some(id), membership.clone());
        }
        progress.applied = Some(entry_id(&id));
        if applier.tables().memory_bytes() >= MAX_STATE_MEMORY_BYTES {
            break;
        }
    }
    Ok((applier.finish()?, replies))
}

fn apply_one<T: WriteTables>(
    applier: &mut Applier<'_, T>,
    entry: &RaftEntry,
    proposal: Option<&Proposal>,
) -> Result<Option<Reply>, StateError<T::Error>> {
    let revision = Revision(entry.log_id().index());
    match proposal {
        Some(proposal) => applier.apply(revision, proposal).map(Some),
        // Revision 0 is the empty store, and a cluster's first entry is always its membership.
        None if revision.0 > 0 => applier.skip(revision).map(|()| None),
        None => Ok(None),
    }
}
