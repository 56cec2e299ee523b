//! The pods' network beside the kernel's, in the same run and by turns.
//!
//! ```text
//! counted     connects to a Service that counts them, and to one that does not
//! namespaces  connects between two namespaces, in this process      ─┐
//! guests      round trips, floods and connects between two pods      ├─ beside `peer`: the same over loopback TCP
//! many        memory of 10,000 connections between pods             ─┘
//! services    picks among 5,000 endpoints, how fast a change is seen ─┐ the example `picks` of coracle-services,
//! dns         names in process; processor time of answers over UDP   ─┘ and the binary from outside; beside an echo
//! ```
//!
//! What "the kernel's" is: a program like the guest, native, by blocking calls of the standard library between two
//! processes. With `--wasmtime` the guests of 0.2 also run there, on the sockets of the host.

mod counted;
mod dns;
mod guests;
mod many;
mod namespaces;
mod peer;
mod services;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use coracle_clock::Clock;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::client::{Connection, Protocol};
use crate::cluster::{Binary, Program};
use crate::figures::Report;

pub(crate) use peer::Peer;

/// How long one step may take.
const LIMIT: Duration = Duration::from_secs(120);
/// How often a pod is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";
/// Where guests serve.
const PORT: u16 = 7000;
/// Built from `tests/guests/src/speed` and `…/speed-inherited`, as is said there.
const SPEED: &[u8] = include_bytes!("../../../guests/wasm/speed.wasm");
const SPEED_INHERITED: &[u8] = include_bytes!("../../../guests/wasm/speed-inherited.wasm");

/// What to measure.
#[derive(Debug, Args)]
// A group of its own would be called as the command is.
#[group(skip)]
pub(crate) struct Net {
    /// Compare with guests in this `wasmtime`, too; of the version that Coracle is built with
    #[arg(long, value_name = "PATH")]
    wasmtime: Option<PathBuf>,
    /// The example `picks` of coracle-services [default: in the folder `examples` beside this program]
    #[arg(long, value_name = "PATH")]
    picks: Option<PathBuf>,
    /// How often each has its turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Round trips of one turn
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    round_trips: u64,
    /// MiB of one flood
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    mebibytes: u64,
    /// Connects of one turn
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=5000))]
    connects: u64,
    /// Connections that are open at once
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    connections: u64,
    /// Endpoints of the large Service
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(100..=50_000))]
    endpoints: u64,
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
}

/// A part of the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Namespaces,
    Counted,
    Guests,
    Many,
    Services,
    Dns,
}

impl Net {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

/// Measures everything that `net` wants.
pub(crate) async fn measure(
    binary: &Binary,
    net: &Net,
    clock: &Clock,
    report: &mut Report,
) -> Result<()> {
    ensure!(
        binary.program() == Program::Coracle,
        "the API server alone runs no pods"
    );
    if net.wants(Part::Namespaces) {
        namespaces::measure(net, clock, report).await?;
    }
    if net.wants(Part::Counted) {
        counted::measure(net, clock, report).await?;
    }
    if net.wants(Part::Services) {
        services::in_process(net, report).await?;
    }
    let modules = Modules::write(binary)?;
    let dns = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    let listen = format!("--dns-listen={dns}");
    let flags = ["--allow-images-from", modules.folder()?, listen.as_str()];
    let (cluster, _) = binary.up(&flags, clock).await?;
    let mut connection = Connection::open(&cluster.access, Protocol::Http1).await?;
    if net.wants(Part::Guests) {
        guests::measure(&mut connection, &modules, net, report).await?;
    }
    if net.wants(Part::Dns) {
        dns::measure(&mut connection, dns, cluster.pid, net, clock, report).await?;
    }
    if net.wants(Part::Services) {
        services::from_outside(&mut connection, dns, net, clock, report).await?;
    }
    if net.wants(Part::Many) {
        many::measure(&mut connection, cluster.pid, &modules, net, report).await?;
    }
    cluster.stop().await
}

/// The guests, in a folder of their own.
struct Modules {
    folder: TempDir,
    speed: PathBuf,
    inherited: PathBuf,
}

impl Modules {
    fn write(binary: &Binary) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("coracle-bench-")
            .tempdir_in(&binary.scratch)
            .context("failed to make a folder for the guests")?;
        let path = folder.path().canonicalize()?;
        let (speed, inherited) = (path.join("speed.wasm"), path.join("speed-inherited.wasm"));
        std::fs::write(&speed, SPEED)?;
        std::fs::write(&inherited, SPEED_INHERITED)?;
        Ok(Self {
            folder,
            speed,
            inherited,
        })
    }

    fn folder(&self) -> Result<&str> {
        let folder = self.speed.parent().unwrap_or(self.folder.path());
        folder.to_str().context("the folder's path is not UTF-8")
    }
}

/// A pod that runs a guest once.
fn pod(name: &str, module: &Path, args: &[&str]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [{
            "name": "speed", "image": format!("file://{}", module.display()), "args": args,
            "ports": [{"name": "speed", "containerPort": PORT}],
        }]},
    })
}

/// Starts a pod that serves; its address.
async fn serve(connection: &mut Connection, name: &str, module: &Path) -> Result<String> {
    let port = PORT.to_string();
    connection
        .create(PODS, &pod(name, module, &["serve", &port]))
        .await?;
    says(connection, name, "serving").await?;
    let pod = connection.get(&format!("{PODS}/{name}")).await?;
    let address = pod["status"]["podIP"].as_str();
    Ok(address.context("the pod has no address")?.to_owned())
}

/// Waits until a pod has printed a line that begins with `word`, or has failed; the line.
async fn says(connection: &mut Connection, name: &str, word: &str) -> Result<String> {
    let waiting = async {
        loop {
            let (status, log) = crate::run::log(connection, name).await?;
            if let Some(line) = log.lines().find(|line| line.starts_with(word))
                && status.is_success()
            {
                return Ok(line.to_owned());
            }
            let pod = connection.get(&format!("{PODS}/{name}")).await?;
            if pod["status"]["phase"] == "Failed" {
                bail!("the pod {name} failed: {log}");
            }
            sleep(LOOK_EVERY).await;
        }
    };
    let said = timeout(LIMIT, waiting).await;
    said.with_context(|| format!("the pod {name} did not say {word:?}"))?
}

/// Runs a pod to its end; what it printed.
async fn run(
    connection: &mut Connection,
    name: &str,
    module: &Path,
    args: &[&str],
) -> Result<String> {
    connection.create(PODS, &pod(name, module, args)).await?;
    crate::run::output(connection, name, LIMIT).await
}

/// The number that a program printed.
fn printed(text: &str) -> Result<f64> {
    let number = text.lines().last().unwrap_or_default().trim();
    number
        .parse()
        .with_context(|| format!("no number was printed: {text:?}"))
}

/// Each of `ours` by the one of `theirs` of the same round.
fn by_turns(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    let pairs = ours.iter().zip(theirs);
    pairs.map(|(ours, theirs)| ours / theirs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_number() {
        assert_eq!(printed("serving\n1234\n").unwrap(), 1234.0);
        assert!(printed("the other side has gone\n").is_err());
        assert!(printed("").is_err());
    }

    #[test]
    fn rounds_are_compared_with_themselves() {
        assert_eq!(by_turns(&[1.0, 4.0], &[2.0, 2.0]), [0.5, 2.0]);
    }
}
