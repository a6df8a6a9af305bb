//! Cores name no clock, socket, thread or random source, outside of their tests.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use serde::Deserialize;

use crate::layers::Layers;
use crate::repo::{Repo, TextFile};
use crate::violation::Violation;

/// `xtask/rules/purity.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    path: Vec<PathRule>,
    name: Vec<NameRule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PathRule {
    path: String,
    instead: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NameRule {
    name: String,
    instead: String,
}

/// Judges the repository.
pub(crate) fn run(repo: &Repo) -> Result<Vec<Violation>, String> {
    let rules: Rules = repo.rules("purity.toml")?;
    let layers: Layers = repo.rules("layers.toml")?;
    let mut found = Vec::new();
    for package in repo.members().filter(|package| layers.core.crates.contains(&package.name)) {
        let folder = package.manifest_path.parent().unwrap_or(&repo.root).join("src");
        let prefix = folder.strip_prefix(&repo.root).unwrap_or(&folder).to_string_lossy();
        let prefix = format!("{}/", prefix.replace('\\', "/"));
        for file in repo.sources.iter().filter(|file| file.path.starts_with(&prefix)) {
            found.extend(check(file, &rules)?);
        }
    }
    Ok(found)
}

fn check(file: &TextFile, rules: &Rules) -> Result<Vec<Violation>, String> {
    if file.is_test() {
        return Ok(Vec::new());
    }
    let tokens: TokenStream =
        file.text.parse().map_err(|error| format!("{}: {error}", file.path))?;
    let mut paths = Vec::new();
    collect(tokens, &mut paths);
    let mut found = Vec::new();
    for (segments, line) in paths {
        let path = segments.join("::");
        let place = || format!("{}:{line}", file.path);
        for rule in &rules.path {
            let below = path.strip_prefix(&rule.path);
            if below.is_some_and(|below| below.is_empty() || below.starts_with("::")) {
                let what = format!("a core crate names {path}");
                found.push(Violation::new(place(), what, format!("use {}", rule.instead)));
            }
        }
        for rule in &rules.name {
            if segments.contains(&rule.name) {
                let what = format!("a core crate names {}", rule.name);
                found.push(Violation::new(place(), what, format!("use {}", rule.instead)));
            }
        }
    }
    Ok(found)
}

/// Every path that the tokens name and the line of its last segment; attributes and items under
/// `#[cfg(test)]` apart. Groups of a `use` are spelled out.
fn collect(tokens: TokenStream, out: &mut Vec<(Vec<String>, usize)>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at = match token {
            TokenTree::Punct(punct) if punct.as_char() == '#' => after_attribute(&tokens, at),
            TokenTree::Ident(_) => path(&tokens, at, &[], out),
            TokenTree::Group(group) => {
                collect(group.stream(), out);
                at + 1
            }
            _ => at + 1,
        };
    }
}

/// The index after an attribute, and after the item that it disables outside of tests.
fn after_attribute(tokens: &[TokenTree], at: usize) -> usize {
    let is_inner = matches!(tokens.get(at + 1), Some(TokenTree::Punct(p)) if p.as_char() == '!');
    let body = at + 1 + usize::from(is_inner);
    let is_attribute = matches!(tokens.get(body), Some(TokenTree::Group(_)));
    let end = if is_attribute { body + 1 } else { at + 1 };
    after_test_item(tokens, at).unwrap_or(end)
}

/// If `#[cfg(test)]` stands at `at`, the index after its item.
pub(crate) fn after_test_item(tokens: &[TokenTree], at: usize) -> Option<usize> {
    let Some(TokenTree::Group(attribute)) = tokens.get(at + 1) else { return None };
    let text: String = attribute.stream().to_string().split_whitespace().collect();
    let ends_item = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == ';',
        TokenTree::Ident(_) | TokenTree::Literal(_) => false,
    };
    let rest = tokens.get(at + 2..).unwrap_or_default();
    let end = rest.iter().position(ends_item).map_or(tokens.len(), |end| at + 3 + end);
    (text == "cfg(test)").then_some(end)
}

/// Words after which `::` starts a path instead of going on with one.
const KEYWORDS: [&str; 17] = [
    "as", "await", "break", "dyn", "else", "for", "if", "impl", "in", "let", "match", "move",
    "mut", "return", "use", "where", "yield",
];

/// Reads the path that starts at `at` below `prefix`; the index behind it.
fn path(
    tokens: &[TokenTree],
    mut at: usize,
    prefix: &[String],
    out: &mut Vec<(Vec<String>, usize)>,
) -> usize {
    let is_colon =
        |at: usize| matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == ':');
    let mut segments = prefix.to_vec();
    let mut line = 0;
    loop {
        match tokens.get(at) {
            Some(TokenTree::Ident(ident)) => {
                let name = ident.to_string();
                if KEYWORDS.contains(&name.as_str()) {
                    return at + 1;
                }
                line = ident.span().start().line;
                segments.push(name);
            }
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                let is_comma =
                    |t: &TokenTree| matches!(t, TokenTree::Punct(p) if p.as_char() == ',');
                for part in inner.split(is_comma).filter(|part| !part.is_empty()) {
                    path(part, 0, &segments, out);
                }
                return at + 1;
            }
            Some(TokenTree::Punct(punct)) if punct.as_char() == '*' => {
                line = punct.span().start().line;
                segments.push("*".to_owned());
            }
            // A turbofish, or the end: what follows is read on its own.
            _ => break,
        }
        if !(is_colon(at + 1) && is_colon(at + 2)) {
            at += 1;
            break;
        }
        at += 3;
    }
    out.push((segments, line));
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let rules: Rules = toml::from_str(include_str!("../rules/purity.toml")).unwrap();
        let file = TextFile { path: "src/a.rs".into(), text: text.into() };
        let found = check(&file, &rules).unwrap();
        found.into_iter().map(|fault| format!("{} {}", fault.place, fault.what)).collect()
    }

    #[test]
    fn pure_source_passes() {
        let text = "
            //! Says tokio and std::time::Instant in a doc.
            use core::net::SocketAddr;
            use core::time::Duration;
            use net_types::{Instant, UnixMillis};
            #[doc = \"SystemTime\"]
            fn f(now: Instant) -> Vec::<u8> { let tokio_like = now; standard::time() }
            #[cfg(test)]
            mod tests {
                use std::time::Instant;
            }
            #[cfg(test)]
            use std::net::UdpSocket;
        ";
        assert_eq!(faults(text), Vec::<String>::new());
    }

    #[test]
    fn each_impure_name_is_found_however_it_is_written() {
        let one = |text: &str, what: &str| {
            assert_eq!(faults(text), [format!("src/a.rs:1 a core crate names {what}")], "{text}");
        };
        one("use std::time::Instant;", "std::time::Instant");
        one("use std::time;", "std::time");
        one("use std::{fmt, time::{Duration as D}};", "std::time::Duration");
        one("use ::std::net::{self};", "std::net::self");
        one("use std::net::*;", "std::net::*");
        one("fn f() { let now = std::time::Instant::now(); }", "std::time::Instant::now");
        one("m!( x => std::thread::sleep(d) );", "std::thread::sleep");
        one("async fn f() { tokio::select! {} }", "tokio::select");
        one("use rand_core::OsRng;", "OsRng");
        one("fn f() { rand::thread_rng().gen::<u8>() }", "thread_rng");
        one("fn f() { getrandom::fill(&mut b) }", "getrandom");
        one("type M = HashMap<K, V, RandomState>;", "RandomState");
        one("#[cfg(feature = \"x\")] use std::net::TcpStream;", "std::net::TcpStream");
        one("#[cfg(test)] use a::B; use std::time;", "std::time");
    }
}
