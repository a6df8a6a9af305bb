//! `aspen-cli kv` against a real node: results, JSON shapes and exit codes.

use serde_json::json;
use tempfile::TempDir;

use crate::cli::Cli;
use crate::process::{Node, until};

fn node() -> (TempDir, Node, Cli) {
    let folder = TempDir::new().unwrap();
    let node = Node::start(&folder.path().join("node"), &["--cookie", "secret"]).unwrap();
    let cli = Cli::of(&node);
    (folder, node, cli)
}

#[test]
fn keys_are_set_read_overwritten_and_deleted() {
    let (_folder, _node, cli) = node();
    let run = |args: &[&str]| {
        let ran = cli.run(args);
        (ran.code, ran.text().to_owned())
    };
    assert_eq!(run(&["kv", "set", "k", "v"]), (0, "ok\n".into()));
    assert_eq!(run(&["kv", "get", "k"]), (0, "v".into()), "not a byte more than the value");
    let set = cli.json(&["kv", "set", "k", ""]).json();
    assert_eq!(set, json!({ "status": "success", "key": "k" }));
    let got = cli.json(&["kv", "get", "k"]).json();
    let created = got["create_revision"].as_u64().unwrap();
    let expected = json!({ "key": "k", "does_exist": true, "value": "", "version": 2,
                           "create_revision": created, "mod_revision": created + 1 });
    assert_eq!(got, expected);
    assert_eq!(run(&["kv", "delete", "k"]), (0, "deleted\n".into()));
    assert_eq!(run(&["kv", "delete", "k"]), (0, "was not there\n".into()));
    let deleted = cli.json(&["kv", "delete", "k"]).json();
    assert_eq!(deleted, json!({ "status": "success", "key": "k", "was_deleted": false }));
    let absent = cli.run(&["kv", "get", "k"]);
    assert_eq!((absent.code, absent.stdout.len()), (0, 0));
    assert!(absent.stderr.contains("does not exist"));
    assert_eq!(cli.run(&["-q", "kv", "get", "k"]).stderr, "");
    let absent = cli.json(&["kv", "get", "k"]);
    assert_eq!(absent.json(), json!({ "key": "k", "does_exist": false, "value": null }));
    assert_eq!(absent.stderr, "");
}

#[test]
fn values_of_any_bytes_and_odd_keys_come_out_unchanged() {
    let (folder, _node, cli) = node();
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let path = folder.path().join("value");
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(cli.run(&["kv", "set", "f", "--file", path.to_str().unwrap()]).code, 0);
    assert_eq!(cli.run(&["kv", "get", "f"]).stdout, bytes);
    assert_eq!(cli.run_with(&["kv", "set", "s", "--file", "-"], &bytes).code, 0);
    assert_eq!(cli.run(&["kv", "get", "s"]).stdout, bytes);
    let largest = vec![7; 1 << 20];
    assert_eq!(cli.run_with(&["kv", "set", "l", "--file", "-"], &largest).code, 0);
    assert_eq!(cli.run(&["kv", "get", "l"]).stdout, largest);
    assert_eq!(cli.run_with(&["kv", "set", "b", "--file", "-"], &[0xff]).code, 0);
    assert_eq!(cli.json(&["kv", "get", "b"]).json()["value"], json!({ "base64": "/w==" }));
    let conflict = cli.json(&["kv", "cas", "b", "--expected", "x", "--new-value", "y"]);
    assert_eq!(conflict.document()["actual_value"], json!({ "base64": "/w==" }));
    let longest = "k".repeat(1_024);
    for key in ["ключ", "two\nlines", "a b", " ", "-", "\"'\\", "🗝", longest.as_str()] {
        assert_eq!(cli.run(&["kv", "set", "--", key, key]).code, 0, "{key:?}");
        let got = cli.json(&["kv", "get", "--", key]).json();
        assert_eq!((&got["key"], &got["value"]), (&json!(key), &json!(key)));
    }
}

#[test]
fn scans_show_revisions_go_on_where_they_ended_and_skip_nothing() {
    let (_folder, _node, cli) = node();
    assert_eq!(cli.run(&["kv", "batch-write", "p/a=1", "p/b=2", "p/c=3", "q=4"]).code, 0);
    let first = cli.json(&["kv", "scan", "p/", "--limit", "2"]).json();
    let at = first["entries"][0]["mod_revision"].as_u64().unwrap();
    let entry = |key: &str, value: &str| {
        json!({ "key": key, "value": value, "version": 1, "create_revision": at,
                "mod_revision": at })
    };
    let token = first["continuation_token"].as_str().unwrap().to_owned();
    let expected = json!({
        "entries": [entry("p/a", "1"), entry("p/b", "2")],
        "count": 2,
        "is_truncated": true,
        "continuation_token": token,
    });
    assert_eq!(first, expected);
    // What changes between two pages does not show in the second.
    assert_eq!(cli.run(&["kv", "set", "p/c", "changed"]).code, 0);
    assert_eq!(cli.run(&["kv", "set", "p/d", "new"]).code, 0);
    let second = cli.json(&["kv", "scan", "p/", "--token", &token]).json();
    let expected = json!({
        "entries": [entry("p/c", "3")],
        "count": 1,
        "is_truncated": false,
        "continuation_token": null,
    });
    assert_eq!(second, expected);
    let foreign = cli.json(&["kv", "scan", "q", "--token", &token]);
    assert_eq!(foreign.refusal(), (2, "INVALID_TOKEN".into()));
    assert_eq!(cli.run(&["kv", "scan"]).text(), "p/a\t1\np/b\t2\np/c\tchanged\np/d\tnew\nq\t4\n");
    let empty = cli.json(&["kv", "scan", "none/"]).json();
    assert_eq!((&empty["count"], &empty["entries"]), (&json!(0), &json!([])));
    let note = cli.run(&["kv", "scan", "--limit", "1"]).stderr;
    assert!(note.contains("--token "), "{note}");
}

#[test]
fn keys_are_counted_by_prefix_at_any_revision() {
    let (_folder, _node, cli) = node();
    assert_eq!(cli.run(&["kv", "batch-write", "p/a=1", "p/b=2", "q=3"]).code, 0);
    let before = cli.json(&["kv", "count", "p/"]).json();
    let revision = before["revision"].as_u64().unwrap();
    assert_eq!(before, json!({ "count": 2, "revision": revision }));
    assert_eq!(cli.run(&["kv", "delete", "p/a"]).code, 0);
    assert_eq!(cli.run(&["kv", "count", "p/"]).text(), "1\n");
    assert_eq!(cli.run(&["kv", "count"]).text(), "2\n");
    assert_eq!(cli.run(&["kv", "count", "none/"]).text(), "0\n");
    let revision = revision.to_string();
    assert_eq!(cli.run(&["kv", "count", "p/", "--revision", &revision]).text(), "2\n");
}

#[test]
fn older_revisions_are_read_and_those_to_come_are_refused() {
    let (_folder, _node, cli) = node();
    assert_eq!(cli.run(&["kv", "set", "k", "old"]).code, 0);
    let entries = cli.json(&["kv", "scan"]).json();
    let revision = entries["entries"][0]["mod_revision"].to_string();
    assert_eq!(cli.run(&["kv", "set", "k", "new"]).code, 0);
    assert_eq!(cli.run(&["kv", "get", "k", "--revision", &revision]).text(), "old");
    let old = cli.run(&["kv", "batch-read", "k", "--revision", &revision]);
    assert_eq!(old.text(), "k\told\n");
    let future = cli.json(&["kv", "get", "k", "--revision", "1000000"]);
    assert_eq!(future.refusal(), (2, "INVALID_REQUEST".into()));
    for consistency in ["linearizable", "lease", "stale"] {
        let read = cli.run(&["kv", "get", "k", "--consistency", consistency]);
        assert_eq!((read.code, read.text()), (0, "new"), "{consistency}");
    }
}

#[test]
fn a_conflict_is_exit_code_1_with_the_result_on_stdout() {
    let (_folder, _node, cli) = node();
    let swap = |expected: Option<&str>, new: &str| {
        let expected = expected.map(|e| ["--expected", e]);
        let expected = expected.as_ref().map_or(&[][..], |e| &e[..]);
        let ran = cli.json(&[&["kv", "cas", "k", "--new-value", new], expected].concat());
        assert_eq!(ran.stderr, "");
        (ran.code, ran.document())
    };
    let success = json!({ "status": "success", "key": "k", "is_success": true });
    let conflict = |actual: &str| json!({ "status": "conflict", "key": "k", "is_success": false, "actual_value": actual });
    let absent = json!({ "status": "conflict", "key": "k", "is_success": false });
    assert_eq!(swap(Some("1"), "2"), (1, absent.clone()));
    assert_eq!(swap(None, "1"), (0, success.clone()));
    assert_eq!(swap(None, "2"), (1, conflict("1")));
    assert_eq!(swap(Some("1"), "2"), (0, success.clone()));
    assert_eq!(swap(Some("1"), "3"), (1, conflict("2")));
    let cad = |expected: &str| {
        let ran = cli.json(&["kv", "cad", "k", "--expected", expected]);
        (ran.code, ran.document())
    };
    assert_eq!(cad("1"), (1, conflict("2")));
    assert_eq!(cad("2"), (0, success));
    assert_eq!(cad("2"), (1, absent));
    let text = cli.run(&["kv", "cad", "k", "--expected", "2"]);
    assert_eq!((text.code, text.text()), (1, "conflict: the key does not exist\n"));
}

#[test]
fn batches_are_one_revision_and_all_or_nothing() {
    let (_folder, _node, cli) = node();
    let written = cli.json(&["kv", "batch-write", "a=1", "b==", "c="]).json();
    assert_eq!(written, json!({ "is_success": true, "operations_applied": 3 }));
    let read = cli.json(&["kv", "batch-read", "c", "nope", "a", "b"]).json();
    let at = &read["results"][0]["mod_revision"];
    let result = |key: &str, value: &str| {
        json!({ "key": key, "does_exist": true, "value": value, "version": 1,
                "create_revision": at, "mod_revision": at })
    };
    let absent = json!({ "key": "nope", "does_exist": false, "value": null });
    let results = [result("c", ""), absent, result("a", "1"), result("b", "=")];
    assert_eq!(read, json!({ "count": 4, "results": results }));
    let revisions: Vec<_> = cli.json(&["kv", "scan"]).json()["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["mod_revision"].clone())
        .collect();
    assert!(revisions.iter().all(|revision| *revision == revisions[0]), "{revisions:?}");
    // One key that is too long spoils the whole batch, before anything is sent.
    let long = format!("{}=1", "k".repeat(1_025));
    assert_eq!(cli.json(&["kv", "batch-write", "x=1", &long]).refusal(), (2, "USAGE".into()));
    assert_eq!(cli.json(&["kv", "get", "x"]).json()["does_exist"], false);
}

#[test]
fn a_batch_that_cannot_be_meant_changes_nothing() {
    let (_folder, _node, cli) = node();
    let many: Vec<_> = (0..101).map(|n| format!("k{n:03}=v")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    for (pairs, text) in [
        (&["a=1", "b=2", "a=3"][..], "\"a\" is given twice"),
        (&["a=1", "b"], "expected KEY=VALUE"),
        (&["a=1", "=2"], "=2"),
        (&many, "101 pairs are given, and a batch has at most 100"),
    ] {
        let refused = cli.run(&[&["kv", "batch-write"], pairs].concat());
        assert_eq!((refused.code, refused.stdout.len()), (2, 0), "{pairs:?}");
        assert!(refused.stderr.contains(text), "{}", refused.stderr);
        let refused = cli.json(&[&["kv", "batch-write"], pairs].concat());
        assert_eq!(refused.refusal(), (2, "USAGE".into()));
    }
    let read = cli.json(&[&["kv", "batch-read"], &many[..]].concat());
    assert_eq!(read.refusal(), (2, "USAGE".into()));
    assert_eq!(cli.json(&["kv", "scan"]).json()["count"], 0, "nothing was written");
    let hundred = [&["kv", "batch-write"], &many[..100]].concat();
    assert_eq!(cli.json(&hundred).json()["operations_applied"], 100);
}

#[test]
fn the_lifetime_of_a_key_is_shown() {
    let (_folder, _node, cli) = node();
    assert_eq!(cli.run(&["lease", "grant", "600", "--id", "7"]).code, 0);
    assert_eq!(cli.run(&["kv", "set", "leased", "v", "--lease", "7"]).code, 0);
    assert_eq!(cli.run(&["kv", "set", "mortal", "v", "--ttl-ms", "3600000"]).code, 0);
    assert_eq!(cli.run(&["kv", "set", "plain", "v"]).code, 0);
    let get = |key: &str| cli.json(&["kv", "get", key]).json();
    assert_eq!(get("leased")["lease_id"], 7);
    assert!(get("mortal")["expires_at_ms"].as_u64().unwrap() > 3_600_000);
    let plain = get("plain");
    assert_eq!((plain.get("lease_id"), plain.get("expires_at_ms")), (None, None));
}

#[test]
fn a_key_with_a_time_to_live_goes_by_itself() {
    let (_folder, _node, cli) = node();
    assert_eq!(cli.run(&["kv", "set", "k", "v", "--ttl-ms", "200"]).code, 0);
    assert_eq!(cli.run(&["kv", "set", "kept", "v", "--ttl-ms", "3600000"]).code, 0);
    until("the end of the key", || cli.run(&["kv", "get", "k"]).stdout.is_empty().then_some(()));
    assert_eq!(cli.run(&["kv", "get", "kept"]).text(), "v");
}
