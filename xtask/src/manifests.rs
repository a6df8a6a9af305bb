//! Versions and lints live at the root, and each crate has one integration binary.

use std::path::Path;

use toml::{Table, Value};

use crate::repo::{Package, Repo, read};
use crate::violation::Violation;

const SECTIONS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

/// Judges the repository.
pub(crate) fn run(repo: &Repo) -> Result<Vec<Violation>, String> {
    let mut found = Vec::new();
    for package in repo.members() {
        let path = &package.manifest_path;
        let place = path.strip_prefix(&repo.root).unwrap_or(path);
        found.extend(manifest(place, &read(path)?)?);
        found.extend(integration_tests(place, package));
    }
    Ok(found)
}

fn manifest(place: &Path, text: &str) -> Result<Vec<Violation>, String> {
    let place = place.display().to_string();
    let manifest: Table = text.parse().map_err(|error| format!("{place}: {error}"))?;
    let mut found = Vec::new();
    let is_inherited = |value: Option<&Value>| {
        value.and_then(|value| value.get("workspace")).and_then(Value::as_bool) == Some(true)
    };
    if !is_inherited(manifest.get("lints")) {
        let fix = "add [lints] workspace = true";
        found.push(Violation::new(&place, "the crate does not take the workspace's lints", fix));
    }
    let dependencies = SECTIONS
        .iter()
        .filter_map(|section| manifest.get(*section)?.as_table())
        .flat_map(|section| section.iter());
    for (name, value) in dependencies.filter(|(_, value)| !is_inherited(Some(value))) {
        let what = format!("{name} has a version of its own: {value}");
        let fix = format!("state it in the root manifest and write {name}.workspace = true");
        found.push(Violation::new(&place, what, fix));
    }
    Ok(found)
}

fn integration_tests(place: &Path, package: &Package) -> Vec<Violation> {
    let is_test = |kinds: &[String]| kinds.iter().any(|kind| kind == "test");
    let tests = package.targets.iter().filter(|target| is_test(&target.kind));
    let others = tests.filter(|target| target.name != "it");
    others
        .map(|target| {
            let what = format!("{} is an integration binary beside tests/it", target.name);
            let fix = "make it a module of tests/it/main.rs: every binary links the crate again";
            Violation::new(place.display().to_string(), what, fix)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::Target;

    fn faults(text: &str) -> Vec<String> {
        let found = manifest(Path::new("a/Cargo.toml"), text).unwrap();
        found.into_iter().map(|fault| fault.what).collect()
    }

    #[test]
    fn own_versions_and_missing_lints_are_found() {
        let good = "[dependencies]\na.workspace = true\nb = { workspace = true }\n\
                    [lints]\nworkspace = true";
        assert_eq!(faults(good), Vec::<String>::new());
        assert_eq!(
            faults("[dependencies]\na.workspace = true"),
            ["the crate does not take the workspace's lints"]
        );
        for section in SECTIONS {
            let text = format!("[{section}]\na = \"1\"\n[lints]\nworkspace = true");
            assert_eq!(faults(&text), ["a has a version of its own: \"1\""]);
        }
        assert!(manifest(Path::new("a"), "[").is_err());
    }

    #[test]
    fn a_second_integration_binary_is_found() {
        let target = |name: &str, kind: &str| Target { name: name.into(), kind: vec![kind.into()] };
        let mut package = Package {
            id: "a".into(),
            name: "a".into(),
            manifest_path: "a/Cargo.toml".into(),
            dependencies: Vec::new(),
            targets: vec![target("a", "lib"), target("it", "test")],
        };
        assert_eq!(integration_tests(Path::new("a"), &package), []);
        package.targets.push(target("more", "test"));
        assert_eq!(integration_tests(Path::new("a"), &package).len(), 1);
    }
}
