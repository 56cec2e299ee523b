//! What the API server pays for a GET and for a durable create, and how many creates it takes; then [`crate::many`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use clap::Args;
use coracle_clock::Clock;
use http::Method;

use crate::client::{Connection, Protocol};
use crate::cluster::Binary;
use crate::figures::{Figure, Report};
use crate::load::{Clients, Run, Until};
use crate::objects::{config_map, small};
use crate::space::Space;
use crate::{access::Access, disk, many};

/// Microseconds of processor time.
const GET_TARGET: f64 = 50.0;
const CREATE_TARGET: f64 = 150.0;
/// How long the bare disk is measured, before and after the creates.
const DISK_TIME: Duration = Duration::from_secs(1);

/// How much to ask for.
#[derive(Debug, Clone, Args)]
pub(crate) struct Load {
    /// How long each load of GETs or creates lasts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Clients at once, each with a connection
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// What the clients speak
    #[arg(long, value_enum, default_value_t)]
    protocol: Protocol,
    #[command(flatten)]
    many: many::Many,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            seconds: 5,
            clients: 16,
            protocol: Protocol::Http1,
            many: many::Many::default(),
        }
    }
}

/// Measures a server of our own, without a node, so that only the API is at work.
pub(crate) async fn measure_own(
    binary: &Binary,
    load: &Load,
    clock: &Clock,
    report: &mut Report,
) -> Result<()> {
    let (cluster, _) = binary.up(&[], clock).await?;
    let (access, pids) = (cluster.access.clone(), vec![cluster.pid]);
    measure(access, pids, cluster.folder(), load, clock, report).await?;
    cluster.stop().await
}

/// Measures any server; `pids` are its processes, if it runs here, and `scratch` is a folder on the disk that it
/// writes to.
pub(crate) async fn measure(
    access: Access,
    pids: Vec<u32>,
    scratch: &Path,
    load: &Load,
    clock: &Clock,
    report: &mut Report,
) -> Result<()> {
    let clients = Clients {
        access,
        protocol: load.protocol,
        pids,
        clock: clock.clone(),
    };
    let space = Space::make(&clients.access, clock).await?;
    let bench = Bench {
        config_maps: space.collection("configmaps"),
        clients,
        load: load.clone(),
    };
    bench.measure(scratch, report).await?;
    space.delete().await?;
    many::measure(&bench.clients, &load.many, report).await
}

struct Bench {
    clients: Clients,
    config_maps: String,
    load: Load,
}

impl Bench {
    async fn measure(&self, scratch: &Path, report: &mut Report) -> Result<()> {
        let mut connection = Connection::open(&self.clients.access, self.clients.protocol).await?;
        connection
            .create(&self.config_maps, &config_map("read-me", 0))
            .await?;
        let (all, time) = (
            self.load.clients,
            Until::Elapsed(Duration::from_secs(self.load.seconds)),
        );
        // Warm up: code paths, connections, allocator.
        self.gets(all, Until::Asked(1_000)).await?;
        self.creates(all, Until::Asked(200)).await?;

        let run = self.gets(1, time).await?;
        add(report, &GETS[0], &run, GET_TARGET);
        let run = self.gets(all, time).await?;
        add(report, &GETS[1], &run, GET_TARGET);

        let before = syncs(scratch, &self.clients.clock).await?;
        let one = self.creates(1, time).await?;
        add(report, &CREATES[0], &one, CREATE_TARGET);
        let many = self.creates(all, time).await?;
        add(report, &CREATES[1], &many, CREATE_TARGET);
        let after = syncs(scratch, &self.clients.clock).await?;
        let peer = (before + after) / 2.0;
        report.add(Figure::new("disk.fdatasync_rate", "1/s", peer));
        for (name, run) in [
            ("api.create_rate_1_per_fdatasync", &one),
            ("api.create_rate_n_per_fdatasync", &many),
        ] {
            report.add(Figure::new(name, "×", run.rate / peer));
        }
        Ok(())
    }

    async fn gets(&self, clients: usize, until: Until) -> Result<Run> {
        let path = format!("{}/read-me", self.config_maps);
        let ask = move |_| (Method::GET, path.clone(), Bytes::new());
        self.clients.run(clients, until, ask).await
    }

    async fn creates(&self, clients: usize, until: Until) -> Result<Run> {
        let path = self.config_maps.clone();
        let prefix = self.clients.clock.name_suffix(8);
        let ask = move |number| {
            let object = small(&format!("{prefix}-{number}"));
            (Method::POST, path.clone(), Bytes::from(object.to_string()))
        };
        self.clients.run(clients, until, ask).await
    }
}

/// The names of a load's figures: its rate, latency and cost.
type Names = [&'static str; 3];

const GETS: [Names; 2] = [
    ["api.get_rate_1", "api.get_latency_1", "api.get_cpu_1"],
    ["api.get_rate_n", "api.get_latency_n", "api.get_cpu_n"],
];
const CREATES: [Names; 2] = [
    [
        "api.create_rate_1",
        "api.create_latency_1",
        "api.create_cpu_1",
    ],
    [
        "api.create_rate_n",
        "api.create_latency_n",
        "api.create_cpu_n",
    ],
];

fn add(report: &mut Report, [rate, latency, cpu]: &Names, run: &Run, target: f64) {
    report.add(Figure::new(rate, "1/s", run.rate));
    report.add(Figure::median(latency, "ms", &run.latencies));
    if let Some(cost) = run.cost {
        report.add(Figure::new(cpu, "µs", cost).below(target));
    }
}

async fn syncs(folder: &Path, clock: &Clock) -> Result<f64> {
    let (folder, clock): (PathBuf, Clock) = (folder.to_owned(), clock.clone());
    tokio::task::spawn_blocking(move || disk::syncs_per_second(&folder, DISK_TIME, &clock)).await?
}
