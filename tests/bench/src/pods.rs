//! Pods by the thousand: how fast one and a thousand of them get ready, and what ten thousand weigh.

mod answers;
mod following;

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use clap::Args;
use coracle_clock::Clock;
use http::Method;
use serde_json::{Value, json};

use crate::client::{Connection, Protocol};
use crate::cluster::{Binary, Cluster};
use crate::figures::{Figure, Report, Spread};
use crate::latency::Runner;
use crate::process::{Memory, Sample};

use following::Following;

/// Milliseconds from the answer to a create to Ready: the median and the 99th percentile.
const READY_TARGET: f64 = 5.0;
const READY_P99_TARGET: f64 = 25.0;
/// Seconds from the request for a thousand replicas to the last one Ready.
const REPLICAS_TARGET: f64 = 2.0;
/// Mebibytes of resident memory with ten thousand pods.
const MEMORY_TARGET: f64 = 2048.0;
/// Bounds what may take minutes on a busy machine.
const LIMIT: Duration = Duration::from_secs(600);
/// Lets statuses, Events and what the load left behind pass before memory is read.
const SETTLE: Duration = Duration::from_secs(10);

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const PODS: &str = "/api/v1/namespaces/default/pods";

/// A command that sleeps for an hour at a time, and needs one page of memory for it.
const SLEEPER: &str = r#"(module
  (import "wasi_snapshot_preview1" "poll_oneoff"
    (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 16) (i32.const 1))            ;; the monotonic clock
    (i64.store (i32.const 24) (i64.const 3600000000000)) ;; nanoseconds from now
    (loop $forever
      (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))
      (br $forever))))"#;

/// How many pods.
#[derive(Debug, Clone, Args)]
// A group of its own would be called as the command is.
#[group(skip)]
pub(crate) struct Pods {
    /// Pods that get ready one after the other; 0 leaves this out
    #[arg(long, default_value_t = 300)]
    alone: usize,
    /// Replicas that one Deployment is scaled to; 0 leaves this out
    #[arg(long, default_value_t = 1_000)]
    replicas: usize,
    /// How often it is scaled, each time from none
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Pods at rest that serve http; 0 leaves this out
    #[arg(long, default_value_t = 10_000)]
    resting: usize,
    /// Pods that each run a command; 0 leaves this out
    #[arg(long, default_value_t = 2_000)]
    commands: usize,
}

impl Default for Pods {
    fn default() -> Self {
        Self {
            alone: 300,
            replicas: 1_000,
            runs: 3,
            resting: 10_000,
            commands: 2_000,
        }
    }
}

/// Measures all of it, each part on a cluster of its own.
pub(crate) async fn measure(
    binary: &Binary,
    pods: &Pods,
    clock: &Clock,
    report: &mut Report,
) -> Result<()> {
    let http = binary.samples.join("hello-http/wasm/hello-http.wasm");
    let http = Guest {
        image: format!("file://{}", http.display()),
        http: true,
    };
    if pods.alone > 0 {
        alone(binary, &http, pods.alone, clock, report).await?;
    }
    if pods.replicas > 0 {
        replicas(binary, &http, pods, clock, report).await?;
    }
    if pods.resting > 0 {
        let names = [
            "pods.resting",
            "pods.resting_ready",
            "pods.resting_memory",
            "pods.resting_memory_per_pod",
            "pods.resting_processor",
        ];
        many(binary, &http, pods.resting, names, clock, report).await?;
    }
    if pods.commands > 0 {
        let folder = tempfile::tempdir_in(&binary.scratch)?;
        let path = folder.path().canonicalize()?.join("sleeper.wasm");
        std::fs::write(&path, wat::parse_str(SLEEPER)?)?;
        let command = Guest {
            image: format!("file://{}", path.display()),
            http: false,
        };
        let names = [
            "pods.commands",
            "pods.commands_ready",
            "pods.commands_memory",
            "pods.commands_memory_per_pod",
            "pods.commands_processor",
        ];
        many(binary, &command, pods.commands, names, clock, report).await?;
    }
    Ok(())
}

/// What pods run.
struct Guest {
    image: String,
    http: bool,
}

impl Guest {
    /// The folder that the node has to allow.
    fn folder(&self) -> &str {
        let path = self.image.trim_start_matches("file://");
        path.rsplit_once('/').map_or("/", |(folder, _)| folder)
    }

    fn deployment(&self, name: &str, replicas: usize) -> Value {
        let labels = json!({"app": name});
        let mut container = json!({"name": "main", "image": self.image});
        if self.http {
            container["ports"] = json!([{"name": "http", "containerPort": 8080}]);
            // It says in its answers which one it is.
            let name = json!({"fieldRef": {"fieldPath": "metadata.name"}});
            container["env"] = json!([{"name": "POD_NAME", "valueFrom": name}]);
        }
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
                },
            },
        })
    }
}

/// One pod after the other, on a node that has nothing else to do.
async fn alone(
    binary: &Binary,
    guest: &Guest,
    pods: usize,
    clock: &Clock,
    report: &mut Report,
) -> Result<()> {
    let (cluster, _) = binary.up(&[], clock).await?;
    let mut runner = Runner::open(&cluster.access, clock).await?;
    let times = runner.pods(pods, &guest.image).await?;
    let ready: Vec<f64> = times.iter().map(|times| times.after_answer).collect();
    report.add(Figure::median("pods.ready", "ms", &ready).below(READY_TARGET));
    let p99 = Spread::of(&ready).p99;
    report.add(Figure::new("pods.ready_p99", "ms", p99).below(READY_P99_TARGET));
    cluster.stop().await
}

/// A Deployment of none is scaled, behind a Service, as often as asked for.
async fn replicas(
    binary: &Binary,
    guest: &Guest,
    pods: &Pods,
    clock: &Clock,
    report: &mut Report,
) -> Result<()> {
    let (cluster, _) = binary
        .up(&["--allow-images-from", guest.folder()], clock)
        .await?;
    let mut connection = Connection::open(&cluster.access, Protocol::Http1).await?;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "crowd"},
        "spec": {"selector": {"app": "crowd"}, "ports": [{"port": 80, "targetPort": "http"}]},
    });
    connection
        .create("/api/v1/namespaces/default/services", &service)
        .await?;
    let mut following = Following::open(&cluster.access, PODS).await?;
    // The module is compiled, and the Service has its first slice.
    connection
        .create(DEPLOYMENTS, &guest.deployment("crowd", 1))
        .await?;
    following.until(LIMIT, |all| all.ready() == 1).await?;
    scale(&mut connection, 0).await?;
    following.until(LIMIT, |all| all.exist() == 0).await?;

    let (mut ready, mut gone, mut used) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..pods.runs {
        let (start, before) = (clock.monotonic(), Sample::take(&[cluster.pid])?);
        scale(&mut connection, pods.replicas).await?;
        following
            .until(LIMIT, |all| all.ready() == pods.replicas)
            .await?;
        ready.push((clock.monotonic() - start).as_secs_f64());
        let after = Sample::take(&[cluster.pid])?;
        used.push(after.since(&before).microseconds / pods.replicas as f64);
        let start = clock.monotonic();
        scale(&mut connection, 0).await?;
        following.until(LIMIT, |all| all.exist() == 0).await?;
        gone.push((clock.monotonic() - start).as_secs_f64());
    }
    report.add(Figure::median("pods.replicas_ready", "s", &ready).below(REPLICAS_TARGET));
    report.add(Figure::median("pods.replicas_cpu_per_pod", "µs", &used));
    report.add(Figure::median("pods.replicas_gone", "s", &gone));
    cluster.stop().await
}

async fn scale(connection: &mut Connection, replicas: usize) -> Result<()> {
    let path = format!("{DEPLOYMENTS}/crowd/scale");
    // Without a version: its status is being written all the time.
    let scale = json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale",
        "metadata": {"name": "crowd", "namespace": "default"}, "spec": {"replicas": replicas},
    });
    let body = Bytes::from(scale.to_string());
    connection.call(Method::PUT, &path, body).await.map(drop)
}

/// So many pods at once, and what they weigh when nothing goes on any more.
async fn many(
    binary: &Binary,
    guest: &Guest,
    pods: usize,
    names: [&'static str; 5],
    clock: &Clock,
    report: &mut Report,
) -> Result<()> {
    let [count, ready, memory, per_pod, processor] = names;
    let (cluster, _) = binary
        .up(&["--allow-images-from", guest.folder()], clock)
        .await?;
    let mut connection = Connection::open(&cluster.access, Protocol::Http1).await?;
    let mut following = Following::open(&cluster.access, PODS).await?;
    let before = Memory::of(cluster.pid)?;
    let start = clock.monotonic();
    connection
        .create(DEPLOYMENTS, &guest.deployment("many", pods))
        .await?;
    following.until(LIMIT, |all| all.ready() == pods).await?;
    report.add(Figure::new(count, "", pods as f64));
    let took = (clock.monotonic() - start).as_secs_f64();
    report.add(Figure::new(ready, "s", took));
    drop(following);
    rest(
        &cluster,
        before,
        pods,
        [memory, per_pod, processor],
        clock,
        report,
    )
    .await?;
    if guest.http {
        // They are not only said to run.
        answers::each(&cluster.access, clock, report).await?;
    }
    // Its ten thousand statuses of the end are of no interest to anybody.
    cluster.end(rustix::process::Signal::KILL).await.map(drop)
}

/// Memory and processor time of a cluster that is left alone.
async fn rest(
    cluster: &Cluster,
    before: Memory,
    pods: usize,
    [memory, per_pod, processor]: [&'static str; 3],
    clock: &Clock,
    report: &mut Report,
) -> Result<()> {
    tokio::time::sleep(SETTLE).await;
    let now = Memory::of(cluster.pid)?;
    report.add(Figure::new(memory, "MiB", now.resident).below(MEMORY_TARGET));
    let each = (now.anonymous - before.anonymous) * 1024.0 / pods as f64;
    report.add(Figure::new(per_pod, "KiB", each));
    let (start, sample) = (clock.monotonic(), Sample::take(&[cluster.pid])?);
    tokio::time::sleep(SETTLE).await;
    let used = Sample::take(&[cluster.pid])?.since(&sample);
    let took = (clock.monotonic() - start).as_secs_f64();
    let percent = used.microseconds / took / 10_000.0;
    report.add(Figure::new(processor, "%", percent));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_a_module() {
        let bytes = wat::parse_str(SLEEPER).expect("valid");
        assert!(bytes.starts_with(b"\0asm"));
    }

    #[test]
    fn only_http_guests_have_a_port() {
        let guest = |http| Guest {
            image: "file:///a/b.wasm".to_owned(),
            http,
        };
        assert_eq!(guest(true).folder(), "/a");
        let container = |http| {
            let deployment = guest(http).deployment("a", 3);
            assert_eq!(deployment["spec"]["replicas"], 3);
            deployment["spec"]["template"]["spec"]["containers"][0].clone()
        };
        assert_eq!(container(true)["ports"][0]["containerPort"], 8080);
        assert!(container(false)["ports"].is_null());
    }
}
