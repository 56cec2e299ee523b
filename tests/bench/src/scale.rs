//! What many objects and many watchers cost: lists of 10,000, the delivery of events, memory per object.

use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use coracle_clock::Clock;
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::{Connection, Protocol, Watch};
use crate::cluster::Binary;
use crate::figures::{Figure, Report};
use crate::kubeconfig::Access;
use crate::process::Memory;

/// Milliseconds for a list of 10,000 ConfigMaps of 1 KiB: a tenth of upstream's 230.
const LIST_TARGET: f64 = 23.0;
/// Milliseconds from the answer to a PUT to its event.
const WATCH_TARGET: f64 = 1.0;
/// Bytes of memory per stored object beyond its own JSON.
const OVERHEAD_TARGET: f64 = 3.0 * 1024.0;
/// How often a list and an event are measured.
const LISTS: usize = 20;
const EVENTS: usize = 300;
const CLIENTS: usize = 16;

/// How much to make.
#[derive(Debug, Clone, Args)]
pub(crate) struct Scale {
    /// ConfigMaps of 1 KiB
    #[arg(long, default_value_t = 10_000)]
    objects: usize,
    /// Watches of one kind, open at once
    #[arg(long, default_value_t = 1_000)]
    watchers: usize,
}

/// Measures a cluster of our own.
pub(crate) async fn measure(
    binary: &Binary,
    scale: &Scale,
    clock: &Clock,
    report: &mut Report,
) -> Result<()> {
    let (cluster, _) = binary.up(&[], clock).await?;
    let access = Access::load(&cluster.kubeconfig(), Protocol::Http1.alpn())?;
    let mut connection = Connection::open(&access, Protocol::Http1).await?;
    let namespace = json!({"metadata": {"name": "scale"}});
    connection.create("/api/v1/namespaces", &namespace).await?;
    let path = "/api/v1/namespaces/scale/configmaps";

    let before = Memory::of(cluster.pid)?.anonymous;
    fill(&access, path, scale.objects).await?;
    let grown = (Memory::of(cluster.pid)?.anonymous - before) * 1024.0 * 1024.0;
    let list = connection.call(Method::GET, path, Bytes::new()).await?;
    let per_object = |bytes: f64| bytes / scale.objects.max(1) as f64;
    let own = per_object(list.len() as f64);
    report.add(Figure::new("scale.json_per_object", "B", own));
    let overhead = Figure::new(
        "scale.memory_overhead_per_object",
        "B",
        per_object(grown) - own,
    );
    report.add(overhead.below(OVERHEAD_TARGET));

    let mut lists = Vec::new();
    for _ in 0..LISTS {
        let start = clock.monotonic();
        connection.call(Method::GET, path, Bytes::new()).await?;
        lists.push(milliseconds(clock.monotonic() - start));
    }
    report.add(Figure::median("scale.list", "ms", &lists).below(LIST_TARGET));

    let alone = deliveries(&access, &mut connection, path, clock).await?;
    report.add(Figure::median("scale.watch_delivery", "ms", &alone).below(WATCH_TARGET));
    let crowd = crowd(&access, path, scale.watchers).await?;
    let among = deliveries(&access, &mut connection, path, clock).await?;
    report.add(Figure::median(
        "scale.watch_delivery_among_many",
        "ms",
        &among,
    ));
    drop(crowd);
    cluster.stop().await
}

/// Makes `objects` ConfigMaps of about 1 KiB.
async fn fill(access: &Access, path: &str, objects: usize) -> Result<()> {
    let mut tasks = JoinSet::new();
    for client in 0..CLIENTS {
        let (access, path) = (access.clone(), path.to_owned());
        tasks.spawn(async move {
            let mut connection = Connection::open(&access, Protocol::Http1).await?;
            for index in (client..objects).step_by(CLIENTS) {
                let object = config_map(&format!("object-{index:06}"), 0);
                connection.create(&path, &object).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.context("a client ended early")??;
    }
    Ok(())
}

fn config_map(name: &str, version: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
           "data": {"version": version.to_string(), "text": "x".repeat(700)}})
}

/// Milliseconds from the answer to a PUT until its event was read, many times; less than none where the event was
/// faster.
async fn deliveries(
    access: &Access,
    connection: &mut Connection,
    path: &str,
    clock: &Clock,
) -> Result<Vec<f64>> {
    let name = format!("watched-{}", clock.name_suffix(5));
    connection.create(path, &config_map(&name, 0)).await?;
    let mut watch = Watch::open(access, path).await?;
    let mut samples = Vec::with_capacity(EVENTS);
    for version in 1..=EVENTS {
        let body = Bytes::from(config_map(&name, version).to_string());
        let answered = async {
            let uri = format!("{path}/{name}");
            connection.call(Method::PUT, &uri, body).await?;
            anyhow::Ok(clock.monotonic())
        };
        let seen = async {
            let wanted = version.to_string();
            while watch.next().await?["object"]["data"]["version"] != wanted.as_str() {}
            anyhow::Ok(clock.monotonic())
        };
        let (answered, seen) = tokio::try_join!(answered, seen)?;
        samples.push(milliseconds(seen.saturating_sub(answered)));
    }
    Ok(samples)
}

/// Opens watches that are read and thrown away.
async fn crowd(access: &Access, path: &str, watchers: usize) -> Result<JoinSet<Result<()>>> {
    let mut tasks = JoinSet::new();
    for _ in 0..watchers {
        let mut watch = Watch::open(access, path).await?;
        tasks.spawn(async move {
            loop {
                watch.next().await?;
            }
        });
    }
    Ok(tasks)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
