//! The server: `aspen-node` runs one node, `aspen-node dev` a cluster of them on this machine.
//!
//! Results go to stdout, everything else to stderr. The exit code is 0 after a stop that was asked
//! for, 2 for settings that cannot be used, and 1 for everything else.
#![allow(clippy::print_stdout, reason = "a program whose results are what it prints")]

mod auth;
mod dev;
mod http;
mod identity;
mod parts;
mod private_file;
mod run_error;
mod settings;
mod ticket_file;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use parts::Parts;
use settings::{Arguments, Command, Settings};

/// A request allocates many small parts of messages, rows and tasks: the system's allocator
/// takes a tenth of its processor time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // The nodes of a development cluster say what happens; the command shows the results.
    let default = match arguments.command {
        None => "info,openraft=warn",
        Some(Command::Dev(_)) => "error",
    };
    let filter = EnvFilter::try_from_env("ASPEN_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let is_coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(is_coloured)
        .with_writer(std::io::stderr)
        // It would be told on stderr as well, and a node does not end because its log has no reader.
        .log_internal_errors(false)
        .init();
    if let Some(Command::Dev(arguments)) = arguments.command {
        return on_one_thread(dev::run(arguments)).unwrap_or(ExitCode::FAILURE);
    }
    stop_with_parent();
    let settings = match Settings::resolve(arguments.node) {
        Ok(settings) => settings,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::from(2);
        }
    };
    match on_one_thread(run(settings)) {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            tracing::error!("{error}{}", error.advice());
            ExitCode::FAILURE
        }
        None => ExitCode::FAILURE,
    }
}

/// A node of a development cluster does not outlive the command that started it.
fn stop_with_parent() {
    if std::env::var_os(dev::CHILD_VARIABLE).is_some() {
        let signal = Some(rustix::process::Signal::TERM);
        if let Err(error) = rustix::process::set_parent_process_death_signal(signal) {
            tracing::warn!("the node will not stop with its parent: {error}");
        }
    }
}

/// Runs the program's work to its end; `None` when the runtime does not start.
fn on_one_thread<T>(work: impl Future<Output = T>) -> Option<T> {
    // One thread: a request, its consensus and its answer stay on it, so that none of them costs
    // a wake-up of another thread. The log's syncs and checkpoints have threads of their own.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("cannot start: {error}");
            return None;
        }
    };
    Some(runtime.block_on(work))
}

async fn run(settings: Settings) -> Result<(), run_error::RunError> {
    let parts = Parts::start(settings).await?;
    let end = parts.wait_for_end().await;
    parts.stop().await;
    end
}
