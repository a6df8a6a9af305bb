//! stdout, stderr and exit codes of the program.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use aspen_api::cluster::Pong;
use aspen_api::kv::ReadResult;
use aspen_api::{ApiError, ErrorCode, Revision};
use aspen_auth::Token;

use crate::member::{Member, program};
use crate::ran::Ran;

fn absent() -> ReadResult {
    ReadResult { item: None, revision: Revision(1) }
}

fn run(args: &[&str]) -> Ran {
    let mut command = program();
    command.args(args);
    Ran::finish(command, b"")
}

#[test]
fn errors_of_the_cluster_become_exit_codes_in_both_modes() {
    let member = Member::start(absent());
    for (code, exit) in [
        (ErrorCode::Forbidden, 5),
        (ErrorCode::Unauthorized, 5),
        (ErrorCode::Unsupported, 9),
        (ErrorCode::Conflict, 1),
        (ErrorCode::Compacted, 1),
        (ErrorCode::NotFound, 3),
        (ErrorCode::InvalidRequest, 2),
        (ErrorCode::Timeout, 7),
        (ErrorCode::NotLeader, 6),
    ] {
        member.fail(ApiError::new(code, "scripted"));
        let ran = member.run(&["--timeout", "400", "kv", "get", "k"]);
        assert_eq!((ran.code, ran.stdout.len()), (exit, 0), "{}", ran.stderr);
        assert!(ran.stderr.starts_with("error: scripted"), "{}", ran.stderr);
        let ran = member.run(&["--json", "--timeout", "400", "kv", "get", "k"]);
        assert_eq!(ran.refusal(), (exit, code.name().to_owned()));
    }
}

#[test]
fn an_answer_to_another_question_is_an_error_and_not_a_result() {
    let member = Member::start(Pong {});
    let ran = member.run(&["--json", "kv", "get", "k"]);
    assert_eq!(ran.refusal(), (1, "INTERNAL_ERROR".into()));
}

#[test]
fn a_token_is_sent_with_the_request() {
    let member = Member::start(absent());
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, format!("{}\n", "ab".repeat(32))).unwrap();
    let key = key.display().to_string();
    let issued = run(&["token", "generate", "--key-file", &key, "--capability", "read:"]);
    let text = issued.text().trim();
    let token: Token = text.parse().unwrap();
    assert_eq!(member.run(&["--token", text, "kv", "get", "k"]).code, 0);
    assert_eq!(member.last_token().as_deref(), Some(&token.record()[..]));
    assert_eq!(member.run(&["kv", "get", "k"]).code, 0);
    assert_eq!(member.last_token(), None);
    // A text that is no token, and a file that others can read.
    assert_eq!(member.run(&["--token", &text[..99], "kv", "get", "k"]).code, 2);
    let file = folder.path().join("token");
    std::fs::write(&file, text).unwrap();
    for (mode, code) in [(0o644, 2), (0o600, 0)] {
        std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let ran = member.run(&["--token", file.to_str().unwrap(), "kv", "get", "k"]);
        assert_eq!(ran.code, code, "{}", ran.stderr);
    }
}

#[test]
fn usage_errors_are_exit_code_2_in_both_modes() {
    assert_eq!(run(&["kv", "bogus"]).code, 2);
    assert_eq!(run(&["--json", "kv", "set"]).refusal(), (2, "USAGE".into()));
    assert_eq!(run(&["kv", "set", "k", "--file", "/nonexistent/x"]).code, 6, "no cluster yet");
    assert_eq!(run(&["--ticket", "aspenbad", "kv", "get", "k"]).code, 2);
    let help = run(&["kv", "cas", "--help"]);
    assert_eq!(help.code, 0);
    assert!(help.text().contains("Examples:"));
}

#[test]
fn without_a_ticket_the_development_cluster_is_found() {
    let member = Member::start(absent());
    let folder = tempfile::tempdir().unwrap();
    let run = |ticket: Option<&Path>| {
        let mut command = program();
        command.env("XDG_RUNTIME_DIR", folder.path());
        command.args(ticket.iter().flat_map(|path| ["--ticket", path.to_str().unwrap()]));
        command.args(["kv", "get", "k"]);
        Ran::finish(command, b"")
    };
    let missing = run(None);
    assert_eq!(missing.code, 6);
    assert!(missing.stderr.contains("aspen-node dev"), "{}", missing.stderr);

    let path = folder.path().join("aspen/dev/cluster-ticket.txt");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, member.ticket.to_text().expose()).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    assert_eq!(run(None).code, 2, "others could have read or written it");
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    assert_eq!(run(None).code, 0);
    assert_eq!(run(Some(&path)).code, 0);
}

#[test]
fn an_unusable_ticket_is_named_after_its_source() {
    let flag = run(&["--ticket", "/nonexistent/t", "kv", "get", "k"]);
    assert!(flag.stderr.contains("--ticket: \"/nonexistent/t\" is neither"), "{}", flag.stderr);
    let mut command = program();
    command.env("ASPEN_TICKET", "/nonexistent/t").args(["kv", "get", "k"]);
    let variable = Ran::finish(command, b"");
    assert_eq!(variable.code, 2);
    assert!(variable.stderr.starts_with("error: ASPEN_TICKET: "), "{}", variable.stderr);
}

#[test]
fn completions_need_no_cluster() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]);
        assert_eq!(script.code, 0, "{}", script.stderr);
        assert!(script.text().contains("change-membership"), "{shell}");
    }
    assert_eq!(run(&["completions", "csh"]).code, 2);
}

#[test]
fn a_result_that_cannot_be_written_is_said() {
    let member = Member::start(absent());
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = program();
    command.env("ASPEN_TICKET", member.ticket.to_text().expose());
    let output = command.args(["--json", "kv", "get", "k"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("OUTPUT_FAILED"), "{said}");
}
