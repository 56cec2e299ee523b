//! How much of the node's work goes on at once.
//!
//! Everything that a pod needs at its start is short: a token, some files, an instance. A thousand pods that do it at
//! the same time only get into each other's way, and all are ready at the end; in turns, each is ready as soon as its
//! turn is over. Work that has to wait for others (a pull, a hook, the end of a guest) takes no turn.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::step::Action;

/// Turns of each kind at once.
const AT_ONCE: usize = 16;

/// The turns of one node. What comes later in a pod's start has turns of its own, so that pods which have begun are not
/// held up by those that have not.
#[derive(Debug)]
pub(crate) struct Turns {
    sandboxes: Semaphore,
    starts: Semaphore,
    ends: Semaphore,
}

impl Default for Turns {
    fn default() -> Self {
        let [sandboxes, starts, ends] = [0; 3].map(|_| Semaphore::new(AT_ONCE));
        Self {
            sandboxes,
            starts,
            ends,
        }
    }
}

impl Turns {
    /// Waits for the turn of an action, if it needs one. First come, first served.
    pub(crate) async fn turn(&self, action: &Action) -> Option<SemaphorePermit<'_>> {
        let kind = match action {
            Action::RunSandbox => &self.sandboxes,
            Action::StartContainer { .. } => &self.starts,
            Action::Forget => &self.ends,
            Action::EnsureImage { .. }
            | Action::PostStart { .. }
            | Action::PreStop { .. }
            | Action::Resize { .. }
            | Action::ResizePod
            | Action::StartOver
            | Action::StopContainer { .. }
            | Action::StopSandbox => return None,
        };
        // They are never closed.
        kind.acquire().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn starts_go_on_while_sandboxes_wait_and_stops_wait_for_nobody() {
        let turns = Turns::default();
        let now = |action: Action| {
            let turn = turns.turn(&action).now_or_never();
            turn.map(|permit| permit.map(SemaphorePermit::forget))
        };
        let container = || "app".to_owned();
        for _ in 0..AT_ONCE {
            assert_eq!(now(Action::RunSandbox), Some(Some(())));
        }
        assert_eq!(now(Action::RunSandbox), None, "all turns are taken");
        let start = Action::StartContainer {
            container: container(),
            restart_count: 0,
        };
        assert_eq!(now(start), Some(Some(())));
        assert_eq!(now(Action::StopSandbox), Some(None));
        let stop = Action::StopContainer {
            container: container(),
            grace: std::time::Duration::ZERO,
        };
        assert_eq!(now(stop), Some(None));
    }
}
