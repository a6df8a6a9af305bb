//! Links of the documents point to files and headings that exist.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::repo::{Repo, TextFile, collect};
use crate::violation::Violation;

/// Judges the repository.
pub(crate) fn run(repo: &Repo) -> Result<Vec<Violation>, String> {
    Ok(check(&documents(repo)?, |path| repo.root.join(path).exists()))
}

/// The documents at the root and below `docs`.
pub(crate) fn documents(repo: &Repo) -> Result<Vec<TextFile>, String> {
    let mut documents = Vec::new();
    collect(&repo.root, &repo.root.join("docs"), "md", &mut documents)?;
    for entry in std::fs::read_dir(&repo.root).map_err(|error| error.to_string())?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "md") {
            let path = entry.file_name().to_string_lossy().into_owned();
            documents.push(TextFile { text: crate::repo::read(&entry.path())?, path });
        }
    }
    Ok(documents)
}

fn check(documents: &[TextFile], exists: impl Fn(&Path) -> bool) -> Vec<Violation> {
    let anchors: BTreeMap<PathBuf, Vec<String>> =
        documents.iter().map(|file| (PathBuf::from(&file.path), anchors(&file.text))).collect();
    let mut found = Vec::new();
    for document in documents {
        let here = Path::new(&document.path);
        for (line, target) in links(&document.text) {
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let path = if file.is_empty() { Some(here.to_owned()) } else { resolve(here, file) };
            let fault = match path {
                None => Some("leads out of the repository".to_owned()),
                Some(path) if !exists(&path) => Some(format!("{} does not exist", path.display())),
                Some(path) => anchors
                    .get(&path)
                    .filter(|known| !anchor.is_empty() && !known.iter().any(|a| a == anchor))
                    .map(|_| format!("{} has no heading #{anchor}", path.display())),
            };
            if let Some(fault) = fault {
                let place = format!("{}:{line}", document.path);
                let what = format!("the link to {target} is dead: {fault}");
                found.push(Violation::new(place, what, "correct or remove it"));
            }
        }
    }
    found
}

/// The path that `target` in the document `here` means; `None` if it is above the root.
fn resolve(here: &Path, target: &str) -> Option<PathBuf> {
    let mut path = here.parent().unwrap_or(Path::new("")).to_owned();
    for part in Path::new(target).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::ParentDir if path.pop() => {}
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(path)
}

/// The lines outside of fenced code, numbered from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// Targets of inline links to this repository, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        // Every second part of a line cut at backticks is code.
        for part in line.split('`').step_by(2).collect::<Vec<_>>().join("_").split("](").skip(1) {
            let target = part.split([')', ' ']).next().unwrap_or_default();
            let is_elsewhere = target.contains("://") || target.starts_with("mailto:");
            if !target.is_empty() && !is_elsewhere {
                found.push((number, target.to_owned()));
            }
        }
    }
    found
}

/// Anchors of the headings, made as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (_, line) in prose(text).filter(|(_, line)| line.starts_with('#')) {
        let title = line.trim_start_matches('#').trim();
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let anchor: String = title
            .to_lowercase()
            .chars()
            .filter(kept)
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let repeated = found.iter().filter(|known| **known == anchor).count();
        found.push(if repeated > 0 { format!("{anchor}-{repeated}") } else { anchor });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let documents = [
            TextFile { path: "docs/a.md".into(), text: text.into() },
            TextFile { path: "README.md".into(), text: "# One, two: `three`\n## Four".into() },
        ];
        let exists = |path: &Path| {
            ["docs/a.md", "README.md", "crates"].iter().any(|known| path == Path::new(known))
        };
        check(&documents, exists).into_iter().map(|fault| fault.place + " " + &fault.what).collect()
    }

    #[test]
    fn living_links_and_what_only_looks_like_one_pass() {
        let text = "# Here\n[a](a.md) [b](../README.md#one-two-three) [c](#here) [d](../crates)\n\
                    [e](https://x.y/z#q) `[f](nowhere)` \n```\n[g](nowhere)\n```\n![h](./a.md \"t\")";
        assert_eq!(faults(text), Vec::<String>::new());
    }

    #[test]
    fn dead_links_are_found_with_their_lines() {
        for (link, why) in [
            ("nowhere.md", "docs/nowhere.md does not exist"),
            ("../README.md#five", "README.md has no heading #five"),
            ("#there", "docs/a.md has no heading #there"),
            ("../../etc", "leads out of the repository"),
            ("/etc/hosts", "leads out of the repository"),
        ] {
            let found = faults(&format!("text\n[x]({link}) and `code`"));
            assert_eq!(found, [format!("docs/a.md:2 the link to {link} is dead: {why}")]);
        }
    }
}
