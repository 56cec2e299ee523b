//! One watch: a bounded queue between the cache and a slow client.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::{Change, Entry};
use crate::selection::Selection;

/// Changes that may wait for one watcher; past it the watch ends and the client starts again.
const MAX_QUEUED: usize = 1024;

/// Which changes a watcher wants.
#[derive(Clone, Debug)]
pub struct Interest {
    /// What the keys begin with: `namespace/`, or nothing.
    pub scope: String,
    /// Labels and fields.
    pub selection: Arc<Selection>,
}

impl Interest {
    /// Whether `entry` is wanted.
    pub fn wants(&self, entry: &Entry) -> bool {
        entry.key.starts_with(&self.scope) && self.selection.matches(entry)
    }

    /// Whether the change shows: the object is or was wanted.
    pub fn concerns(&self, change: &Change) -> bool {
        change.key().starts_with(&self.scope)
            && (change
                .new
                .as_deref()
                .is_some_and(|entry| self.selection.matches(entry))
                || change
                    .old
                    .as_deref()
                    .is_some_and(|entry| self.selection.matches(entry)))
    }
}

/// The cache's end.
pub(super) struct Subscription {
    queue: mpsc::Sender<Arc<Change>>,
    interest: Interest,
}

impl Subscription {
    /// Hands over `change` if it is wanted; `false` ends the subscription.
    pub(super) fn offer(&self, change: &Arc<Change>) -> bool {
        if !self.interest.concerns(change) {
            return true;
        }
        match self.queue.try_send(Arc::clone(change)) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::debug!("cut off a slow watcher");
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        !self.queue.is_closed()
    }
}

/// The client's end. Dropping it ends the subscription.
pub struct Watcher {
    backlog: VecDeque<Arc<Change>>,
    queue: mpsc::Receiver<Arc<Change>>,
    /// What is followed.
    pub interest: Interest,
}

pub(super) fn pair(backlog: Vec<Arc<Change>>, interest: Interest) -> (Subscription, Watcher) {
    let (sender, receiver) = mpsc::channel(MAX_QUEUED);
    let subscription = Subscription {
        queue: sender,
        interest: interest.clone(),
    };
    (
        subscription,
        Watcher {
            backlog: backlog.into(),
            queue: receiver,
            interest,
        },
    )
}

impl Watcher {
    /// Waits for the next change; `None` when the watch was cut off. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Arc<Change>> {
        match self.backlog.pop_front() {
            Some(change) => Some(change),
            None => self.queue.recv().await,
        }
    }

    /// The next change if it is here already.
    pub fn try_next(&mut self) -> Option<Arc<Change>> {
        self.backlog
            .pop_front()
            .or_else(|| self.queue.try_recv().ok())
    }
}
