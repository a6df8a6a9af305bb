//! The order of the crates: who may name whom, how deep the chain is, what cores never link.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::exceptions::{Exception, Exceptions};
use crate::repo::{Metadata, Repo};
use crate::violation::Violation;

const FILE: &str = "layers.toml";
const PLACE: &str = "xtask/rules/layers.toml";

/// `xtask/rules/layers.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Layers {
    longest_chain: usize,
    tests_only: BTreeSet<String>,
    services: BTreeSet<String>,
    never: Vec<Never>,
    pub(crate) core: Core,
    may_use: BTreeMap<String, BTreeSet<String>>,
    #[serde(default)]
    exception: Vec<Exception>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Never {
    from: String,
    to: String,
}

/// The crates that are state machines.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Core {
    pub(crate) crates: BTreeSet<String>,
    never_link: BTreeSet<String>,
}

/// What one crate of the workspace depends on.
#[derive(Debug, Default)]
struct Uses {
    /// Crates of the workspace that it links.
    normal: BTreeSet<String>,
    /// Crates of the workspace that its tests link.
    tests: BTreeSet<String>,
    /// Packages from elsewhere that it links, at any distance.
    linked: BTreeSet<String>,
}

type Graph = BTreeMap<String, Uses>;

/// Judges the repository.
pub(crate) fn run(repo: &Repo) -> Result<Vec<Violation>, String> {
    let layers: Layers = repo.rules(FILE)?;
    Ok(check(&graph(&repo.metadata), &layers))
}

fn graph(metadata: &Metadata) -> Graph {
    let is_member = |id: &String| metadata.workspace_members.contains(id);
    let members: BTreeSet<&str> = metadata
        .packages
        .iter()
        .filter(|package| is_member(&package.id))
        .map(|package| package.name.as_str())
        .collect();
    let mut graph = Graph::new();
    for package in metadata.packages.iter().filter(|package| is_member(&package.id)) {
        let uses = graph.entry(package.name.clone()).or_default();
        for dependency in &package.dependencies {
            if members.contains(dependency.name.as_str()) {
                let is_test = dependency.kind.as_deref() == Some("dev");
                let edges = if is_test { &mut uses.tests } else { &mut uses.normal };
                edges.insert(dependency.name.clone());
            }
        }
        uses.linked = linked(metadata, &package.id);
    }
    graph
}

/// The names of all packages that the package links, build scripts and tests apart.
fn linked(metadata: &Metadata, id: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::from([id]);
    let mut open = vec![id];
    while let Some(id) = open.pop() {
        let Some(node) = metadata.resolve.nodes.iter().find(|node| node.id == id) else { continue };
        for edge in &node.deps {
            let is_linked = edge.dep_kinds.iter().any(|kind| kind.kind.is_none());
            if is_linked && seen.insert(&edge.pkg) {
                open.push(&edge.pkg);
            }
        }
    }
    let packages = metadata.packages.iter();
    packages.filter(|package| seen.contains(package.id.as_str())).map(|p| p.name.clone()).collect()
}

fn check(graph: &Graph, layers: &Layers) -> Vec<Violation> {
    let exceptions = Exceptions::new(PLACE, &layers.exception);
    let mut found = Vec::new();
    for (from, uses) in graph {
        let Some(allowed) = layers.may_use.get(from) else {
            let fix = format!("give {from} a line in {PLACE}");
            found.push(Violation::new(from, "the crate has no place in the order", fix));
            continue;
        };
        let all_edges = uses.normal.iter().map(|to| (to, false));
        for (to, is_test) in all_edges.chain(uses.tests.iter().map(|to| (to, true))) {
            if let Some(what) = edge_fault(from, to, is_test, allowed, layers)
                && !exceptions.allow(&format!("{from} -> {to}"))
            {
                let fix = "depend on what is below, or move the code to where both can use it";
                found.push(Violation::new(from, what, fix));
            }
        }
        for package in uses.linked.intersection(&layers.core.never_link) {
            if layers.core.crates.contains(from) {
                let what = format!("a core crate links {package}");
                let fix = format!("cargo tree -p {from} -i {package} shows through whom");
                found.push(Violation::new(from, what, fix));
            }
        }
    }
    for name in layers.core.crates.iter().filter(|name| !layers.may_use.contains_key(*name)) {
        let what = format!("{name} is a core crate without a place in the order");
        found.push(Violation::new(PLACE, what, "add it to may_use"));
    }
    found.extend(chain_fault(graph, layers.longest_chain));
    found.extend(exceptions.faults());
    found
}

/// What is wrong with an edge, if anything is.
fn edge_fault(
    from: &str,
    to: &str,
    is_test: bool,
    allowed: &BTreeSet<String>,
    layers: &Layers,
) -> Option<String> {
    for never in &layers.never {
        if from.starts_with(&never.from) && to.starts_with(&never.to) {
            return Some(format!("{}* never names {}*, and names {to}", never.from, never.to));
        }
    }
    if layers.services.contains(from) && layers.services.contains(to) {
        return Some(format!("services never name each other, and it names {to}"));
    }
    if layers.tests_only.contains(to) {
        let is_allowed = is_test || allowed.contains(to);
        return (!is_allowed).then(|| format!("{to} is for tests only"));
    }
    let is_allowed = allowed.contains("*") || allowed.contains(to);
    (!is_allowed).then(|| format!("it may not use {to}"))
}

fn chain_fault(graph: &Graph, longest: usize) -> Option<Violation> {
    let mut chains: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let deepest = graph.keys().map(|name| chain(graph, name, &mut chains)).max_by_key(Vec::len)?;
    (deepest.len() > longest).then(|| {
        let what = format!("{} crates in a row: {}", deepest.len(), deepest.join(" -> "));
        Violation::new("workspace", what, format!("at most {longest}; cut an edge of the chain"))
    })
}

/// The longest chain of crates from `name` down. Cargo has ruled out cycles.
fn chain<'a>(
    graph: &'a Graph,
    name: &'a str,
    known: &mut BTreeMap<&'a str, Vec<&'a str>>,
) -> Vec<&'a str> {
    if let Some(chain) = known.get(name) {
        return chain.clone();
    }
    let below = graph.get(name).map(|uses| &uses.normal);
    let longest =
        below.into_iter().flatten().map(|to| chain(graph, to, known)).max_by_key(Vec::len);
    let mut chain = vec![name];
    chain.extend(longest.unwrap_or_default());
    known.insert(name, chain.clone());
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = r#"
        longest_chain = 3
        tests_only = ["net-sim"]
        services = ["aspen-a", "aspen-b"]
        [[never]]
        from = "net-"
        to = "aspen-"
        [core]
        crates = ["net-low"]
        never_link = ["tokio"]
        [may_use]
        net-low = []
        net-mid = ["net-low"]
        net-top = ["net-mid", "net-low"]
        net-sim = ["net-low"]
        aspen-a = ["net-top", "aspen-b"]
        aspen-b = ["net-low"]
        aspen-node = ["*"]
    "#;

    fn graph(edges: &[(&str, &str)]) -> Graph {
        let mut graph = Graph::new();
        for (from, to) in edges {
            let (from, is_test) = from.strip_suffix(" tests").map_or((*from, false), |f| (f, true));
            let uses = graph.entry(from.to_owned()).or_default();
            if let Some(external) = to.strip_prefix("extern ") {
                uses.linked.insert(external.to_owned());
            } else {
                let edges = if is_test { &mut uses.tests } else { &mut uses.normal };
                edges.insert((*to).to_owned());
            }
        }
        graph
    }

    fn faults(extra_rules: &str, edges: &[(&str, &str)]) -> Vec<String> {
        let layers: Layers = toml::from_str(&format!("{extra_rules}{RULES}")).unwrap();
        check(&graph(edges), &layers).into_iter().map(|fault| fault.what).collect()
    }

    #[test]
    fn edges_that_follow_the_order_pass() {
        let edges = [
            ("net-mid", "net-low"),
            ("net-top", "net-mid"),
            ("net-top tests", "net-sim"),
            ("net-low tests", "net-sim"),
            ("aspen-node", "net-mid"),
            ("net-mid", "extern tokio"),
        ];
        assert_eq!(faults("", &edges), Vec::<String>::new());
    }

    #[test]
    fn each_kind_of_wrong_edge_is_found() {
        let one = |from, to| faults("", &[(from, to)]);
        assert_eq!(one("net-low", "net-mid"), ["it may not use net-mid"]);
        assert_eq!(one("net-low tests", "net-mid"), ["it may not use net-mid"]);
        assert_eq!(
            one("net-top tests", "aspen-b"),
            ["net-* never names aspen-*, and names aspen-b"]
        );
        assert_eq!(one("net-top", "net-sim"), ["net-sim is for tests only"]);
        assert_eq!(one("aspen-node", "net-sim"), ["net-sim is for tests only"]);
        assert_eq!(
            one("aspen-a", "aspen-b"),
            ["services never name each other, and it names aspen-b"]
        );
        assert_eq!(one("net-new", "net-low"), ["the crate has no place in the order"]);
        assert_eq!(one("net-low", "extern tokio"), ["a core crate links tokio"]);
    }

    #[test]
    fn a_chain_that_is_too_long_is_found() {
        let edges = [
            ("net-mid", "net-low"),
            ("net-top", "net-mid"),
            ("aspen-a", "net-top"),
            ("aspen-a tests", "net-sim"),
        ];
        assert_eq!(
            faults("", &edges),
            ["4 crates in a row: aspen-a -> net-top -> net-mid -> net-low"]
        );
    }

    #[test]
    fn exceptions_are_heeded_and_go_when_they_are_not_needed() {
        let exception = r#"
            exception = [{ what = "net-low -> net-mid", reason = "history" }]
        "#;
        assert_eq!(faults(exception, &[("net-low", "net-mid")]), Vec::<String>::new());
        assert_eq!(
            faults(exception, &[("net-mid", "net-low")]),
            ["nothing needs the exception for net-low -> net-mid"]
        );
    }
}
