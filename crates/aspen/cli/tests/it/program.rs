//! stdout, stderr and exit codes of the program.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use aspen_api::ErrorCode;
use serde_json::json;

use crate::member::{Member, finish, program};

#[test]
fn keys_are_set_read_and_deleted() {
    let member = Member::start();
    let run = |args: &[&str]| {
        let ran = member.run(args);
        (ran.code, ran.text().to_owned())
    };
    assert_eq!(run(&["kv", "set", "k", "v"]), (0, "ok\n".into()));
    assert_eq!(run(&["kv", "get", "k"]), (0, "v".into()), "not a byte more than the value");
    assert_eq!(run(&["--json", "kv", "set", "k", ""]).0, 0);
    let got = member.run(&["--json", "kv", "get", "k"]).json();
    assert_eq!(got, json!({ "key": "k", "does_exist": true, "value": "" }));
    assert_eq!(run(&["kv", "delete", "k"]), (0, "deleted\n".into()));
    assert_eq!(run(&["kv", "delete", "k"]), (0, "was not there\n".into()));
    let absent = member.run(&["kv", "get", "k"]);
    assert_eq!((absent.code, absent.stdout.len()), (0, 0));
    assert!(absent.stderr.contains("does not exist"));
    assert_eq!(member.run(&["-q", "kv", "get", "k"]).stderr, "");
}

#[test]
fn values_of_any_bytes_go_in_and_come_out_unchanged() {
    let member = Member::start();
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let path = member.file("value", &bytes);
    let path = path.to_str().unwrap();
    assert_eq!(member.run(&["kv", "set", "f", "--file", path]).code, 0);
    assert_eq!(member.run(&["kv", "get", "f"]).stdout, bytes);
    assert_eq!(member.run_with(&["kv", "set", "s", "--file", "-"], &bytes).code, 0);
    assert_eq!(member.run(&["kv", "get", "s"]).stdout, bytes);
    assert_eq!(member.run_with(&["kv", "set", "b", "--file", "-"], &[0xff]).code, 0);
    let got = member.run(&["kv", "get", "b", "--json"]).json();
    assert_eq!(got["value"], json!({ "base64": "/w==" }));
    let large = member.file("large", &vec![0; (1 << 20) + 1]);
    let refused = member.run(&["kv", "set", "l", "--file", large.to_str().unwrap()]);
    assert_eq!(refused.code, 1);
    assert_eq!(member.run(&["kv", "set", "l", "--file", "/nonexistent/x"]).code, 2);
}

#[test]
fn scans_go_on_where_they_ended() {
    let member = Member::start();
    assert_eq!(member.run(&["kv", "batch-write", "p/a=1", "p/b=2", "p/c=3", "q=4"]).code, 0);
    let first = member.run(&["--json", "kv", "scan", "p/", "--limit", "2"]).json();
    assert_eq!((&first["count"], &first["is_truncated"]), (&json!(2), &json!(true)));
    let token = first["continuation_token"].as_str().unwrap().to_owned();
    let second = member.run(&["kv", "scan", "p/", "--token", &token]);
    assert_eq!((second.code, second.text()), (0, "p/c\t3\n"));
    let foreign = member.run(&["--json", "kv", "scan", "q", "--token", &token]);
    assert_eq!((foreign.code, foreign.stdout.len()), (2, 0));
    let error: serde_json::Value = serde_json::from_str(&foreign.stderr).unwrap();
    assert_eq!((&error["status"], &error["code"]), (&json!("error"), &json!("INVALID_TOKEN")));
    assert_eq!(member.run(&["kv", "scan", "none/"]).code, 0);
}

#[test]
fn a_conflict_is_exit_code_1_with_the_result_on_stdout() {
    let member = Member::start();
    assert_eq!(member.run(&["kv", "cas", "k", "--new-value", "1"]).code, 0);
    let conflict = member.run(&["--json", "kv", "cas", "k", "--new-value", "2"]);
    assert_eq!((conflict.code, conflict.stderr.as_str()), (1, ""));
    let expected =
        json!({ "status": "conflict", "key": "k", "is_success": false, "actual_value": "1" });
    assert_eq!(conflict.json(), expected);
    assert_eq!(member.run(&["kv", "cad", "k", "--expected", "2"]).code, 1);
    assert_eq!(member.run(&["kv", "cad", "k", "--expected", "1"]).code, 0);
}

#[test]
fn leases_are_granted_used_and_revoked() {
    let member = Member::start();
    assert_eq!(member.run(&["lease", "grant", "60", "--id", "7"]).text(), "7\n");
    assert_eq!(member.run(&["kv", "set", "k", "v", "--lease", "7"]).code, 0);
    assert_eq!(member.run(&["kv", "set", "k", "v", "--lease", "8"]).code, 3);
    let ttl = member.run(&["--json", "lease", "ttl", "7", "--keys"]).json();
    assert_eq!((&ttl["remaining_ms"], &ttl["keys"]), (&json!(60_000), &json!(["k"])));
    assert_eq!(member.run(&["--json", "lease", "list"]).json()["count"], 1);
    assert_eq!(member.run(&["lease", "keepalive", "7"]).code, 0);
    assert_eq!(member.run(&["lease", "revoke", "7"]).text(), "1 keys deleted\n");
    assert_eq!(member.run(&["lease", "revoke", "7"]).code, 3);
    assert_eq!(member.run(&["lease", "grant", "0"]).code, 2);
}

#[test]
fn the_cluster_shows_itself() {
    let member = Member::start();
    let status = member.run(&["--json", "cluster", "status"]).json();
    assert_eq!(status["nodes"][0]["node_id"], 1);
    assert_eq!(status["nodes"][0]["is_leader"], true);
    let ticket = member.run(&["cluster", "ticket"]);
    assert_eq!(ticket.text().trim(), member.ticket.to_text().expose());
    assert_eq!(member.run(&["cluster", "health"]).code, 9, "this member has no such answer");
}

#[test]
fn errors_of_the_cluster_become_exit_codes() {
    let member = Member::start();
    for (code, exit) in [
        (ErrorCode::Forbidden, 5),
        (ErrorCode::Unsupported, 9),
        (ErrorCode::Conflict, 1),
        (ErrorCode::NotLeader, 6),
    ] {
        member.refuse(Some(code));
        let ran = member.run(&["--timeout", "400", "kv", "get", "k"]);
        assert_eq!((ran.code, ran.stdout.len()), (exit, 0), "{}", ran.stderr);
        assert!(ran.stderr.starts_with("error: "), "{}", ran.stderr);
    }
    member.refuse(None);
    assert_eq!(member.run(&["--token", "cap", "kv", "get", "k"]).code, 0);
    assert_eq!(member.last_token().as_deref(), Some(&b"cap"[..]));
}

#[test]
fn usage_errors_are_exit_code_2_in_both_modes() {
    let ran = finish(
        {
            let mut p = program();
            p.args(["kv", "bogus"]);
            p
        },
        b"",
    );
    assert_eq!(ran.code, 2);
    let ran = finish(
        {
            let mut p = program();
            p.args(["--json", "kv", "set"]);
            p
        },
        b"",
    );
    assert_eq!((ran.code, ran.stdout.len()), (2, 0));
    let error: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(error["code"], "USAGE");
    let ran = finish(
        {
            let mut p = program();
            p.args(["--ticket", "aspenbad", "kv", "get", "k"]);
            p
        },
        b"",
    );
    assert_eq!(ran.code, 2);
    let help = finish(
        {
            let mut p = program();
            p.args(["kv", "cas", "--help"]);
            p
        },
        b"",
    );
    assert_eq!(help.code, 0);
    assert!(help.text().contains("Examples:"));
}

#[test]
fn without_a_ticket_the_development_cluster_is_found() {
    let member = Member::start();
    let run = || {
        let mut process = program();
        process.env("XDG_RUNTIME_DIR", member.folder.path()).args(["kv", "set", "k", "v"]);
        finish(process, b"")
    };
    let missing = run();
    assert_eq!(missing.code, 6);
    assert!(missing.stderr.contains("aspen-node dev"), "{}", missing.stderr);

    let folder = member.folder.path().join("aspen/dev");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("cluster-ticket.txt");
    std::fs::write(&path, member.ticket.to_text().expose()).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(run().code, 2, "others could have read or written it");
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(run().code, 0);

    let mut process = program();
    process.args(["--ticket", path.to_str().unwrap(), "kv", "get", "k"]);
    assert_eq!(finish(process, b"").text(), "v");
}
