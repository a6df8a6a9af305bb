//! Commands over several keys: judged whole, then carried out whole.

use std::cmp::Ordering;

use aspen_api::kv::{
    BatchWriteResult, Compare, CompareTarget, Condition, ConditionFailure, ConditionalBatchWrite,
    ConditionalBatchWriteResult, Relation, Transact, TransactResult, TransactionOperation,
    TransactionOutcome, WriteOperation,
};
use aspen_api::{ApiError, ErrorCode};
use net_types::limits::MAX_TRANSACTION_READ_BYTES;

use crate::applier::Applier;
use crate::versions::Visible;
use crate::{Reply, StateError, WriteTables};

impl<T: WriteTables> Applier<'_, T> {
    pub(crate) fn batch(
        &mut self,
        operations: &[WriteOperation],
    ) -> Result<Reply, StateError<T::Error>> {
        if let Some(error) = self.refuse_operations(operations)? {
            return Ok(Reply::Refused { error });
        }
        self.write_all(operations)?;
        let operations_applied = operations.len() as u32;
        let result = BatchWriteResult { operations_applied, revision: self.revision };
        Ok(Reply::BatchWrite { result })
    }

    pub(crate) fn conditional_batch(
        &mut self,
        batch: &ConditionalBatchWrite,
    ) -> Result<Reply, StateError<T::Error>> {
        let mut result = ConditionalBatchWriteResult {
            conditions_met: true,
            operations_applied: 0,
            failed_condition_index: None,
            failed_condition_reason: None,
            revision: self.revision,
        };
        for (index, condition) in batch.conditions.iter().enumerate() {
            if let Some(reason) = self.failure(condition)? {
                result.conditions_met = false;
                result.failed_condition_index = Some(index as u32);
                result.failed_condition_reason = Some(reason);
                return Ok(Reply::ConditionalBatchWrite { result });
            }
        }
        if let Some(error) = self.refuse_operations(&batch.operations)? {
            return Ok(Reply::Refused { error });
        }
        self.write_all(&batch.operations)?;
        result.operations_applied = batch.operations.len() as u32;
        Ok(Reply::ConditionalBatchWrite { result })
    }

    pub(crate) fn transact(
        &mut self,
        transaction: &Transact,
    ) -> Result<Reply, StateError<T::Error>> {
        let mut is_success = true;
        for compare in &transaction.compares {
            if !self.holds(compare)? {
                is_success = false;
                break;
            }
        }
        let branch = if is_success { &transaction.then } else { &transaction.otherwise };
        for step in branch {
            if let TransactionOperation::Write { operation } = step
                && let Some(error) = self.refuse_operation(operation)?
            {
                return Ok(Reply::Refused { error });
            }
        }
        if self.bytes_read_by(branch)? > MAX_TRANSACTION_READ_BYTES {
            let message = format!(
                "the transaction reads more than {MAX_TRANSACTION_READ_BYTES} bytes; read them \
                 outside it and compare their revisions in it"
            );
            let error = ApiError::new(ErrorCode::TooLarge, message);
            return Ok(Reply::Refused { error });
        }
        let mut outcomes = Vec::with_capacity(branch.len());
        for step in branch {
            outcomes.push(self.step(step)?);
        }
        let result = TransactResult { is_success, outcomes, revision: self.revision };
        Ok(Reply::Transact { result })
    }

    fn step(
        &mut self,
        step: &TransactionOperation,
    ) -> Result<TransactionOutcome, StateError<T::Error>> {
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
        })
    }

    /// Bytes of values that a branch will return, writes before a read included.
    fn bytes_read_by(
        &mut self,
        branch: &[TransactionOperation],
    ) -> Result<usize, StateError<T::Error>> {
        let mut total = 0usize;
        for (at, step) in branch.iter().enumerate() {
            let TransactionOperation::Read { key } = step else { continue };
            let written = branch[..at].iter().rev().find_map(|earlier| match earlier {
                TransactionOperation::Write { operation } if operation.key() == key => {
                    Some(operation)
                }
                _ => None,
            });
            total += match written {
                Some(WriteOperation::Set { value, .. }) => value.len(),
                Some(WriteOperation::Delete { .. }) => 0,
                None => self.visible(key)?.map_or(0, |found| found.value.len()),
            };
        }
        Ok(total)
    }

    fn write_all(&mut self, operations: &[WriteOperation]) -> Result<(), StateError<T::Error>> {
        for operation in operations {
            match operation {
                WriteOperation::Set { key, value, lifetime } => self.set(key, value, lifetime)?,
                WriteOperation::Delete { key } => {
                    self.delete(key)?;
                }
            }
        }
        Ok(())
    }

    fn refuse_operations(
        &self,
        operations: &[WriteOperation],
    ) -> Result<Option<ApiError>, StateError<T::Error>> {
        for operation in operations {
            if let Some(error) = self.refuse_operation(operation)? {
                return Ok(Some(error));
            }
        }
        Ok(None)
    }

    fn refuse_operation(
        &self,
        operation: &WriteOperation,
    ) -> Result<Option<ApiError>, StateError<T::Error>> {
        match operation {
            WriteOperation::Set { lifetime, .. } => self.refuse_lifetime(lifetime),
            WriteOperation::Delete { .. } => Ok(None),
        }
    }

    fn failure(
        &mut self,
        condition: &Condition,
    ) -> Result<Option<ConditionFailure>, StateError<T::Error>> {
        let found = self.visible(condition.key())?;
        Ok(match (condition, found) {
            (Condition::ValueEquals { value, .. }, Some(found)) => {
                (found.value != value).then_some(ConditionFailure::ValueDiffers)
            }
            (Condition::KeyExists { .. }, Some(_)) | (Condition::KeyNotExists { .. }, None) => None,
            (Condition::ValueEquals { .. } | Condition::KeyExists { .. }, None) => {
                Some(ConditionFailure::KeyMissing)
            }
            (Condition::KeyNotExists { .. }, Some(_)) => Some(ConditionFailure::KeyPresent),
        })
    }

    fn holds(&mut self, compare: &Compare) -> Result<bool, StateError<T::Error>> {
        let found = self.visible(&compare.key)?;
        Ok(order(found.as_ref(), &compare.target).is_some_and(|order| match compare.relation {
            Relation::Equal => order == Ordering::Equal,
            Relation::NotEqual => order != Ordering::Equal,
            Relation::Greater => order == Ordering::Greater,
            Relation::Less => order == Ordering::Less,
        }))
    }
}

/// How what a key has stands to what a transaction names; `None` for the value of an absent key.
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
    })
}
