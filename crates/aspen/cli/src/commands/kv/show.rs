//! What `kv` commands print.

use aspen_api::kv::{BatchReadResult, Item, ReadResult, ScanResult};
use aspen_api::{CompareAndSwapResult, DeleteResult, Key};
use serde_json::{Value, json};

use crate::outcome::{Exit, Outcome, Text};
use crate::values::{json_value, shown_value, token_text};

/// What a key holds and where that stands in history, or that it does not exist.
pub(super) fn existing(key: &Key, item: Option<&Item>) -> Value {
    let Some(item) = item else {
        return json!({ "key": key.as_str(), "does_exist": false, "value": null });
    };
    let mut shown = entry(key, item);
    shown["does_exist"] = true.into();
    shown
}

/// A key with what it holds. Its lifetime is named only if it has one.
fn entry(key: &Key, item: &Item) -> Value {
    let mut shown = json!({
        "key": key.as_str(),
        "value": json_value(&item.value),
        "version": item.version,
        "create_revision": item.create_revision.0,
        "mod_revision": item.mod_revision.0,
    });
    if let Some(expires_at_ms) = item.expires_at_ms {
        shown["expires_at_ms"] = expires_at_ms.into();
    }
    if let Some(lease_id) = item.lease_id {
        shown["lease_id"] = lease_id.0.into();
    }
    shown
}

/// A key and its value in one line.
pub(super) fn pair(key: &Key, item: &Item) -> String {
    format!("{}\t{}", shown_value(key.as_bytes()), shown_value(&item.value))
}

pub(super) fn got(key: &Key, result: &ReadResult) -> Outcome {
    let json = existing(key, result.item.as_ref());
    match &result.item {
        Some(item) => {
            let text = Text::Raw(item.value.to_vec());
            Outcome { json, text, note: None, exit: Exit::Success }
        }
        None => {
            let note = Some(format!("the key {:?} does not exist", key.as_str()));
            Outcome { json, text: Text::Nothing, note, exit: Exit::Success }
        }
    }
}

pub(super) fn deleted(key: &Key, result: &DeleteResult) -> Outcome {
    let json = json!({
        "status": "success",
        "key": key.as_str(),
        "was_deleted": result.was_deleted,
    });
    Outcome::new(json, if result.was_deleted { "deleted" } else { "was not there" })
}

pub(super) fn scanned(result: &ScanResult) -> Outcome {
    let entries: Vec<_> =
        result.entries.iter().map(|found| entry(&found.key, &found.item)).collect();
    let token = result.continuation_token.as_deref().map(token_text);
    let lines: Vec<_> = result.entries.iter().map(|found| pair(&found.key, &found.item)).collect();
    let note = token.as_ref().map(|token| format!("there is more: go on with --token {token}"));
    let text = Text::lines(&lines);
    let json = json!({
        "count": entries.len(),
        "entries": entries,
        "is_truncated": result.is_truncated(),
        "continuation_token": token,
    });
    Outcome { json, text, note, exit: Exit::Success }
}

pub(super) fn compared(key: &Key, result: &CompareAndSwapResult) -> Outcome {
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

pub(super) fn batch_read(keys: &[Key], result: &BatchReadResult) -> Outcome {
    let items = || keys.iter().zip(result.items.iter().map(Option::as_ref));
    let results: Vec<_> = items().map(|(key, item)| existing(key, item)).collect();
    let lines: Vec<_> = items().filter_map(|(key, item)| Some(pair(key, item?))).collect();
    let missing = keys.len() - lines.len();
    let outcome = Outcome::new(json!({ "count": results.len(), "results": results }), "");
    let outcome = Outcome { text: Text::lines(&lines), ..outcome };
    match missing {
        0 => outcome,
        _ => outcome.with_note(format!("{missing} of {} keys do not exist", keys.len())),
    }
}

pub(super) fn batch_written(applied: usize) -> Outcome {
    let json = json!({ "is_success": true, "operations_applied": applied });
    Outcome::new(json, format!("{applied} keys set"))
}

#[cfg(test)]
mod tests {
    use aspen_api::kv::KeyValue;
    use aspen_api::{LeaseId, Revision};
    use bytes::Bytes;

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
        let found = got(&key("k"), &ReadResult { item: Some(item(&[0xff])), revision });
        assert_eq!(found.text, Text::Raw(vec![0xff]));
        let expected = json!({
            "key": "k", "does_exist": true, "value": { "base64": "/w==" }, "version": 2,
            "create_revision": 5, "mod_revision": 9,
        });
        assert_eq!(found.json, expected);
        let absent = got(&key("k"), &ReadResult { item: None, revision });
        assert_eq!((&absent.text, absent.exit), (&Text::Nothing, Exit::Success));
        assert_eq!(absent.json, json!({ "key": "k", "does_exist": false, "value": null }));
    }

    #[test]
    fn a_lifetime_is_shown_only_if_there_is_one() {
        let plain = existing(&key("k"), Some(&item(b"v")));
        assert_eq!((plain.get("expires_at_ms"), plain.get("lease_id")), (None, None));
        let leased = Item { lease_id: Some(LeaseId(7)), ..item(b"v") };
        assert_eq!(existing(&key("k"), Some(&leased))["lease_id"], 7);
        let mortal = Item { expires_at_ms: Some(12), ..item(b"v") };
        assert_eq!(existing(&key("k"), Some(&mortal))["expires_at_ms"], 12);
        let found = vec![KeyValue { key: key("k"), item: leased }];
        let page = ScanResult { entries: found, continuation_token: None, revision: Revision(9) };
        assert_eq!(scanned(&page).json["entries"][0]["lease_id"], 7);
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
            { "key": "a", "does_exist": true, "value": "v", "version": 2, "create_revision": 5,
              "mod_revision": 9 },
            { "key": "b", "does_exist": false, "value": null },
        ]});
        assert_eq!((outcome.json, outcome.text), (expected, Text::Lines("a\tv".into())));
        let expected = json!({ "is_success": true, "operations_applied": 2 });
        assert_eq!(batch_written(2).json, expected);
    }

    #[test]
    fn deleting_says_whether_there_was_something() {
        let outcome =
            deleted(&key("k"), &DeleteResult { was_deleted: false, revision: Revision(1) });
        let expected = json!({ "status": "success", "key": "k", "was_deleted": false });
        assert_eq!((outcome.json, outcome.exit), (expected, Exit::Success));
    }
}
