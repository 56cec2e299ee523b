//! One at a time for each digest.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::digest::Digest;

/// Who works on what; keeps nothing of work that is done.
#[derive(Default)]
pub(crate) struct Turns(Mutex<HashMap<Digest, Weak<Mutex<()>>>>);

impl Turns {
    /// What whoever works on `digest` holds locked meanwhile.
    pub(crate) fn of(&self, digest: &Digest) -> Arc<Mutex<()>> {
        let mut turns = self.0.lock();
        turns.retain(|_, turn| turn.strong_count() > 0);
        let known = turns.get(digest).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let turn = Arc::new(Mutex::new(()));
            turns.insert(*digest, Arc::downgrade(&turn));
            turn
        })
    }
}
