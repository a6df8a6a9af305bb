//! `aspen-cli lease` against a real node.

use serde_json::json;
use tempfile::TempDir;

use crate::cli::Cli;
use crate::process::Node;

#[test]
fn leases_are_granted_used_kept_alive_and_revoked() {
    let folder = TempDir::new().unwrap();
    let node = Node::start(folder.path(), &[]).unwrap();
    let cli = Cli::of(&node);
    let granted = cli.json(&["lease", "grant", "600", "--id", "7"]).json();
    assert_eq!(granted, json!({ "status": "success", "lease_id": 7, "ttl_seconds": 600 }));
    let again = cli.json(&["lease", "grant", "600", "--id", "7"]);
    assert_eq!(again.refusal(), (1, "CONFLICT".into()));
    let generated = cli.run(&["lease", "grant", "600"]).text().trim().to_owned();
    assert!(generated.parse::<u64>().unwrap() > 7);
    assert_eq!(cli.run(&["kv", "set", "k", "v", "--lease", "7"]).code, 0);
    let orphan = cli.json(&["kv", "set", "k", "v", "--lease", "8"]);
    assert_eq!(orphan.refusal(), (3, "NOT_FOUND".into()));
    let mut ttl = cli.json(&["lease", "ttl", "7", "--keys"]).json();
    assert!((1..=600_000).contains(&ttl["remaining_ms"].as_u64().unwrap()), "{ttl}");
    ttl["remaining_ms"] = json!(0);
    let expected = json!({ "lease_id": 7, "granted_ttl_seconds": 600, "remaining_ms": 0,
                           "key_count": 1, "keys": ["k"] });
    assert_eq!(ttl, expected);
    let list = cli.json(&["lease", "list"]).json();
    assert_eq!((&list["count"], &list["leases"][0]["lease_id"]), (&json!(2), &json!(7)));
    let kept = cli.json(&["lease", "keepalive", "7"]).json();
    assert_eq!(kept, json!({ "status": "success", "lease_id": 7, "ttl_seconds": 600 }));
    let revoked = cli.json(&["lease", "revoke", "7"]).json();
    assert_eq!(revoked, json!({ "status": "success", "lease_id": 7, "keys_deleted": 1 }));
    assert_eq!(cli.json(&["kv", "get", "k"]).json()["does_exist"], false);
    for verb in ["revoke", "keepalive", "ttl"] {
        assert_eq!(cli.json(&["lease", verb, "7"]).refusal(), (3, "NOT_FOUND".into()), "{verb}");
    }
    assert_eq!(cli.json(&["lease", "grant", "0"]).refusal(), (2, "INVALID_REQUEST".into()));
}
