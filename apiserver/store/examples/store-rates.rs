//! Prints, as JSON, how fast a store writes beside what the disk alone can do.
//!
//! ```text
//! cargo run --release -p coracle-store --example store-rates -- [FOLDER] [SECONDS]
//! ```
//!
//! All figures are from one run in one folder (default: a temporary one in the working folder), so
//! that they can be compared: creations per second with 1 and 16 writers, each waiting for its
//! answer; the CPU time of a creation (where the system tells it); and how often the disk alone
//! takes a write of one page, each made durable.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coracle_clock::Clock;
use coracle_store::{Op, Precondition, RedbStore, Store};
use serde_json::{Value, json};

/// About what a Pod of a Deployment has as JSON.
const VALUE_BYTES: usize = 2500;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().unwrap_or_else(|| ".".to_owned());
    let seconds = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let time = Duration::from_secs(seconds);
    let folder = tempfile::tempdir_in(parent)?;

    let disk = syncs(folder.path(), time)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut figures = json!({ "value_bytes": VALUE_BYTES, "seconds": seconds, "disk_alone": disk });
    for writers in [1, 16] {
        let path = folder.path().join(format!("{writers}.redb"));
        figures[format!("writers_{writers}")] =
            runtime.block_on(creations(&path, writers, time))?;
    }
    println!("{figures:#}");
    Ok(())
}

/// How often per second the disk takes a page and makes it durable, and the CPU time of that.
fn syncs(folder: &Path, time: Duration) -> std::io::Result<Value> {
    let (clock, cpu_before) = (Clock::system(), cpu_time());
    let mut file = File::create(folder.join("pages"))?;
    let mut count = 0.0;
    while clock.monotonic() < time {
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        count += 1.0;
    }
    Ok(json!({
        "fdatasyncs_per_second": (count / clock.monotonic().as_secs_f64()).round(),
        "cpu_milliseconds_per_fdatasync": cpu_each(cpu_before, count),
    }))
}

async fn creations(
    path: &Path,
    writers: u64,
    time: Duration,
) -> Result<Value, Box<dyn std::error::Error>> {
    let clock = Clock::system();
    let store = Arc::new(RedbStore::open(path, clock.clone())?);
    let next = Arc::new(AtomicU64::new(0));
    let (start, cpu_before) = (clock.monotonic(), cpu_time());
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let (store, next, clock) = (store.clone(), next.clone(), clock.clone());
            tokio::spawn(async move {
                while clock.monotonic() - start < time {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let key = format!("/registry/pods/default/web-{number:08}");
                    store
                        .write(
                            Op::put(key, vec![b'x'; VALUE_BYTES]),
                            Precondition::Absent,
                            None,
                        )
                        .await?;
                }
                Ok::<(), coracle_store::Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    let elapsed = clock.monotonic() - start;
    let count = next.load(Ordering::Relaxed) as f64;
    let cpu = cpu_each(cpu_before, count);

    let start = clock.monotonic();
    let listed = store
        .range(b"/registry/pods/", None, None, usize::MAX)
        .await?
        .items
        .len();
    let list = (clock.monotonic() - start).as_secs_f64() * 1e6 / listed as f64;
    Ok(json!({
        "creations_per_second": (count / elapsed.as_secs_f64()).round(),
        "cpu_milliseconds_per_creation": cpu,
        "list_microseconds_per_item": list,
        "file_bytes_per_creation": std::fs::metadata(path)?.len() as f64 / count,
    }))
}

/// The milliseconds of CPU time since `before` for each of `count` things.
fn cpu_each(before: Option<Duration>, count: f64) -> Option<f64> {
    Some((cpu_time()? - before?).as_secs_f64() * 1e3 / count)
}

/// The CPU time of this process so far, with the kernel's part.
fn cpu_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // After the name, which ends in the last ")": state is field 0, utime 11 and stime 12.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    // Linux counts in hundredths of a second here on every architecture that Rust supports.
    Some(Duration::from_millis(ticks * 10))
}
