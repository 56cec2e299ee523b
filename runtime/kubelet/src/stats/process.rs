//! What this process uses, as its system tells.

use std::time::Duration;

/// Processor time of all threads.
pub(super) fn cpu() -> Option<Duration> {
    #[cfg(unix)]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Some(Duration::new(time.tv_sec.unsigned_abs(), nanos))
    }
    #[cfg(not(unix))]
    None
}

/// Resident bytes; only Linux tells.
pub(super) fn memory() -> Option<u64> {
    resident(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_set_is_read_in_bytes() {
        let status = "Name:\tcoracle\nVmRSS:\t   123 kB\nThreads:\t9\n";
        assert_eq!(resident(status), Some(123 * 1024));
        assert_eq!(resident("Name:\tcoracle\n"), None);
    }
}
