//! Nodes that check capability tokens, and the commands that deal with them.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use tempfile::TempDir;

use crate::cli::Cli;
use crate::cluster::{join_with, start};
use crate::process::{Node, until};

/// A node that requires tokens, its client, and the file with its root token.
fn guarded(folder: &TempDir) -> (Node, Cli, String) {
    let root = folder.path().join("root.token").display().to_string();
    let flags = ["--node-id", "1", "--require-token-auth", "--output-root-token", &root];
    let node = start(folder, "1", &flags);
    let cli = Cli::of(&node);
    (node, cli, root)
}

fn key_file(node: &Node) -> String {
    node.folder().join("node_key").display().to_string()
}

/// A token as a file that a command takes.
fn issued(folder: &TempDir, cli: &Cli, args: &[&str]) -> String {
    let ran = cli.run(args);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let path = folder.path().join(format!("{}.token", blake3::hash(ran.text().as_bytes())));
    std::fs::write(&path, ran.text()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

#[test]
fn a_guarded_node_serves_nobody_without_a_token() {
    let folder = TempDir::new().unwrap();
    let (node, cli, root) = guarded(&folder);
    let mode = std::fs::metadata(&root).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let refused = cli.json(&["kv", "get", "k"]);
    assert_eq!(refused.refusal(), (5, "UNAUTHORIZED".into()));
    assert!(refused.stderr.contains("ASPEN_TOKEN"), "{}", refused.stderr);
    assert_eq!(cli.json(&["cluster", "status"]).refusal(), (5, "UNAUTHORIZED".into()));
    assert_eq!(cli.run(&["cluster", "health"]).code, 0, "health is for everybody");
    assert_eq!(cli.run(&["--token", &root, "kv", "set", "k", "v"]).code, 0);
    assert_eq!(cli.run(&["--token", &root, "kv", "set", "_sys:own", "v"]).code, 0);
    let key = key_file(&node);
    let elsewhere = folder.path().join("other_key");
    std::fs::write(&elsewhere, format!("{}\n", "ab".repeat(32))).unwrap();
    let elsewhere = elsewhere.display().to_string();
    let generate = |key: &str, rest: &[&str]| {
        let args = [&["token", "generate", "--key-file", key], rest].concat();
        issued(&folder, &cli, &args)
    };
    let foreign = generate(&elsewhere, &["--capability", "admin"]);
    let refused = cli.json(&["--token", &foreign, "kv", "get", "k"]);
    assert_eq!(refused.refusal(), (5, "UNAUTHORIZED".into()));
    let bound = generate(&key, &["--capability", "admin", "--audience", &"cd".repeat(32)]);
    let refused = cli.json(&["--token", &bound, "kv", "get", "k"]);
    assert_eq!(refused.refusal(), (5, "UNAUTHORIZED".into()));
    assert!(refused.stderr.contains("another identity"), "{}", refused.stderr);
    // A restart neither replaces the root token nor makes it worthless.
    let text = std::fs::read_to_string(&root).unwrap();
    let path = node.folder().to_owned();
    node.stop();
    let flags = ["--require-token-auth", "--output-root-token", &root];
    let _node = Node::start(&path, &flags).unwrap();
    assert_eq!(std::fs::read_to_string(&root).unwrap(), text);
    assert_eq!(cli.run(&["--token", &root, "kv", "get", "k"]).text(), "v");
}

#[test]
fn a_token_allows_what_it_says_until_it_is_revoked() {
    let folder = TempDir::new().unwrap();
    let (node, cli, root) = guarded(&folder);
    let key = key_file(&node);
    let token = issued(
        &folder,
        &cli,
        &[
            "token",
            "generate",
            "--key-file",
            &key,
            "--capability",
            "read:app/",
            "--capability",
            "write:app/mine/",
            "--expires-in",
            "1h",
        ],
    );
    let with = |args: &[&str]| cli.json(&[&["--token", &token][..], args].concat());
    assert_eq!(with(&["kv", "set", "app/mine/a", "1"]).code, 0);
    assert_eq!(with(&["kv", "get", "app/mine/a"]).json()["value"], "1");
    assert_eq!(with(&["kv", "scan", "app/"]).json()["count"], 1);
    for args in [
        &["kv", "set", "app/other", "1"][..],
        &["kv", "delete", "app/mine/a"],
        &["kv", "get", "elsewhere"],
        &["kv", "scan", ""],
        &["kv", "batch-write", "app/mine/b=1", "app/other=1"],
        &["kv", "get", "_sys:own"],
        &["cluster", "snapshot"],
        &["token", "revoke", &root],
    ] {
        assert_eq!(with(args).refusal(), (5, "FORBIDDEN".into()), "{args:?}");
    }
    assert_eq!(with(&["cluster", "status"]).code, 0, "who has a token may look at the cluster");

    let inspected = cli.json(&["token", "inspect", &token]).json();
    assert_eq!(inspected["capabilities"], json!(["read:app/", "write:app/mine/"]));
    assert_eq!(
        (&inspected["audience"], &inspected["issuer"]),
        (&json!("bearer"), &json!(node.field("entity_id")))
    );
    let revoked = cli.json(&["--token", &root, "token", "revoke", &token]).json();
    assert_eq!(revoked["token_id"], inspected["token_id"]);
    let refused = with(&["kv", "get", "app/mine/a"]);
    assert_eq!(refused.refusal(), (5, "UNAUTHORIZED".into()));
    assert!(refused.stderr.contains("revoked"), "{}", refused.stderr);
}

#[test]
fn a_token_is_handed_on_narrower_only() {
    let folder = TempDir::new().unwrap();
    let (node, cli, _root) = guarded(&folder);
    let key = key_file(&node);
    let team_key = folder.path().join("team_key");
    std::fs::write(&team_key, format!("{}\n", "12".repeat(32))).unwrap();
    let team = net_crypto::load_key_file(&team_key).unwrap().unwrap().keypair.entity_id();
    let (team_key, team) = (team_key.display().to_string(), team.to_string());
    let held = issued(
        &folder,
        &cli,
        &[
            "token",
            "generate",
            "--key-file",
            &key,
            "--audience",
            &team,
            "--capability",
            "full:team/",
            "--capability",
            "delegate",
        ],
    );
    let delegate = |capability: &str| {
        cli.json(&["token", "delegate", &held, "--key-file", &team_key, "--capability", capability])
    };
    let wider = delegate("read:");
    assert_eq!(wider.refusal().0, 2);
    assert!(wider.stderr.contains("allows more"), "{}", wider.stderr);
    let narrower = delegate("read:team/public/").json();
    assert_eq!(narrower["delegation_depth"], 1);
    let token = narrower["token"].as_str().unwrap();
    assert_eq!(cli.run(&["--token", token, "kv", "get", "team/public/x"]).code, 0);
    let refused = cli.json(&["--token", token, "kv", "get", "team/x"]);
    assert_eq!(refused.refusal(), (5, "FORBIDDEN".into()));
}

#[test]
fn a_guarded_cluster_grows_and_takes_its_members_tokens_everywhere() {
    let folder = TempDir::new().unwrap();
    let (first, cli, root) = guarded(&folder);
    let admin = ["--token", &root];
    let guard = ["--require-token-auth"];
    let (second, two) = join_with(&folder, "2", &cli, &first, &guard, &admin);
    let (third, three) = join_with(&folder, "3", &cli, &first, &guard, &admin);
    let (two, three) = (two.to_string(), three.to_string());
    let with = |args: &[&str]| cli.run(&[&admin[..], args].concat());
    assert_eq!(with(&["cluster", "change-membership", "1", &two, &three]).code, 0);
    assert_eq!(with(&["kv", "set", "k", "v"]).code, 0);
    until("the tickets with all members", || {
        let known = |node| crate::process::ticket(node).peers().len() == 3;
        (known(second.folder()) && known(third.folder())).then_some(())
    });
    first.kill();
    // The issuer is gone, but a member all the same.
    let of_second = Cli::of(&second);
    assert_eq!(of_second.run(&[&admin[..], &["kv", "get", "k"]].concat()).text(), "v");
    assert_eq!(of_second.json(&["kv", "get", "k"]).refusal(), (5, "UNAUTHORIZED".into()));
}

#[test]
fn the_longest_token_can_be_taken_back_too() {
    let folder = TempDir::new().unwrap();
    let (node, cli, root) = guarded(&folder);
    let key = key_file(&node);
    let args =
        ["token", "generate", "--key-file", &key, "--capability", "read:", "--expires-in", "3650d"];
    let token = issued(&folder, &cli, &args);
    let get = ["--token", &token, "kv", "get", "k"];
    assert_eq!(cli.run(&get).code, 0);
    let revoked = cli.run(&["--token", &root, "token", "revoke", &token]);
    assert_eq!(revoked.code, 0, "{}", revoked.stderr);
    assert_eq!(cli.json(&get).refusal(), (5, "UNAUTHORIZED".into()));
}
