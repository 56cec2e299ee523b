//! What Linux tells about a process: processor time, memory, wake-ups.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context, Result};

/// Processor time and wake-ups of some processes up to a moment, thread by thread.
///
/// Threads that end between two samples are missed from the second on; servers of the kind measured
/// here keep theirs. In return the figure is exact to the nanosecond, where `/proc/PID/stat` counts
/// in hundredths of a second.
#[derive(Debug, Default)]
pub(crate) struct Sample(HashMap<(u32, u32), Thread>);

#[derive(Debug, Default, Clone, Copy)]
struct Thread {
    nanoseconds: u64,
    wakeups: u64,
}

/// What some processes used between two samples.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    /// Processor time, user and system.
    pub(crate) microseconds: f64,
    /// How often a thread went to sleep by itself, and so was woken.
    pub(crate) wakeups: u64,
}

impl Sample {
    /// Takes a sample of every thread of `pids`.
    pub(crate) fn take(pids: &[u32]) -> Result<Self> {
        let mut threads = HashMap::new();
        for &pid in pids {
            let folder = format!("/proc/{pid}/task");
            let entries = fs::read_dir(&folder)
                .with_context(|| format!("failed to look at process {pid}"))?;
            for entry in entries {
                let Some(id) = entry?
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse().ok())
                else {
                    continue;
                };
                // A thread that ends while it is looked at is no reason to stop.
                if let Some(thread) = Thread::read(&format!("{folder}/{id}")) {
                    threads.insert((pid, id), thread);
                }
            }
        }
        Ok(Self(threads))
    }

    /// What was used since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Used {
        let mut used = Used::default();
        for (id, now) in &self.0 {
            let before = earlier.0.get(id).copied().unwrap_or_default();
            used.microseconds += now.nanoseconds.saturating_sub(before.nanoseconds) as f64 / 1000.0;
            used.wakeups += now.wakeups.saturating_sub(before.wakeups);
        }
        used
    }

    /// How many threads there are.
    pub(crate) fn threads(&self) -> usize {
        self.0.len()
    }
}

impl Thread {
    fn read(folder: &str) -> Option<Self> {
        let time = fs::read_to_string(format!("{folder}/schedstat")).ok()?;
        let status = fs::read_to_string(format!("{folder}/status")).ok()?;
        Some(Self {
            nanoseconds: time.split(' ').next()?.parse().ok()?,
            wakeups: number_after(&status, "voluntary_ctxt_switches:")?,
        })
    }
}

/// Resident memory in mebibytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// All of it, as `ps` shows.
    pub(crate) resident: f64,
    /// Its own: heap, stacks, guests' memories. The rest is mapped from files, mostly code.
    pub(crate) anonymous: f64,
}

impl Memory {
    /// The memory of process `pid`.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/status"))
            .with_context(|| format!("failed to look at process {pid}"))?;
        let mebibytes = |name: &str| {
            number_after(&text, name)
                .map(|kibibytes| kibibytes as f64 / 1024.0)
                .with_context(|| format!("no {name}"))
        };
        Ok(Self {
            resident: mebibytes("VmRSS:")?,
            anonymous: mebibytes("RssAnon:")?,
        })
    }

    /// The memory of all of `pids` together; none of none.
    pub(crate) fn of_all(pids: &[u32]) -> Result<Self> {
        let none = Self {
            resident: 0.0,
            anonymous: 0.0,
        };
        pids.iter().try_fold(none, |sum, pid| {
            let one = Self::of(*pid)?;
            Ok(Self {
                resident: sum.resident + one.resident,
                anonymous: sum.anonymous + one.anonymous,
            })
        })
    }
}

/// The number on the line of a status file that starts with `name`.
fn number_after(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_the_whole_start_of_the_line() {
        let text =
            "VmRSS:\t    2048 kB\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t9\n";
        assert_eq!(number_after(text, "VmRSS:"), Some(2048));
        assert_eq!(number_after(text, "voluntary_ctxt_switches:"), Some(7));
        assert_eq!(number_after(text, "RssAnon:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn work_costs_processor_time() {
        let own = [std::process::id()];
        let before = Sample::take(&own).expect("this process");
        let sum: u64 = (0..20_000_000u64).map(std::hint::black_box).sum();
        let used = Sample::take(&own).expect("this process").since(&before);
        assert_ne!(sum, 0);
        assert!(used.microseconds > 0.0);
        assert!(Memory::of(own[0]).expect("this process").resident > 0.0);
    }
}
