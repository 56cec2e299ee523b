//! What was told lately: a denial that repeats is told once in a while.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

/// How long the same thing is not told again.
const QUIET: Duration = Duration::from_secs(60);
/// How many things are remembered; past it new ones are not told until old ones are forgotten.
const REMEMBERED: usize = 4096;

/// When each thing was last told, by the monotonic clock.
pub(crate) struct Told<K>(HashMap<K, Duration>);

impl<K> Default for Told<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq> Told<K> {
    /// Whether to tell it now.
    pub(crate) fn is_new(&mut self, thing: K, now: Duration) -> bool {
        let is_quiet = |last: &Duration| now.saturating_sub(*last) < QUIET;
        if self.0.get(&thing).is_some_and(is_quiet) {
            return false;
        }
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, last| is_quiet(last));
        }
        if self.0.len() >= REMEMBERED {
            return false;
        }
        self.0.insert(thing, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_told_once_in_a_while_and_not_too_many_are_remembered() {
        let mut told = Told::default();
        let at = Duration::from_secs;
        assert!(told.is_new(0, at(100)));
        assert!(!told.is_new(0, at(159)));
        assert!(told.is_new(0, at(160)));
        let new = (1..=REMEMBERED * 2)
            .filter(|thing| told.is_new(*thing, at(161)))
            .count();
        assert_eq!(new, REMEMBERED - 1);
        assert!(told.is_new(usize::MAX, at(300)));
    }
}
