//! The recent changes of one resource, bounded in number and bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Entry;

/// Changes kept per resource.
const MAX_CHANGES: usize = 4096;
/// Bytes kept per resource, counting the objects that the changes hold.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// One change of one object.
#[derive(Clone, Debug)]
pub struct Change {
    /// The revision of the change.
    pub revision: u64,
    /// The object afterwards; `None` when it was deleted.
    pub new: Option<Arc<Entry>>,
    /// The object before; `None` when it was created.
    pub old: Option<Arc<Entry>>,
}

impl Change {
    /// The object's key.
    pub fn key(&self) -> &str {
        self.new
            .as_ref()
            .or(self.old.as_ref())
            .map_or("", |entry| &entry.key)
    }

    fn size(&self) -> usize {
        // The old object is the new object of an earlier change, or was live: counting it once is fair.
        64 + self
            .new
            .as_ref()
            .or(self.old.as_ref())
            .map_or(0, |entry| entry.size())
    }
}

/// A ring of changes. A watch can start at any revision from [`floor`](Self::floor) on.
#[derive(Debug)]
pub struct History {
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    floor: u64,
}

impl History {
    /// An empty history: everything up to `floor` is forgotten.
    pub fn new(floor: u64) -> Self {
        Self {
            changes: VecDeque::new(),
            bytes: 0,
            floor,
        }
    }

    /// Adds a change, forgetting the oldest ones past the bounds.
    pub fn push(&mut self, change: Arc<Change>) {
        self.bytes += change.size();
        self.changes.push_back(change);
        while self.changes.len() > MAX_CHANGES || self.bytes > MAX_BYTES {
            let Some(oldest) = self.changes.pop_front() else {
                break;
            };
            self.bytes -= oldest.size();
            self.floor = oldest.revision;
        }
    }

    /// The oldest revision that a watch can start after.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Every change after `revision`, or `None` when some are forgotten.
    pub fn after(&self, revision: u64) -> Option<impl Iterator<Item = &Arc<Change>>> {
        (revision >= self.floor).then(|| {
            let start = self
                .changes
                .partition_point(|change| change.revision <= revision);
            self.changes.range(start..)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_changes_are_forgotten_first() {
        let mut history = History::new(1);
        for revision in 2..=(MAX_CHANGES as u64 + 3) {
            history.push(Arc::new(Change {
                revision,
                new: None,
                old: None,
            }));
        }
        assert_eq!(history.floor(), 3);
        assert!(history.after(2).is_none());
        let first = history
            .after(3)
            .and_then(|mut changes| changes.next().map(|change| change.revision));
        assert_eq!(first, Some(4));
        assert_eq!(history.after(10_000).map(Iterator::count), Some(0));
    }
}
