//! The tools that judge beside our own rules, and the two that repair.

use std::path::Path;
use std::process::Command;

use crate::repo::Repo;
use crate::violation::Violation;

fn cargo(root: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).current_dir(root);
    command
}

/// Runs a command; what it said becomes one violation if it fails.
fn judge(command: &mut Command, place: &str, fix: &str) -> Result<Vec<Violation>, String> {
    let output = command.output().map_err(|error| format!("cannot run {place}: {error}"))?;
    if output.status.success() {
        return Ok(Vec::new());
    }
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(vec![Violation::new(place, said.join("\n"), fix)])
}

/// How `cargo fmt` reaches all source: the workspace, and the fuzz targets beside it.
const FORMAT: [&[&str]; 2] = [&["fmt", "--all"], &["fmt", "--manifest-path", "fuzz/Cargo.toml"]];

/// `cargo fmt --check` over the workspace and the fuzz targets.
pub(crate) fn fmt(repo: &Repo) -> Result<Vec<Violation>, String> {
    let mut found = Vec::new();
    for arguments in FORMAT {
        let mut command = cargo(&repo.root, arguments);
        command.args(["--", "--check", "-l"]);
        found.extend(judge(&mut command, "cargo fmt", "cargo xtask fix")?);
    }
    Ok(found)
}

/// `cargo clippy` over the workspace with warnings denied.
pub(crate) fn clippy(repo: &Repo) -> Result<Vec<Violation>, String> {
    let arguments =
        ["clippy", "--quiet", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
    judge(
        &mut cargo(&repo.root, &arguments),
        "cargo clippy",
        "cargo xtask fix repairs some of these; the rest is by hand",
    )
}

/// `cargo check` of the fuzz targets, which are a workspace of their own and build nowhere else but in
/// the nightly run.
pub(crate) fn fuzz(repo: &Repo) -> Result<Vec<Violation>, String> {
    let arguments = ["check", "--quiet", "--locked", "--manifest-path", "fuzz/Cargo.toml"];
    judge(
        &mut cargo(&repo.root, &arguments),
        "cargo check of fuzz",
        "mend the target; if only the lock file is behind, run cargo check --manifest-path \
         fuzz/Cargo.toml and commit it",
    )
}

/// `cargo doc` over the workspace with warnings denied.
pub(crate) fn doc(repo: &Repo) -> Result<Vec<Violation>, String> {
    let mut command =
        cargo(&repo.root, &["doc", "--quiet", "--locked", "--workspace", "--no-deps"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    judge(&mut command, "cargo doc", "mend the links and texts it names")
}

/// Applies what clippy can apply, and formats.
pub(crate) fn fix(root: &Path) -> Result<(), String> {
    run(root, &["clippy", "--fix", "--allow-dirty", "--workspace", "--all-targets"])?;
    FORMAT.iter().try_for_each(|arguments| run(root, arguments))
}

fn run(root: &Path, arguments: &[&str]) -> Result<(), String> {
    let status = cargo(root, arguments).status();
    if status.map_err(|error| format!("cannot run cargo: {error}"))?.success() {
        Ok(())
    } else {
        Err(format!("cargo {} failed", arguments.join(" ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_tool_is_a_violation_that_holds_what_it_said() {
        let found = judge(&mut cargo(Path::new("."), &["no-such-verb"]), "cargo", "fix").unwrap();
        assert!(found[0].what.contains("no-such-verb"), "{found:?}");
        assert!(judge(&mut cargo(Path::new("."), &["--version"]), "cargo", "").unwrap().is_empty());
    }
}
