//! The judge is judged: a sound history with one lie in it is found out, whatever the lie.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use coracle_clock::Clock;
use coracle_faults::seed;
use coracle_store::MemoryStore;

use super::api::Api;
use super::crowd::Crowd;
use super::judge::judge;
use super::notes::{self, Attempt, Event, List, Notes, Outcome, Read, Segment};
use super::world;

/// What the store had, and what was noted.
#[derive(Clone)]
struct Account {
    history: Vec<Event>,
    notes: Vec<Notes>,
}

/// What is wrong, how to make it so, and what the judge says of it.
type Lie = (&'static str, fn(&mut Account), &'static str);

const LIES: &[Lie] = &[
    (
        "an answered write is lost",
        |account| {
            account.history.pop();
        },
        "lost: ",
    ),
    (
        "an answered deletion is lost",
        |account| {
            let deleted = account.last("DELETED");
            let name = account.history[deleted].name.clone();
            // What came after it would not fit either.
            let mut at = 0;
            account.history.retain(|event| {
                at += 1;
                at <= deleted || event.name != name
            });
        },
        "lost: ",
    ),
    (
        "a refused write happens",
        |account| account.answered_put().outcome = Outcome::Refused,
        " happened at ",
    ),
    (
        "a write is answered with the revision of another",
        |account| {
            let attempt = account.answered_put();
            let Outcome::Answered(Some(revision)) = attempt.outcome else {
                unreachable!("it was looked for");
            };
            attempt.outcome = Outcome::Answered(Some(revision + 1));
        },
        " happened at ",
    ),
    (
        "an update replaces what it was not meant for",
        |account| {
            let mut attempts = account.attempts();
            let update = attempts.find(|attempt| {
                attempt.replaces.is_some()
                    && attempt.content.is_some()
                    && matches!(attempt.outcome, Outcome::Answered(_))
            });
            let update = update.expect("an update was answered");
            update.replaces = update.replaces.map(|revision| revision - 1);
        },
        "met something else",
    ),
    (
        "a revision comes twice",
        |account| {
            let last = account.history.last().expect("events").clone();
            account.history.push(last);
        },
        " comes after ",
    ),
    (
        "two revisions change places",
        |account| {
            let history = &mut account.history;
            let others = |at: &usize| history[*at].name != history[at + 1].name;
            let at = (0..history.len() - 1).find(others);
            let at = at.expect("two objects changed one after the other");
            history.swap(at, at + 1);
        },
        " comes after ",
    ),
    (
        "a write happens twice",
        |account| {
            let mut again = account.history.last().expect("events").clone();
            again.revision += 1;
            again.kind = "MODIFIED".to_owned();
            account.history.push(again);
        },
        ", or twice",
    ),
    (
        "a write happens that nobody asked for",
        |account| account.history[0].content.push('!'),
        "nobody did ",
    ),
    (
        "a deletion happens that nobody asked for",
        |account| {
            let mut deleted = account.history.last().expect("events").clone();
            deleted.revision += 1;
            deleted.kind = "DELETED".to_owned();
            account.history.push(deleted);
        },
        "nobody asked for ",
    ),
    (
        "two are told that they deleted the same thing",
        |account| {
            let won = |attempt: &&mut Attempt| {
                attempt.content.is_none() && matches!(attempt.outcome, Outcome::Answered(_))
            };
            let won = account
                .attempts()
                .find(won)
                .expect("a deletion was answered");
            let won = won.clone();
            account.notes[0].attempts.push(won);
        },
        "2 were told of ",
    ),
    (
        "a list misses an object",
        |account| {
            account.list().shown.pop_first();
        },
        "a list at ",
    ),
    (
        "a list shows an object as it was before",
        |account| {
            let mut shown = account.list().shown.first_entry().expect("an object");
            shown.get_mut().0 -= 1;
        },
        "a list at ",
    ),
    (
        "a list shows what is not there",
        |account| {
            let other = ("nobody".to_owned(), (1, "nothing".to_owned()));
            account.list().shown.extend([other]);
        },
        "a list at ",
    ),
    (
        "a list is older than what had been told before",
        |account| {
            let list = account.list();
            list.floor = list.revision + 1;
        },
        "a stale list",
    ),
    (
        "a read shows what was never there",
        |account| account.found().found.as_mut().expect("found").0 = 0,
        "never there",
    ),
    (
        "a read shows another content",
        |account| account.found().found.as_mut().expect("found").1.push('!'),
        ": Read {",
    ),
    (
        "a read shows what had been replaced",
        |account| {
            // The first state of an object that has another, read after all was over.
            let history = &account.history;
            let later = |event: &&Event| {
                let mut others = history.iter();
                others.any(|other| other.name == event.name && other.revision > event.revision)
            };
            let old = history
                .iter()
                .find(later)
                .expect("something was replaced")
                .clone();
            let floor = history.last().expect("events").revision;
            let found = Some((old.revision, old.content));
            let name = old.name;
            account.notes[0].reads.push(Read { name, found, floor });
        },
        "a stale read",
    ),
    (
        "a read finds nothing where something is",
        |account| {
            let last = account.history.last().expect("events").clone();
            account.notes[0].reads.push(Read {
                name: last.name,
                found: None,
                floor: last.revision,
            });
        },
        "it was there",
    ),
    (
        "a watch misses an event",
        |account| drop(account.segment().events.remove(1)),
        "in a watch from ",
    ),
    (
        "a watch shows an event twice",
        |account| {
            let segment = account.segment();
            let again = segment.events[1].clone();
            segment.events.insert(1, again);
        },
        "in a watch from ",
    ),
    (
        "a watch shows two events in the wrong order",
        |account| account.segment().events.swap(0, 1),
        "in a watch from ",
    ),
    (
        "a watch takes a replacement for a creation",
        |account| {
            let event = &mut account.segment().events[0];
            let other = if event.kind == "ADDED" {
                "MODIFIED"
            } else {
                "ADDED"
            };
            event.kind = other.to_owned();
        },
        "in a watch from ",
    ),
    (
        "a watch begins earlier than it was asked to",
        |account| account.segment().from += 1,
        "in a watch from ",
    ),
    (
        "a watch shows more than there is",
        |account| {
            let from = account.history.last().expect("events").revision;
            let mut event = account.history[0].clone();
            event.revision = from + 1;
            let events = vec![event];
            account.notes[0].segments.push(Segment { from, events });
        },
        "a watch shows what the store does not have",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_lie_is_found_out() {
    let account = account().await;
    judge(&account.history, &account.notes);
    for (what, tell, expected) in LIES {
        let mut account = account.clone();
        tell(&mut account);
        let judged = AssertUnwindSafe(|| judge(&account.history, &account.notes));
        let Err(panic) = catch_unwind(judged) else {
            panic!("nobody notices that {what}");
        };
        let said = panic.downcast_ref::<String>().expect("a text");
        assert!(said.contains(expected), "{what}: {said}");
    }
}

/// A sound account of a short history.
async fn account() -> Account {
    let store = Arc::new(MemoryStore::new(Clock::system()));
    let mut crowd = Crowd::new(Clock::fake(seed()));
    let api = world::serve(store.clone()).await.expect("a sound store");
    let api = Arc::new(Api::Here(api));
    crowd.act(&api, |number| number < 100).await;
    crowd.finish(&api).await;
    Account {
        history: notes::history(&*store, 1).await,
        notes: crowd.into_notes(),
    }
}

impl Account {
    fn attempts(&mut self) -> impl Iterator<Item = &mut Attempt> {
        self.notes.iter_mut().flat_map(|notes| &mut notes.attempts)
    }

    /// A write that left something and was answered.
    fn answered_put(&mut self) -> &mut Attempt {
        let answered = |attempt: &&mut Attempt| {
            matches!(attempt.outcome, Outcome::Answered(Some(_))) && attempt.content.is_some()
        };
        self.attempts()
            .find(answered)
            .expect("a write was answered")
    }

    /// A list of the present that shows something.
    fn list(&mut self) -> &mut List {
        let mut lists = self.notes.iter_mut().flat_map(|notes| &mut notes.lists);
        let some = lists.find(|list| !list.shown.is_empty() && list.floor > 0);
        some.expect("a list shows something")
    }

    /// A read that found something.
    fn found(&mut self) -> &mut Read {
        let mut reads = self.notes.iter_mut().flat_map(|notes| &mut notes.reads);
        reads
            .find(|read| read.found.is_some())
            .expect("a read found something")
    }

    /// A watch that showed some events.
    fn segment(&mut self) -> &mut Segment {
        let mut all = self.notes.iter_mut().flat_map(|notes| &mut notes.segments);
        // It has to begin just before its first event, to begin too early for a later start.
        let long = |segment: &&mut Segment| {
            segment.events.len() > 2 && segment.events[0].revision == segment.from + 1
        };
        all.find(long).expect("a watch shows some events")
    }

    /// Where the last event of a kind is.
    fn last(&self, kind: &str) -> usize {
        let last = self.history.iter().rposition(|event| event.kind == kind);
        last.expect("there is one")
    }
}
