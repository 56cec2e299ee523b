//! Answers of other name servers, for as long as they say.
//!
//! Bounded in number and in bytes. When it is full, what would end first goes first.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::message::{Asked, Outcome, Reply};

/// Answers kept.
const ENTRIES: usize = 10_000;
/// Bytes of all messages kept.
const BYTES: usize = 16 << 20;
/// The longest that an answer is kept, in seconds, whatever its records say: a change elsewhere shows within this time.
const LONGEST: u32 = 30;

/// See the module.
#[derive(Default)]
pub(crate) struct Cache(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    by_question: HashMap<Arc<Asked>, Entry>,
    /// Who ends when; the number tells apart those that end together.
    by_end: BTreeSet<(Duration, u64)>,
    questions: HashMap<u64, Arc<Asked>>,
    next: u64,
    bytes: usize,
    denials: usize,
}

struct Entry {
    outcome: Outcome,
    kept: Duration,
    ends: Duration,
    number: u64,
    size: usize,
    denial: bool,
}

/// How many answers are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) successes: usize,
    pub(crate) denials: usize,
}

impl Cache {
    /// What was answered before, its records as much shorter-lived as they are older, and whether
    /// it says that something is not there.
    pub(crate) fn get(&self, asked: &Asked, now: Duration) -> Option<(Outcome, bool)> {
        let mut entries = self.0.lock();
        let entry = entries.by_question.get(asked)?;
        if entry.ends <= now {
            entries.remove(asked);
            return None;
        }
        let age = now.saturating_sub(entry.kept).as_secs();
        let age = u32::try_from(age).unwrap_or(u32::MAX);
        Some((entry.outcome.clone().aged(age), entry.denial))
    }

    /// Keeps an answer, if it may be kept.
    pub(crate) fn put(&self, asked: &Asked, reply: &Reply, now: Duration) {
        let Some(life) = reply
            .life()
            .map(|life| life.min(LONGEST))
            .filter(|life| *life > 0)
        else {
            return;
        };
        if reply.truncated || reply.size > BYTES {
            return;
        }
        let mut entries = self.0.lock();
        entries.remove(asked);
        while entries.by_question.len() >= ENTRIES || entries.bytes + reply.size > BYTES {
            if !entries.remove_first() {
                break;
            }
        }
        let number = entries.next;
        entries.next += 1;
        let ends = now + Duration::from_secs(life.into());
        let asked = Arc::new(asked.clone());
        entries.by_end.insert((ends, number));
        entries.questions.insert(number, asked.clone());
        entries.bytes += reply.size;
        let denial = reply.is_denial();
        entries.denials += usize::from(denial);
        let entry = Entry {
            outcome: reply.outcome.clone().capped(LONGEST),
            kept: now,
            ends,
            number,
            size: reply.size,
            denial,
        };
        entries.by_question.insert(asked, entry);
    }

    pub(crate) fn kept(&self) -> Kept {
        let entries = self.0.lock();
        Kept {
            successes: entries.by_question.len() - entries.denials,
            denials: entries.denials,
        }
    }
}

impl Entries {
    fn remove(&mut self, asked: &Asked) {
        if let Some(entry) = self.by_question.remove(asked) {
            self.by_end.remove(&(entry.ends, entry.number));
            self.questions.remove(&entry.number);
            self.bytes -= entry.size;
            self.denials -= usize::from(entry.denial);
        }
    }

    /// Removes the one that ends first; false if there is none.
    fn remove_first(&mut self) -> bool {
        let first = self.by_end.first().copied();
        let asked = first.and_then(|(_, number)| self.questions.get(&number).cloned());
        match asked {
            Some(asked) => {
                self.remove(&asked);
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{self, alias, authority, record, request};
    use crate::zone::{Data, Kind};
    use hickory_proto::op::ResponseCode;
    use std::net::Ipv4Addr;

    fn asked(name: &str) -> Asked {
        request(name, Kind::A)
            .and_then(|request| request.asked(name))
            .expect("a name")
    }

    fn reply(name: &str, ttl: u32) -> Reply {
        let data = Data::Address(Ipv4Addr::new(192, 0, 2, 1).into());
        let mut outcome = Outcome::of(ResponseCode::NoError);
        outcome.answers =
            vec![record(message::parse(name).expect("a name"), ttl, &data).expect("a record")];
        Reply {
            truncated: false,
            size: 100,
            outcome,
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn ttl(cache: &Cache, name: &str, now: u64) -> Option<u32> {
        let (outcome, _) = cache.get(&asked(name), at(now))?;
        Some(outcome.answers.first().map_or(0, |record| record.ttl))
    }

    #[test]
    fn answers_live_as_long_as_they_say_and_at_most_half_a_minute() {
        let cache = Cache::default();
        cache.put(&asked("a.test"), &reply("a.test", 10), at(100));
        cache.put(&asked("b.test"), &reply("b.test", 3600), at(100));
        cache.put(&asked("c.test"), &reply("c.test", 0), at(100));
        let seen = |now| ["a.test", "b.test", "c.test"].map(|name| ttl(&cache, name, now));
        assert_eq!(seen(100), [Some(10), Some(30), None]);
        assert_eq!(seen(109), [Some(1), Some(21), None]);
        assert_eq!(seen(110), [None, Some(20), None]);
        assert_eq!(seen(130), [None, None, None]);
        assert_eq!(
            cache.kept(),
            Kept {
                successes: 0,
                denials: 0
            }
        );
    }

    #[test]
    fn that_something_is_not_there_lives_as_long_as_its_zone_says() {
        let cache = Cache::default();
        let mut denial = Reply {
            truncated: false,
            size: 100,
            outcome: Outcome::of(ResponseCode::NXDomain),
        };
        cache.put(&asked("no-soa.test"), &denial, at(0));
        denial.outcome.authorities = authority("test", 7, "ns.test").into_iter().collect();
        cache.put(&asked("gone.test"), &denial, at(0));
        let mut failed = denial.clone();
        failed.outcome.code = ResponseCode::ServFail;
        cache.put(&asked("failed.test"), &failed, at(0));
        // An alias that leads to nothing is as short-lived as either part.
        denial.outcome.answers = alias(message::parse("x.test").expect("a name"), 3, "gone.test")
            .into_iter()
            .collect();
        cache.put(&asked("x.test"), &denial, at(0));
        let names = ["no-soa.test", "gone.test", "failed.test", "x.test"];
        let there = |now| names.map(|name| cache.get(&asked(name), at(now)).is_some());
        assert_eq!(there(0), [false, true, false, true]);
        assert_eq!(there(3), [false, true, false, false]);
        assert_eq!(there(7), [false, false, false, false]);
    }

    #[test]
    fn the_number_and_the_bytes_are_bounded_and_what_ends_first_goes() {
        let cache = Cache::default();
        cache.put(&asked("first.test"), &reply("first.test", 30), at(0));
        for number in 0..ENTRIES {
            let name = format!("n{number}.test");
            cache.put(&asked(&name), &reply(&name, 30), at(1));
        }
        assert_eq!(cache.kept().successes, ENTRIES);
        assert_eq!(ttl(&cache, "first.test", 1), None);
        let large = Reply {
            size: BYTES,
            ..reply("large.test", 30)
        };
        cache.put(&asked("large.test"), &large, at(2));
        assert_eq!(cache.kept().successes, 1);
        // The same question again takes no second place.
        cache.put(&asked("large.test"), &large, at(2));
        assert_eq!(cache.kept().successes, 1);
    }

    #[test]
    fn questions_of_other_types_are_other_questions() {
        let cache = Cache::default();
        cache.put(&asked("a.test"), &reply("a.test", 10), at(0));
        let other = request("a.test", Kind::Aaaa).and_then(|request| request.asked("a.test"));
        assert!(cache.get(&other.expect("a name"), at(0)).is_none());
        assert!(cache.get(&asked("A.Test."), at(0)).is_some());
    }
}
