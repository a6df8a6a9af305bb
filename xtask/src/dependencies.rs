//! Each dependency in a manifest is named by the source that it is for.
//!
//! Invariants: a normal dependency is named outside of tests, one for tests or build scripts by any
//! file of the crate; a name is a path's first segment or what `use` imports, in tokens, so
//! comments and texts do not count.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use serde::Deserialize;
use toml::Table;

use crate::exceptions::{Exception, Exceptions};
use crate::purity::after_test_item;
use crate::repo::{Repo, TextFile, read};
use crate::violation::Violation;

const PLACE: &str = "xtask/rules/dependencies.toml";

/// `xtask/rules/dependencies.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    #[serde(default)]
    exception: Vec<Exception>,
}

/// Judges the repository.
pub(crate) fn run(repo: &Repo) -> Result<Vec<Violation>, String> {
    let members = repo.members().map(|package| package.manifest_path.clone());
    let paths = members.chain([repo.root.join("fuzz/Cargo.toml")]);
    let manifest = |path: std::path::PathBuf| {
        let text = read(&path)?;
        let path = path.strip_prefix(&repo.root).unwrap_or(&path).to_string_lossy();
        Ok(TextFile { path: path.replace('\\', "/"), text })
    };
    let manifests = paths.map(manifest).collect::<Result<Vec<_>, String>>()?;
    let root = read(&repo.root.join("Cargo.toml"))?;
    check(&root, &manifests, &repo.sources, &repo.rules("dependencies.toml")?)
}

fn check(
    root: &str,
    manifests: &[TextFile],
    sources: &[TextFile],
    rules: &Rules,
) -> Result<Vec<Violation>, String> {
    let exceptions = Exceptions::new(PLACE, &rules.exception);
    let mut found = Vec::new();
    let mut stated = BTreeSet::new();
    for manifest in manifests {
        let table: Table =
            manifest.text.parse().map_err(|error| format!("{}: {error}", manifest.path))?;
        let folder = manifest.path.strip_suffix("Cargo.toml").unwrap_or_default();
        let krate = folder.trim_end_matches('/');
        let mut names = Names::default();
        for source in sources.iter().filter(|source| source.path.starts_with(folder)) {
            names.read(source)?;
        }
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for name in keys(&table, section) {
                stated.insert(name.to_owned());
                let Some((what, fix)) = names.fault(section, name) else { continue };
                if !exceptions.allow(&format!("{krate} -> {name}")) {
                    found.push(Violation::new(&manifest.path, what, fix));
                }
            }
        }
    }
    let root: Table = root.parse().map_err(|error| format!("Cargo.toml: {error}"))?;
    let workspace = root.get("workspace").and_then(|value| value.as_table());
    let shared = workspace.into_iter().flat_map(|table| keys(table, "dependencies"));
    for name in shared.filter(|name| !stated.contains(*name)) {
        found.push(Violation::new(
            "Cargo.toml",
            format!("no crate depends on {name}"),
            "remove it",
        ));
    }
    found.extend(exceptions.faults());
    Ok(found)
}

fn keys<'a>(table: &'a Table, section: &str) -> impl Iterator<Item = &'a str> {
    table
        .get(section)
        .and_then(|value| value.as_table())
        .into_iter()
        .flat_map(Table::keys)
        .map(String::as_str)
}

/// The names that a crate's sources use.
#[derive(Default)]
struct Names {
    outside_tests: BTreeSet<String>,
    anywhere: BTreeSet<String>,
}

impl Names {
    fn read(&mut self, source: &TextFile) -> Result<(), String> {
        let tokens: TokenStream =
            source.text.parse().map_err(|error| format!("{}: {error}", source.path))?;
        let is_program = source.path.starts_with("fuzz/");
        if !source.is_test() || is_program {
            collect(tokens.clone(), false, &mut self.outside_tests);
        }
        collect(tokens, true, &mut self.anywhere);
        Ok(())
    }

    /// What is wrong with a dependency, and what to do about it.
    fn fault(&self, section: &str, dependency: &str) -> Option<(String, &'static str)> {
        let name = dependency.replace('-', "_");
        if !self.anywhere.contains(&name) {
            return Some((format!("no source names {dependency}"), "remove it"));
        }
        if section == "dependencies" && !self.outside_tests.contains(&name) {
            let what = format!("only tests name {dependency}");
            return Some((what, "move it to [dev-dependencies]"));
        }
        None
    }
}

/// Adds the names of `tokens`, those under `#[cfg(test)]` only `with_tests`.
fn collect(tokens: TokenStream, with_tests: bool, out: &mut BTreeSet<String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let peek = |at: Option<usize>| at.and_then(|at| tokens.get(at));
    let is_colon =
        |at: Option<usize>| matches!(peek(at), Some(TokenTree::Punct(p)) if p.as_char() == ':');
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match token {
            TokenTree::Punct(p) if p.as_char() == '#' && !with_tests => {
                if let Some(end) = after_test_item(&tokens, at) {
                    at = end;
                    continue;
                }
            }
            TokenTree::Ident(ident) => {
                let leads = is_colon(Some(at + 1)) && is_colon(Some(at + 2));
                let follows = is_colon(at.checked_sub(1)) && is_colon(at.checked_sub(2));
                if (leads && !follows) || is_import(peek(at.checked_sub(1))) {
                    out.insert(ident.to_string());
                }
            }
            TokenTree::Group(group) => collect(group.stream(), with_tests, out),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
        at += 1;
    }
}

/// Whether what follows `token` is the name of a crate.
fn is_import(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Ident(word)) if *word == "use" || *word == "crate")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(manifest: &str, source: &str, rules: &str) -> Vec<String> {
        let file = |path: &str, text: &str| TextFile { path: path.into(), text: text.into() };
        let root = "[workspace.dependencies]\nsome-name = \"1\"";
        let sources =
            [file("a/src/lib.rs", source), file("a/tests/it/main.rs", "use in_tests::X;")];
        let manifests = [file("a/Cargo.toml", manifest)];
        let found = check(root, &manifests, &sources, &toml::from_str(rules).unwrap()).unwrap();
        found.into_iter().map(|fault| fault.what).collect()
    }

    #[test]
    fn a_dependency_that_source_names_passes_however_it_does() {
        let manifest = "[dependencies]\nsome-name = \"1\"";
        for source in [
            "use some_name::X;",
            "use some_name as other;",
            "fn f() { some_name::g() }",
            "#[some_name::main] fn f() {}",
            "macro_rules! m { () => { some_name::x!() }; }",
        ] {
            assert_eq!(faults(manifest, source, ""), Vec::<String>::new(), "{source}");
        }
    }

    #[test]
    fn dependencies_without_a_use_are_found() {
        let manifest = "[dependencies]\nsome-name = \"1\"";
        for source in
            ["//! some_name::X\nfn f() { let some_name = \"some_name::X\"; }", "mod some_name;"]
        {
            assert_eq!(faults(manifest, source, ""), ["no source names some-name"], "{source}");
        }
        let in_module = "#[cfg(test)]\nmod tests { use some_name::X; }";
        assert_eq!(faults(manifest, in_module, ""), ["only tests name some-name"]);
        let both = "[dependencies]\nin-tests = \"1\"\n[dev-dependencies]\nsome-name = \"1\"";
        assert_eq!(faults(both, "", ""), ["only tests name in-tests", "no source names some-name"]);
        let other = "[dev-dependencies]\nin-tests = \"1\"";
        assert_eq!(faults(other, "", ""), ["no crate depends on some-name"]);
    }

    #[test]
    fn exceptions_are_heeded_and_go_when_they_are_not_needed() {
        let manifest = "[dependencies]\nsome-name = \"1\"";
        let rules = "exception = [{ what = \"a -> some-name\", reason = \"x\" }]";
        assert_eq!(faults(manifest, "", rules), Vec::<String>::new());
        assert_eq!(
            faults(manifest, "use some_name::X;", rules),
            ["nothing needs the exception for a -> some-name"]
        );
    }
}
