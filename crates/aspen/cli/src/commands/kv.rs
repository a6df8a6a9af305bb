//! `kv`.

use std::io::Read;
use std::path::Path;

use aspen_api::kv::{
    BatchRead, BatchReadResult, BatchWrite, BatchWriteResult, CompareAndDeleteKey,
    CompareAndSwapKey, CompareAndSwapResult, DeleteKey, DeleteResult, ReadKey, ReadResult,
    ScanKeys, ScanResult, WriteKey, WriteKeyWithLease, WriteKeyWithTtl, WriteOperation,
};
use aspen_api::{Key, LeaseId};
use aspen_client::Client;
use bytes::Bytes;
use net_types::limits::MAX_VALUE_BYTES;
use serde_json::{Value, json};

use crate::args::KvCommand;
use crate::outcome::{Exit, Failure, Outcome, Text};
use crate::values::{json_value, shown_value, token_text};

pub(crate) async fn run(client: &Client, command: KvCommand) -> Result<Outcome, Failure> {
    match command {
        KvCommand::Get { key, read } => {
            let (consistency, revision) = (read.consistency.into(), read.revision);
            let request = ReadKey { key: key.clone(), consistency, revision };
            Ok(got(&key, client.send(request).await?))
        }
        KvCommand::Set { key, value, file, ttl_ms, lease } => {
            let value = match file {
                Some(path) => read_value(&path)?,
                None => value.unwrap_or_default().into(),
            };
            set(client, key, value, ttl_ms, lease).await
        }
        KvCommand::Delete { key } => {
            let result = client.send(DeleteKey { key: key.clone() }).await?;
            Ok(deleted(&key, &result))
        }
        KvCommand::Scan { prefix, limit, token, read } => {
            let request = ScanKeys {
                prefix,
                limit: Some(limit),
                continuation_token: token,
                consistency: read.consistency.into(),
                revision: read.revision,
            };
            Ok(scanned(&client.send(request).await?))
        }
        KvCommand::Cas { key, expected, new_value } => {
            let (expected, new_value) = (expected.map(Bytes::from), new_value.into());
            let request = CompareAndSwapKey { key: key.clone(), expected, new_value };
            Ok(compared(&key, &client.send(request).await?))
        }
        KvCommand::Cad { key, expected } => {
            let request = CompareAndDeleteKey { key: key.clone(), expected: expected.into() };
            Ok(compared(&key, &client.send(request).await?))
        }
        KvCommand::BatchRead { keys, read } => {
            let (consistency, revision) = (read.consistency.into(), read.revision);
            let request = BatchRead { keys: keys.clone(), consistency, revision };
            Ok(batch_read(&keys, &client.send(request).await?))
        }
        KvCommand::BatchWrite { assignments } => {
            let set = |(key, value): (Key, Bytes)| WriteOperation::set(key, value);
            let request = BatchWrite { operations: assignments.into_iter().map(set).collect() };
            Ok(batch_written(&client.send(request).await?))
        }
    }
}

async fn set(
    client: &Client,
    key: Key,
    value: Bytes,
    ttl_ms: Option<u64>,
    lease: Option<LeaseId>,
) -> Result<Outcome, Failure> {
    let named = key.clone();
    match (ttl_ms, lease) {
        (Some(ttl_ms), _) => client.send(WriteKeyWithTtl { key, value, ttl_ms }).await?,
        (None, Some(lease_id)) => client.send(WriteKeyWithLease { key, value, lease_id }).await?,
        (None, None) => client.send(WriteKey { key, value }).await?,
    };
    Ok(Outcome::new(json!({ "status": "success", "key": named.as_str() }), "ok"))
}

/// A value from a file, or from standard input for "-". One that is too large is not read to its
/// end.
fn read_value(path: &Path) -> Result<Bytes, Failure> {
    let fail = |error: std::io::Error| {
        Failure::usage(format!("cannot read the value from {}: {error}", path.display()))
    };
    let mut value = Vec::new();
    let limit = MAX_VALUE_BYTES as u64 + 1;
    if path == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_end(&mut value).map_err(fail)?;
    } else {
        let file = std::fs::File::open(path).map_err(fail)?;
        file.take(limit).read_to_end(&mut value).map_err(fail)?;
    }
    if value.len() > MAX_VALUE_BYTES {
        return Err(Failure {
            exit: Exit::Negative,
            code: "TOO_LARGE",
            message: format!("the value has more than {MAX_VALUE_BYTES} bytes"),
        });
    }
    Ok(value.into())
}

fn existing(key: &Key, value: Option<&Bytes>) -> Value {
    json!({
        "key": key.as_str(),
        "does_exist": value.is_some(),
        "value": value.map(|value| json_value(value)),
    })
}

fn got(key: &Key, result: ReadResult) -> Outcome {
    let value = result.item.map(|item| item.value);
    let json = existing(key, value.as_ref());
    match value {
        Some(value) => {
            let text = Text::Raw(value.to_vec());
            Outcome { json, text, note: None, exit: Exit::Success }
        }
        None => {
            let note = Some(format!("the key {:?} does not exist", key.as_str()));
            Outcome { json, text: Text::Nothing, note, exit: Exit::Success }
        }
    }
}

fn deleted(key: &Key, result: &DeleteResult) -> Outcome {
    let json = json!({
        "status": "success",
        "key": key.as_str(),
        "was_deleted": result.was_deleted,
    });
    Outcome::new(json, if result.was_deleted { "deleted" } else { "was not there" })
}

fn scanned(result: &ScanResult) -> Outcome {
    let entries: Vec<_> = result
        .entries
        .iter()
        .map(|entry| {
            json!({
                "key": entry.key.as_str(),
                "value": json_value(&entry.item.value),
                "version": entry.item.version,
                "create_revision": entry.item.create_revision.0,
                "mod_revision": entry.item.mod_revision.0,
            })
        })
        .collect();
    let token = result.continuation_token.as_deref().map(token_text);
    let lines: Vec<_> = result
        .entries
        .iter()
        .map(|entry| {
            let key = shown_value(entry.key.as_bytes());
            format!("{key}\t{}", shown_value(&entry.item.value))
        })
        .collect();
    let note = token.as_ref().map(|token| format!("there is more: go on with --token {token}"));
    let text = match lines.is_empty() {
        true => Text::Nothing,
        false => Text::Lines(lines.join("\n")),
    };
    let json = json!({
        "count": entries.len(),
        "entries": entries,
        "is_truncated": result.is_truncated(),
        "continuation_token": token,
    });
    Outcome { json, text, note, exit: Exit::Success }
}

fn compared(key: &Key, result: &CompareAndSwapResult) -> Outcome {
    let mut json = json!({
        "status": if result.is_success { "success" } else { "conflict" },
        "key": key.as_str(),
        "is_success": result.is_success,
    });
    if result.is_success {
        return Outcome::new(json, "ok");
    }
    let text = match &result.actual_value {
        Some(value) => {
            json["actual_value"] = json_value(value);
            format!("conflict: the value is {}", shown_value(value))
        }
        None => "conflict: the key does not exist".to_owned(),
    };
    Outcome::new(json, text).negative()
}

fn batch_read(keys: &[Key], result: &BatchReadResult) -> Outcome {
    let values = || result.items.iter().map(|item| item.as_ref().map(|item| &item.value));
    let results: Vec<_> =
        keys.iter().zip(values()).map(|(key, value)| existing(key, value)).collect();
    let lines: Vec<_> = keys
        .iter()
        .zip(values())
        .filter_map(|(key, value)| {
            Some(format!("{}\t{}", shown_value(key.as_bytes()), shown_value(value?)))
        })
        .collect();
    let missing = keys.len() - lines.len();
    let outcome = Outcome::new(json!({ "count": results.len(), "results": results }), "");
    let text = match lines.is_empty() {
        true => Text::Nothing,
        false => Text::Lines(lines.join("\n")),
    };
    let outcome = Outcome { text, ..outcome };
    match missing {
        0 => outcome,
        _ => outcome.with_note(format!("{missing} of {} keys do not exist", keys.len())),
    }
}

fn batch_written(result: &BatchWriteResult) -> Outcome {
    let applied = result.operations_applied;
    let json = json!({ "is_success": true, "operations_applied": applied });
    Outcome::new(json, format!("{applied} keys set"))
}

#[cfg(test)]
mod tests {
    use aspen_api::Revision;
    use aspen_api::kv::{Item, KeyValue};

    use super::*;

    fn key(text: &str) -> Key {
        text.parse().unwrap()
    }

    fn item(value: &'static [u8]) -> Item {
        Item {
            value: value.into(),
            version: 2,
            create_revision: Revision(5),
            mod_revision: Revision(9),
            expires_at_ms: None,
            lease_id: None,
        }
    }

    #[test]
    fn get_shows_bytes_as_they_are_and_absence_as_nothing() {
        let revision = Revision(9);
        let found = got(&key("k"), ReadResult { item: Some(item(&[0xff])), revision });
        assert_eq!(found.text, Text::Raw(vec![0xff]));
        let expected = json!({ "key": "k", "does_exist": true, "value": { "base64": "/w==" } });
        assert_eq!(found.json, expected);
        let absent = got(&key("k"), ReadResult { item: None, revision });
        assert_eq!((&absent.text, absent.exit), (&Text::Nothing, Exit::Success));
        assert_eq!(absent.json, json!({ "key": "k", "does_exist": false, "value": null }));
    }

    #[test]
    fn a_conflict_is_a_negative_outcome_with_the_actual_value() {
        let result = |is_success, actual_value| CompareAndSwapResult {
            is_success,
            actual_value,
            revision: Revision(9),
        };
        let success = compared(&key("k"), &result(true, None));
        assert_eq!(success.json, json!({ "status": "success", "key": "k", "is_success": true }));
        let conflict = compared(&key("k"), &result(false, Some("v".into())));
        let expected =
            json!({ "status": "conflict", "key": "k", "is_success": false, "actual_value": "v" });
        assert_eq!((conflict.json, conflict.exit), (expected, Exit::Negative));
        let absent = compared(&key("k"), &result(false, None));
        assert_eq!(absent.json.get("actual_value"), None);
    }

    #[test]
    fn scan_shows_entries_and_how_to_go_on() {
        let entries = vec![KeyValue { key: key("a\nb"), item: item(b"v") }];
        let token = Some(Bytes::from_static(&[1, 2]));
        let page = ScanResult { entries, continuation_token: token, revision: Revision(9) };
        let outcome = scanned(&page);
        let expected = json!({
            "entries": [{
                "key": "a\nb", "value": "v", "version": 2, "create_revision": 5, "mod_revision": 9,
            }],
            "count": 1,
            "is_truncated": true,
            "continuation_token": "AQI",
        });
        assert_eq!(outcome.json, expected);
        assert_eq!(outcome.text, Text::Lines("a\\nb\tv".into()));
        assert!(outcome.note.unwrap().contains("--token AQI"));
        let empty = ScanResult { entries: vec![], continuation_token: None, ..page };
        let outcome = scanned(&empty);
        assert_eq!((outcome.text, outcome.exit), (Text::Nothing, Exit::Success));
        assert_eq!(outcome.json["continuation_token"], Value::Null);
    }

    #[test]
    fn batches_have_their_shapes() {
        let result = BatchReadResult { items: vec![Some(item(b"v")), None], revision: Revision(9) };
        let outcome = batch_read(&[key("a"), key("b")], &result);
        let expected = json!({ "count": 2, "results": [
            { "key": "a", "does_exist": true, "value": "v" },
            { "key": "b", "does_exist": false, "value": null },
        ]});
        assert_eq!((outcome.json, outcome.text), (expected, Text::Lines("a\tv".into())));
        let written = BatchWriteResult { operations_applied: 2, revision: Revision(9) };
        let expected = json!({ "is_success": true, "operations_applied": 2 });
        assert_eq!(batch_written(&written).json, expected);
    }

    #[test]
    fn deleting_says_whether_there_was_something() {
        let outcome =
            deleted(&key("k"), &DeleteResult { was_deleted: false, revision: Revision(1) });
        let expected = json!({ "status": "success", "key": "k", "was_deleted": false });
        assert_eq!((outcome.json, outcome.exit), (expected, Exit::Success));
    }
}
