//! Files and functions stay short enough to be read in one go.

use serde::Deserialize;
use syn::visit::{self, Visit};

use crate::exceptions::{Exception, Exceptions};
use crate::repo::{Repo, TextFile};
use crate::violation::Violation;

/// `xtask/rules/sizes.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    file_lines: usize,
    function_lines: usize,
    #[serde(default)]
    exception: Vec<Exception>,
}

/// Judges the repository.
pub(crate) fn run(repo: &Repo) -> Result<Vec<Violation>, String> {
    check(&repo.sources, &repo.rules("sizes.toml")?)
}

fn check(files: &[TextFile], rules: &Rules) -> Result<Vec<Violation>, String> {
    let exceptions = Exceptions::new("xtask/rules/sizes.toml", &rules.exception);
    let mut found = Vec::new();
    for file in files {
        let lines = file.text.lines().count();
        if lines > rules.file_lines && !exceptions.allow(&file.path) {
            let what = format!("{lines} lines, at most {}", rules.file_lines);
            found.push(Violation::new(&file.path, what, "split it by meaning"));
        }
        if file.is_test() {
            continue;
        }
        for function in functions(file)? {
            if function.lines > rules.function_lines
                && !exceptions.allow(&format!("{} {}", file.path, function.name))
            {
                let place = format!("{}:{}", file.path, function.line);
                let Function { name, lines, .. } = function;
                let what = format!("fn {name} has {lines} lines, at most {}", rules.function_lines);
                found.push(Violation::new(place, what, "give its parts names of their own"));
            }
        }
    }
    found.extend(exceptions.faults());
    Ok(found)
}

#[derive(Debug, PartialEq, Eq)]
struct Function {
    name: String,
    line: usize,
    lines: usize,
}

/// The functions of a file, those of tests apart.
fn functions(file: &TextFile) -> Result<Vec<Function>, String> {
    let parsed = syn::parse_file(&file.text).map_err(|error| format!("{}: {error}", file.path))?;
    let mut measured = Measure::default();
    measured.visit_file(&parsed);
    Ok(measured.functions)
}

#[derive(Default)]
struct Measure {
    functions: Vec<Function>,
}

impl Measure {
    fn add(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let line = signature.fn_token.span.start().line;
        let lines = body.brace_token.span.close().end().line - line + 1;
        self.functions.push(Function { name: signature.ident.to_string(), line, lines });
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::Path(path) => path.segments.last().is_some_and(|last| last.ident == "test"),
        syn::Meta::List(list) => {
            list.path.is_ident("cfg") && list.tokens.to_string().trim() == "test"
        }
        syn::Meta::NameValue(_) => false,
    })
}

impl<'ast> Visit<'ast> for Measure {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test(&item.attrs) {
            self.add(&item.sig, &item.block);
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            self.add(&item.sig, &item.block);
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(body) = &item.default {
            self.add(&item.sig, body);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(rules: &str, path: &str, text: &str) -> Vec<String> {
        let rules: Rules = toml::from_str(rules).unwrap();
        let file = TextFile { path: path.into(), text: text.into() };
        let found = check(&[file], &rules).unwrap();
        found.into_iter().map(|fault| format!("{} {}", fault.place, fault.what)).collect()
    }

    const SMALL: &str = "file_lines = 12\nfunction_lines = 3\n";

    #[test]
    fn short_source_and_long_tests_pass() {
        let text = "fn a() {\n\n}\n#[cfg(test)]\nmod tests {\n#[test]\nfn b() {\n\n\n\n}\n}";
        assert_eq!(faults(SMALL, "src/a.rs", text), Vec::<String>::new());
        assert_eq!(faults(SMALL, "tests/it/a.rs", "fn a() {\n\n\n\n}\n"), Vec::<String>::new());
    }

    #[test]
    fn long_functions_are_found_wherever_they_stand() {
        let long = "fn long() {\n\n\n}";
        for (text, line) in [
            (long.to_owned(), 1),
            (format!("struct S;\nimpl S {{\n{long}\n}}"), 3),
            (format!("trait T {{\n{long}\n}}"), 2),
            (format!("fn f() {{\n{long} }}"), 2),
            (format!("mod m {{\n{long}\n}}"), 2),
        ] {
            let found = faults(SMALL, "src/a.rs", &text);
            let expected = format!("src/a.rs:{line} fn long has 4 lines, at most 3");
            assert!(found.contains(&expected), "{text}: {found:?}");
        }
    }

    #[test]
    fn long_files_are_found_among_tests_too() {
        let text = "//!\n".repeat(13);
        let expected = ["src/a.rs 13 lines, at most 12".to_owned()];
        assert_eq!(faults(SMALL, "src/a.rs", &text), expected);
        assert_eq!(faults(SMALL, "tests/it/a.rs", &text).len(), 1);
    }

    #[test]
    fn exceptions_cover_one_function_of_one_file() {
        let exception = "[[exception]]\nwhat = \"src/a.rs long\"\nreason = \"table\"";
        let rules = format!("{SMALL}{exception}");
        let text = "fn long() {\n\n\n}\nfn other() {\n\n\n}";
        let found = faults(&rules, "src/a.rs", text);
        assert_eq!(found, ["src/a.rs:5 fn other has 4 lines, at most 3"]);
    }

    #[test]
    fn source_that_does_not_parse_is_an_error_and_not_a_pass() {
        let rules: Rules = toml::from_str(SMALL).unwrap();
        let file = TextFile { path: "src/a.rs".into(), text: "fn (".into() };
        assert!(check(&[file], &rules).is_err());
    }
}
