//! Transactions as JSON documents, whose shape the help of `kv txn` gives.

use aspen_api::kv::{
    Compare, CompareTarget, Lifetime, NumberRange, Relation, Transact, TransactResult,
    TransactionOperation, TransactionOutcome, WriteOperation,
};
use aspen_api::{Key, LeaseId, Revision};
use bytes::Bytes;
use data_encoding::BASE64;
use net_types::limits::{MAX_BATCH_OPERATIONS, MAX_VALUE_BYTES};
use serde::Deserialize;
use serde_json::{Value, json};

use super::show::{existing, pair};
use crate::outcome::{Outcome, Text};
use crate::values::shown_value;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default, rename = "if")]
    conditions: Vec<Condition>,
    #[serde(default)]
    then: Vec<Step>,
    #[serde(default, rename = "else")]
    otherwise: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    key: String,
    relation: Option<String>,
    value: Option<JsonBytes>,
    version: Option<u64>,
    create_revision: Option<u64>,
    mod_revision: Option<u64>,
    exists: Option<bool>,
    number: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    set: Option<String>,
    delete: Option<String>,
    get: Option<String>,
    add: Option<String>,
    by: Option<i64>,
    signed: Option<bool>,
    value: Option<JsonBytes>,
    ttl_ms: Option<u64>,
    lease_id: Option<u64>,
}

/// A value as it is printed: text, or bytes in base64.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a value is a text or {\"base64\": \"...\"}")]
enum JsonBytes {
    Text(String),
    Bytes(Base64),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Base64 {
    base64: String,
}

/// The transaction that a document describes, or what is wrong with it and where.
pub(super) fn parse(text: &str) -> Result<Transact, String> {
    let document: Document = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if document.then.is_empty() && document.otherwise.is_empty() {
        return Err("there is nothing to do: neither \"then\" nor \"else\" has a step".to_owned());
    }
    Ok(Transact {
        compares: each("if", document.conditions, compare)?,
        then: each("then", document.then, step)?,
        otherwise: each("else", document.otherwise, step)?,
    })
}

/// Converts each element of a list and names the one that cannot be.
fn each<T, U>(
    list: &str,
    elements: Vec<T>,
    convert: impl Fn(T) -> Result<U, String>,
) -> Result<Vec<U>, String> {
    if elements.len() > MAX_BATCH_OPERATIONS {
        let count = elements.len();
        return Err(format!("{list:?} has {count} elements, and at most {MAX_BATCH_OPERATIONS}"));
    }
    let convert = |(at, element)| convert(element).map_err(|text| format!("{list}[{at}]: {text}"));
    elements.into_iter().enumerate().map(convert).collect()
}

fn compare(condition: Condition) -> Result<Compare, String> {
    let relation = match condition.relation.as_deref() {
        None | Some("=") => Relation::Equal,
        Some("!=") => Relation::NotEqual,
        Some(">") => Relation::Greater,
        Some("<") => Relation::Less,
        Some(other) => return Err(format!("{other:?} is no relation; these are =, !=, > and <")),
    };
    let value = condition.value.map(bytes).transpose()?;
    let targets = [
        value.map(|value| CompareTarget::Value { value }),
        condition.version.map(|version| CompareTarget::Version { version }),
        condition
            .create_revision
            .map(|at| CompareTarget::CreateRevision { revision: Revision(at) }),
        condition.mod_revision.map(|at| CompareTarget::ModRevision { revision: Revision(at) }),
        condition.exists.map(|exists| CompareTarget::Exists { exists }),
        condition.number.map(|number| CompareTarget::Number {
            magnitude: number.unsigned_abs(),
            is_negative: number < 0,
        }),
    ];
    let mut targets = targets.into_iter().flatten();
    match (targets.next(), targets.next()) {
        (Some(target), None) => Ok(Compare { key: key(&condition.key)?, relation, target }),
        _ => {
            Err("expected one of value, version, create_revision, mod_revision, exists and number"
                .into())
        }
    }
}

fn step(step: Step) -> Result<TransactionOperation, String> {
    let has_value_fields = step.value.is_some() || step.ttl_ms.is_some() || step.lease_id.is_some();
    let lifetime = match (step.ttl_ms, step.lease_id) {
        (Some(_), Some(_)) => return Err("ttl_ms and lease_id exclude each other".into()),
        (Some(ttl_ms), None) => Lifetime::Ttl { ttl_ms },
        (None, Some(lease)) => Lifetime::Lease { lease_id: LeaseId(lease) },
        (None, None) => Lifetime::Forever {},
    };
    if step.add.is_none() && (step.by.is_some() || step.signed.is_some()) {
        return Err("only an add has by and signed".into());
    }
    let operation = match (step.set, step.delete, step.get, step.add) {
        (Some(named), None, None, None) => {
            let value = step.value.ok_or("a set needs a value")?;
            WriteOperation::Set { key: key(&named)?, value: bytes(value)?, lifetime }
        }
        (None, Some(_), None, None) | (None, None, Some(_), None) | (None, None, None, Some(_))
            if has_value_fields =>
        {
            return Err("only a set has a value, ttl_ms or lease_id".into());
        }
        (None, Some(named), None, None) => WriteOperation::Delete { key: key(&named)? },
        (None, None, Some(named), None) => {
            return Ok(TransactionOperation::Read { key: key(&named)? });
        }
        (None, None, None, Some(named)) => {
            let by = step.by.ok_or("an add needs by, a whole number")?;
            let range = match step.signed {
                Some(true) => NumberRange::Signed,
                Some(false) | None => NumberRange::Unsigned,
            };
            return Ok(TransactionOperation::Add {
                key: key(&named)?,
                amount: by.unsigned_abs(),
                is_subtraction: by < 0,
                range,
            });
        }
        _ => return Err("expected one of set, delete, get and add".into()),
    };
    Ok(TransactionOperation::Write { operation })
}

fn key(text: &str) -> Result<Key, String> {
    text.parse().map_err(|error| format!("the key {text:?}: {error}"))
}

fn bytes(value: JsonBytes) -> Result<Bytes, String> {
    let bytes = match value {
        JsonBytes::Text(text) => text.into_bytes(),
        JsonBytes::Bytes(Base64 { base64 }) => BASE64
            .decode(base64.as_bytes())
            .map_err(|error| format!("the value is not base64: {error}"))?,
    };
    match bytes.len() > MAX_VALUE_BYTES {
        true => Err(format!("the value has more than {MAX_VALUE_BYTES} bytes")),
        false => Ok(bytes.into()),
    }
}

/// What a transaction did, step by step.
pub(super) fn show(transaction: &Transact, result: &TransactResult) -> Outcome {
    let branch = match result.is_success() {
        true => &transaction.then,
        false => &transaction.otherwise,
    };
    let steps = || branch.iter().map(TransactionOperation::key).zip(&result.outcomes);
    let results: Vec<_> = steps().map(|(key, outcome)| outcome_json(key, outcome)).collect();
    let json = json!({
        "status": if result.is_success() { "success" } else { "conflict" },
        "is_success": result.is_success(),
        "revision": result.revision.0,
        "results": results,
    });
    let lines: Vec<_> = steps().map(|(key, outcome)| outcome_text(key, outcome)).collect();
    let outcome = Outcome { text: Text::lines(&lines), ..Outcome::new(json, "") };
    match result.is_success() {
        true => outcome,
        false => outcome.negative().with_note("the conditions do not hold"),
    }
}

fn outcome_json(key: &Key, outcome: &TransactionOutcome) -> Value {
    let (name, mut shown) = match outcome {
        TransactionOutcome::Set {} => ("set", json!({ "key": key.as_str() })),
        TransactionOutcome::Deleted { was_deleted } => {
            ("delete", json!({ "key": key.as_str(), "was_deleted": was_deleted }))
        }
        TransactionOutcome::Read { item } => ("get", existing(key, item.as_ref())),
        TransactionOutcome::NotKept {} => ("get", json!({ "key": key.as_str(), "not_kept": true })),
        TransactionOutcome::Added { magnitude, is_negative } => {
            let number = number_json(*magnitude, *is_negative);
            ("add", json!({ "key": key.as_str(), "number": number }))
        }
    };
    shown["step"] = name.into();
    shown
}

fn outcome_text(key: &Key, outcome: &TransactionOutcome) -> String {
    let name = shown_value(key.as_bytes());
    match outcome {
        TransactionOutcome::Set {} => format!("set\t{name}"),
        TransactionOutcome::Deleted { was_deleted: true } => format!("deleted\t{name}"),
        TransactionOutcome::Deleted { was_deleted: false } => format!("was not there\t{name}"),
        TransactionOutcome::Read { item: Some(item) } => format!("got\t{}", pair(key, item)),
        TransactionOutcome::Read { item: None } => format!("does not exist\t{name}"),
        TransactionOutcome::NotKept {} => format!("no longer known\t{name}"),
        TransactionOutcome::Added { magnitude, is_negative } => {
            format!("added\t{name}\t{}", number_json(*magnitude, *is_negative))
        }
    }
}

fn number_json(magnitude: u64, is_negative: bool) -> Value {
    match is_negative {
        true => 0i64.saturating_sub_unsigned(magnitude).into(),
        false => magnitude.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Exit;

    const WHOLE: &str = r#"{
        "if": [
            {"key": "a", "value": "v"},
            {"key": "a", "value": {"base64": "/w=="}, "relation": "!="},
            {"key": "a", "version": 3, "relation": "<"},
            {"key": "a", "create_revision": 4, "relation": ">"},
            {"key": "a", "mod_revision": 5, "relation": "="},
            {"key": "a", "exists": false}
        ],
        "then": [
            {"set": "a", "value": "w"},
            {"set": "b", "value": "", "ttl_ms": 9},
            {"set": "c", "value": {"base64": "/w=="}, "lease_id": 7}
        ],
        "else": [{"delete": "a"}, {"get": "a"}]
    }"#;

    fn named(text: &str) -> Key {
        text.parse().unwrap()
    }

    #[test]
    fn a_document_says_everything_that_a_transaction_can() {
        let compare = |relation, target| Compare { key: named("a"), relation, target };
        let set = |key, value: &'static [u8], lifetime| TransactionOperation::Write {
            operation: WriteOperation::Set { key: named(key), value: value.into(), lifetime },
        };
        let expected = Transact {
            compares: vec![
                compare(Relation::Equal, CompareTarget::Value { value: "v".into() }),
                compare(Relation::NotEqual, CompareTarget::Value { value: vec![0xff].into() }),
                compare(Relation::Less, CompareTarget::Version { version: 3 }),
                compare(Relation::Greater, CompareTarget::CreateRevision { revision: Revision(4) }),
                compare(Relation::Equal, CompareTarget::ModRevision { revision: Revision(5) }),
                compare(Relation::Equal, CompareTarget::Exists { exists: false }),
            ],
            then: vec![
                set("a", b"w", Lifetime::Forever {}),
                set("b", b"", Lifetime::Ttl { ttl_ms: 9 }),
                set("c", &[0xff], Lifetime::Lease { lease_id: LeaseId(7) }),
            ],
            otherwise: vec![
                TransactionOperation::Write {
                    operation: WriteOperation::Delete { key: named("a") },
                },
                TransactionOperation::Read { key: named("a") },
            ],
        };
        assert_eq!(parse(WHOLE), Ok(expected));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let many = vec![r#"{"get":"k"}"#; 101].join(",");
        for (document, expected) in [
            ("", "EOF"),
            ("{}", "nothing to do"),
            (r#"{"then":[{"get":"k"}],"when":[]}"#, "unknown field `when`"),
            (r#"{"then":[{"get":"k"},{"set":"k"}]}"#, "then[1]: a set needs a value"),
            (r#"{"else":[{"get":"k","delete":"k"}]}"#, "else[0]: expected one of set"),
            (r#"{"then":[{"get":"k","value":"v"}]}"#, "only a set has"),
            (r#"{"then":[{"set":"k","value":1}]}"#, "a value is a text or"),
            (r#"{"then":[{"set":"k","value":{"base64":"!"}}]}"#, "not base64"),
            (r#"{"then":[{"set":"k","value":"v","ttl_ms":1,"lease_id":1}]}"#, "exclude"),
            (r#"{"then":[{"get":""}]}"#, "then[0]: the key \"\""),
            (r#"{"if":[{"key":"k"}],"then":[{"get":"k"}]}"#, "if[0]: expected one of value"),
            (r#"{"if":[{"key":"k","version":1,"exists":true}],"then":[{"get":"k"}]}"#, "if[0]"),
            (
                r#"{"if":[{"key":"k","version":1,"relation":"<="}],"then":[{"get":"k"}]}"#,
                "\"<=\" is no relation",
            ),
            (&format!(r#"{{"then":[{many}]}}"#), "\"then\" has 101 elements"),
            (r#"{"then":[{"add":"k"}]}"#, "an add needs by"),
            (r#"{"then":[{"add":"k","by":1,"value":"v"}]}"#, "only a set has a value"),
            (r#"{"then":[{"get":"k","by":1}]}"#, "only an add has by"),
        ] {
            let error = parse(document).unwrap_err();
            assert!(error.contains(expected), "{document}: {error}");
        }
    }

    #[test]
    fn the_steps_of_the_branch_that_ran_are_shown() {
        let transaction = parse(WHOLE).unwrap();
        let outcomes = vec![
            TransactionOutcome::Deleted { was_deleted: true },
            TransactionOutcome::Read { item: None },
        ];
        let revision = Revision(9);
        let outcome =
            show(&transaction, &TransactResult { failed_compare: Some(0), outcomes, revision });
        let expected = json!({
            "status": "conflict", "is_success": false, "revision": 9, "results": [
                { "step": "delete", "key": "a", "was_deleted": true },
                { "step": "get", "key": "a", "does_exist": false, "value": null },
            ],
        });
        assert_eq!((outcome.json, outcome.exit), (expected, Exit::Negative));
        assert_eq!(outcome.text, Text::Lines("deleted\ta\ndoes not exist\ta".into()));
        let outcomes = vec![TransactionOutcome::Set {}; 3];
        let outcome =
            show(&transaction, &TransactResult { failed_compare: None, outcomes, revision });
        assert_eq!((outcome.exit, &outcome.json["status"]), (Exit::Success, &json!("success")));
        assert_eq!(outcome.json["results"][2], json!({ "step": "set", "key": "c" }));
    }

    #[test]
    fn numbers_are_compared_and_added_to() {
        let text = r#"{"if":[{"key":"n","number":-3,"relation":">"}],
                       "then":[{"add":"n","by":-2,"signed":true}]}"#;
        let transaction = parse(text).unwrap();
        let target = CompareTarget::Number { magnitude: 3, is_negative: true };
        assert_eq!(transaction.compares[0].target, target);
        let (amount, is_subtraction, range) = (2, true, NumberRange::Signed);
        let key: Key = "n".parse().unwrap();
        let add = TransactionOperation::Add { key, amount, is_subtraction, range };
        assert_eq!(transaction.then, [add]);
        let outcomes = vec![TransactionOutcome::Added { magnitude: 5, is_negative: true }];
        let revision = Revision(9);
        let result = TransactResult { failed_compare: None, outcomes, revision };
        let shown = show(&transaction, &result);
        let expected = json!([{ "step": "add", "key": "n", "number": -5 }]);
        assert_eq!(shown.json["results"], expected);
        assert_eq!(shown.text, Text::Lines("added\tn\t-5".into()));
    }
}
