//! Conditional changes of one key with a lifetime and of several keys, by the command line.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::Cli;
use crate::process::Node;

fn node() -> (TempDir, Node, Cli) {
    let folder = TempDir::new().unwrap();
    let node = Node::start(&folder.path().join("node"), &[]).unwrap();
    let cli = Cli::of(&node);
    (folder, node, cli)
}

fn get(cli: &Cli, key: &str) -> Value {
    cli.json(&["kv", "get", key]).json()
}

#[test]
fn a_swap_sets_the_lifetime_with_the_value_or_nothing() {
    let (_folder, _node, cli) = node();
    assert_eq!(cli.run(&["lease", "grant", "600", "--id", "7"]).code, 0);
    let swap = |args: &[&str]| {
        let ran = cli.json(&[&["kv", "cas", "k"], args].concat());
        assert_eq!(ran.stderr, "");
        (ran.code, ran.document())
    };
    let success = json!({ "status": "success", "key": "k", "is_success": true });
    let conflict = |actual: &str| json!({ "status": "conflict", "key": "k", "is_success": false, "actual_value": actual });
    assert_eq!(swap(&["--new-value", "1", "--lease", "7"]), (0, success.clone()));
    assert_eq!(get(&cli, "k")["lease_id"], 7);
    assert_eq!(swap(&["--new-value", "2", "--lease", "7"]), (1, conflict("1")));
    let wrong = ["--expected", "0", "--new-value", "2", "--ttl-ms", "3600000"];
    assert_eq!(swap(&wrong), (1, conflict("1")));
    assert_eq!(get(&cli, "k")["version"], 1, "a conflict changes nothing");
    let right = ["--expected", "1", "--new-value", "2", "--ttl-ms", "3600000"];
    assert_eq!(swap(&right), (0, success.clone()));
    let now = get(&cli, "k");
    assert!(now["expires_at_ms"].is_u64() && now.get("lease_id").is_none(), "{now}");
    assert_eq!(swap(&["--expected", "2", "--new-value", "3"]), (0, success));
    assert_eq!(get(&cli, "k").get("expires_at_ms"), None, "it lives forever again");
    let orphan = cli.json(&["kv", "cas", "new", "--new-value", "v", "--lease", "8"]);
    assert_eq!(orphan.refusal(), (3, "NOT_FOUND".into()));
    let absent =
        cli.json(&["kv", "cas", "new", "--expected", "x", "--new-value", "v", "--lease", "7"]);
    let expected = json!({ "status": "conflict", "key": "new", "is_success": false });
    assert_eq!((absent.code, absent.document()), (1, expected));
}

#[test]
fn a_swap_takes_any_bytes_from_files_and_standard_input() {
    let (folder, _node, cli) = node();
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    let (bytes, largest) = (vec![0xff, 0, 10], vec![7; 1 << 20]);
    std::fs::write(&old, &bytes).unwrap();
    std::fs::write(&new, &largest).unwrap();
    let (old, new) = (old.to_str().unwrap(), new.to_str().unwrap());
    assert_eq!(cli.run_with(&["kv", "cas", "k", "--file", "-"], &bytes).code, 0);
    assert_eq!(cli.run(&["kv", "get", "k"]).stdout, bytes);
    assert_eq!(cli.run(&["kv", "cas", "k", "--expected-file", old, "--file", new]).code, 0);
    assert_eq!(cli.run(&["kv", "get", "k"]).stdout, largest);
    // The actual value of a conflict may be as large as any, with a lifetime too.
    let conflict = cli.json(&["kv", "cas", "k", "--new-value", "v", "--ttl-ms", "3600000"]);
    let actual = conflict.document()["actual_value"].as_str().map(str::len);
    assert_eq!((conflict.code, actual), (1, Some(1 << 20)));
    assert_eq!(cli.run(&["kv", "cad", "k", "--expected-file", old]).code, 1);
    assert_eq!(cli.run(&["kv", "cad", "k", "--expected-file", new]).code, 0);
    let missing = cli.json(&["kv", "cas", "k", "--file", "/nonexistent/value"]);
    assert_eq!(missing.refusal(), (2, "USAGE".into()));
    assert_eq!(get(&cli, "k")["does_exist"], false);
}

const MOVE: &str = r#"{
    "if":   [ {"key": "from", "exists": true}, {"key": "to", "exists": false} ],
    "then": [ {"delete": "from"}, {"set": "to", "value": "v"},
              {"set": "log", "value": {"base64": "/w=="}, "ttl_ms": 3600000}, {"get": "to"} ],
    "else": [ {"get": "from"}, {"get": "to"} ]
}"#;

#[test]
fn a_transaction_changes_several_keys_if_its_conditions_hold_and_says_what_it_did() {
    let (folder, _node, cli) = node();
    let path = folder.path().join("move.json");
    std::fs::write(&path, MOVE).unwrap();
    assert_eq!(cli.run(&["kv", "set", "from", "v"]).code, 0);
    let moved = cli.json(&["kv", "txn", path.to_str().unwrap()]).json();
    let at = &moved["revision"];
    assert!(at.is_u64());
    let to = json!({ "step": "get", "key": "to", "does_exist": true, "value": "v", "version": 1,
                     "create_revision": at, "mod_revision": at });
    let expected = json!({ "status": "success", "is_success": true, "revision": at, "results": [
        { "step": "delete", "key": "from", "was_deleted": true },
        { "step": "set", "key": "to" },
        { "step": "set", "key": "log" },
        to,
    ]});
    assert_eq!(moved, expected);
    let log = get(&cli, "log");
    assert_eq!((&log["value"], &log["mod_revision"]), (&json!({ "base64": "/w==" }), at));
    assert!(log["expires_at_ms"].is_u64());

    let again = cli.run_with(&["--json", "kv", "txn", "-"], MOVE.as_bytes());
    assert_eq!((again.code, again.stderr.as_str()), (1, ""));
    let again = again.document();
    assert_eq!((&again["status"], &again["is_success"]), (&json!("conflict"), &json!(false)));
    assert_eq!(again["results"][0]["does_exist"], false);
    assert_eq!(again["results"][1]["value"], "v");
    let text = cli.run_with(&["kv", "txn", "-"], MOVE.as_bytes());
    assert_eq!((text.code, text.text()), (1, "does not exist\tfrom\ngot\tto\tv\n"));
    assert!(text.stderr.contains("conditions do not hold"), "{}", text.stderr);
}

#[test]
fn a_transaction_that_is_none_is_refused_with_its_place() {
    let (_folder, _node, cli) = node();
    for (document, text) in [
        ("{", "line 1"),
        ("{}", "nothing to do"),
        (r#"{"then":[{"set":"a","value":"v"},{"put":"b"}]}"#, "unknown field `put`"),
        (r#"{"then":[{"set":"a","value":"v"},{"set":"b"}]}"#, "then[1]: a set needs a value"),
    ] {
        let refused = cli.run_with(&["--json", "kv", "txn", "-"], document.as_bytes());
        assert_eq!(refused.refusal(), (2, "USAGE".into()), "{document}");
        assert!(refused.stderr.contains("standard input: "), "{}", refused.stderr);
        assert!(refused.stderr.contains(text), "{}", refused.stderr);
    }
    let orphan = r#"{"then":[{"set":"a","value":"v"},{"set":"b","value":"v","lease_id":9}]}"#;
    let orphan = cli.run_with(&["--json", "kv", "txn", "-"], orphan.as_bytes());
    assert_eq!(orphan.refusal(), (3, "NOT_FOUND".into()));
    assert_eq!(cli.json(&["kv", "scan"]).json()["count"], 0, "nothing was written");
}

#[test]
fn what_is_compacted_can_no_longer_be_read_and_the_newest_can() {
    let (_folder, _node, cli) = node();
    assert_eq!(cli.run(&["kv", "set", "k", "old"]).code, 0);
    let old = get(&cli, "k")["mod_revision"].to_string();
    assert_eq!(cli.run(&["kv", "set", "k", "new"]).code, 0);
    let new = get(&cli, "k")["mod_revision"].clone();
    let scan = cli.run(&["kv", "scan", "--revision", &old]);
    assert_eq!(scan.text(), "k\told\n");
    let compacted = cli.json(&["kv", "compact", &new.to_string()]).json();
    assert_eq!(compacted, json!({ "status": "success", "oldest_revision": new }));
    let gone = cli.json(&["kv", "get", "k", "--revision", &old]);
    assert_eq!(gone.refusal(), (1, "COMPACTED".into()));
    assert_eq!(cli.run(&["kv", "get", "k"]).text(), "new");
    assert_eq!(cli.json(&["kv", "compact", "1000000"]).refusal(), (2, "INVALID_REQUEST".into()));
}
