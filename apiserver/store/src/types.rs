//! The values that go in and out of a store.

use std::fmt;

use bytes::Bytes;

use crate::error::Error;

/// The longest key that a store accepts, in bytes.
pub const MAX_KEY_BYTES: usize = 2 * 1024;

/// The longest value that a store accepts, in bytes; above every request body the server accepts.
pub const MAX_VALUE_BYTES: usize = 4 * 1024 * 1024;

/// The most keys that one call of [`Store::expire`](crate::Store::expire) deletes.
pub const EXPIRE_BATCH: usize = 256;

/// A point in the history of a store: the number of the write that ended there.
///
/// An empty store is at [`Revision::FIRST`], so that 0 never names a state (clients of Kubernetes
/// read `resourceVersion` "0" as "any").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision of a store that was never written to.
    pub const FIRST: Self = Self(1);

    /// The revision of the following write.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// A change of one key.
#[derive(Clone, Debug)]
pub enum Op {
    /// Sets the value of `key`.
    Put {
        /// The key to create or replace.
        key: Bytes,
        /// Its new value.
        value: Bytes,
    },
    /// Removes `key`; a key that isn't there is [`Error::NotFound`].
    Delete {
        /// The key to remove.
        key: Bytes,
    },
}

impl Op {
    /// A change that sets `key` to `value`.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::Put {
            key: key.into(),
            value: value.into(),
        }
    }

    /// A change that removes `key`.
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Self::Delete { key: key.into() }
    }

    /// The key that is changed.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }

    /// How many bytes of memory the change holds, about.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Put { key, value } => key.len() + value.len(),
            Self::Delete { key } => key.len(),
        }
    }

    /// Refuses keys and values that no backend stores.
    pub(crate) fn check_size(&self) -> Result<(), Error> {
        let key = self.key();
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            return Err(Error::InvalidKey {
                length: key.len(),
                limit: MAX_KEY_BYTES,
            });
        }
        match self {
            Self::Put { value, .. } if value.len() > MAX_VALUE_BYTES => Err(Error::TooLarge {
                key: key.clone(),
                length: value.len(),
                limit: MAX_VALUE_BYTES,
            }),
            _ => Ok(()),
        }
    }
}

/// What must hold of a key for its change to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing (a deletion still needs something to delete).
    None,
    /// The key isn't there.
    Absent,
    /// The key is there, whatever its revision.
    Exists,
    /// The key is there and was last changed at this revision.
    Revision(Revision),
}

impl Precondition {
    /// Decides whether `op` may happen to a key whose present state is `current`.
    pub(crate) fn check(self, op: &Op, current: Option<&KeyValue>) -> Result<(), Error> {
        let needs_key =
            matches!(op, Op::Delete { .. }) || matches!(self, Self::Exists | Self::Revision(_));
        match (self, current) {
            (_, None) if needs_key => Err(Error::NotFound {
                key: op.key().clone(),
            }),
            (Self::Absent, Some(current)) => Err(Error::Conflict {
                current: Box::new(current.clone()),
            }),
            (Self::Revision(wanted), Some(current)) if current.mod_revision != wanted => {
                Err(Error::Conflict {
                    current: Box::new(current.clone()),
                })
            }
            _ => Ok(()),
        }
    }
}

/// A key with its value and where in the history it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The revision at which the key came into being (again).
    pub create_revision: Revision,
    /// The revision of the last change.
    pub mod_revision: Revision,
}

impl KeyValue {
    /// The same without its key.
    pub(crate) fn version(&self) -> Version {
        Version {
            value: self.value.clone(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
        }
    }
}

/// One value that a key had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The value.
    pub value: Bytes,
    /// The revision at which the key came into being (again).
    pub create_revision: Revision,
    /// The revision at which the key got this value.
    pub mod_revision: Revision,
}

/// One write, as watchers see it. Cheap to clone: the bytes are shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The key that changed.
    pub key: Bytes,
    /// The revision of the change; no two events share one.
    pub revision: Revision,
    /// What happened.
    pub kind: EventKind,
}

/// What happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The key got a value.
    Put {
        /// The new value.
        value: Bytes,
        /// The revision at which the key came into being; the event's own for a new key.
        create_revision: Revision,
        /// What the key had before; `None` for a new key.
        previous: Option<Version>,
    },
    /// The key was removed.
    Delete {
        /// What the key had at the end.
        last: Version,
    },
}

impl Event {
    /// How many bytes of memory the event holds, about.
    pub(crate) fn size(&self) -> usize {
        let values = match &self.kind {
            EventKind::Put {
                value, previous, ..
            } => value.len() + previous.as_ref().map_or(0, |previous| previous.value.len()),
            EventKind::Delete { last } => last.value.len(),
        };
        size_of::<Self>() + self.key.len() + values
    }
}

/// One page of a [`range`](crate::Store::range).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The revision that the page shows.
    pub revision: Revision,
    /// The keys and values, in byte order of the keys.
    pub items: Vec<KeyValue>,
    /// Whether there are further keys after the last item.
    pub more: bool,
}
