//! Source that the documents show stands in the file that they name.
//!
//! A fenced block whose first line is a language and a path, as in "```rust crates/a/src/b.rs", shows
//! lines of that file, in their order. A line of `..` or `// ..` stands for lines that are left out.

use std::path::Path;

use crate::links::documents;
use crate::repo::{Repo, TextFile, read};
use crate::violation::Violation;

/// Judges the documents at the root and below `docs`.
pub(crate) fn run(repo: &Repo) -> Result<Vec<Violation>, String> {
    Ok(check(&documents(repo)?, |path| read(&repo.root.join(Path::new(path))).ok()))
}

fn check(documents: &[TextFile], source: impl Fn(&str) -> Option<String>) -> Vec<Violation> {
    let mut found = Vec::new();
    for document in documents {
        for (line, path, lines) in excerpts(&document.text) {
            let fault = match source(path) {
                None => Some(format!("{path} does not exist")),
                Some(text) => strange_line(&lines, &text)
                    .map(|strange| format!("{path} has no line like this there: {strange}")),
            };
            if let Some(what) = fault {
                let place = format!("{}:{line}", document.path);
                found.push(Violation::new(place, what, "show the source as it is now"));
            }
        }
    }
    found
}

/// Blocks with a path: the line that opens each, the path and the lines.
fn excerpts(text: &str) -> Vec<(usize, &str, Vec<&str>)> {
    let mut found: Vec<(usize, &str, Vec<&str>)> = Vec::new();
    let (mut is_open, mut is_shown) = (false, false);
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(info) = line.strip_prefix("```") {
            is_open = !is_open;
            let path = info.split_whitespace().nth(1);
            is_shown = is_open && path.is_some();
            found.extend(path.filter(|_| is_open).map(|path| (number, path, Vec::new())));
        } else if let Some((.., lines)) = found.last_mut().filter(|_| is_shown) {
            lines.push(line);
        }
    }
    found
}

/// The first shown line that the source does not have after those before it; lines without a gap
/// between them follow each other there too.
fn strange_line<'a>(shown: &[&'a str], text: &str) -> Option<&'a str> {
    let source: Vec<&str> = text.lines().map(str::trim).collect();
    let is_gap = |line: &&str| matches!(line.trim(), ".." | "// ..");
    let mut from = 0;
    for part in shown.split(is_gap).filter(|part| !part.is_empty()) {
        let lines: Vec<&str> = part.iter().map(|line| line.trim()).collect();
        let place = source.get(from..)?.windows(lines.len()).position(|seen| seen == lines);
        let Some(place) = place else {
            let known = |line: &&&str| !source.iter().any(|seen| *seen == line.trim());
            return part.iter().find(known).or(part.first()).copied();
        };
        from += place + lines.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let documents = [TextFile { path: "docs/a.md".into(), text: text.into() }];
        let source = |path: &str| {
            (path == "a.rs").then(|| "fn a() {\n    b();\n    c();\n    d();\n}\n".to_owned())
        };
        check(&documents, source).into_iter().map(|fault| fault.place + " " + &fault.what).collect()
    }

    #[test]
    fn source_as_it_is_passes_and_other_blocks_are_not_judged() {
        let text = "```rust a.rs\nfn a() {\n    // ..\n    c();\n    d();\n```\n\
                    ```\nanything\n```\n```rust\nfn z() {}\n```\n";
        assert_eq!(faults(text), Vec::<String>::new());
    }

    #[test]
    fn source_that_has_changed_is_found() {
        assert_eq!(faults("\n```rust b.rs\n```\n"), ["docs/a.md:2 b.rs does not exist"]);
        for (shown, strange) in
            [("b();\ne();", "e();"), ("b();\nd();", "b();"), ("d();\n..\nb();", "b();")]
        {
            let found = faults(&format!("```rust a.rs\n{shown}\n```\n"));
            let fault = format!("docs/a.md:1 a.rs has no line like this there: {strange}");
            assert_eq!(found, [fault], "{shown}");
        }
    }
}
