//! What time and size do to a server of our own: memory after churn, a start with many objects, latency while the
//! store is compacted.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use clap::Args;
use coracle_clock::Clock;
use http::Method;
use rustix::process::Signal;
use tokio::time::sleep;

use crate::client::{Connection, Protocol};
use crate::cluster::{Binary, Cluster, Program};
use crate::figures::{Figure, Report, Spread};
use crate::load::{Clients, Run, Until};
use crate::many;
use crate::objects::{config_map, small};
use crate::process::Memory;
use crate::space::{Space, fill};

/// Milliseconds from process start to `/readyz`.
const START_TARGET: f64 = 2_000.0;
/// How many times memory may be after churn what it was before.
const CHURN_TARGET: f64 = 1.1;
/// How many times the 99th percentile may be under compaction what it is otherwise.
const COMPACTION_TARGET: f64 = 2.0;
/// Clients of the churn: each creates an object and deletes it again.
const CLIENTS: usize = 16;
/// How long is waited before memory is looked at: a compaction that is due, and memory that goes back in its own time.
const SETTLE: Duration = Duration::from_secs(10);
/// How often a start is measured.
const STARTS: usize = 5;

/// How much to make.
#[derive(Debug, Clone, Args)]
// A group of its own would be called as the command is.
#[group(skip)]
pub(crate) struct Endure {
    /// ConfigMaps of 1 KiB that are there while others come and go
    #[arg(long, default_value_t = 10_000)]
    live: usize,
    /// Objects that are created and deleted again
    #[arg(long, default_value_t = 1_000_000)]
    churn: usize,
    /// ConfigMaps of 1 KiB that a start reads
    #[arg(long, default_value_t = 100_000)]
    stored: usize,
    /// How long latency is measured, without compaction and again with it
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

/// Measures all of it, each with a server of its own.
pub(crate) async fn measure(
    binary: &Binary,
    endure: &Endure,
    clock: &Clock,
    report: &mut Report,
) -> Result<()> {
    if endure.churn > 0 {
        churn(binary, endure, clock, report).await?;
    }
    if endure.stored > 0 {
        start(binary, endure.stored, clock, report).await?;
    }
    if binary.program() == Program::Serve {
        compaction(binary, endure.seconds, clock, report).await?;
    }
    Ok(())
}

fn clients(cluster: &Cluster, clock: &Clock) -> Clients {
    Clients {
        access: cluster.access.clone(),
        protocol: Protocol::Http1,
        pids: vec![cluster.pid],
        clock: clock.clone(),
    }
}

/// Memory of 10,000 objects on a fresh server; then what is left of it after many others came and went.
async fn churn(binary: &Binary, endure: &Endure, clock: &Clock, report: &mut Report) -> Result<()> {
    let (cluster, _) = binary.up(&[], clock).await?;
    let clients = clients(&cluster, clock);
    let space = Space::make(&clients.access, clock).await?;
    let path = space.collection("configmaps");
    many::memory(&clients, &path, endure.live, report).await?;
    // What a server that has worked for a while has filled: rings of recent changes, pages, threads.
    come_and_go(&clients, &path, (endure.churn / 20).min(20_000)).await?;
    sleep(SETTLE).await;
    let before = Memory::of(cluster.pid)?;
    come_and_go(&clients, &path, endure.churn).await?;
    sleep(SETTLE).await;
    let after = Memory::of(cluster.pid)?;
    report.add(Figure::new("churn.memory_before", "MiB", before.resident));
    report.add(Figure::new("churn.memory_after", "MiB", after.resident));
    let ratio = after.resident / before.resident;
    report.add(Figure::new("churn.memory_ratio", "×", ratio).below(CHURN_TARGET));
    cluster.stop().await
}

/// Creates `count` objects and deletes each at once.
async fn come_and_go(clients: &Clients, path: &str, count: usize) -> Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    let prefix = clients.clock.name_suffix(6);
    for client in 0..CLIENTS {
        let (access, path, prefix) = (clients.access.clone(), path.to_owned(), prefix.clone());
        tasks.spawn(async move {
            let mut connection = Connection::open(&access, Protocol::Http1).await?;
            for number in (client..count).step_by(CLIENTS) {
                let name = format!("{prefix}-{number}");
                let body = Bytes::from(config_map(&name, 0).to_string());
                connection.call(Method::POST, &path, body).await?;
                connection.delete(&format!("{path}/{name}")).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Starts with many objects, after a stop and after a kill.
async fn start(binary: &Binary, stored: usize, clock: &Clock, report: &mut Report) -> Result<()> {
    let (mut cluster, _) = binary.up(&[], clock).await?;
    let space = Space::make(&cluster.access, clock).await?;
    let path = space.collection("configmaps");
    let object = |name: &str| config_map(name, 0);
    fill(&clients(&cluster, clock), &path, stored, object).await?;
    for (name, signal) in [
        ("restart.ready", Signal::INT),
        ("restart.ready_after_kill", Signal::KILL),
    ] {
        let mut samples = Vec::with_capacity(STARTS);
        for _ in 0..STARTS {
            let folder = cluster.end(signal).await?;
            let (again, took) = binary.up_in(folder, &[], clock).await?;
            cluster = again;
            samples.push(took.as_secs_f64() * 1e3);
            // So that there is something to do again after a kill.
            let clients = clients(&cluster, clock);
            come_and_go(&clients, &path, 1_000).await?;
        }
        report.add(Figure::median(name, "ms", &samples).below(START_TARGET));
    }
    cluster.stop().await
}

/// The latency of a mixed load while the store keeps all history, and while it forgets a part of it every second.
async fn compaction(
    binary: &Binary,
    seconds: u64,
    clock: &Clock,
    report: &mut Report,
) -> Result<()> {
    let mut percentiles = Vec::new();
    for (name, flags) in [
        (
            "compaction.latency_without",
            ["--compact-every", "3600", "--keep-revisions", "1000000000"],
        ),
        (
            "compaction.latency",
            ["--compact-every", "1", "--keep-revisions", "10000"],
        ),
    ] {
        let (cluster, _) = binary.up(&flags, clock).await?;
        let run = mixed(&clients(&cluster, clock), seconds).await?;
        percentiles.push(Spread::of(&run.latencies).p99);
        report.add(Figure::median(name, "ms", &run.latencies));
        cluster.stop().await?;
    }
    let ratio = percentiles[1] / percentiles[0];
    report.add(Figure::new("compaction.p99_ratio", "×", ratio).below(COMPACTION_TARGET));
    Ok(())
}

/// One create for every GET.
async fn mixed(clients: &Clients, seconds: u64) -> Result<Run> {
    let space = Space::make(&clients.access, &clients.clock).await?;
    let path = space.collection("configmaps");
    fill(clients, &path, 20_000, small).await?;
    let ask = move |number: usize| match number % 2 {
        0 => (
            Method::GET,
            format!("{path}/object-{:06}", number % 20_000),
            Bytes::new(),
        ),
        _ => {
            let object = small(&format!("more-{number}")).to_string();
            (Method::POST, path.clone(), Bytes::from(object))
        }
    };
    let until = Until::Elapsed(Duration::from_secs(seconds));
    clients.run(CLIENTS, until, ask).await
}
