//! `coracle-bench`: load and figures, as JSON or as a table.
//!
//! ```text
//! start    process start on an empty data directory ─▶ /readyz
//! latency  a created Pod (or Deployment) ─▶ Ready, the module already compiled
//! idle     memory, processor time and wake-ups while the guestbook runs and nobody asks
//! api      GETs and durable creates: rate, latency, processor time; lists of 10,000 objects, delivery of events,
//!          memory per object
//! pods     pods by the thousand: Ready one by one and all at once, and the memory of those that run
//! fairness latency of one user's requests alone, and while another floods the server
//! hostile  latency of a neighbour's http requests and of GETs beside guests that mean harm, as ratios
//! serve    requests per second to a wasi:http component through a Service, beside `wasmtime serve`
//! limits   what limits cost a guest that only computes, beside `wasmtime run`
//! net      connects, round trips, floods, Services and names of the pods' network, beside the kernel's loopback
//! endure   memory after a million objects came and went, starts with 100,000, latency under compaction
//! ```
//!
//! It stands outside the cluster: it starts the built binary as a user would, on loopback and with a
//! temporary data directory, and speaks HTTPS to it over connections that stay open. `api` also runs
//! against any other server of the Kubernetes API.
//!
//! What it deliberately does not do: it judges nothing. A missed target is a line in the output, not
//! a failure, because a figure is worth what the machine was doing at that moment.

mod access;
mod api;
mod client;
mod cluster;
mod disk;
mod endure;
mod fairness;
mod figures;
mod hostile;
mod idle;
mod kubeconfig;
mod latency;
mod limits;
mod load;
mod many;
mod net;
mod objects;
mod plain;
mod pods;
mod process;
mod run;
mod serve;
mod space;
mod start;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use coracle_clock::Clock;

use crate::access::Target;
use crate::cluster::{Binary, Program};
use crate::figures::Report;

/// Measures Coracle, or another server of the Kubernetes API, from outside.
#[derive(Debug, Parser)]
#[command(name = "coracle-bench", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print one JSON document instead of a table
    #[arg(long, global = true)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  cargo build --release && cargo run --release -p coracle-bench -- all --json
  coracle-bench start --runs 50
  coracle-bench api --kubeconfig ~/.kube/config --pid \"$(pidof kube-apiserver)\" --pid \"$(pidof etcd)\"
  coracle-bench api --server https://127.0.0.1:6443 --ca ca.crt --cert admin.crt --key admin.key --seconds 10

Figures mean something only in release builds and on a machine that does nothing else.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything, one after the other
    All {
        #[command(flatten)]
        binary: BinaryArgs,
    },
    /// From process start on an empty data directory to /readyz
    Start {
        #[command(flatten)]
        binary: BinaryArgs,
        /// How many times
        #[arg(long, default_value_t = start::RUNS)]
        runs: usize,
    },
    /// From the answer to a create to the pod Ready, the module already compiled
    Latency {
        #[command(flatten)]
        binary: BinaryArgs,
        /// How many pods, one at a time
        #[arg(long, default_value_t = latency::PODS)]
        pods: usize,
    },
    /// Memory, processor time and wake-ups while the guestbook runs and nobody asks
    Idle {
        #[command(flatten)]
        binary: BinaryArgs,
        /// How long to look
        #[arg(long, default_value_t = idle::SECONDS, value_parser = clap::value_parser!(u64).range(1..=600))]
        seconds: u64,
    },
    /// GETs, durable creates, lists, events and memory of this server or another
    Api {
        #[command(flatten)]
        binary: BinaryArgs,
        #[command(flatten)]
        load: api::Load,
        #[command(flatten)]
        target: Target,
    },
    /// Pods by the thousand: how fast they get ready, and what they weigh
    Pods {
        #[command(flatten)]
        binary: BinaryArgs,
        #[command(flatten)]
        pods: pods::Pods,
    },
    /// What a flood of one user does to another's latency
    Fairness {
        #[command(flatten)]
        binary: BinaryArgs,
        #[command(flatten)]
        fairness: fairness::Fairness,
    },
    /// The flood of `fairness`
    #[command(hide = true)]
    Flood(fairness::Flood),
    /// What guests that mean harm do to the latency of others
    Hostile {
        #[command(flatten)]
        binary: BinaryArgs,
        #[command(flatten)]
        hostile: hostile::Hostile,
    },
    /// Requests per second to a wasi:http component, beside `wasmtime serve`
    Serve {
        #[command(flatten)]
        binary: BinaryArgs,
        #[command(flatten)]
        serve: serve::Serve,
    },
    /// What limits cost a guest that only computes, beside `wasmtime run`
    Limits {
        #[command(flatten)]
        binary: BinaryArgs,
        #[command(flatten)]
        limits: limits::Limits,
    },
    /// The pods' network beside the kernel's: connects, round trips, floods, Services, names
    Net {
        #[command(flatten)]
        binary: BinaryArgs,
        #[command(flatten)]
        net: net::Net,
    },
    /// The kernel's side of `net`
    #[command(hide = true)]
    Peer(net::Peer),
    /// Memory after churn, starts with many objects, latency under compaction (with --serve)
    Endure {
        #[command(flatten)]
        binary: BinaryArgs,
        #[command(flatten)]
        endure: endure::Endure,
    },
}

#[derive(Debug, Args)]
struct BinaryArgs {
    /// The binary to measure [default: `coracle` beside this program]
    #[arg(long, value_name = "PATH")]
    coracle: Option<PathBuf>,
    /// Measure the API server alone instead: the example `serve` of coracle-server
    #[arg(long, value_name = "PATH", conflicts_with = "coracle")]
    serve: Option<PathBuf>,
    /// The folder of the samples
    #[arg(long, value_name = "DIR", default_value = "samples")]
    samples: PathBuf,
    /// Where temporary data directories are made; the disk that is measured [default: the system's]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Set NAME=VALUE in the environment of the binary; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
}

impl BinaryArgs {
    fn find(self) -> Result<Binary> {
        let (program, path) = match (self.serve, self.coracle) {
            (Some(path), _) => (Program::Serve, path),
            (None, Some(path)) => (Program::Coracle, path),
            (None, None) => (
                Program::Coracle,
                std::env::current_exe()
                    .context("failed to find this program's folder")?
                    .with_file_name("coracle"),
            ),
        };
        Binary::new(program, &path, &self.samples, self.scratch, self.env)
    }
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let apart = match &cli.command {
        Command::Fairness { fairness, .. } => fairness.move_apart(),
        _ => Ok(None),
    };
    match apart.and_then(|apart| run(cli, apart)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(cli: Cli, apart: Option<fairness::Apart>) -> Result<()> {
    let clock = Clock::system();
    let mut report = Report::new();
    match cli.command {
        Command::All { binary } => {
            let binary = binary.find()?;
            start::measure(&binary, start::RUNS, &clock, &mut report).await?;
            latency::measure(&binary, latency::PODS, &clock, &mut report).await?;
            idle::measure(&binary, idle::SECONDS, &clock, &mut report).await?;
            api::measure_own(&binary, &api::Load::default(), &clock, &mut report).await?;
        }
        Command::Start { binary, runs } => {
            start::measure(&binary.find()?, runs, &clock, &mut report).await?
        }
        Command::Latency { binary, pods } => {
            latency::measure(&binary.find()?, pods, &clock, &mut report).await?;
        }
        Command::Idle { binary, seconds } => {
            idle::measure(&binary.find()?, seconds, &clock, &mut report).await?;
        }
        Command::Pods { binary, pods } => {
            pods::measure(&binary.find()?, &pods, &clock, &mut report).await?;
        }
        Command::Fairness { binary, fairness } => {
            fairness::measure(&binary.find()?, &fairness, apart, &clock, &mut report).await?;
        }
        Command::Flood(flood) => return fairness::flood(&flood, &clock).await,
        Command::Hostile { binary, hostile } => {
            hostile::measure(&binary.find()?, &hostile, &clock, &mut report).await?;
        }
        Command::Serve { binary, serve } => {
            serve::measure(&binary.find()?, &serve, &clock, &mut report).await?;
        }
        Command::Limits { binary, limits } => {
            limits::measure(&binary.find()?, &limits, &clock, &mut report).await?;
        }
        Command::Net { binary, net } => {
            net::measure(&binary.find()?, &net, &clock, &mut report).await?;
        }
        Command::Peer(peer) => return peer.run(&clock),
        Command::Endure { binary, endure } => {
            endure::measure(&binary.find()?, &endure, &clock, &mut report).await?;
        }
        Command::Api {
            binary,
            load,
            target,
        } => match target.access()? {
            Some(access) => {
                let scratch = binary.scratch.unwrap_or_else(std::env::temp_dir);
                api::measure(access, target.pid, &scratch, &load, &clock, &mut report).await?;
            }
            None => api::measure_own(&binary.find()?, &load, &clock, &mut report).await?,
        },
    }
    if cli.json {
        report.print_json()
    } else {
        report.print_table()
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        super::Cli::command().debug_assert();
    }
}
