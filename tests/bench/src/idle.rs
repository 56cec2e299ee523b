//! What the guestbook costs while nobody asks for anything.

use std::time::Duration;

use anyhow::{Context, Result};
use coracle_clock::Clock;
use tokio::time::{sleep, timeout};

use crate::client::{Connection, Protocol};
use crate::cluster::Binary;
use crate::figures::{Figure, Report};
use crate::latency::is_ready;
use crate::process::{Memory, Sample};

/// How long is looked by default.
pub(crate) const SECONDS: u64 = 30;
/// Mebibytes.
const MEMORY_TARGET: f64 = 80.0;
/// Percent of one processor.
const PROCESSOR_TARGET: f64 = 0.5;
/// The guestbook's pods that stay.
const PODS: usize = 6;
/// How long the guestbook may take, compilation included.
const LIMIT: Duration = Duration::from_secs(300);
/// Let statuses, Events and leases of the start pass.
const SETTLE: Duration = Duration::from_secs(15);

/// Runs the guestbook and looks at the process for `seconds`.
pub(crate) async fn measure(
    binary: &Binary,
    seconds: u64,
    clock: &Clock,
    report: &mut Report,
) -> Result<()> {
    let sample = binary.samples.join("guestbook");
    let sample = sample.to_str().context("the samples' path is not UTF-8")?;
    let (cluster, _) = binary.up(&["-f", sample], clock).await?;
    let start = clock.monotonic();
    timeout(
        LIMIT,
        running(&mut Connection::open(&cluster.access, Protocol::Http1).await?),
    )
    .await
    .context("the guestbook did not get ready")??;
    // The modules were compiled on this start, which leaves its traces in the memory.
    report.add(Figure::new(
        "idle.guestbook_ready",
        "ms",
        (clock.monotonic() - start).as_secs_f64() * 1000.0,
    ));
    sleep(SETTLE).await;
    let pids = [cluster.pid];
    let (start, before) = (clock.monotonic(), Sample::take(&pids)?);
    sleep(Duration::from_secs(seconds)).await;
    let (took, after) = (clock.monotonic() - start, Sample::take(&pids)?);
    let used = after.since(&before);
    let memory = Memory::of(cluster.pid)?;
    report.add(Figure::new("idle.memory", "MiB", memory.resident).below(MEMORY_TARGET));
    report.add(Figure::new(
        "idle.memory_anonymous",
        "MiB",
        memory.anonymous,
    ));
    let percent = used.microseconds / took.as_secs_f64() / 10_000.0;
    report.add(Figure::new("idle.processor", "%", percent).below(PROCESSOR_TARGET));
    report.add(Figure::new(
        "idle.wakeups",
        "1/s",
        used.wakeups as f64 / took.as_secs_f64(),
    ));
    report.add(Figure::new("idle.threads", "", after.threads() as f64));
    cluster.stop().await
}

/// Waits until every pod that stays is ready and the one that ends has ended.
async fn running(connection: &mut Connection) -> Result<()> {
    loop {
        let pods = connection.get("/api/v1/namespaces/default/pods").await?;
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        let ended = pods
            .iter()
            .filter(|pod| pod["status"]["phase"] == "Succeeded")
            .count();
        if (ready, ended) == (PODS, 1) {
            return Ok(());
        }
        sleep(Duration::from_millis(20)).await;
    }
}
