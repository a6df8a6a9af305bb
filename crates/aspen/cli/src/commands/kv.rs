//! `kv`.

mod show;
mod transaction;

use std::collections::BTreeSet;

use aspen_api::kv::{
    BatchRead, BatchWrite, Compact, Compare, CompareAndDeleteKey, CompareAndSwapKey,
    CompareAndSwapResult, CompareTarget, DeleteKey, Lifetime, ReadKey, Relation, ScanKeys,
    Transact, TransactionOperation, WriteKey, WriteKeyWithLease, WriteKeyWithTtl, WriteOperation,
};
use aspen_api::{Key, Revision};
use aspen_client::Client;
use bytes::Bytes;
use net_types::limits::MAX_BATCH_OPERATIONS;
use serde_json::json;

use crate::args::{KvCommand, LifetimeOptions};
use crate::input;
use crate::outcome::{Failure, Outcome};
use crate::values::shown_value;

/// Refuses what no cluster could carry out as it was meant.
pub(super) fn check(command: &KvCommand) -> Result<(), Failure> {
    match command {
        KvCommand::BatchRead { keys, .. } => check_count(keys.len(), "keys"),
        KvCommand::BatchWrite { assignments } => {
            check_count(assignments.len(), "pairs")?;
            let mut seen = BTreeSet::new();
            match assignments.iter().find(|(key, _)| !seen.insert(key)) {
                Some((key, _)) => Err(Failure::usage(format!(
                    "the key {:?} is given twice; nothing was written",
                    shown_value(key.as_bytes())
                ))),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn check_count(count: usize, what: &str) -> Result<(), Failure> {
    match count > MAX_BATCH_OPERATIONS {
        true => Err(Failure::usage(format!(
            "{count} {what} are given, and a batch has at most {MAX_BATCH_OPERATIONS}"
        ))),
        false => Ok(()),
    }
}

pub(super) async fn run(client: &Client, command: KvCommand) -> Result<Outcome, Failure> {
    match command {
        KvCommand::Get { key, read } => {
            let (consistency, revision) = (read.consistency.into(), read.revision);
            let request = ReadKey { key: key.clone(), consistency, revision };
            Ok(show::got(&key, &client.send(request).await?))
        }
        KvCommand::Set { key, value, file, lifetime } => {
            let value = input::value(value, file.as_deref())?.unwrap_or_default();
            set(client, key, value, lifetime).await
        }
        KvCommand::Delete { key } => {
            let result = client.send(DeleteKey { key: key.clone() }).await?;
            Ok(show::deleted(&key, &result))
        }
        KvCommand::Scan { prefix, limit, token, read } => {
            let request = ScanKeys {
                prefix,
                limit: Some(limit),
                continuation_token: token,
                consistency: read.consistency.into(),
                revision: read.revision,
            };
            Ok(show::scanned(&client.send(request).await?))
        }
        KvCommand::Cas { key, expected, expected_file, new_value, file, lifetime } => {
            let expected = input::value(expected, expected_file.as_deref())?;
            let new_value = input::value(new_value, file.as_deref())?.unwrap_or_default();
            let request = CompareAndSwapKey { key: key.clone(), expected, new_value };
            let result = match given(lifetime) {
                Lifetime::Forever {} => client.send(request).await?,
                lifetime => swap_with_lifetime(client, request, lifetime).await?,
            };
            Ok(show::compared(&key, &result))
        }
        KvCommand::Cad { key, expected, expected_file } => {
            let expected = input::value(expected, expected_file.as_deref())?.unwrap_or_default();
            let request = CompareAndDeleteKey { key: key.clone(), expected };
            Ok(show::compared(&key, &client.send(request).await?))
        }
        KvCommand::BatchRead { keys, read } => {
            let (consistency, revision) = (read.consistency.into(), read.revision);
            let request = BatchRead { keys: keys.clone(), consistency, revision };
            Ok(show::batch_read(&keys, &client.send(request).await?))
        }
        KvCommand::BatchWrite { assignments } => {
            let set = |(key, value): (Key, Bytes)| WriteOperation::set(key, value);
            let request = BatchWrite { operations: assignments.into_iter().map(set).collect() };
            Ok(show::batch_written(&client.send(request).await?))
        }
        KvCommand::Txn { file } => {
            let transaction = transaction::parse(&input::document(&file)?)
                .map_err(|text| Failure::usage(format!("{}: {text}", input::named(&file))))?;
            let result = client.send(transaction.clone()).await?;
            Ok(transaction::show(&transaction, &result))
        }
        KvCommand::Compact { revision } => compact(client, revision).await,
    }
}

fn given(options: LifetimeOptions) -> Lifetime {
    match (options.ttl_ms, options.lease) {
        (Some(ttl_ms), _) => Lifetime::Ttl { ttl_ms },
        (None, Some(lease_id)) => Lifetime::Lease { lease_id },
        (None, None) => Lifetime::Forever {},
    }
}

async fn set(
    client: &Client,
    key: Key,
    value: Bytes,
    lifetime: LifetimeOptions,
) -> Result<Outcome, Failure> {
    let named = key.clone();
    match given(lifetime) {
        Lifetime::Ttl { ttl_ms } => client.send(WriteKeyWithTtl { key, value, ttl_ms }).await?,
        Lifetime::Lease { lease_id } => {
            client.send(WriteKeyWithLease { key, value, lease_id }).await?
        }
        Lifetime::Forever {} => client.send(WriteKey { key, value }).await?,
    };
    Ok(Outcome::new(json!({ "status": "success", "key": named.as_str() }), "ok"))
}

/// A compare-and-swap whose new value does not live forever: one transaction. After a mismatch the
/// actual value is read at the transaction's own revision, hence it is the one that was compared;
/// the transaction itself returns no values above 64 KiB.
async fn swap_with_lifetime(
    client: &Client,
    swap: CompareAndSwapKey,
    lifetime: Lifetime,
) -> Result<CompareAndSwapResult, Failure> {
    let CompareAndSwapKey { key, expected, new_value } = swap;
    let target = match expected {
        Some(value) => CompareTarget::Value { value },
        None => CompareTarget::Exists { exists: false },
    };
    let operation = WriteOperation::Set { key: key.clone(), value: new_value, lifetime };
    let transaction = Transact {
        compares: vec![Compare { key: key.clone(), relation: Relation::Equal, target }],
        then: vec![TransactionOperation::Write { operation }],
        otherwise: vec![],
    };
    let result = client.send(transaction).await?;
    let (is_success, revision) = (result.is_success, result.revision);
    let actual_value = match is_success {
        true => None,
        false => {
            let read = ReadKey { revision: Some(revision), ..ReadKey::newest(key) };
            client.send(read).await?.item.map(|item| item.value)
        }
    };
    Ok(CompareAndSwapResult { is_success, actual_value, revision })
}

async fn compact(client: &Client, revision: Revision) -> Result<Outcome, Failure> {
    let oldest = client.send(Compact { revision }).await?.oldest_revision.0;
    let json = json!({ "status": "success", "oldest_revision": oldest });
    Ok(Outcome::new(json, format!("the oldest revision that can be read is {oldest}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(keys: impl IntoIterator<Item = String>) -> KvCommand {
        let pair = |key: String| (key.parse().unwrap(), Bytes::new());
        KvCommand::BatchWrite { assignments: keys.into_iter().map(pair).collect() }
    }

    #[test]
    fn a_batch_names_each_key_once_and_at_most_a_hundred() {
        let keys = |count: usize| (0..count).map(|n| format!("k{n}"));
        assert_eq!(check(&pairs(keys(100))), Ok(()));
        let many = check(&pairs(keys(101))).unwrap_err();
        assert!(many.message.contains("101 pairs") && many.message.contains("100"), "{many:?}");
        let twice = check(&pairs(keys(3).chain(["k1".to_owned()]))).unwrap_err();
        assert!(twice.message.contains("\"k1\" is given twice"), "{twice:?}");
    }
}
