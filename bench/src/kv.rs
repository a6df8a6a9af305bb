//! The store: writes, reads, fail-over, start and idleness, beside etcd and beside the disk.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;

use crate::limits;
use crate::measure::{Latencies, Outcome, Plan, Series};
use crate::peers::{AspenCluster, EtcdCluster, Session, Usage, kill, node_program};

const VALUE_BYTES: usize = 256;
/// Keys that are written again and again.
const KEYS: u64 = 10_000;
const FAST: &[&str] = &[
    "--election-timeout-min-ms",
    "300",
    "--election-timeout-max-ms",
    "600",
    "--heartbeat-interval-ms",
    "50",
];

fn key(number: u64) -> Bytes {
    Bytes::from(format!("bench/{:08}", number % KEYS))
}

#[derive(Clone, Copy)]
enum Operation {
    Put,
    Get,
}

/// One side's figures of one round.
struct Load {
    per_second: f64,
    cpu_us: f64,
    operations: u64,
    latencies: Latencies,
}

/// Runs `operation` in a loop on every session at once.
async fn load<S: Session>(
    sessions: &mut Vec<S>,
    operation: Operation,
    time: Duration,
    usage: impl Fn() -> Usage,
) -> Load {
    let (start, before) = (Instant::now(), usage());
    let end = start + time;
    let tasks: Vec<_> = sessions
        .drain(..)
        .enumerate()
        .map(|(client, session)| {
            tokio::spawn(async move {
                let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
                let mut latencies = Latencies::default();
                let mut number = client as u64 * 7_919;
                while Instant::now() < end {
                    let begun = Instant::now();
                    match operation {
                        Operation::Put => session.put(key(number), value.clone()).await,
                        Operation::Get => assert!(session.get(key(number)).await),
                    }
                    latencies.record(begun);
                    number += 1;
                }
                (session, latencies)
            })
        })
        .collect();
    let mut latencies = Latencies::default();
    for task in tasks {
        let (session, of_client) = task.await.unwrap();
        sessions.push(session);
        latencies.append(of_client);
    }
    let elapsed = start.elapsed().as_secs_f64();
    let cpu = usage().cpu.saturating_sub(before.cpu);
    let operations = latencies.len() as u64;
    let cpu_us = cpu.as_secs_f64() * 1e6 / operations as f64;
    Load { per_second: operations as f64 / elapsed, cpu_us, operations, latencies }
}

async fn fill<S: Session>(session: &S) {
    let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
    let puts = (0..KEYS).map(|number| session.put(key(number), value.clone()));
    let mut puts: Vec<_> = puts.map(Box::pin).collect();
    // In groups, so that neither side's queue is what is tested.
    while !puts.is_empty() {
        let group = puts.split_off(puts.len().saturating_sub(100));
        join_all(group).await;
    }
}

async fn join_all<F: Future + Unpin>(mut futures: Vec<F>) {
    std::future::poll_fn(|cx| {
        futures.retain_mut(|f| std::pin::Pin::new(f).poll(cx).is_pending());
        if futures.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

fn against_etcd(plan: &Plan, clients: usize, operation: Operation) -> Outcome {
    crate::rpc::runtime().block_on(async {
        let folder = TempDir::new().unwrap();
        let etcd = EtcdCluster::start(folder.path()).await;
        let aspen = AspenCluster::start(folder.path(), &[]).await;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..clients {
            ours.push(aspen.connect().await);
            theirs.push(etcd.connect().await);
        }
        fill(&ours[0]).await;
        fill(&theirs[0]).await;
        let warm_up = plan.round_time / 4;
        load(&mut ours, operation, warm_up, || aspen.usage()).await;
        load(&mut theirs, operation, warm_up, || etcd.usage()).await;
        let mut table = Table::default();
        for _ in 0..plan.rounds {
            let of_ours = load(&mut ours, operation, plan.round_time, || aspen.usage()).await;
            let of_theirs = load(&mut theirs, operation, plan.round_time, || etcd.usage()).await;
            table.add(of_ours, of_theirs);
            if clients == 1 && matches!(operation, Operation::Put) {
                table.add_floor(folder.path(), plan.round_time / 4).await;
            }
        }
        table.outcome()
    })
}

#[derive(Default)]
struct Table {
    ours: Series,
    theirs: Series,
    cpu: [Series; 2],
    p50: [Series; 2],
    p99: [Series; 2],
    floor_us: Series,
    shared_floor_us: Series,
    n: u64,
}

impl Table {
    fn add(&mut self, mut ours: Load, mut theirs: Load) {
        self.n += ours.operations;
        self.ours.push(ours.per_second);
        self.theirs.push(theirs.per_second);
        for (i, side) in [&mut ours, &mut theirs].into_iter().enumerate() {
            self.cpu[i].push(side.cpu_us);
            self.p50[i].push(side.latencies.percentile_us(0.5));
            self.p99[i].push(side.latencies.percentile_us(0.99));
        }
    }

    /// Two bare process-to-process round trips and one synced append; the same with the appends of
    /// three writers at once, since three members share the disk.
    async fn add_floor(&mut self, folder: &Path, time: Duration) {
        let hop = limits::ping_pong_two_processes(time).await.percentile_us(0.5);
        let alone = synced_appends(folder, time).percentile_us(0.5);
        let mut shared = std::thread::scope(|scope| {
            let writers = [(); 3].map(|()| scope.spawn(|| synced_appends(folder, time)));
            let mut all = Latencies::default();
            writers.into_iter().for_each(|writer| all.append(writer.join().unwrap()));
            all
        });
        self.floor_us.push(2.0 * hop + alone);
        self.shared_floor_us.push(2.0 * hop + shared.percentile_us(0.5));
    }

    fn outcome(self) -> Outcome {
        let mut notes = Vec::new();
        for (i, who) in ["ours", "etcd"].into_iter().enumerate() {
            notes.push((format!("{who}, p50"), self.p50[i].median(), "us"));
            notes.push((format!("{who}, p99"), self.p99[i].median(), "us"));
            notes.push((format!("{who}, CPU of the nodes each"), self.cpu[i].median(), "us"));
        }
        let floor = self.floor_us.median();
        if floor.is_finite() {
            notes.push(("two bare hops and a synced append".to_owned(), floor, "us"));
            notes.push(("ours, p50 / that".to_owned(), self.p50[0].median() / floor, ""));
            let shared = self.shared_floor_us.median();
            notes.push(("two bare hops and three synced appends at once".to_owned(), shared, "us"));
            notes.push(("ours, p50 / that".to_owned(), self.p50[0].median() / shared, ""));
        }
        let (ours, base) = (self.ours, self.theirs);
        Outcome { ours, base, base_name: "etcd", unit: "/s", n: self.n, notes }
    }
}

fn synced_appends(folder: &Path, time: Duration) -> Latencies {
    let mut file = tempfile::tempfile_in(folder).unwrap();
    let mut latencies = Latencies::default();
    let end = Instant::now() + time;
    while Instant::now() < end {
        let start = Instant::now();
        file.write_all(&[7; 512]).unwrap();
        file.sync_data().unwrap();
        latencies.record(start);
    }
    latencies
}

/// Writes by one client.
pub(crate) fn write_1(plan: &Plan) -> Outcome {
    against_etcd(plan, 1, Operation::Put)
}

/// Writes by 64 clients.
pub(crate) fn write_64(plan: &Plan) -> Outcome {
    against_etcd(plan, 64, Operation::Put)
}

/// Writes by 64 tasks that share one client, beside 64 clients.
pub(crate) fn write_shared(plan: &Plan) -> Outcome {
    crate::rpc::runtime().block_on(async {
        let folder = TempDir::new().unwrap();
        let aspen = AspenCluster::start(folder.path(), &[]).await;
        let one = aspen.connect().await;
        fill(&one).await;
        let mut shared = vec![one; 64];
        let mut own = Vec::new();
        for _ in 0..64 {
            own.push(aspen.connect().await);
        }
        let (mut ours, mut base, mut n) = (Series::default(), Series::default(), 0);
        for _ in 0..plan.rounds {
            let figures =
                load(&mut shared, Operation::Put, plan.round_time, || aspen.usage()).await;
            n += figures.operations;
            ours.push(figures.per_second);
            let figures = load(&mut own, Operation::Put, plan.round_time, || aspen.usage()).await;
            base.push(figures.per_second);
        }
        let base_name = "64 clients, ours too";
        Outcome { ours, base, base_name, unit: "/s", n, notes: Vec::new() }
    })
}

/// Writes by 512 clients.
pub(crate) fn write_512(plan: &Plan) -> Outcome {
    against_etcd(plan, 512, Operation::Put)
}

/// Linearizable reads by 64 clients.
pub(crate) fn read_64(plan: &Plan) -> Outcome {
    against_etcd(plan, 64, Operation::Get)
}

/// Kills the leader and times the next acknowledged write, with default and with short timeouts.
pub(crate) fn failover(plan: &Plan) -> Outcome {
    crate::rpc::runtime().block_on(async {
        let (mut default, mut fast, mut n) = (Series::default(), Series::default(), 0);
        for _ in 0..plan.rounds {
            fast.push(time_failover(FAST).await);
            default.push(time_failover(&[]).await);
            n += 2;
        }
        let goals = vec![("goal, default timeouts".to_owned(), 3_000.0, "ms")];
        Outcome {
            ours: fast,
            base: default,
            base_name: "ours, default timeouts",
            unit: "ms",
            n,
            notes: goals,
        }
    })
}

async fn time_failover(flags: &[&str]) -> f64 {
    let folder = TempDir::new().unwrap();
    let cluster = AspenCluster::start(folder.path(), flags).await;
    let session = cluster.connect().await;
    for number in 0..100 {
        session.put(key(number), Bytes::from_static(b"before")).await;
    }
    let leader = cluster.leader_pid(&session).await;
    kill(leader);
    let start = Instant::now();
    session.put(key(0), Bytes::from_static(b"after")).await;
    start.elapsed().as_secs_f64() * 1e3
}

/// Starts an empty node and times it to readiness.
pub(crate) fn start(plan: &Plan) -> Outcome {
    let (mut ours, mut base) = (Series::default(), Series::default());
    for _ in 0..plan.rounds {
        ours.push(time_start());
        let begun = Instant::now();
        let status = Command::new(node_program()).arg("--version").stdout(Stdio::null()).status();
        assert!(status.unwrap().success());
        base.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    let n = plan.rounds as u64;
    let base_name = "`aspen-node --version`";
    Outcome { ours, base, base_name, unit: "ms", n, notes: Vec::new() }
}

fn time_start() -> f64 {
    let folder = TempDir::new().unwrap();
    let ticket = folder.path().join("cluster-ticket.txt");
    let begun = Instant::now();
    let mut node = Command::new(node_program())
        .arg("--data-dir")
        .arg(folder.path())
        .args(["--cookie", "bench", "--host", "127.0.0.1"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // A linearizable read through a client is what ready means to a user.
    let elapsed = crate::rpc::runtime().block_on(async {
        let ticket = loop {
            match aspen_client::read_ticket_file(&ticket) {
                Ok(Some(ticket)) => break ticket,
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        let session = AspenCluster::session(&ticket);
        session.get(key(0)).await;
        begun.elapsed()
    });
    node.kill().unwrap();
    node.wait().unwrap();
    elapsed.as_secs_f64() * 1e3
}

/// CPU and memory of three nodes with nothing to do.
pub(crate) fn idle(plan: &Plan) -> Outcome {
    crate::rpc::runtime().block_on(async {
        let folder = TempDir::new().unwrap();
        let etcd = EtcdCluster::start(folder.path()).await;
        let aspen = AspenCluster::start(folder.path(), &[]).await;
        let (mut ours, mut base) = (Series::default(), Series::default());
        tokio::time::sleep(Duration::from_secs(3)).await;
        for _ in 0..plan.rounds.min(5) {
            let before = (aspen.usage(), etcd.usage(), Instant::now());
            tokio::time::sleep(plan.round_time.max(Duration::from_secs(3))).await;
            let share = |now: Usage, then: Usage| {
                100.0 * (now.cpu - then.cpu).as_secs_f64() / before.2.elapsed().as_secs_f64() / 3.0
            };
            ours.push(share(aspen.usage(), before.0));
            base.push(share(etcd.usage(), before.1));
        }
        let mib = |usage: Usage| usage.max_rss_bytes as f64 / f64::from(1 << 20);
        let notes = vec![
            ("ours, largest resident set".to_owned(), mib(aspen.usage()), "MiB"),
            ("etcd, largest resident set".to_owned(), mib(etcd.usage()), "MiB"),
        ];
        let unit = "% of a core per node";
        Outcome { ours, base, base_name: "etcd", unit, n: 3, notes }
    })
}
