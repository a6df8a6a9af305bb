//! Answers to writes that were already applied.
//!
//! Each client has 128 slots; the answer to its request `n` stands in slot `n mod 128`. A request
//! whose slot holds a later number is too old to be judged and is refused.
//!
//! Whole clients are forgotten when they were silent for long, as log time has it, and when there are
//! too many. The store keeps the newest revision whose answer was forgotten, and every request id says
//! after which revision it was given. An id without an answer that is older than what was forgotten
//! is refused: it cannot be told from one that was carried out. So no request is ever carried out
//! twice, however many clients come, however far log time jumps and however late a copy arrives;
//! what a client loses is the answer.
//!
//! Refusals and failed comparisons are recorded as well: a copy of the request may still be on its
//! way, and must not be carried out once its sender was told that it failed.
//!
//! A client's age is kept to the minute, so that a busy client does not move in the age table with
//! every write; it is forgotten a minute later than the window promises.
//!
//! Invariants: a request is carried out at most once; a slot holds the answer with the largest
//! number that fell to it; each client has one row in the age table.

use aspen_api::codec::{Wire, put_varint};
use aspen_api::{ClientId, ErrorCode, RequestId, Revision};
use bytes::Bytes;
use net_types::limits::{DEDUP_WINDOW_AGE, MAX_DEDUP_CLIENTS, MAX_RECORDED_REPLY_BYTES};

use crate::applier::{Applier, refused};
use crate::layout::{Damaged, client_age, reply_key, split_be, split_client_age, take_varint};
use crate::{Fault, Header, ReadTables, Reply, Rows, StateError, TableId, View, WriteTables};

/// Steps in which a client's age is kept.
const AGE_STEP_MS: u64 = 60_000;
/// Silence after which a client is forgotten.
const FORGET_AFTER_MS: u64 = DEDUP_WINDOW_AGE.as_millis() as u64 + AGE_STEP_MS;

/// A row of the answers.
struct Recorded<'r> {
    counter: u64,
    /// The entry that was answered.
    revision: Revision,
    reply: &'r [u8],
}

fn split_reply(row: &[u8]) -> Result<Recorded<'_>, Damaged> {
    let mut reply = row;
    let mut number = || take_varint(&mut reply).ok_or(Damaged(TableId::Replies));
    let (counter, revision) = (number()?, Revision(number()?));
    Ok(Recorded { counter, revision, reply })
}

/// The answer to a request that was applied before, or a refusal if that cannot be known; `None` if
/// the request is to be applied.
fn recorded<T: ReadTables>(
    tables: &T,
    header: &Header,
    id: RequestId,
) -> Result<Option<Reply>, Fault<T>> {
    let row_key = reply_key(id.client, id.counter);
    let row = tables.row(TableId::Replies, &row_key)?;
    let recorded = row.as_ref().map(|row| split_reply(row.as_ref())).transpose()?;
    let is_too_old = match recorded {
        Some(found) if found.counter == id.counter => {
            let reply = Reply::from_bytes(Bytes::copy_from_slice(found.reply));
            return reply.map(Some).map_err(|_| StateError::Corrupt(TableId::Replies));
        }
        Some(found) if found.counter > id.counter => true,
        Some(_) | None => id.since < header.forgotten_revision,
    };
    let message = "the request is older than the answers that are remembered";
    Ok(is_too_old.then(|| refused(ErrorCode::SessionExpired, message)))
}

impl<T: ReadTables> View<'_, T> {
    /// What applying a request with this name would answer without doing anything, as far as this
    /// view knows: the recorded answer, or a refusal of a name that is too old. What is answered here
    /// needs no entry in the log.
    pub fn recorded(&self, id: RequestId) -> Result<Option<Reply>, Fault<T>> {
        recorded(self.tables, &self.header, id)
    }
}

impl<T: WriteTables> Applier<'_, T> {
    /// See [`View::recorded`].
    pub(crate) fn recorded(&self, id: RequestId) -> Result<Option<Reply>, Fault<T>> {
        recorded(&*self.tables, &self.header, id)
    }

    /// Records the answer to a request.
    pub(crate) fn record(&mut self, id: RequestId, reply: &Reply) -> Result<(), Fault<T>> {
        self.row_scratch.clear();
        put_varint(id.counter, &mut self.row_scratch);
        put_varint(self.revision.0, &mut self.row_scratch);
        match reply.size_hint() > MAX_RECORDED_REPLY_BYTES {
            true => reply.without_values().put(&mut self.row_scratch),
            false => reply.put(&mut self.row_scratch),
        }
        self.tables.put_row(
            TableId::Replies,
            &reply_key(id.client, id.counter),
            &self.row_scratch,
        )?;
        self.touch_client(id.client)
    }

    fn touch_client(&mut self, client: ClientId) -> Result<(), Fault<T>> {
        let now_ms = self.header.log_time_ms;
        let last_ms = match self.tables.row(TableId::Clients, &client.0)? {
            None => None,
            Some(row) => match split_be(row.as_ref()) {
                Some((last_ms, [])) => Some(last_ms),
                _ => return Err(StateError::Corrupt(TableId::Clients)),
            },
        };
        match last_ms {
            Some(last_ms) if now_ms - last_ms.min(now_ms) < AGE_STEP_MS => return Ok(()),
            Some(last_ms) => {
                self.tables.delete_row(TableId::ClientAges, &client_age(last_ms, client))?;
            }
            None => {
                if self.header.client_count >= MAX_DEDUP_CLIENTS {
                    let mut unlimited = usize::MAX;
                    self.forget_oldest_client(&mut unlimited)?;
                }
                self.header.client_count += 1;
            }
        }
        self.header.oldest_client_ms = self.header.oldest_client_ms.min(now_ms);
        self.tables.put_row(TableId::Clients, &client.0, &now_ms.to_be_bytes())?;
        self.tables.put_row(TableId::ClientAges, &client_age(now_ms, client), &[])
    }

    /// Forgets clients that were silent for longer than the window.
    pub(crate) fn forget_silent_clients(&mut self, budget: &mut usize) -> Result<(), Fault<T>> {
        while *budget > 0
            && self.header.oldest_client_ms.saturating_add(FORGET_AFTER_MS)
                <= self.header.log_time_ms
        {
            let Some(age) = self.first_key(TableId::ClientAges)? else {
                self.header.oldest_client_ms = u64::MAX;
                break;
            };
            let (last_ms, _) = split_client_age(&age)?;
            self.header.oldest_client_ms = last_ms;
            if last_ms.saturating_add(FORGET_AFTER_MS) <= self.header.log_time_ms {
                self.forget_oldest_client(budget)?;
            }
        }
        Ok(())
    }

    /// Forgets the client that was silent longest: at most 128 answers and two rows.
    fn forget_oldest_client(&mut self, budget: &mut usize) -> Result<(), Fault<T>> {
        let Some(age) = self.first_key(TableId::ClientAges)? else { return Ok(()) };
        let (_, client) = split_client_age(&age)?;
        let mut end = [0xff; 17];
        end[..16].copy_from_slice(&client.0);
        let mut answers: Vec<Vec<u8>> = Vec::new();
        let mut newest = self.header.forgotten_revision;
        for row in self.tables.rows(TableId::Replies, &client.0, Some(&end))? {
            let (row_key, row) = row?;
            newest = newest.max(split_reply(row.as_ref())?.revision);
            answers.push(row_key.as_ref().to_vec());
        }
        self.header.forgotten_revision = newest;
        *budget = budget.saturating_sub(answers.len() + 1);
        for row_key in answers {
            self.tables.delete_row(TableId::Replies, &row_key)?;
        }
        self.tables.delete_row(TableId::ClientAges, &age)?;
        self.tables.delete_row(TableId::Clients, &client.0)?;
        self.header.client_count = self.header.client_count.saturating_sub(1);
        Ok(())
    }
}
