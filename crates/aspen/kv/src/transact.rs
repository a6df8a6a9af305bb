//! Transactions: judged whole, then carried out whole.
//!
//! Invariants: a transaction that is refused changes nothing; comparisons see the state before the
//! first write.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use aspen_api::kv::{
    Compare, CompareTarget, NumberRange, Relation, Transact, TransactResult, TransactionOperation,
    TransactionOutcome, WriteOperation,
};
use aspen_api::{ApiError, ErrorCode, Key};
use bytes::Bytes;
use net_types::limits::MAX_TRANSACTION_READ_BYTES;

use crate::applier::Applier;
use crate::versions::{Deadline, Visible};
use crate::{Fault, Reply, WriteTables};

impl<T: WriteTables> Applier<'_, T> {
    pub(crate) fn transact(&mut self, request: &Transact) -> Result<Reply, Fault<T>> {
        let mut failed_compare = None;
        for (at, compare) in request.compares.iter().enumerate() {
            if !self.holds(compare)? {
                failed_compare = Some(at as u32);
                break;
            }
        }
        let branch = match failed_compare {
            None => &request.then,
            Some(_) => &request.otherwise,
        };
        if let Some(error) = self.refuse_branch(branch)? {
            return Ok(Reply::Refused { error });
        }
        let mut outcomes = Vec::with_capacity(branch.len());
        for step in branch {
            outcomes.push(self.step(step)?);
        }
        let result = TransactResult { failed_compare, outcomes, revision: self.revision };
        Ok(Reply::Transact { result })
    }

    /// Why a branch cannot be carried out; `None` if it can. Changes nothing.
    fn refuse_branch(
        &mut self,
        branch: &[TransactionOperation],
    ) -> Result<Option<ApiError>, Fault<T>> {
        let (mut has_reads, mut has_sums) = (false, false);
        for step in branch {
            match step {
                TransactionOperation::Write { operation: WriteOperation::Set { lifetime, .. } } => {
                    if let Some(error) = self.refuse_lifetime(lifetime)? {
                        return Ok(Some(error));
                    }
                }
                TransactionOperation::Write { operation: WriteOperation::Delete { .. } } => {}
                TransactionOperation::Read { .. } => has_reads = true,
                TransactionOperation::Add { .. } => has_sums = true,
            }
        }
        if has_sums && let Some(error) = self.refuse_sums(branch)? {
            return Ok(Some(error));
        }
        if has_reads && self.bytes_read_by(branch)? > MAX_TRANSACTION_READ_BYTES {
            let message = format!(
                "the transaction reads more than {MAX_TRANSACTION_READ_BYTES} bytes; read them \
                 outside it and compare their revisions in it"
            );
            return Ok(Some(ApiError::new(ErrorCode::TooLarge, message)));
        }
        Ok(None)
    }

    /// Whether each sum finds a number, with the effects of the steps before it.
    fn refuse_sums(
        &mut self,
        branch: &[TransactionOperation],
    ) -> Result<Option<ApiError>, Fault<T>> {
        let mut changed: BTreeMap<&Key, Option<i128>> = BTreeMap::new();
        for step in branch {
            match step {
                TransactionOperation::Write {
                    operation: WriteOperation::Set { key, value, .. },
                } => {
                    changed.insert(key, number_in(value));
                }
                TransactionOperation::Write { operation: WriteOperation::Delete { key } } => {
                    changed.insert(key, Some(0));
                }
                TransactionOperation::Read { .. } => {}
                TransactionOperation::Add { key, amount, is_subtraction, range } => {
                    let before = match changed.get(key) {
                        Some(number) => *number,
                        None => number_of(self.visible(key)?.as_ref()),
                    };
                    let Some(before) = before.filter(|n| bounds(*range).contains(n)) else {
                        let text = format!("the key {key:?} holds no number of this range");
                        return Ok(Some(ApiError::new(ErrorCode::Conflict, text)));
                    };
                    changed.insert(key, Some(sum(before, *amount, *is_subtraction, *range)));
                }
            }
        }
        Ok(None)
    }

    fn step(&mut self, step: &TransactionOperation) -> Result<TransactionOutcome, Fault<T>> {
        Ok(match step {
            TransactionOperation::Write { operation: WriteOperation::Delete { key } } => {
                TransactionOutcome::Deleted { was_deleted: self.delete(key)? }
            }
            TransactionOperation::Write {
                operation: WriteOperation::Set { key, value, lifetime },
            } => {
                self.set(key, value, lifetime)?;
                TransactionOutcome::Set {}
            }
            TransactionOperation::Read { key } => {
                let item = self.visible(key)?.map(|found| found.meta.with_value(found.value));
                TransactionOutcome::Read { item }
            }
            TransactionOperation::Add { key, amount, is_subtraction, range } => {
                let found = self.visible(key)?;
                let deadline = found.as_ref().map_or(Deadline::NONE, |found| found.meta.deadline());
                let before = number_of(found.as_ref()).unwrap_or(0);
                let after = sum(before, *amount, *is_subtraction, *range);
                self.put(key, &Bytes::from(after.to_string()), deadline)?;
                let magnitude = u64::try_from(after.unsigned_abs()).unwrap_or(u64::MAX);
                TransactionOutcome::Added { magnitude, is_negative: after < 0 }
            }
        })
    }

    /// Bytes of values that a branch returns, with the effects of the writes before each read.
    fn bytes_read_by(&mut self, branch: &[TransactionOperation]) -> Result<usize, Fault<T>> {
        /// Digits of the longest number, with its sign.
        const NUMBER_BYTES: usize = 20;
        let mut total = 0usize;
        for (at, step) in branch.iter().enumerate() {
            let TransactionOperation::Read { key } = step else { continue };
            let written = branch[..at].iter().rev().find_map(|earlier| match earlier {
                TransactionOperation::Write { operation } if operation.key() == key => {
                    Some(match operation {
                        WriteOperation::Set { value, .. } => value.len(),
                        WriteOperation::Delete { .. } => 0,
                    })
                }
                TransactionOperation::Add { key: added, .. } if added == key => Some(NUMBER_BYTES),
                TransactionOperation::Write { .. }
                | TransactionOperation::Read { .. }
                | TransactionOperation::Add { .. } => None,
            });
            total += match written {
                Some(bytes) => bytes,
                None => self.visible(key)?.map_or(0, |found| found.value.len()),
            };
        }
        Ok(total)
    }

    fn holds(&mut self, compare: &Compare) -> Result<bool, Fault<T>> {
        let found = self.visible(&compare.key)?;
        Ok(order(found.as_ref(), &compare.target).is_some_and(|order| match compare.relation {
            Relation::Equal => order == Ordering::Equal,
            Relation::NotEqual => order != Ordering::Equal,
            Relation::Greater => order == Ordering::Greater,
            Relation::Less => order == Ordering::Less,
        }))
    }
}

/// How what a key has compares to what a transaction names; `None` if the key has no such thing.
fn order(found: Option<&Visible<'_>>, target: &CompareTarget) -> Option<Ordering> {
    let meta = found.map(|found| found.meta);
    Some(match target {
        CompareTarget::Value { value } => found?.value.cmp(value),
        CompareTarget::Version { version } => meta.map_or(0, |m| m.version).cmp(version),
        CompareTarget::CreateRevision { revision } => {
            meta.map(|m| m.create_revision).unwrap_or_default().cmp(revision)
        }
        CompareTarget::ModRevision { revision } => {
            meta.map(|m| m.mod_revision).unwrap_or_default().cmp(revision)
        }
        CompareTarget::Exists { exists } => found.is_some().cmp(exists),
        CompareTarget::Number { magnitude, is_negative } => {
            number_of(found)?.cmp(&signed(*magnitude, *is_negative))
        }
    })
}

/// The number that a key holds; `None` if it holds something else.
fn number_of(found: Option<&Visible<'_>>) -> Option<i128> {
    found.map_or(Some(0), |found| number_in(found.value))
}

/// The number that a value spells in decimal digits.
fn number_in(value: &[u8]) -> Option<i128> {
    let number = core::str::from_utf8(value).ok()?.parse().ok()?;
    (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&number).then_some(number)
}

fn signed(magnitude: u64, is_negative: bool) -> i128 {
    if is_negative { -i128::from(magnitude) } else { i128::from(magnitude) }
}

fn bounds(range: NumberRange) -> core::ops::RangeInclusive<i128> {
    match range {
        NumberRange::Unsigned => 0..=i128::from(u64::MAX),
        NumberRange::Signed => i128::from(i64::MIN)..=i128::from(i64::MAX),
    }
}

/// The sum, or the end of the range that it passes.
fn sum(before: i128, amount: u64, is_subtraction: bool, range: NumberRange) -> i128 {
    let bounds = bounds(range);
    (before + signed(amount, is_subtraction)).clamp(*bounds.start(), *bounds.end())
}
