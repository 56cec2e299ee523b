//! From process start on an empty data directory to `/readyz`.

use anyhow::Result;
use coracle_clock::Clock;

use crate::cluster::Binary;
use crate::figures::{Figure, Report};

/// How many starts by default.
pub(crate) const RUNS: usize = 20;
/// Milliseconds.
const TARGET: f64 = 150.0;

/// Starts and stops `runs` clusters.
pub(crate) async fn measure(
    binary: &Binary,
    runs: usize,
    clock: &Clock,
    report: &mut Report,
) -> Result<()> {
    // Once unmeasured, so that the binary itself comes from memory, not from the disk.
    let (cluster, _) = binary.up(&[], clock).await?;
    cluster.stop().await?;
    let mut samples = Vec::with_capacity(runs);
    for _ in 0..runs {
        let (cluster, took) = binary.up(&[], clock).await?;
        samples.push(took.as_secs_f64() * 1000.0);
        cluster.stop().await?;
    }
    report.add(Figure::median("start.ready", "ms", &samples).below(TARGET));
    Ok(())
}
