//! The command line of a cluster.
//!
//! stdout carries the result alone, stderr everything else, so that a command can stand in a
//! script. With `--json` there is exactly one document. Exit codes are those of [`outcome::Exit`].

mod args;
mod commands;
mod input;
mod options;
mod outcome;
mod print;
mod ticket;
mod token;
mod values;

use std::process::ExitCode;
use std::time::Duration;

use aspen_client::{Client, ClientOptions};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches};

use crate::args::Cli;
use crate::commands::{Command, OfCluster, TokenCommand};
use crate::outcome::{Failure, Outcome};
use crate::print::Printer;
use crate::ticket::TicketSource;

fn main() -> ExitCode {
    let (cli, source) = match parse() {
        Ok(parsed) => parsed,
        Err(error) => return refuse_usage(&error),
    };
    let printer = Printer::new(cli.json, cli.quiet);
    start_logs(cli.verbose);
    match run(cli, source) {
        Ok(outcome) => printer.outcome(&outcome),
        Err(failure) => printer.failure(&failure),
    }
}

/// What was typed, and where the ticket comes from.
fn parse() -> Result<(Cli, TicketSource), clap::Error> {
    let matches = Cli::command().try_get_matches()?;
    let source = match matches.value_source("ticket") {
        Some(ValueSource::EnvVariable) => TicketSource::Environment,
        _ => TicketSource::Flag,
    };
    Ok((Cli::from_arg_matches(&matches)?, source))
}

fn run(cli: Cli, source: TicketSource) -> Result<Outcome, Failure> {
    let command = match cli.command {
        Command::OfCluster(command) => command,
        Command::Completions { shell } => {
            return Ok(commands::completions::script(shell, &mut Cli::command()));
        }
    };
    commands::check(&command)?;
    if let OfCluster::Token(TokenCommand::Offline(command)) = &command {
        return commands::token::offline(command);
    }
    let token = cli.token.as_deref().filter(|given| !given.trim().is_empty());
    let token = token.map(|given| token::token_from("--token", given)).transpose()?;
    let ticket = ticket::find(cli.ticket.as_deref(), source)?;
    let options = ClientOptions {
        deadline: Duration::from_millis(cli.timeout),
        token: token.map(|token| token.record().clone()),
        ..ClientOptions::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::not_connected(format!("cannot start: {error}")))?;
    runtime.block_on(async {
        let client = Client::connect(&ticket, options)
            .map_err(|error| Failure::not_connected(error.to_string()))?;
        let outcome = commands::run(&client, command).await;
        client.shutdown().await;
        outcome
    })
}

/// Help and version are results; anything else is a usage error, in JSON if that was asked for.
fn refuse_usage(error: &clap::Error) -> ExitCode {
    let is_asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let is_json = std::env::args_os().any(|arg| arg == "--json");
    if is_asked_for || !is_json {
        // Nothing can be said if even that fails.
        let _ = error.print();
        return ExitCode::from(error.exit_code() as u8);
    }
    Printer::new(true, true).failure(&Failure::usage(in_one_line(&error.to_string())))
}

/// What is wrong, without the reminder of how the command is used.
fn in_one_line(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let what = text.split("\n\nUsage:").next().unwrap_or(text);
    let what = what.split("\n\nFor more information").next().unwrap_or(what);
    what.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn start_logs(verbose: u8) {
    let filter = match verbose {
        0 => return,
        1 => "aspen_client=debug,warn",
        _ => "aspen_client=trace,debug",
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_ansi(print::is_coloured())
        .with_writer(std::io::stderr)
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usage_error_in_one_line_says_what_is_missing() {
        let error = Cli::command().try_get_matches_from(["aspen-cli", "kv", "set", "k"]);
        let text = in_one_line(&error.unwrap_err().to_string());
        assert_eq!(text, "the following required arguments were not provided: <VALUE>");
        let error = Cli::command().try_get_matches_from(["aspen-cli", "kv", "delet", "k"]);
        let text = in_one_line(&error.unwrap_err().to_string());
        assert!(text.starts_with("unrecognized subcommand 'delet'"), "{text}");
        assert!(text.contains("'delete'") && !text.contains("Usage"), "{text}");
    }
}
