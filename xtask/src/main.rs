//! The house rules as commands: `cargo xtask verify` reads and judges, `cargo xtask fix` writes.
//!
//! Invariants: `verify` changes no file of the repository; every rule is a pure function over a
//! graph or over texts, and has a test in which a planted violation is found; rules with numbers,
//! lists or exceptions read them from `xtask/rules/`, where an exception carries its reason.

#![allow(clippy::print_stdout, reason = "a command line speaks on its output")]

mod commands;
mod dependencies;
mod exceptions;
mod excerpts;
mod layers;
mod links;
mod manifests;
mod purity;
mod repo;
mod sizes;
mod texts;
mod violation;

use std::process::ExitCode;
use std::time::Instant;

use crate::repo::Repo;
use crate::violation::Violation;

/// One rule, or one tool that judges.
struct Step {
    name: &'static str,
    about: &'static str,
    run: fn(&Repo) -> Result<Vec<Violation>, String>,
}

/// Cheap ones first, so that a failure shows early.
const STEPS: &[Step] = &[
    Step { name: "manifests", about: "versions and lints come from the root", run: manifests::run },
    Step { name: "unused", about: "source names each dependency", run: dependencies::run },
    Step { name: "layers", about: "crates name only what is below them", run: layers::run },
    Step { name: "purity", about: "cores name no clock, socket or randomness", run: purity::run },
    Step { name: "sizes", about: "files and functions stay short", run: sizes::run },
    Step { name: "texts", about: "files open with a doc, and words are meant", run: texts::run },
    Step { name: "links", about: "links of the documents resolve", run: links::run },
    Step { name: "excerpts", about: "documents show source as it is", run: excerpts::run },
    Step { name: "fmt", about: "cargo fmt --check", run: commands::fmt },
    Step { name: "clippy", about: "cargo clippy, warnings denied", run: commands::clippy },
    Step { name: "fuzz", about: "the fuzz targets compile", run: commands::fuzz },
    Step { name: "doc", about: "cargo doc, warnings denied", run: commands::doc },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["verify", names @ ..] => verify(names),
        ["fix"] => commands::fix(&repo::root()),
        _ => Err(usage()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            println!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> String {
    let mut text = String::from(
        "usage: cargo xtask verify [STEP ..]   judge, without changing anything\n       \
         cargo xtask fix                 format, and apply what clippy suggests\n\nsteps:\n",
    );
    for step in STEPS {
        text.push_str(&format!("  {:<10} {}\n", step.name, step.about));
    }
    text
}

fn verify(names: &[&str]) -> Result<(), String> {
    if let Some(unknown) = names.iter().find(|name| !STEPS.iter().any(|step| step.name == **name)) {
        return Err(format!("there is no step {unknown}\n\n{}", usage()));
    }
    let repo = Repo::load(&repo::root())?;
    let mut failed = Vec::new();
    for step in STEPS.iter().filter(|step| names.is_empty() || names.contains(&step.name)) {
        let started = Instant::now();
        let violations = (step.run)(&repo)?;
        let seconds = started.elapsed().as_secs_f32();
        if violations.is_empty() {
            println!("ok      {:<10} {} ({seconds:.1} s)", step.name, step.about);
            continue;
        }
        println!("FAILED  {:<10} {} ({seconds:.1} s)", step.name, step.about);
        for violation in &violations {
            println!("{violation}");
        }
        failed.push(step.name);
    }
    match failed.as_slice() {
        [] => Ok(()),
        names => Err(format!(
            "\nfailed: {}; again: cargo xtask verify {}",
            names.join(", "),
            names.join(" ")
        )),
    }
}
