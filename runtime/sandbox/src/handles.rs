//! How many things of the host a guest may hold at once: files, folders, sockets, streams, timers; and, apart from them, tasks,
//! streams and futures of WASI 0.3.
//!
//! Files and folders are descriptors of the process, which has so many for all guests and for itself. What is left when three
//! quarters are in use is for itself and for guests that hold few.

use std::sync::LazyLock;

/// The most that any guest may hold.
const MOST: usize = 16 * 1024;
/// What a guest gets however little the process has.
const LEAST: usize = 256;
/// The part of the process's descriptors that one guest may take.
const SHARE: u64 = 4;

static DESCRIPTORS: LazyLock<Option<u64>> = LazyLock::new(descriptors);
static LIMIT: LazyLock<usize> = LazyLock::new(|| limit(*DESCRIPTORS));

/// Handles of one instance. A module that wants more is told so (`EMFILE`); a component, whose interfaces
/// mostly have no word for it, is ended.
pub(crate) fn handle_limit() -> usize {
    *LIMIT
}

fn limit(descriptors: Option<u64>) -> usize {
    let share = descriptors.map(|all| all / SHARE);
    let share = share.and_then(|share| usize::try_from(share).ok());
    share.unwrap_or(MOST).clamp(LEAST, MOST)
}

/// Whether a guest may hold another descriptor when it holds so many.
pub(crate) fn may_hold(held: usize) -> bool {
    let Some(all) = *DESCRIPTORS else {
        return true;
    };
    held < few(all) || lowest_free().is_some_and(|lowest| leaves_some(lowest, all))
}

/// Whether there is enough for everybody else when all descriptors below `lowest` are in use.
fn leaves_some(lowest: u64, all: u64) -> bool {
    lowest < all - all / SHARE
}

/// What every guest may hold, whatever others do.
fn few(descriptors: u64) -> usize {
    usize::try_from(descriptors / 64).map_or(LEAST, |few| few.clamp(16, LEAST))
}

/// The number that the next descriptor gets: all below are in use. `None` when there is none left.
fn lowest_free() -> Option<u64> {
    #[cfg(unix)]
    {
        use std::os::fd::AsRawFd;

        // Nothing that blocks or has an end to be closed.
        static ANY: LazyLock<Option<std::fs::File>> =
            LazyLock::new(|| std::fs::File::open("/dev/null").ok());
        let next = rustix::io::fcntl_dupfd_cloexec(ANY.as_ref()?, 0).ok()?;
        u64::try_from(next.as_raw_fd()).ok()
    }
    #[cfg(not(unix))]
    Some(0)
}

/// Descriptors that this process may have open, where there is such a limit.
fn descriptors() -> Option<u64> {
    #[cfg(unix)]
    {
        rustix::process::getrlimit(rustix::process::Resource::Nofile).current
    }
    #[cfg(not(unix))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_guest_never_takes_all_descriptors() {
        for (descriptors, handles) in [
            (None, MOST),
            (Some(1_048_576), MOST),
            (Some(20_000), 5_000),
            (Some(1024), 256),
            (Some(10), LEAST),
        ] {
            assert_eq!(limit(descriptors), handles, "{descriptors:?}");
        }
    }

    #[test]
    fn whatever_is_left_guests_may_hold_a_few() {
        let held = [1024, 20_000, 1_048_576].map(few);
        assert_eq!(held, [16, LEAST, LEAST]);
        assert!(may_hold(0) && may_hold(15));
    }

    #[test]
    fn guests_together_leave_a_quarter() {
        let left = [0, 749, 750, 1000].map(|lowest| leaves_some(lowest, 1000));
        assert_eq!(left, [true, true, false, false]);
    }

    #[cfg(unix)]
    #[test]
    fn the_lowest_free_number_is_the_next_one() {
        // Another thread of the tests may be quicker.
        let same = (0..1000).any(|_| {
            use std::os::fd::AsRawFd;
            let lowest = lowest_free();
            let file = std::fs::File::open("/dev/null").unwrap();
            u64::try_from(file.as_raw_fd()).ok() == lowest
        });
        assert!(same);
    }
}
