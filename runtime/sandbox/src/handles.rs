//! How many things of the host a guest may hold at once: files, folders, sockets, streams, timers.

use std::sync::LazyLock;

/// The most that any guest may hold.
const MOST: usize = 16 * 1024;
/// What a guest gets however little the process has.
const LEAST: usize = 256;
/// The part of the process's descriptors that one guest may take.
const SHARE: u64 = 4;

static LIMIT: LazyLock<usize> = LazyLock::new(|| limit(descriptors()));

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
}
