//! How many files this process may have open.
//!
//! Guests' files and the node's connections are descriptors of this one process, and shells allow a process few at
//! first (often 1,024) though the system would allow it many.

/// Raises the limit as far as the system lets anybody.
#[cfg(unix)]
pub(super) fn allow_many() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    if now.current == now.maximum {
        return;
    }
    let wanted = Rlimit {
        current: now.maximum,
        maximum: now.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

/// Elsewhere there is no such limit.
#[cfg(not(unix))]
pub(super) fn allow_many() {}

#[cfg(all(test, unix))]
mod tests {
    use rustix::process::{Resource, getrlimit};

    #[test]
    fn the_limit_becomes_the_highest_there_is() {
        super::allow_many();
        let now = getrlimit(Resource::Nofile);
        assert!(
            now.current.is_none() || now.current == now.maximum,
            "{now:?}"
        );
    }
}
