//! `coracle-bench`: load and figures, as JSON or as a table.
//!
//! ```text
//! start    process start on an empty data directory ─▶ /readyz
//! latency  a created Pod (or Deployment) ─▶ Ready, the module already compiled
//! idle     memory, processor time and wake-ups while the guestbook runs and nobody asks
//! api      processor time per GET and per durable create, creates per second beside fdatasync
//! scale    lists of 10,000 objects, delivery of events, memory per object
//! ```
//!
//! It stands outside the cluster: it starts the built binary as a user would, on loopback and with a
//! temporary data directory, and speaks HTTPS to it over connections that stay open. `api` also runs
//! against any other server of the Kubernetes API, given its kubeconfig.
//!
//! What it deliberately does not do: it judges nothing. A missed target is a line in the output, not
//! a failure, because a figure is worth what the machine was doing at that moment.

mod api;
mod client;
mod cluster;
mod disk;
mod figures;
mod idle;
mod kubeconfig;
mod latency;
mod process;
mod scale;
mod start;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use coracle_clock::Clock;

use crate::cluster::Binary;
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
  coracle-bench api --kubeconfig ~/.kube/config --pid \"$(pidof kube-apiserver)\"

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
    /// Processor time per GET and per durable create, and creates per second
    Api {
        #[command(flatten)]
        binary: BinaryArgs,
        #[command(flatten)]
        load: api::Load,
        /// Measure this server instead of starting one; its objects are made in a namespace of
        /// their own, which is deleted at the end
        #[arg(long, value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
        /// The process of that server, for its processor time; repeatable (a server and its store)
        #[arg(long, requires = "kubeconfig")]
        pid: Vec<u32>,
    },
    /// Lists of 10,000 objects, delivery of events alone and among 1,000 watchers, memory per object
    Scale {
        #[command(flatten)]
        binary: BinaryArgs,
        #[command(flatten)]
        scale: scale::Scale,
    },
}

#[derive(Debug, Args)]
struct BinaryArgs {
    /// The binary to measure [default: `coracle` beside this program]
    #[arg(long, value_name = "PATH")]
    coracle: Option<PathBuf>,
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
        let path = match self.coracle {
            Some(path) => path,
            None => std::env::current_exe()
                .context("failed to find this program's folder")?
                .with_file_name("coracle"),
        };
        Binary::new(&path, &self.samples, self.scratch, self.env)
    }
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(cli: Cli) -> Result<()> {
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
        Command::Scale { binary, scale } => {
            scale::measure(&binary.find()?, &scale, &clock, &mut report).await?;
        }
        Command::Api {
            binary,
            load,
            kubeconfig: None,
            ..
        } => {
            api::measure_own(&binary.find()?, &load, &clock, &mut report).await?;
        }
        Command::Api {
            binary,
            load,
            kubeconfig: Some(kubeconfig),
            pid,
        } => {
            let scratch = binary.scratch.unwrap_or_else(std::env::temp_dir);
            api::measure_other(&kubeconfig, &pid, &scratch, &load, &clock, &mut report).await?;
        }
    }
    if cli.json {
        report.print_json()
    } else {
        report.print_table()
    }
    Ok(())
}
