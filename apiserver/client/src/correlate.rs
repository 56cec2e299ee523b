//! Which Events are worth writing: upstream's EventCorrelator as a pure value.
//!
//! Three steps, each with upstream's numbers: a token bucket per object (a burst of 25, then one in
//! five minutes), the folding of many similar messages into one (more than 10 in ten minutes), and
//! the counting of equal ones.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Duration;

use coracle_clock::Timestamp;

const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);
const SIMILAR: usize = 10;
const SIMILAR_WITHIN: Duration = Duration::from_secs(600);
const REMEMBERED: usize = 4096;

/// What makes Events similar: everything but the message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Topic {
    pub(crate) object: String,
    pub(crate) kind: &'static str,
    pub(crate) reason: String,
}

/// What to do about one occurrence.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Nothing: the object's bucket is empty.
    Drop,
    /// Write a new Event.
    Create { name: String, message: String },
    /// Write the one of that name anew with this count.
    Bump {
        name: String,
        message: String,
        count: i32,
        first: Timestamp,
    },
}

pub(crate) struct Correlator {
    buckets: Recent<String, Bucket>,
    similar: Recent<Topic, Similar>,
    seen: Recent<(Topic, String), Seen>,
    serial: u64,
}

struct Bucket {
    tokens: f64,
    at: Duration,
}

struct Similar {
    messages: BTreeSet<String>,
    last: Duration,
}

#[derive(Clone)]
struct Seen {
    name: String,
    count: i32,
    first: Timestamp,
}

impl Correlator {
    pub(crate) fn new() -> Self {
        Self {
            buckets: Recent::new(),
            similar: Recent::new(),
            seen: Recent::new(),
            serial: 0,
        }
    }

    /// Judges one occurrence at wall time `now` and monotonic time `elapsed`. `object_name` begins
    /// the name of a new Event.
    pub(crate) fn judge(
        &mut self,
        topic: &Topic,
        object_name: &str,
        message: &str,
        now: Timestamp,
        elapsed: Duration,
    ) -> Verdict {
        if !self
            .buckets
            .entry(topic.object.clone(), || Bucket {
                tokens: BURST,
                at: elapsed,
            })
            .take(elapsed)
        {
            return Verdict::Drop;
        }
        let similar = self.similar.entry(topic.clone(), || Similar {
            messages: BTreeSet::new(),
            last: elapsed,
        });
        let (message, counted_as) = match similar.add(message, elapsed) {
            true => (
                format!("(combined from similar events): {message}"),
                String::new(),
            ),
            false => (message.to_owned(), message.to_owned()),
        };

        self.serial += 1;
        let fresh = Seen {
            // As upstream names them; the serial keeps two of the same nanosecond apart.
            name: format!(
                "{object_name}.{:x}",
                now.as_nanosecond() + i128::from(self.serial)
            ),
            count: 0,
            first: now,
        };
        let seen = self.seen.entry((topic.clone(), counted_as), || fresh);
        seen.count = seen.count.saturating_add(1);
        match seen.count {
            1 => Verdict::Create {
                name: seen.name.clone(),
                message,
            },
            count => Verdict::Bump {
                name: seen.name.clone(),
                message,
                count,
                first: seen.first,
            },
        }
    }
}

impl Bucket {
    fn take(&mut self, now: Duration) -> bool {
        let refilled = (now.saturating_sub(self.at)).as_secs_f64() / REFILL.as_secs_f64();
        self.tokens = (self.tokens + refilled).min(BURST);
        self.at = now;
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}

impl Similar {
    /// Whether this message should be folded into one with its siblings.
    fn add(&mut self, message: &str, now: Duration) -> bool {
        if now.saturating_sub(self.last) > SIMILAR_WITHIN {
            self.messages.clear();
        }
        self.last = now;
        if self.messages.contains(message) {
            return self.messages.len() >= SIMILAR;
        }
        if self.messages.len() < SIMILAR {
            self.messages.insert(message.to_owned());
        }
        self.messages.len() >= SIMILAR
    }
}

/// A map that forgets what was used longest ago.
struct Recent<K, V> {
    entries: HashMap<K, (u64, V)>,
    uses: u64,
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    fn new() -> Self {
        Self {
            entries: HashMap::new(),
            uses: 0,
        }
    }

    fn entry(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        self.uses += 1;
        if self.entries.len() >= REMEMBERED && !self.entries.contains_key(&key) {
            // An eighth at a time, so that the walk is paid for by many insertions.
            let mut uses: Vec<u64> = self.entries.values().map(|(used, _)| *used).collect();
            let (_, cut, _) = uses.select_nth_unstable(REMEMBERED / 8);
            let cut = *cut;
            self.entries.retain(|_, (used, _)| *used > cut);
        }
        let slot = self.entries.entry(key).or_insert_with(|| (0, new()));
        slot.0 = self.uses;
        &mut slot.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(object: &str) -> Topic {
        Topic {
            object: object.into(),
            kind: "Normal",
            reason: "Pulled".into(),
        }
    }

    fn judge(correlator: &mut Correlator, object: &str, message: &str, second: u64) -> Verdict {
        let now = Timestamp::from_second(1_893_456_000 + second as i64).expect("in range");
        correlator.judge(
            &topic(object),
            "web",
            message,
            now,
            Duration::from_secs(second),
        )
    }

    #[test]
    fn equal_events_are_counted() {
        let mut correlator = Correlator::new();
        let Verdict::Create { name, .. } = judge(&mut correlator, "a", "pulled", 0) else {
            panic!("the first one is written");
        };
        match judge(&mut correlator, "a", "pulled", 5) {
            Verdict::Bump {
                name: again,
                count,
                first,
                ..
            } => {
                assert_eq!((again, count, first.as_second()), (name, 2, 1_893_456_000));
            }
            other => panic!("expected a count, got {other:?}"),
        }
    }

    #[test]
    fn a_noisy_object_runs_dry_and_others_do_not() {
        let mut correlator = Correlator::new();
        let written = (0..100)
            .filter(|_| judge(&mut correlator, "a", "pulled", 0) != Verdict::Drop)
            .count();
        assert_eq!(written, 25);
        assert_ne!(judge(&mut correlator, "b", "pulled", 0), Verdict::Drop);
        assert_eq!(judge(&mut correlator, "a", "pulled", 299), Verdict::Drop);
        assert_ne!(judge(&mut correlator, "a", "pulled", 301), Verdict::Drop);
    }

    #[test]
    fn many_similar_messages_become_one() {
        let mut correlator = Correlator::new();
        let verdicts: Vec<_> = (0..12)
            .map(|n| judge(&mut correlator, "a", &format!("pulled {n}"), n))
            .collect();
        assert!(matches!(&verdicts[8], Verdict::Create { message, .. } if message == "pulled 8"));
        assert!(
            matches!(&verdicts[9], Verdict::Create { message, .. } if message == "(combined from similar events): pulled 9")
        );
        assert!(matches!(&verdicts[10], Verdict::Bump { count: 2, .. }));
    }

    #[test]
    fn memory_stays_bounded() {
        let mut correlator = Correlator::new();
        for n in 0..3 * REMEMBERED {
            judge(&mut correlator, &format!("object {n}"), "pulled", 0);
        }
        assert!(correlator.buckets.entries.len() <= REMEMBERED);
        assert!(correlator.seen.entries.len() <= REMEMBERED);
    }
}
