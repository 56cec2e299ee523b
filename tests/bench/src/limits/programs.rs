//! Programs that people use, which compute for some seconds: how long they take from the pod's create, or the process's
//! start, until they have ended. Compiling is not part of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use coracle_clock::Clock;
use serde_json::json;
use tokio::process::Command;

use super::{LIMIT, Limits, PODS, TARGET, succeed, text};
use crate::client::Connection;
use crate::figures::{Figure, Report};
use crate::run::to_the_end;

/// How exact a pod's time is.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Where programs find `INPUT`.
const INPUT_FOLDER: &str = "/input";
/// A circuit that is work to make of cells: a product of two numbers.
const INPUT: (&str, &str) = (
    "top.v",
    "module top(input [31:0] a, b, output [63:0] y); assign y = a * b; endmodule\n",
);
/// Joins, sorts and sums of numbers and texts.
const QUERY: &str = "
    pragma temp_store = memory;
    create table facts as with recursive n(i) as (values(1) union all select i + 1 from n where i < 1200000)
        select i, i * 7919 % 10007 as k, 'name ' || (i * 31 % 1009) as name from n;
    create index by_k on facts(k);
    select count(*), sum(length(a.name)) from facts a join facts b on b.k = a.k where a.i % 20 = 0;
    select name, count(*), avg(k) from facts group by name order by 3 desc limit 3;
    select sum(k) from (select k from facts where name like '%7%' order by name, k desc);";

/// A program, and what it is told.
struct Workload {
    figure: &'static str,
    file: &'static str,
    arguments: &'static [&'static str],
    /// A folder beside it, and where the program has it.
    share: Option<(&'static str, &'static str)>,
}

const WORKLOADS: [Workload; 3] = [
    Workload {
        figure: "limits.sqlite_by_wasmtime",
        file: "sqlite3.wasm",
        arguments: &[":memory:", QUERY],
        share: None,
    },
    Workload {
        figure: "limits.yosys_by_wasmtime",
        file: "yosys.wasm",
        arguments: &[
            "-q",
            "-p",
            "read_verilog /input/top.v; synth_ice40 -top top",
        ],
        share: Some(("yosys-share", "/share")),
    },
    Workload {
        figure: "limits.python_by_wasmtime",
        file: "app-py.wasm",
        arguments: &["compute"],
        share: None,
    },
];

/// The folder with all of them.
pub(super) struct Languages(PathBuf);

/// Where pods are made.
pub(super) struct Pods {
    pub(super) connection: Connection,
    pub(super) clock: Clock,
}

impl Languages {
    /// Checks that everything is there.
    pub(super) fn find(folder: &Path) -> Result<Self> {
        let is_there = |workload: &Workload| {
            let share = workload.share.map(|(share, _)| folder.join(share));
            folder.join(workload.file).is_file() && share.is_none_or(|share| share.is_dir())
        };
        ensure!(
            WORKLOADS.iter().all(is_there),
            "{} has not all programs: .ci/languages makes it",
            folder.display()
        );
        Ok(Self(folder.canonicalize()?))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.0
    }

    /// Runs each in turns, in a pod and in `wasmtime`.
    pub(super) async fn measure(
        &self,
        pods: &mut Pods,
        limits: &Limits,
        scratch: &Path,
        report: &mut Report,
    ) -> Result<()> {
        let input = scratch.canonicalize()?.join("input");
        std::fs::create_dir(&input)?;
        std::fs::write(input.join(INPUT.0), INPUT.1)?;
        let mut product = 1.0;
        for workload in &WORKLOADS {
            eprintln!("{}", workload.file);
            let mut command = self.command(workload, &limits.wasmtime, &input).await?;
            // The first is compiled, and nobody's files are in the system's cache.
            self.pod(pods, workload, &input).await?;
            let (mut ours, mut theirs) = (Duration::MAX, Duration::MAX);
            for _ in 0..limits.rounds {
                ours = ours.min(self.pod(pods, workload, &input).await?);
                theirs = theirs.min(process(&mut command, &pods.clock).await?);
            }
            eprintln!("{ours:.2?} in a pod, {theirs:.2?} in wasmtime");
            let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
            product *= ratio;
            report.add(Figure::new(workload.figure, "", ratio));
        }
        let mean = f64::powf(product, 1.0 / WORKLOADS.len() as f64);
        report.add(Figure::new("limits.programs_by_wasmtime", "", mean).below(TARGET));
        Ok(())
    }

    /// How long it takes in a pod with limits that it does not reach.
    async fn pod(&self, pods: &mut Pods, workload: &Workload, input: &Path) -> Result<Duration> {
        let mut volumes = vec![json!({"name": "input", "hostPath": {"path": text(input)?}})];
        let mut mounts = vec![json!({"name": "input", "mountPath": INPUT_FOLDER})];
        if let Some((folder, at)) = workload.share {
            let folder = self.0.join(folder);
            volumes.push(json!({"name": "share", "hostPath": {"path": text(&folder)?}}));
            mounts.push(json!({"name": "share", "mountPath": at}));
        }
        let image = format!("file://{}", self.0.join(workload.file).display());
        let name = format!("program-{}", pods.clock.name_suffix(5));
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "volumes": volumes,
                "containers": [{
                    "name": "program", "image": image, "args": workload.arguments, "volumeMounts": mounts,
                    "resources": {"limits": {"cpu": "4", "memory": "2Gi"}, "requests": {"cpu": "100m", "memory": "1Mi"}},
                }],
            },
        });
        let start = pods.clock.monotonic();
        pods.connection.create(PODS, &pod).await?;
        to_the_end(&mut pods.connection, &name, LIMIT, LOOK_EVERY).await?;
        let took = pods.clock.monotonic() - start;
        pods.connection.delete(&format!("{PODS}/{name}")).await?;
        Ok(took)
    }

    /// How it is run without limits, once it is compiled.
    async fn command(&self, workload: &Workload, wasmtime: &Path, input: &Path) -> Result<Command> {
        let compiled = input.with_file_name(workload.file).with_extension("cwasm");
        let mut command = Command::new(wasmtime);
        command.args(["compile", "--output", text(&compiled)?]);
        succeed(command.arg(self.0.join(workload.file))).await?;
        let mut command = Command::new(wasmtime);
        command.args(["run", "--allow-precompiled"]);
        command
            .arg("--dir")
            .arg(format!("{}::{INPUT_FOLDER}", input.display()));
        command.args(["--dir", &format!("{}::/tmp", text(input)?)]);
        if let Some((folder, at)) = workload.share {
            let folder = self.0.join(folder);
            command
                .arg("--dir")
                .arg(format!("{}::{at}", folder.display()));
        }
        command
            .arg(compiled)
            .args(workload.arguments)
            .kill_on_drop(true);
        Ok(command)
    }
}

async fn process(command: &mut Command, clock: &Clock) -> Result<Duration> {
    let start = clock.monotonic();
    succeed(command).await?;
    Ok(clock.monotonic() - start)
}
