//! Every file says first what it is for, and no file keeps words of unfinished work.

use serde::Deserialize;

use crate::exceptions::{Exception, Exceptions};
use crate::repo::{Repo, TextFile};
use crate::violation::Violation;

/// `xtask/rules/words.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    word: Vec<Word>,
    #[serde(default)]
    exception: Vec<Exception>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Word {
    text: String,
    #[serde(default)]
    any_case: bool,
    instead: String,
}

/// Judges the repository.
pub(crate) fn run(repo: &Repo) -> Result<Vec<Violation>, String> {
    let mut found = words(&repo.sources, &repo.rules("words.toml")?);
    found.extend(repo.sources.iter().filter_map(opening));
    Ok(found)
}

fn opening(file: &TextFile) -> Option<Violation> {
    let opens =
        file.text.lines().next().is_some_and(|line| {
            line.strip_prefix("//!").is_some_and(|text| !text.trim().is_empty())
        });
    let what = "the file does not open with `//!`";
    (!opens).then(|| Violation::new(&file.path, what, "say in a line what it is for"))
}

fn words(files: &[TextFile], rules: &Rules) -> Vec<Violation> {
    let exceptions = Exceptions::new("xtask/rules/words.toml", &rules.exception);
    let mut found = Vec::new();
    for file in files {
        for (number, line) in (1..).zip(file.text.lines()) {
            for word in rules.word.iter().filter(|word| contains(line, word)) {
                if !exceptions.allow(&format!("{} {}", file.path, word.text)) {
                    let place = format!("{}:{number}", file.path);
                    let what = format!("it says \"{}\"", word.text);
                    found.push(Violation::new(place, what, &word.instead));
                }
            }
        }
    }
    found.extend(exceptions.faults());
    found
}

/// Whether the line has the word, and not as a part of a longer one.
fn contains(line: &str, word: &Word) -> bool {
    let (line, text) = if word.any_case {
        (line.to_lowercase(), word.text.to_lowercase())
    } else {
        (line.to_owned(), word.text.clone())
    };
    let is_inside = |char: Option<char>| char.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(&text).any(|(start, found)| {
        let before = line[..start].chars().next_back();
        let after = line[start + found.len()..].chars().next();
        let ends_in_letter = is_inside(found.chars().next_back());
        !(is_inside(before) || ends_in_letter && is_inside(after))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(extra: &str) -> Rules {
        toml::from_str(&format!("{}{extra}", include_str!("../rules/words.toml"))).unwrap()
    }

    fn file(text: String) -> TextFile {
        TextFile { path: "src/a.rs".into(), text }
    }

    #[test]
    fn every_word_of_the_list_is_found_with_its_line() {
        for word in rules("").word {
            let text = format!("//! Doc.\nfn f() {{ {}(x) }} // {}", word.text, word.text);
            let found = words(&[file(text)], &rules(""));
            assert_eq!(found.len(), 1, "{}", word.text);
            assert_eq!(found[0].place, "src/a.rs:2");
        }
    }

    #[test]
    fn case_matters_only_where_it_is_said_to_and_longer_words_pass() {
        let mut loud = rules("").word;
        loud.retain(|word| word.any_case);
        assert!(!loud.is_empty());
        for word in loud {
            let found = words(&[file(word.text.to_uppercase())], &rules(""));
            assert_eq!(found.len(), 1, "{}", word.text);
        }
        let text = "let autodbg = mytodo!(before_nowhere, 0xXXX1); for nowadays";
        assert_eq!(words(&[file(text.into())], &rules("")), []);
    }

    #[test]
    fn exceptions_are_for_one_word_in_one_file() {
        let word = rules("").word.remove(0).text;
        let exception = format!("\n[[exception]]\nwhat = \"src/a.rs {word}\"\nreason = \"r\"");
        assert_eq!(words(&[file(word.clone())], &rules(&exception)), []);
        let elsewhere = TextFile { path: "src/b.rs".into(), text: word };
        assert_eq!(words(&[elsewhere], &rules(&exception)).len(), 2, "found, and not needed");
    }

    #[test]
    fn a_file_without_an_opening_doc_is_found() {
        assert_eq!(opening(&file("//! What for.\n".into())), None);
        for text in ["", "//!\n", "// What for.\n", "use a;\n//! Late.\n", "#![allow(x)]\n//! d\n"]
        {
            assert!(opening(&file(text.into())).is_some(), "{text:?}");
        }
    }
}
