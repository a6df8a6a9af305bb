//! Every published number of the project, each beside a peer or a limit of the same run.
//!
//! `bench NAME [--quick]` prints a table for people and, as its last line, one JSON object.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a command-line program that stops at the first failure"
)]

mod kv;
mod limits;
mod log_design;
mod measure;
mod peers;
mod rpc;
mod stream;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use measure::Plan;

/// Load generators and in-process nodes allocate from here, as `aspen-node` does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures one thing beside its limit or peer.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Role>,
    /// What to measure; see `list`.
    name: Option<String>,
    /// Finish in about 30 s, with fewer and shorter rounds.
    #[arg(long)]
    quick: bool,
}

#[derive(Subcommand)]
enum Role {
    /// List what can be measured.
    List,
    /// One end of a two-process measurement; started by the measurement itself.
    #[command(hide = true)]
    Peer {
        /// Which end.
        role: String,
    },
}

/// A measurement: its name, what it shows, and how it is run.
struct Measurement {
    name: &'static str,
    about: &'static str,
    run: fn(&Plan) -> measure::Outcome,
}

const MEASUREMENTS: &[Measurement] = &[
    Measurement {
        name: "rpc-unary",
        about: "unary call, 32 bytes, one at a time, two nodes on one runtime; us, beside bare UDP",
        run: rpc::unary,
    },
    Measurement {
        name: "rpc-unary-2proc",
        about: "the same between two processes; us, beside bare UDP between two processes",
        run: rpc::unary_two_processes,
    },
    Measurement {
        name: "rpc-128",
        about: "calls per second with 128 in flight on one runtime, beside a batched UDP echo",
        run: rpc::in_flight,
    },
    Measurement {
        name: "stream-bulk",
        about: "MB/s of one reliable stream of 1 MiB messages, beside the cipher alone",
        run: stream::bulk,
    },
    Measurement {
        name: "log-design",
        about: "durable entries per second: log with checkpoints, beside one redb transaction",
        run: log_design::run,
    },
    Measurement {
        name: "kv-write-1",
        about: "durable writes per second of one client, three nodes, beside etcd and the disk",
        run: kv::write_1,
    },
    Measurement {
        name: "kv-write-64",
        about: "durable writes per second of 64 clients, three nodes, beside etcd",
        run: kv::write_64,
    },
    Measurement {
        name: "kv-write-shared",
        about: "durable writes per second of 64 tasks on one client, beside 64 clients",
        run: kv::write_shared,
    },
    Measurement {
        name: "kv-write-512",
        about: "durable writes per second of 512 clients, three nodes, beside etcd",
        run: kv::write_512,
    },
    Measurement {
        name: "kv-read-64",
        about: "linearizable reads per second of 64 clients, three nodes, beside etcd",
        run: kv::read_64,
    },
    Measurement {
        name: "kv-failover",
        about: "leader killed to next acknowledged write; ms, short beside default timeouts",
        run: kv::failover,
    },
    Measurement {
        name: "node-start",
        about: "start of an empty node to its first linearizable read; ms",
        run: kv::start,
    },
    Measurement {
        name: "node-idle",
        about: "CPU of an idle three-node cluster, beside etcd",
        run: kv::idle,
    },
];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Role::List) => {
            for m in MEASUREMENTS {
                println!("{:18} {}", m.name, m.about);
            }
            return ExitCode::SUCCESS;
        }
        Some(Role::Peer { role }) => {
            limits::run_peer(&role);
            return ExitCode::SUCCESS;
        }
        None => {}
    }
    let name = arguments.name.unwrap_or_default();
    let Some(m) = MEASUREMENTS.iter().find(|m| m.name == name) else {
        eprintln!("nothing is called {name:?}; `bench list` shows what can be measured");
        return ExitCode::from(2);
    };
    println!("{}: {}", m.name, m.about);
    let outcome = (m.run)(&Plan::new(arguments.quick));
    outcome.print(m.name);
    ExitCode::SUCCESS
}
