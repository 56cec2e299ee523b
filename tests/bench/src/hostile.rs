//! What guests that are broken or mean harm do to others: the latency of a neighbour's http requests and of the control
//! plane's GETs, beside each kind of them and without any.
//!
//! Both latencies are those of one client that asks again as soon as it was answered. They are taken without hostile
//! guests before and after each kind, so that what else changes on the machine shows in both. With `--wasmtime` they are
//! also taken beside the same guests in processes of their own, as nice as can be: how flat the system keeps them.

mod intruders;
mod kinds;
mod processes;
mod programs;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Args;
use coracle_clock::Clock;
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::client::{Connection, Protocol};
use crate::cluster::{Binary, Cluster};
use crate::figures::{Figure, Report, Spread};
use crate::hostile::intruders::Intruders;
use crate::hostile::kinds::{KINDS, Kind};
use crate::hostile::processes::Processes;
use crate::latency::is_ready;
use crate::load::milliseconds;

/// How long something may take to come about.
const LIMIT: Duration = Duration::from_secs(60);
/// What a latency beside a hostile guest should stay below, as a multiple of that without.
const FLAT: f64 = 2.0;

const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const NEIGHBOUR: &str = "neighbour";

/// How hard to try.
#[derive(Debug, Clone, Args)]
// A group of its own would be called as the command is.
#[group(skip)]
pub(crate) struct Hostile {
    /// Seconds of each measurement
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Pods of each kind of hostile guest
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=64))]
    guests: u64,
    /// The folder of the test guests [default: tests/guests/wasm beside the samples]
    #[arg(long, value_name = "DIR")]
    test_guests: Option<PathBuf>,
    /// Compare with the same guests as processes of this `wasmtime`, of the version that Coracle is built with, which are
    /// as nice as can be
    #[arg(long, value_name = "PATH")]
    wasmtime: Option<PathBuf>,
    /// Only kinds whose figures have this in their name; repeatable [default: all]
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
}

/// Starts a cluster with a neighbour, and measures it beside each kind of hostile guest.
pub(crate) async fn measure(
    binary: &Binary,
    hostile: &Hostile,
    clock: &Clock,
    report: &mut Report,
) -> Result<()> {
    let folder = match &hostile.test_guests {
        Some(folder) => folder.clone(),
        None => binary.samples.join("../tests/guests/wasm"),
    };
    let folder = folder.canonicalize().with_context(|| {
        let folder = folder.display();
        format!("failed to find {folder}: name the folder of the guests with --test-guests")
    })?;
    let made = tempfile::Builder::new()
        .prefix("coracle-bench-")
        .tempdir_in(&binary.scratch)
        .context("failed to make a folder for images")?;
    let [folder_text, made_text] =
        [&*folder, made.path()].map(|path| path.to_str().context("a folder's name is not UTF-8"));
    let flags = [
        "--allow-images-from",
        folder_text?,
        "--allow-images-from",
        made_text?,
    ];
    let (cluster, _) = binary.up(&flags, clock).await?;
    let long = Duration::from_secs(hostile.seconds);
    let mut bench = Bench::start(&cluster, binary, clock.clone()).await?;
    let mut intruders =
        Intruders::new(&cluster, folder, made.path(), hostile.guests, long, clock).await?;
    // Caches fill, code is loaded.
    bench.latencies(long).await?;
    let mut before = bench.latencies(long).await?;
    report.add(Figure::median("hostile.none.http", "ms", &before.http));
    report.add(Figure::median("hostile.none.api", "ms", &before.api));
    for kind in KINDS.iter().filter(|kind| hostile.wants(kind)) {
        eprintln!("{} pods with {}", hostile.guests, kind.what);
        let beside = intruders.beside(kind, bench.latencies(long)).await?;
        let after = bench.latencies(long).await?;
        let alone = before.and(&after);
        let (http, api) = (
            ratios(&beside.http, &alone.http),
            ratios(&beside.api, &alone.api),
        );
        let mut all = vec![http.median, api.median, http.p99, api.p99];
        before = after;
        if let Some(wasmtime) = &hostile.wasmtime {
            eprintln!("{} processes with {}", hostile.guests, kind.what);
            let images = intruders.images(&kind.program)?;
            let processes =
                Processes::start(wasmtime, &kind.program, images, hostile.guests).await?;
            let theirs = bench.latencies(long).await?;
            processes.stop().await?;
            all.push(ratios(&beside.http, &theirs.http).p99);
            all.push(ratios(&beside.api, &theirs.api).p99);
            before = bench.latencies(long).await?;
        }
        for (name, ratio) in kind.figures.into_iter().zip(all) {
            report.add(Figure::new(name, "times", ratio).below(FLAT));
        }
    }
    cluster.stop().await
}

impl Hostile {
    fn wants(&self, kind: &Kind) -> bool {
        let is_named = |text: &String| kind.figures.iter().any(|name| name.contains(text.as_str()));
        self.only.is_empty() || self.only.iter().any(is_named)
    }
}

/// How many times as long.
struct Ratios {
    median: f64,
    p99: f64,
}

fn ratios(beside: &[f64], alone: &[f64]) -> Ratios {
    let (beside, alone) = (Spread::of(beside), Spread::of(alone));
    Ratios {
        median: beside.median / alone.median,
        p99: beside.p99 / alone.p99,
    }
}

/// Milliseconds of single requests.
struct Latencies {
    http: Vec<f64>,
    api: Vec<f64>,
}

impl Latencies {
    fn and(&self, other: &Self) -> Self {
        let both = |a: &[f64], b: &[f64]| [a, b].concat();
        Self {
            http: both(&self.http, &other.http),
            api: both(&self.api, &other.api),
        }
    }
}

/// A cluster, and connections to it and to the neighbour.
struct Bench {
    clock: Clock,
    api: Connection,
    http: SendRequest<Empty<Bytes>>,
}

impl Bench {
    /// Runs the neighbour behind a node port.
    async fn start(cluster: &Cluster, binary: &Binary, clock: Clock) -> Result<Self> {
        let mut api = Connection::open(&cluster.access, Protocol::Http1).await?;
        let image = binary.samples.join("hello-http/wasm/hello-http.wasm");
        let image = format!("file://{}", image.display());
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": NEIGHBOUR, "labels": {"app": NEIGHBOUR}},
            "spec": {"containers": [{
                "name": "hello", "image": image, "ports": [{"name": "http", "containerPort": 8080}],
            }]},
        });
        api.create(PODS, &pod).await?;
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": NEIGHBOUR},
            "spec": {
                "type": "NodePort", "selector": {"app": NEIGHBOUR},
                "ports": [{"port": 80, "targetPort": "http"}],
            },
        });
        let service = api.create(SERVICES, &service).await?;
        let port = service["spec"]["ports"][0]["nodePort"].as_u64();
        let port = u16::try_from(port.context("the Service has no node port")?)?;
        let answers = async {
            while !is_ready(&api.get(&format!("{PODS}/{NEIGHBOUR}")).await?) {
                sleep(Duration::from_millis(10)).await;
            }
            loop {
                // The port is opened, and led to the pod, a moment later.
                if let Ok(mut http) = connect(port).await
                    && ask(&mut http).await.is_ok()
                {
                    return anyhow::Ok(http);
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        let http = timeout(LIMIT, answers)
            .await
            .context("the neighbour did not answer")??;
        Ok(Self { clock, api, http })
    }

    /// Asks the neighbour and the API in turn, for so long.
    async fn latencies(&mut self, long: Duration) -> Result<Latencies> {
        let (mut http, mut api) = (Vec::new(), Vec::new());
        let path = format!("{PODS}/{NEIGHBOUR}");
        let end = self.clock.monotonic() + long;
        while self.clock.monotonic() < end {
            let start = self.clock.monotonic();
            ask(&mut self.http).await?;
            let between = self.clock.monotonic();
            self.api.call(Method::GET, &path, Bytes::new()).await?;
            let done = self.clock.monotonic();
            http.push(milliseconds(between - start));
            api.push(milliseconds(done - between));
        }
        Ok(Latencies { http, api })
    }
}

async fn connect(port: u16) -> Result<SendRequest<Empty<Bytes>>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn ask(http: &mut SendRequest<Empty<Bytes>>) -> Result<()> {
    http.ready().await?;
    let request = Request::get("/").header("host", NEIGHBOUR);
    let answer = http.send_request(request.body(Empty::new())?).await?;
    let status = answer.status();
    answer.into_body().collect().await?;
    if !status.is_success() {
        bail!("the neighbour answered {status}");
    }
    Ok(())
}
