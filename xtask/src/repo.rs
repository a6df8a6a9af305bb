//! The repository as the rules see it: packages, source files, documents.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Folders at the root that hold Rust source.
const SOURCE_ROOTS: [&str; 4] = ["crates", "bench", "xtask", "fuzz"];
/// Folder names that hold nothing written by hand.
const SKIPPED_FOLDERS: [&str; 4] = ["target", "corpus", "artifacts", "coverage"];

/// A text file.
#[derive(Clone, Debug)]
pub(crate) struct TextFile {
    /// Path from the root, with `/`.
    pub(crate) path: String,
    /// Its contents.
    pub(crate) text: String,
}

impl TextFile {
    /// Whether the file holds only tests or measurements.
    pub(crate) fn is_test(&self) -> bool {
        let mut folders: Vec<&str> = self.path.split('/').collect();
        let name = folders.pop().unwrap_or_default();
        name == "tests.rs"
            || name.ends_with("_tests.rs")
            || folders.iter().any(|folder| matches!(*folder, "tests" | "benches" | "fuzz_targets"))
    }
}

/// What `cargo metadata` says.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) workspace_members: Vec<String>,
    pub(crate) resolve: Resolve,
}

/// A package of the dependency graph.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
}

/// A dependency as a manifest states it.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` is a normal one, else `dev` or `build`.
    pub(crate) kind: Option<String>,
}

/// A library, program or test of a package.
#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
}

/// The graph that cargo resolved.
#[derive(Debug, Deserialize)]
pub(crate) struct Resolve {
    pub(crate) nodes: Vec<Node>,
}

/// A package and what it links.
#[derive(Debug, Deserialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) deps: Vec<NodeDependency>,
}

/// An edge of the graph that cargo resolved.
#[derive(Debug, Deserialize)]
pub(crate) struct NodeDependency {
    pub(crate) pkg: String,
    pub(crate) dep_kinds: Vec<DependencyKind>,
}

/// The kind of an edge.
#[derive(Debug, Deserialize)]
pub(crate) struct DependencyKind {
    pub(crate) kind: Option<String>,
}

/// The repository.
pub(crate) struct Repo {
    pub(crate) root: PathBuf,
    pub(crate) metadata: Metadata,
    /// Every Rust file, sorted by path.
    pub(crate) sources: Vec<TextFile>,
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

impl Repo {
    /// Reads everything that the rules need.
    pub(crate) fn load(root: &Path) -> Result<Self, String> {
        let mut sources = Vec::new();
        for folder in SOURCE_ROOTS {
            collect(root, &root.join(folder), "rs", &mut sources)?;
        }
        sources.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { root: root.to_owned(), metadata: metadata(root)?, sources })
    }

    /// The packages of this workspace.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        let members = &self.metadata.workspace_members;
        self.metadata.packages.iter().filter(|package| members.contains(&package.id))
    }

    /// A rule file of `xtask/rules/`.
    pub(crate) fn rules<T: DeserializeOwned>(&self, name: &str) -> Result<T, String> {
        let path = self.root.join("xtask/rules").join(name);
        toml::from_str(&read(&path)?).map_err(|error| format!("{}: {error}", path.display()))
    }
}

/// A file's text.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// Adds every file below `folder` with this extension; a missing folder holds none.
pub(crate) fn collect(
    root: &Path,
    folder: &Path,
    extension: &str,
    out: &mut Vec<TextFile>,
) -> Result<(), String> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if !SKIPPED_FOLDERS.iter().any(|skipped| name == *skipped) {
                collect(root, &path, extension, out)?;
            }
        } else if path.extension().is_some_and(|found| found == extension) {
            let relative = path.strip_prefix(root).unwrap_or(&path);
            let path_text = relative.to_string_lossy().replace('\\', "/");
            out.push(TextFile { path: path_text, text: read(&path)? });
        }
    }
    Ok(())
}

fn metadata(root: &Path) -> Result<Metadata, String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--format-version", "1"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo metadata failed (is Cargo.lock up to date?):\n{said}"));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_files_are_recognised_by_their_place() {
        let is_test = |path: &str| TextFile { path: path.into(), text: String::new() }.is_test();
        assert!(is_test("crates/net/wire/tests/it/main.rs"));
        assert!(is_test("crates/net/crypto/src/noise/tests.rs"));
        assert!(is_test("crates/net/wire/src/frame_tests.rs"));
        assert!(is_test("crates/net/wire/benches/open.rs"));
        assert!(!is_test("crates/net/wire/src/frame.rs"));
        assert!(!is_test("crates/net/wire/src/contests.rs"));
    }
}
