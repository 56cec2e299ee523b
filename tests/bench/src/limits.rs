//! What limits cost a guest that only computes: the same module in a pod with limits and in `wasmtime run`,
//! which interrupts and counts nothing, in turns. Besides small loops, whose parts measure themselves, these may be
//! programs that people use ([`programs`]).

mod programs;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use coracle_clock::Clock;
use serde_json::json;
use tokio::process::Command;
use tokio::time::timeout;

use crate::client::{Connection, Protocol};
use crate::cluster::{Binary, Program};
use crate::figures::{Figure, Report};
use crate::run;

/// How long one run may take; the first of a program in a pod is compiled, too.
const LIMIT: Duration = Duration::from_secs(600);
const PODS: &str = "/api/v1/namespaces/default/pods";
/// Built from `guest/compute.c`, as is said there.
const COMPUTE: &[u8] = include_bytes!("../testdata/compute.wasm");
/// By what factor a guest may be slower.
const TARGET: f64 = 1.1;
/// The parts of the module, with the names of their figures.
const PARTS: [(&str, &str); 6] = [
    ("cipher", "limits.cipher_by_wasmtime"),
    ("sort", "limits.sort_by_wasmtime"),
    ("words", "limits.words_by_wasmtime"),
    ("matrix", "limits.matrix_by_wasmtime"),
    ("bodies", "limits.bodies_by_wasmtime"),
    ("calls", "limits.calls_by_wasmtime"),
];

/// What to measure.
#[derive(Debug, Args)]
// A group of its own would be called as the command is.
#[group(skip)]
pub(crate) struct Limits {
    /// The `wasmtime` to compare with, of the version that Coracle is built with
    #[arg(long, value_name = "PATH")]
    wasmtime: PathBuf,
    /// How often each has its turn
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Also measure SQLite, yosys and CPython, from the folder that `.ci/languages` makes
    #[arg(long, value_name = "DIR")]
    languages: Option<PathBuf>,
}

/// Nanoseconds of each part: the least of all turns, as whatever else the machine does only adds to it.
type Times = [f64; PARTS.len()];

/// Measures both in turns.
pub(crate) async fn measure(
    binary: &Binary,
    limits: &Limits,
    clock: &Clock,
    report: &mut Report,
) -> Result<()> {
    ensure!(
        binary.program() == Program::Coracle,
        "the API server alone runs no pods"
    );
    let folder = tempfile::Builder::new()
        .prefix("coracle-bench-")
        .tempdir_in(&binary.scratch)
        .context("failed to make a folder for the module")?;
    let module = folder.path().canonicalize()?.join("compute.wasm");
    std::fs::write(&module, COMPUTE)?;
    let allowed = folder.path().canonicalize()?;
    let mut flags = vec!["--allow-images-from", text(&allowed)?];
    let languages = match &limits.languages {
        Some(languages) => Some(programs::Languages::find(languages)?),
        None => None,
    };
    if let Some(languages) = &languages {
        flags.extend(["--allow-images-from", text(languages.folder())?]);
    }
    let (cluster, _) = binary.up(&flags, clock).await?;
    let mut connection = Connection::open(&cluster.access, Protocol::Http1).await?;
    let (mut ours, mut theirs) = ([f64::INFINITY; PARTS.len()], [f64::INFINITY; PARTS.len()]);
    for round in 0..limits.rounds {
        let name = format!("limits-{round}");
        keep_least(&mut ours, run_pod(&mut connection, &name, &module).await?);
        keep_least(&mut theirs, run_wasmtime(&limits.wasmtime, &module).await?);
    }
    let mut product = 1.0;
    for (index, (_, name)) in PARTS.iter().enumerate() {
        let ratio = ours[index] / theirs[index];
        product *= ratio;
        report.add(Figure::new(name, "", ratio));
    }
    // Of ratios, the geometric mean is the fair one.
    let mean = product.powf(1.0 / PARTS.len() as f64);
    report.add(Figure::new("limits.time_by_wasmtime", "", mean).below(TARGET));
    if let Some(languages) = languages {
        let mut pods = programs::Pods {
            connection,
            clock: clock.clone(),
        };
        languages
            .measure(&mut pods, limits, folder.path(), report)
            .await?;
    }
    cluster.stop().await
}

fn text(path: &Path) -> Result<&str> {
    let text = path.to_str();
    text.with_context(|| format!("{} is not UTF-8", path.display()))
}

fn keep_least(least: &mut Times, times: Times) {
    for (least, time) in least.iter_mut().zip(times) {
        *least = least.min(time);
    }
}

/// Runs the module in a pod with limits that it does not reach.
async fn run_pod(connection: &mut Connection, name: &str, module: &Path) -> Result<Times> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [{
            "name": "compute", "image": format!("file://{}", module.display()),
            "resources": {"limits": {"cpu": "4", "memory": "64Mi"}, "requests": {"cpu": "100m"}},
        }]},
    });
    connection.create(PODS, &pod).await?;
    read(&run::output(connection, name, LIMIT).await?)
}

/// What a command prints; fails as it does.
async fn succeed(command: &mut Command) -> Result<String> {
    let output = timeout(LIMIT, command.output()).await;
    let output = output.context("wasmtime did not end")?;
    let output = output.context("failed to run wasmtime: name it with --wasmtime")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "wasmtime failed: {errors}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs the module by itself.
async fn run_wasmtime(wasmtime: &Path, module: &Path) -> Result<Times> {
    let mut command = Command::new(wasmtime);
    command.arg("run").arg(module).kill_on_drop(true);
    read(&succeed(&mut command).await?)
}

/// Reads what the module prints.
fn read(text: &str) -> Result<Times> {
    let mut times = [0.0; PARTS.len()];
    for (time, (part, _)) in times.iter_mut().zip(PARTS) {
        let number = text.lines().find_map(|line| line.strip_prefix(part));
        let number = number.with_context(|| format!("the guest said nothing of {part}: {text}"))?;
        *time = number.trim().parse()?;
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_module_prints_is_understood() {
        let text = "cipher 10\nsort 20\nwords 30\nmatrix 40\nbodies 50\ncalls 60\n";
        let times = read(text).expect("all parts are there");
        assert_eq!(times, [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]);
        assert!(read("cipher 1\n").is_err());
        assert!(COMPUTE.starts_with(b"\0asm"));
    }

    #[test]
    fn the_least_counts() {
        let mut least = [5.0, 1.0, 5.0, 1.0, 5.0, 1.0];
        keep_least(&mut least, [2.0; 6]);
        assert_eq!(least, [2.0, 1.0, 2.0, 1.0, 2.0, 1.0]);
    }
}
