//! `kv`.

mod show;
mod transaction;

use std::collections::BTreeSet;
use std::path::PathBuf;

use aspen_api::kv::{BatchRead, Compact, CountKeys, Lifetime, ReadKey, ScanKeys, WriteOperation};
use aspen_api::{Key, KeyValueStore, LeaseId, Prefix, Revision};
use aspen_client::Client;
use bytes::Bytes;
use clap::{Args, Subcommand};
use net_types::limits::MAX_BATCH_OPERATIONS;
use serde_json::json;

use crate::input;
use crate::options::ReadOptions;
use crate::outcome::{Failure, Outcome};
use crate::values::{parse_assignment, parse_token, shown_value};

/// How long a written key lives; without either, until it is overwritten or deleted.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct LifetimeOptions {
    /// Milliseconds after which the key is gone.
    #[arg(long, value_name = "MS", conflicts_with = "lease")]
    pub(crate) ttl_ms: Option<u64>,
    /// Lease that the key lives with.
    #[arg(long, value_name = "ID")]
    pub(crate) lease: Option<LeaseId>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KvCommand {
    /// Print a key's value. A key that does not exist is no error.
    #[command(after_help = "\
Examples:
  aspen-cli kv get app/name
  aspen-cli kv get app/logo > logo.png        bytes are written as they are
  aspen-cli --json kv get app/name            with version, revisions and lifetime
  aspen-cli kv get app/name --revision 120    the value at an older revision")]
    Get {
        /// The key.
        key: Key,
        #[command(flatten)]
        read: ReadOptions,
    },
    /// Set a key, which clears its time to live and its lease.
    #[command(after_help = "\
Examples:
  aspen-cli kv set app/name Aspen
  aspen-cli kv set app/logo --file logo.png
  date | aspen-cli kv set app/now --file -
  aspen-cli kv set session/7 alice --ttl-ms 60000
  aspen-cli kv set worker/1 up --lease 7")]
    Set {
        /// The key.
        key: Key,
        /// The value; may be empty. One that starts with a hyphen stands after "--".
        #[arg(required_unless_present = "file", conflicts_with = "file")]
        #[arg(allow_negative_numbers = true)]
        value: Option<String>,
        /// Read the value from a file, or from standard input if it is "-".
        #[arg(long)]
        file: Option<PathBuf>,
        #[command(flatten)]
        lifetime: LifetimeOptions,
    },
    /// Delete a key. Deleting one that does not exist succeeds.
    #[command(after_help = "Example:\n  aspen-cli kv delete app/name")]
    Delete {
        /// The key.
        key: Key,
    },
    /// List keys that start with a prefix, in byte order. All pages of a scan show one revision.
    #[command(after_help = "\
Examples:
  aspen-cli kv scan app/
  aspen-cli kv scan --limit 10                     the first ten keys of all
  aspen-cli kv scan app/ --limit 10 --token TOKEN  the next page
  aspen-cli kv scan app/ --revision 120            as it was at an older revision")]
    Scan {
        /// The prefix; without it all keys.
        #[arg(default_value = "", hide_default_value = true)]
        prefix: Prefix,
        /// Entries to show, at most 10,000.
        #[arg(long, default_value_t = 100)]
        #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// Where the page before ended; the token brings its revision.
        #[arg(long = "token", id = "continuation", value_name = "TOKEN", value_parser = parse_token)]
        #[arg(conflicts_with = "revision")]
        token: Option<Bytes>,
        #[command(flatten)]
        read: ReadOptions,
    },
    /// Count keys that start with a prefix, at one revision.
    #[command(after_help = "\
Examples:
  aspen-cli kv count app/
  aspen-cli kv count                        all keys
  aspen-cli kv count app/ --revision 120    as it was at an older revision")]
    Count {
        /// The prefix; without it all keys.
        #[arg(default_value = "", hide_default_value = true)]
        prefix: Prefix,
        #[command(flatten)]
        read: ReadOptions,
    },
    /// Replace a value if it is the expected one; the key then lives as long as --ttl-ms or --lease
    /// say. Exit code 1 if it is not.
    #[command(after_help = "\
Examples:
  aspen-cli kv cas app/leader --new-value me                   only if the key does not exist
  aspen-cli kv cas app/leader --expected me --new-value you
  aspen-cli kv cas app/leader --new-value me --lease 7         goes when the lease ends
  aspen-cli kv cas app/logo --expected-file old.png --file new.png")]
    Cas {
        /// The key.
        key: Key,
        /// The value it must have; without it or --expected-file the key must not exist.
        #[arg(long, value_name = "VALUE", conflicts_with = "expected_file")]
        #[arg(allow_hyphen_values = true)]
        expected: Option<String>,
        /// Read the value it must have from a file.
        #[arg(long, value_name = "FILE")]
        expected_file: Option<PathBuf>,
        /// The value to set.
        #[arg(long, value_name = "VALUE")]
        #[arg(required_unless_present = "file", conflicts_with = "file")]
        #[arg(allow_hyphen_values = true)]
        new_value: Option<String>,
        /// Read the value to set from a file, or from standard input if it is "-".
        #[arg(long)]
        file: Option<PathBuf>,
        #[command(flatten)]
        lifetime: LifetimeOptions,
    },
    /// Delete a key if it has the expected value. Exit code 1 if it has not.
    #[command(after_help = "\
Examples:
  aspen-cli kv cad app/leader --expected me
  aspen-cli kv cad app/logo --expected-file old.png")]
    Cad {
        /// The key.
        key: Key,
        /// The value it must have.
        #[arg(long, value_name = "VALUE", conflicts_with = "expected_file")]
        #[arg(required_unless_present = "expected_file", allow_hyphen_values = true)]
        expected: Option<String>,
        /// Read the value it must have from a file, or from standard input if it is "-".
        #[arg(long, value_name = "FILE")]
        expected_file: Option<PathBuf>,
    },
    /// Read up to 100 keys at one revision.
    #[command(after_help = "Example:\n  aspen-cli kv batch-read app/name app/version")]
    BatchRead {
        /// The keys.
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<Key>,
        #[command(flatten)]
        read: ReadOptions,
    },
    /// Set up to 100 keys, all or none.
    #[command(after_help = "\
Example:
  aspen-cli kv batch-write app/name=Aspen app/version=1    the key ends at the first \"=\"")]
    BatchWrite {
        /// The keys, each once, with their values.
        #[arg(required = true, value_name = "KEY=VALUE")]
        #[arg(value_parser = parse_assignment)]
        assignments: Vec<(Key, Bytes)>,
    },
    /// Carry out steps on several keys if conditions hold, and others if not, all at one revision.
    /// Exit code 1 if the conditions do not hold.
    #[command(after_help = TRANSACTION_HELP)]
    Txn {
        /// File with the transaction as JSON; "-" for standard input.
        file: PathBuf,
    },
    /// Give up the versions of keys that are older than a revision.
    #[command(after_help = "\
Example:
  aspen-cli kv compact 120    revisions before 120 can no longer be read")]
    Compact {
        /// The oldest revision that stays readable.
        revision: Revision,
    },
}

const TRANSACTION_HELP: &str = r#"The transaction:
  {
    "if":   [ {"key": "app/leader", "value": "me"},
              {"key": "app/epoch", "mod_revision": 120, "relation": "<"} ],
    "then": [ {"set": "app/epoch", "value": "8", "ttl_ms": 60000}, {"delete": "app/old"} ],
    "else": [ {"get": "app/leader"} ]
  }

Each condition names a key and one of value, version, create_revision, mod_revision, exists (true
or false) and number; relation is "=" (the default), "!=", ">" or "<". A key that does not exist has
version and revisions 0, number 0, and no value. Each step is one of set (with value, and ttl_ms or
lease_id), delete, get and add (with by, below 0 to subtract: from 0 to 2^64 - 1, or with "signed":
true from -2^63 to 2^63 - 1); steps see those before them. A value is text, or {"base64": "..."}. Each of the
three lists may be missing and has at most 100 elements.

Examples:
  aspen-cli kv txn move.json
  echo '{"if":[{"key":"k","exists":false}],"then":[{"set":"k","value":"v"}]}' | aspen-cli kv txn -"#;

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
        KvCommand::Count { prefix, read } => count(client, prefix, read).await,
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

async fn count(client: &Client, prefix: Prefix, read: ReadOptions) -> Result<Outcome, Failure> {
    let (consistency, revision) = (read.consistency.into(), read.revision);
    let mut page = CountKeys { prefix, continuation_token: None, consistency, revision };
    let mut count = 0;
    loop {
        let result = client.send(page.clone()).await?;
        count += result.count;
        if result.continuation_token.is_none() {
            let json = json!({ "count": count, "revision": result.revision.0 });
            return Ok(Outcome::new(json, count.to_string()));
        }
        page.continuation_token = result.continuation_token;
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
