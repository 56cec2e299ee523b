//! What many objects and many watchers cost: lists of 10,000 ConfigMaps and 5,000 pods, the delivery of events, memory
//! per object. Works on any server.

use anyhow::Result;
use bytes::Bytes;
use clap::Args;
use http::Method;
use tokio::task::JoinSet;

use crate::client::{Connection, Watch};
use crate::figures::{Figure, Report};
use crate::load::{Clients, Until, milliseconds};
use crate::objects::{config_map, pod};
use crate::process::{Memory, Sample};
use crate::space::{Space, fill};

/// Milliseconds for a list of 10,000 ConfigMaps of 1 KiB: a tenth of upstream's 230.
const LIST_TARGET: f64 = 23.0;
/// Milliseconds from the answer to a PUT to its event.
const WATCH_TARGET: f64 = 1.0;
/// Bytes of memory per stored object beyond its own JSON.
const OVERHEAD_TARGET: f64 = 3.0 * 1024.0;
/// How often a list and an event are measured.
const LISTS: usize = 20;
const EVENTS: usize = 300;

/// How much to make.
#[derive(Debug, Clone, Args)]
pub(crate) struct Many {
    /// ConfigMaps of 1 KiB
    #[arg(long, default_value_t = 10_000)]
    pub(crate) objects: usize,
    /// Pods
    #[arg(long, default_value_t = 5_000)]
    pods: usize,
    /// Watches of one kind, open at once
    #[arg(long, default_value_t = 1_000)]
    watchers: usize,
}

impl Default for Many {
    fn default() -> Self {
        Self {
            objects: 10_000,
            pods: 5_000,
            watchers: 1_000,
        }
    }
}

/// Measures all of it in a namespace of its own.
pub(crate) async fn measure(clients: &Clients, many: &Many, report: &mut Report) -> Result<()> {
    let space = Space::make(&clients.access, &clients.clock).await?;
    let config_maps = space.collection("configmaps");
    memory(clients, &config_maps, many.objects, report).await?;
    let names = ["list.config_maps", "list.config_maps_cpu"];
    lists(clients, &config_maps, names, Some(LIST_TARGET), report).await?;

    let alone = deliveries(clients, &config_maps).await?;
    report.add(Figure::median("watch.delivery", "ms", &alone.samples).below(WATCH_TARGET));
    let crowd = crowd(clients, &config_maps, many.watchers).await?;
    let among = deliveries(clients, &config_maps).await?;
    report.add(Figure::median(
        "watch.delivery_among_many",
        "ms",
        &among.samples,
    ));
    if let Some(cost) = among.cost {
        let each = cost / (many.watchers + 1) as f64;
        report.add(Figure::new("watch.cpu_per_event", "µs", each));
    }
    drop(crowd);

    let pods = space.collection("pods");
    fill(clients, &pods, many.pods, pod).await?;
    let names = ["list.pods", "list.pods_cpu"];
    lists(clients, &pods, names, None, report).await?;
    space.delete().await
}

/// Makes `objects` ConfigMaps of 1 KiB at `path` and looks at how the memory grew.
pub(crate) async fn memory(
    clients: &Clients,
    path: &str,
    objects: usize,
    report: &mut Report,
) -> Result<()> {
    let before = Memory::of_all(&clients.pids)?.anonymous;
    fill(clients, path, objects, |name| config_map(name, 0)).await?;
    let grown = Memory::of_all(&clients.pids)?.anonymous - before;
    let mut connection = Connection::open(&clients.access, clients.protocol).await?;
    let list = connection.call(Method::GET, path, Bytes::new()).await?;
    let objects = objects.max(1) as f64;
    let own = list.len() as f64 / objects;
    report.add(Figure::new("memory.json_per_object", "B", own));
    if clients.pids.is_empty() {
        return Ok(());
    }
    let each = grown * 1024.0 * 1024.0 / objects;
    report.add(Figure::new(
        "memory.per_10000_objects",
        "MiB",
        each * 1e4 / 1024.0 / 1024.0,
    ));
    report.add(Figure::new("memory.overhead_per_object", "B", each - own).below(OVERHEAD_TARGET));
    Ok(())
}

async fn lists(
    clients: &Clients,
    path: &str,
    [time, cpu]: [&'static str; 2],
    target: Option<f64>,
    report: &mut Report,
) -> Result<()> {
    let path = path.to_owned();
    let ask = move |_| (Method::GET, path.clone(), Bytes::new());
    let run = clients.run(1, Until::Asked(LISTS), ask).await?;
    let figure = Figure::median(time, "ms", &run.latencies);
    report.add(match target {
        Some(target) => figure.below(target),
        None => figure,
    });
    if let Some(cost) = run.cost {
        report.add(Figure::new(cpu, "ms", cost / 1e3));
    }
    Ok(())
}

struct Deliveries {
    /// Milliseconds from the answer to a PUT until its event was read; none where the event was faster.
    samples: Vec<f64>,
    /// Microseconds of the server's processor time for each PUT and all its events.
    cost: Option<f64>,
}

async fn deliveries(clients: &Clients, path: &str) -> Result<Deliveries> {
    let clock = &clients.clock;
    let mut connection = Connection::open(&clients.access, clients.protocol).await?;
    let name = format!("watched-{}", clock.name_suffix(5));
    connection.create(path, &config_map(&name, 0)).await?;
    let mut watch = Watch::open(&clients.access, path).await?;
    let mut samples = Vec::with_capacity(EVENTS);
    let before = Sample::take(&clients.pids)?;
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
    let used = Sample::take(&clients.pids)?.since(&before).microseconds;
    Ok(Deliveries {
        samples,
        cost: (!clients.pids.is_empty()).then_some(used / EVENTS as f64),
    })
}

/// Opens watches that are read and thrown away.
async fn crowd(clients: &Clients, path: &str, watchers: usize) -> Result<JoinSet<Result<()>>> {
    let mut tasks = JoinSet::new();
    for _ in 0..watchers {
        let mut watch = Watch::open(&clients.access, path).await?;
        tasks.spawn(async move { watch.drain().await });
    }
    Ok(tasks)
}
