//! What guests that are broken or mean harm do to others: the latency of a neighbour's http requests and of the control
//! plane's GETs, beside each kind of them and without any.
//!
//! Both latencies are those of one client that asks again as soon as it was answered. They are taken without hostile
//! guests before and after each kind, so that what else changes on the machine shows in both.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Args;
use coracle_clock::Clock;
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::client::{Connection, Protocol};
use crate::cluster::{Binary, Cluster};
use crate::figures::{Figure, Report, Spread};
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
}

/// A kind of hostile guest, what the test guest `diagnose` is told to do, and the names of its figures: medians, then
/// 99th percentiles, of http and of the API.
struct Kind {
    what: &'static str,
    arguments: &'static [&'static str],
    figures: [&'static str; 4],
}

const KINDS: &[Kind] = &[
    Kind {
        what: "endless loops",
        arguments: &["spin"],
        figures: [
            "hostile.spin.http_median",
            "hostile.spin.api_median",
            "hostile.spin.http_p99",
            "hostile.spin.api_p99",
        ],
    },
    Kind {
        what: "floods of output",
        arguments: &["flood", "1000000000000"],
        figures: [
            "hostile.flood.http_median",
            "hostile.flood.api_median",
            "hostile.flood.http_p99",
            "hostile.flood.api_p99",
        ],
    },
    Kind {
        what: "memory hogs",
        arguments: &["hog"],
        figures: [
            "hostile.hog.http_median",
            "hostile.hog.api_median",
            "hostile.hog.http_p99",
            "hostile.hog.api_p99",
        ],
    },
    Kind {
        what: "recursion without an end",
        arguments: &["recurse"],
        figures: [
            "hostile.recurse.http_median",
            "hostile.recurse.api_median",
            "hostile.recurse.http_p99",
            "hostile.recurse.api_p99",
        ],
    },
];

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
    let allowed = folder.to_str().context("the guests' path is not UTF-8")?;
    let (cluster, _) = binary.up(&["--allow-images-from", allowed], clock).await?;
    let mut bench = Bench::start(&cluster, binary, clock.clone()).await?;
    let long = Duration::from_secs(hostile.seconds);
    // Caches fill, code is loaded.
    bench.latencies(long).await?;
    let mut before = bench.latencies(long).await?;
    report.add(Figure::median("hostile.none.http", "ms", &before.http));
    report.add(Figure::median("hostile.none.api", "ms", &before.api));
    for kind in KINDS {
        eprintln!("{} pods with {}", hostile.guests, kind.what);
        let names = bench.let_in(kind, &folder, hostile.guests).await?;
        let beside = bench.latencies(long).await?;
        bench.throw_out(&names).await?;
        let after = bench.latencies(long).await?;
        let alone = before.and(&after);
        let (http, api) = (
            ratios(&beside.http, &alone.http),
            ratios(&beside.api, &alone.api),
        );
        let ratios = [http.median, api.median, http.p99, api.p99];
        for (name, ratio) in kind.figures.into_iter().zip(ratios) {
            report.add(Figure::new(name, "times", ratio).below(FLAT));
        }
        before = after;
    }
    cluster.stop().await
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

    /// Starts pods of a kind, and waits until each has run.
    async fn let_in(&mut self, kind: &Kind, folder: &Path, count: u64) -> Result<Vec<String>> {
        let image = format!("file://{}", folder.join("diagnose.wasm").display());
        let mut names = Vec::new();
        for _ in 0..count {
            let name = format!("hostile-{}", self.clock.name_suffix(5));
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                    "name": "diagnose", "image": image, "args": kind.arguments,
                    "resources": {"limits": {"memory": "256Mi"}},
                }]},
            });
            self.api.create(PODS, &pod).await?;
            names.push(name);
        }
        for name in &names {
            let api = &mut self.api;
            let has_run = async {
                while !has_run(&api.get(&format!("{PODS}/{name}")).await?) {
                    sleep(Duration::from_millis(10)).await;
                }
                anyhow::Ok(())
            };
            timeout(LIMIT, has_run)
                .await
                .with_context(|| format!("pod {name} did not run"))??;
        }
        Ok(names)
    }

    async fn throw_out(&mut self, names: &[String]) -> Result<()> {
        for name in names {
            self.api.delete(&format!("{PODS}/{name}")).await?;
        }
        let api = &mut self.api;
        let gone = async {
            for name in names {
                let path = format!("{PODS}/{name}");
                while api
                    .exchange(Method::GET, &path, Bytes::new())
                    .await?
                    .0
                    .is_success()
                {
                    sleep(Duration::from_millis(10)).await;
                }
            }
            anyhow::Ok(())
        };
        timeout(LIMIT, gone)
            .await
            .context("hostile pods were not deleted")?
    }
}

/// Whether the pod's container runs, or has run.
fn has_run(pod: &Value) -> bool {
    let status = &pod["status"]["containerStatuses"][0];
    let states = [&status["state"], &status["lastState"]];
    states
        .iter()
        .any(|state| state["running"].is_object() || state["terminated"].is_object())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_crashes_has_run() {
        let pod = |status: Value| json!({"status": {"containerStatuses": [status]}});
        assert!(has_run(&pod(json!({"state": {"running": {}}}))));
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        assert!(has_run(&pod(
            json!({"state": waiting, "lastState": {"terminated": {}}})
        )));
        assert!(!has_run(&pod(json!({"state": waiting}))));
        assert!(!has_run(&json!({})));
    }

    #[test]
    fn every_kind_has_figures_of_its_own() {
        let mut names: Vec<&str> = KINDS.iter().flat_map(|kind| kind.figures).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
