//! What the API server pays for a GET and for a durable create, and how many creates it takes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use coracle_clock::Clock;
use http::Method;
use serde_json::json;
use tokio::task::JoinSet;

use crate::client::{Connection, Protocol};
use crate::cluster::Binary;
use crate::disk;
use crate::figures::{Figure, Report};
use crate::kubeconfig::Access;
use crate::process::Sample;

/// Microseconds of processor time.
const GET_TARGET: f64 = 80.0;
const CREATE_TARGET: f64 = 250.0;
/// How long the bare disk is measured, before and after the creates.
const DISK_TIME: Duration = Duration::from_secs(1);

/// How much to ask for.
#[derive(Debug, Clone, Args)]
pub(crate) struct Load {
    /// GETs, by one client and again by all
    #[arg(long, default_value_t = 10_000)]
    gets: usize,
    /// Creates by one client
    #[arg(long, default_value_t = 1_000)]
    creates: usize,
    /// Creates by all clients together
    #[arg(long, default_value_t = 10_000)]
    parallel_creates: usize,
    /// Clients at once, each with a connection
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// What the clients speak
    #[arg(long, value_enum, default_value_t)]
    protocol: Protocol,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            gets: 10_000,
            creates: 1_000,
            parallel_creates: 10_000,
            clients: 16,
            protocol: Protocol::Http1,
        }
    }
}

/// Measures a cluster of our own, without a node, so that only the API is at work.
pub(crate) async fn measure_own(
    binary: &Binary,
    load: &Load,
    clock: &Clock,
    report: &mut Report,
) -> Result<()> {
    let (cluster, _) = binary.up(&[], clock).await?;
    let access = Access::load(&cluster.kubeconfig(), load.protocol.alpn())?;
    measure(
        &access,
        &[cluster.pid],
        cluster.folder(),
        load,
        clock,
        report,
    )
    .await?;
    cluster.stop().await
}

/// Measures the server that a kubeconfig names; `pids` are its processes, if it runs here.
pub(crate) async fn measure_other(
    kubeconfig: &Path,
    pids: &[u32],
    scratch: &Path,
    load: &Load,
    clock: &Clock,
    report: &mut Report,
) -> Result<()> {
    let access = Access::load(kubeconfig, load.protocol.alpn())?;
    measure(&access, pids, scratch, load, clock, report).await
}

async fn measure(
    access: &Access,
    pids: &[u32],
    disk: &Path,
    load: &Load,
    clock: &Clock,
    report: &mut Report,
) -> Result<()> {
    let namespace = format!("bench-{}", clock.name_suffix(5));
    let mut connection = Connection::open(access, load.protocol).await?;
    connection
        .create(
            "/api/v1/namespaces",
            &json!({"metadata": {"name": namespace}}),
        )
        .await?;
    let bench = Bench {
        access: access.clone(),
        collection: format!("/api/v1/namespaces/{namespace}/configmaps"),
        pids: pids.to_vec(),
        protocol: load.protocol,
        clock: clock.clone(),
    };
    connection
        .create(
            &bench.collection,
            &json!({"metadata": {"name": "read-me"}, "data": data()}),
        )
        .await?;
    // Warm up: code paths, connections, allocator.
    bench.gets(load.clients, load.gets / 10).await?;
    bench.creates(load.clients, load.creates / 10).await?;

    let one = bench.gets(1, load.gets).await?;
    let all = bench.gets(load.clients, load.gets).await?;
    report.add(Figure::new("api.get_rate_1", "1/s", one.rate));
    report.add(Figure::new("api.get_rate_n", "1/s", all.rate));
    for (name, run) in [("api.get_cpu_1", &one), ("api.get_cpu_n", &all)] {
        if let Some(cost) = run.microseconds {
            report.add(Figure::new(name, "µs", cost).below(GET_TARGET));
        }
    }

    let disk = disk.to_owned();
    let before = syncs(&disk, clock).await?;
    let one = bench.creates(1, load.creates).await?;
    let all = bench.creates(load.clients, load.parallel_creates).await?;
    let after = syncs(&disk, clock).await?;
    let peer = (before + after) / 2.0;
    report.add(Figure::new("disk.fdatasync_rate", "1/s", peer));
    report.add(Figure::new("api.create_rate_1", "1/s", one.rate));
    report.add(Figure::new("api.create_rate_n", "1/s", all.rate));
    report.add(Figure::new(
        "api.create_rate_1_per_fdatasync",
        "×",
        one.rate / peer,
    ));
    report.add(Figure::new(
        "api.create_rate_n_per_fdatasync",
        "×",
        all.rate / peer,
    ));
    for (name, run) in [("api.create_cpu_1", &one), ("api.create_cpu_n", &all)] {
        if let Some(cost) = run.microseconds {
            report.add(Figure::new(name, "µs", cost).below(CREATE_TARGET));
        }
    }
    connection
        .delete(&format!("/api/v1/namespaces/{namespace}"))
        .await
}

async fn syncs(folder: &Path, clock: &Clock) -> Result<f64> {
    let (folder, clock): (PathBuf, Clock) = (folder.to_owned(), clock.clone());
    tokio::task::spawn_blocking(move || disk::syncs_per_second(&folder, DISK_TIME, &clock)).await?
}

/// A small ConfigMap: what most writes of a cluster are like in size.
fn data() -> serde_json::Value {
    json!({"greeting": "hello", "settings": "a=1\nb=2\nc=3\n"})
}

struct Bench {
    access: Access,
    collection: String,
    pids: Vec<u32>,
    protocol: Protocol,
    clock: Clock,
}

/// One load, all of it.
struct Run {
    /// Answers per second.
    rate: f64,
    /// Processor time of the server per answer, where its process is known.
    microseconds: Option<f64>,
}

impl Bench {
    async fn gets(&self, clients: usize, count: usize) -> Result<Run> {
        let path = format!("{}/read-me", self.collection);
        self.load(clients, count, move |_| {
            (Method::GET, path.clone(), Bytes::new())
        })
        .await
    }

    async fn creates(&self, clients: usize, count: usize) -> Result<Run> {
        let (path, prefix) = (self.collection.clone(), self.clock.name_suffix(8));
        let request = move |index| {
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": format!("{prefix}-{index}")}, "data": data(),
            });
            (Method::POST, path.clone(), Bytes::from(object.to_string()))
        };
        self.load(clients, count, request).await
    }

    /// Sends `count` requests over `clients` connections, each waiting for its answer.
    async fn load(
        &self,
        clients: usize,
        count: usize,
        request: impl Fn(usize) -> (Method, String, Bytes) + Clone + Send + 'static,
    ) -> Result<Run> {
        let clients = clients.max(1);
        let mut connections = Vec::with_capacity(clients);
        for _ in 0..clients {
            connections.push(Connection::open(&self.access, self.protocol).await?);
        }
        let (start, before) = (self.clock.monotonic(), Sample::take(&self.pids)?);
        let mut tasks = JoinSet::new();
        for (client, mut connection) in connections.into_iter().enumerate() {
            let request = request.clone();
            tasks.spawn(async move {
                for index in (client..count).step_by(clients) {
                    let (method, path, body) = request(index);
                    connection.call(method, &path, body).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.context("a client ended early")??;
        }
        let took = (self.clock.monotonic() - start).as_secs_f64();
        let used = Sample::take(&self.pids)?.since(&before);
        let count = count.max(1) as f64;
        let microseconds = (!self.pids.is_empty()).then(|| used.microseconds / count);
        Ok(Run {
            rate: count / took,
            microseconds,
        })
    }
}
