//! `aspen-node dev`: a cluster of real, separate node processes on this machine.
//!
//! The processes are this program, each with a data folder below one temporary folder that goes
//! when the command ends. They end with it, however it ends.

mod cluster;
mod hints;
mod out;
mod process;
mod status;
mod ticket_place;
mod tour;

use std::convert::Infallible;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub(crate) use cluster::DevCluster;
use ticket_place::TicketPlace;

/// Tells a node that it belongs to a development cluster and ends with it.
pub(crate) const CHILD_VARIABLE: &str = "ASPEN_DEV_CHILD";
/// Nodes that one machine is asked to run at most.
const MAX_NODES: u8 = 9;

/// Run a cluster of separate node processes on this machine, until Ctrl-C.
#[derive(Debug, Args)]
pub(crate) struct DevArguments {
    /// How many nodes
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_NODES)))]
    pub(crate) nodes: u8,
    /// Show what a cluster does, check every line of it, and stop
    #[arg(long)]
    pub(crate) tour: bool,
    /// Write the ticket to this file, which must not exist yet, instead of where aspen-cli looks for
    /// it; so that several clusters can run beside each other
    #[arg(long, value_name = "FILE")]
    ticket_file: Option<PathBuf>,
    /// Milliseconds between a leader's signs of life [default: 500]
    #[arg(long, value_name = "MS")]
    heartbeat_interval_ms: Option<u64>,
    /// Shortest silence before an election, milliseconds [default: 1500]
    #[arg(long, value_name = "MS")]
    election_timeout_min_ms: Option<u64>,
    /// Longest silence before an election, milliseconds [default: twice the shortest]
    #[arg(long, value_name = "MS")]
    election_timeout_max_ms: Option<u64>,
    /// Clients that each node serves at the same time [default: 200]
    #[arg(long, value_name = "NUMBER")]
    max_clients: Option<u16>,
}

impl DevArguments {
    /// Where the ticket goes. A tour needs none, and does not disturb a cluster that runs.
    fn ticket_place(&self) -> Result<Option<TicketPlace>, DevError> {
        match &self.ticket_file {
            Some(path) => TicketPlace::file(path.clone()).map(Some),
            None if self.tour => Ok(None),
            None => TicketPlace::well_known().map(Some),
        }
    }

    /// The flags that every node gets.
    fn node_flags(&self) -> Vec<String> {
        let flags = [
            ("--heartbeat-interval-ms", self.heartbeat_interval_ms),
            ("--election-timeout-min-ms", self.election_timeout_min_ms),
            ("--election-timeout-max-ms", self.election_timeout_max_ms),
            ("--max-clients", self.max_clients.map(u64::from)),
        ];
        let given = flags.into_iter().filter_map(|(name, value)| Some((name, value?)));
        given.flat_map(|(name, value)| [name.to_owned(), value.to_string()]).collect()
    }
}

/// Why a development cluster did not do what it should.
#[derive(Debug, Error)]
pub(crate) enum DevError {
    /// A file or process cannot be used.
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    /// The place for the ticket is another cluster's.
    #[error(
        "a development cluster of yours runs already{}; its ticket is {}. Stop it with Ctrl-C, or \
         start this one beside it with --ticket-file FILE",
        if process.is_empty() { String::new() } else { format!(" (process {process})") },
        path.display()
    )]
    Running { process: String, path: PathBuf },
    /// The file for the ticket is something else, or an earlier cluster's.
    #[error("{} exists already; remove it, or name another with --ticket-file", .0.display())]
    TicketFileExists(PathBuf),
    /// A node ended or does not answer; its log says more.
    #[error("node {number} {what}; its log:\n{log}")]
    Node { number: u64, what: String, log: String },
    /// The cluster refused a request.
    #[error("{what}: {source}")]
    Request { what: String, source: Box<aspen_api::ApiError> },
    /// There is no client.
    #[error("cannot start a client: {0}")]
    Client(#[from] aspen_client::ConnectError),
    /// The tour cannot be shown.
    #[error("the tour needs at least {TOUR_NODES} nodes: it kills one, and a majority must go on")]
    TooFewNodes,
    /// The tour was stopped from outside.
    #[error("stopped before the end of the tour; the nodes and their data are gone")]
    Stopped,
    /// Something the tour shows is not so.
    #[error("the check failed: {0}")]
    Check(String),
}

impl DevError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub(crate) fn request(what: impl Into<String>) -> impl FnOnce(aspen_api::ApiError) -> Self {
        let what = what.into();
        move |source| Self::Request { what, source: Box::new(source) }
    }
}

/// Nodes that the tour needs at the least: it kills one, and a majority has to go on.
const TOUR_NODES: u8 = 3;

/// Runs the command until Ctrl-C or the end of the tour.
pub(crate) async fn run(arguments: DevArguments) -> ExitCode {
    let is_terminal = std::io::stdout().is_terminal();
    let body = async {
        // From here on, so that nothing stays behind whenever the command is asked to stop.
        let mut stop = StopRequest::watch()?;
        if arguments.tour && arguments.nodes < TOUR_NODES {
            return Err(DevError::TooFewNodes);
        }
        let place = arguments.ticket_place()?;
        let start = DevCluster::start(arguments.nodes, arguments.node_flags(), place);
        let started = tokio::select! {
            started = start => Some(started?),
            () = stop.comes() => None,
        };
        let Some(mut cluster) = started else {
            return if arguments.tour { Err(DevError::Stopped) } else { Ok(()) };
        };
        let result = match arguments.tour {
            true => tokio::select! {
                told = tour::run(&mut cluster) => told,
                () = stop.comes() => Err(DevError::Stopped),
            },
            false => tokio::select! {
                never = show(&mut cluster, is_terminal) => match never {},
                () = stop.comes() => Ok(()),
            },
        };
        cluster.stop().await;
        result
    };
    match body.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            match error {
                DevError::TooFewNodes => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Ctrl-C, a terminal that is closed, a reader that is gone, or another request to end the process.
struct StopRequest {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl StopRequest {
    fn watch() -> Result<Self, DevError> {
        let catch = |kind| signal(kind).map_err(DevError::io("cannot catch signals"));
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
            hang_up: catch(SignalKind::hangup())?,
        })
    }

    async fn comes(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
            () = out::nobody_reads() => {}
        }
    }
}

/// Prints how to use the cluster, then one line for each node for as long as it is polled.
async fn show(cluster: &mut DevCluster, is_terminal: bool) -> Infallible {
    out::line(format!(
        "{} nodes are up; their data is in {}",
        cluster.len(),
        cluster.folder().display()
    ));
    if let Some(place) = cluster.place() {
        hints::say(place);
    }
    out::line("Ctrl-C stops the cluster and removes its data.");
    let mut lines = status::Lines::new(is_terminal);
    let mut every = tokio::time::interval(Duration::from_secs(1));
    loop {
        every.tick().await;
        lines.show(cluster).await;
    }
}
