//! The protobuf messages of cached objects, kept for as long as they fit.
//!
//! Objects are cached as JSON; clients that ask for protobuf (controllers, the scheduler, kubelets) ask for the same
//! objects again and again, and making a message costs a parse. A message belongs to one revision of an object and so
//! never goes stale; the oldest are dropped when there are too many bytes.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use coracle_api::schema::SchemaRef;
use coracle_api::{Resource, protobuf};
use parking_lot::Mutex;

use crate::cache::Entry;

/// Most bytes kept.
const BUDGET: usize = 16 * 1024 * 1024;

/// What a kept message takes besides its bytes.
const OVERHEAD: usize = 96;

/// A resource, by the address of its descriptor, and the revision of a change to one of its objects.
type Key = (usize, u64);

/// The messages made so far.
pub(crate) struct Encoded {
    budget: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    messages: HashMap<Key, Bytes>,
    order: VecDeque<Key>,
    bytes: usize,
}

impl Default for Encoded {
    fn default() -> Self {
        Self::within(BUDGET)
    }
}

impl Encoded {
    /// Keeps up to `budget` bytes.
    fn within(budget: usize) -> Self {
        Self {
            budget,
            state: Mutex::default(),
        }
    }

    /// The message of `entry`, without an envelope; and whether it had to be made.
    pub(crate) fn message(&self, resource: &'static Resource, entry: &Entry) -> (Bytes, bool) {
        let key = (std::ptr::from_ref(resource) as usize, entry.revision);
        if let Some(message) = self.state.lock().messages.get(&key) {
            return (message.clone(), false);
        }
        let schema = SchemaRef::for_kind(resource.group, resource.version, resource.kind)
            .unwrap_or_else(SchemaRef::any);
        let message = Bytes::from(protobuf::encode_raw(&entry.object().into_value(), &schema));
        self.state.lock().keep(key, message.clone(), self.budget);
        (message, true)
    }
}

impl State {
    fn keep(&mut self, key: Key, message: Bytes, budget: usize) {
        let size = message.len() + OVERHEAD;
        // One that would push out most of the others is not worth it.
        if size > budget / 4 || self.messages.contains_key(&key) {
            return;
        }
        while self.bytes + size > budget
            && let Some(oldest) = self.order.pop_front()
        {
            if let Some(dropped) = self.messages.remove(&oldest) {
                self.bytes -= dropped.len() + OVERHEAD;
            }
        }
        self.bytes += size;
        self.order.push_back(key);
        self.messages.insert(key, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_messages_make_room() {
        let mut state = State::default();
        let budget = 8 * (100 + OVERHEAD);
        for revision in 0..20 {
            state.keep((1, revision), Bytes::from(vec![0; 100]), budget);
        }
        assert!(state.bytes <= budget);
        assert_eq!(state.messages.len(), 8);
        assert!(state.messages.contains_key(&(1, 19)) && !state.messages.contains_key(&(1, 0)));
        state.keep((1, 20), Bytes::from(vec![0; budget]), budget);
        assert_eq!(state.messages.len(), 8);
    }
}
