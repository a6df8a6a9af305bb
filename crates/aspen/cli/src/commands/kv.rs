//! `kv`.

mod show;
mod transaction;

use std::collections::BTreeSet;

use aspen_api::kv::{BatchRead, Compact, Lifetime, ReadKey, ScanKeys, WriteOperation};
use aspen_api::{Key, KeyValueStore, Revision};
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
            client.set_with_lifetime(key.clone(), value, given(lifetime)).await?;
            Ok(Outcome::new(json!({ "status": "success", "key": key.as_str() }), "ok"))
        }
        KvCommand::Delete { key } => Ok(show::deleted(&key, &client.delete(key.clone()).await?)),
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
            let swap = client.compare_and_swap(key.clone(), expected, new_value, given(lifetime));
            Ok(show::compared(&key, &swap.await?))
        }
        KvCommand::Cad { key, expected, expected_file } => {
            let expected = input::value(expected, expected_file.as_deref())?.unwrap_or_default();
            Ok(show::compared(&key, &client.compare_and_delete(key.clone(), expected).await?))
        }
        KvCommand::BatchRead { keys, read } => {
            let (consistency, revision) = (read.consistency.into(), read.revision);
            let request = BatchRead { keys: keys.clone(), consistency, revision };
            Ok(show::batch_read(&keys, &client.send(request).await?))
        }
        KvCommand::BatchWrite { assignments } => {
            let set = |(key, value): (Key, Bytes)| WriteOperation::set(key, value);
            let count = assignments.len();
            client.write(assignments.into_iter().map(set).collect()).await?;
            Ok(show::batch_written(count))
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
