//! Compares what everybody noted with the one history of the store.

use std::collections::{BTreeMap, HashMap};

use super::notes::{Attempt, Event, Notes, Outcome, Read, State};

/// How much was compared.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    pub(super) answered: usize,
    /// Writes without an answer, and how many of them happened all the same.
    pub(super) unknown: usize,
    pub(super) unknown_and_there: usize,
    pub(super) lists: usize,
    pub(super) reads: usize,
    pub(super) watches: usize,
    pub(super) watched: usize,
    /// What was refused with 410: lists of a revision, pages, watches.
    pub(super) gone: [usize; 3],
}

impl std::ops::AddAssign for Figures {
    fn add_assign(&mut self, more: Self) {
        self.answered += more.answered;
        self.unknown += more.unknown;
        self.unknown_and_there += more.unknown_and_there;
        self.lists += more.lists;
        self.reads += more.reads;
        self.watches += more.watches;
        self.watched += more.watched;
        for (sum, more) in self.gone.iter_mut().zip(more.gone) {
            *sum += more;
        }
    }
}

/// Panics where `notes` and `history`, which is all of it, don't agree.
pub(super) fn judge(history: &[Event], notes: &[Notes]) -> Figures {
    let mut figures = Figures::default();
    let attempts = Attempts::of(notes);
    attempts.compare(history, &mut figures);
    compare_lists(history, notes);
    for read in notes.iter().flat_map(|notes| &notes.reads) {
        compare_read(history, read);
        figures.reads += 1;
    }
    for segment in notes.iter().flat_map(|notes| &notes.segments) {
        let start = history.partition_point(|event| event.revision <= segment.from);
        let there = history[start..].iter().take(segment.events.len());
        for (seen, event) in segment.events.iter().zip(there) {
            assert_eq!(seen, event, "in a watch from {}", segment.from);
        }
        let more = segment.events.get(history.len() - start);
        assert_eq!(more, None, "a watch shows what the store does not have");
        figures.watches += 1;
        figures.watched += segment.events.len();
    }
    for notes in notes {
        figures.lists += notes.lists.len();
        for (sum, more) in figures.gone.iter_mut().zip(notes.gone) {
            *sum += more;
        }
    }
    figures
}

/// What was attempted, by what tells the attempts apart.
struct Attempts<'a> {
    puts: HashMap<&'a str, &'a Attempt>,
    /// Several may try to delete the same thing; one can succeed.
    deletions: HashMap<(&'a str, Option<u64>), Vec<&'a Attempt>>,
}

impl<'a> Attempts<'a> {
    fn of(notes: &'a [Notes]) -> Self {
        let (mut puts, mut deletions) = (HashMap::new(), HashMap::<_, Vec<_>>::new());
        for attempt in notes.iter().flat_map(|notes| &notes.attempts) {
            match &attempt.content {
                Some(content) => {
                    let other = puts.insert(content.as_str(), attempt);
                    assert!(other.is_none(), "the test attempts {attempt:?} twice");
                }
                None => deletions
                    .entry((attempt.name.as_str(), attempt.replaces))
                    .or_default()
                    .push(attempt),
            }
        }
        Self { puts, deletions }
    }

    /// Every event was attempted and met what it wanted to replace; every answered attempt is one event.
    fn compare(mut self, history: &'a [Event], figures: &mut Figures) {
        let mut model = State::new();
        let mut last = 0;
        for event in history {
            assert!(event.revision > last, "{event:?} comes after {last}");
            last = event.revision;
            let before = model.get(&event.name).map(|(revision, _)| *revision);
            let attempt = if event.kind == "DELETED" {
                let gone = model.remove(&event.name).map(|(_, content)| content);
                assert_eq!(gone.as_ref(), Some(&event.content), "{event:?}");
                let rivals = self.deletions.remove(&(&event.name, before));
                let rivals = rivals.unwrap_or_else(|| panic!("nobody asked for {event:?}"));
                let answered = |rival: &&Attempt| matches!(rival.outcome, Outcome::Answered(_));
                let winners = rivals.iter().filter(|rival| answered(rival)).count();
                assert!(winners <= 1, "{winners} were told of {event:?}");
                let best = rivals.iter().copied().find(|rival| answered(rival));
                best.or(rivals
                    .iter()
                    .copied()
                    .find(|rival| rival.outcome == Outcome::Unknown))
            } else {
                assert_eq!(event.kind == "ADDED", before.is_none(), "{event:?}");
                model.insert(event.name.clone(), (event.revision, event.content.clone()));
                self.puts.remove(event.content.as_str())
            };
            let attempt = attempt.unwrap_or_else(|| panic!("nobody did {event:?}, or twice"));
            assert_eq!(attempt.name, event.name);
            assert_eq!(attempt.replaces, before, "{attempt:?} met something else");
            match attempt.outcome {
                Outcome::Answered(revision) => {
                    let same = revision.is_none_or(|revision| revision == event.revision);
                    assert!(same, "{attempt:?} happened at {}", event.revision);
                    figures.answered += 1;
                }
                Outcome::Refused => panic!("{attempt:?} happened at {}", event.revision),
                Outcome::Unknown => {
                    figures.unknown += 1;
                    figures.unknown_and_there += 1;
                }
            }
        }
        let deletions = self.deletions.into_values().flatten();
        for attempt in self.puts.into_values().chain(deletions) {
            match attempt.outcome {
                Outcome::Answered(_) => panic!("lost: {attempt:?}"),
                Outcome::Refused => {}
                Outcome::Unknown => figures.unknown += 1,
            }
        }
    }
}

/// A list is what the history up to its revision leads to, and shows at least what was answered before.
fn compare_lists(history: &[Event], notes: &[Notes]) {
    let mut lists: Vec<_> = notes.iter().flat_map(|notes| &notes.lists).collect();
    lists.sort_by_key(|list| list.revision);
    let (mut model, mut events) = (State::new(), history.iter().peekable());
    for list in lists {
        assert!(list.revision >= list.floor, "a stale list: {list:?}");
        while let Some(event) = events.next_if(|event| event.revision <= list.revision) {
            match event.kind.as_str() {
                "DELETED" => drop(model.remove(&event.name)),
                _ => {
                    let state = (event.revision, event.content.clone());
                    model.insert(event.name.clone(), state);
                }
            }
        }
        let expected: BTreeMap<_, _> = model
            .iter()
            .filter(|(name, _)| **name > list.after)
            .collect();
        let shown: BTreeMap<_, _> = list.shown.iter().collect();
        assert_eq!(shown, expected, "a list at {}", list.revision);
    }
}

/// What was read was there, and was not replaced before the newest revision that had been told.
fn compare_read(history: &[Event], read: &Read) {
    let mut changes = history.iter().filter(|event| event.name == read.name);
    match &read.found {
        Some((revision, content)) => {
            let event = changes.find(|event| event.revision == *revision);
            let event = event.unwrap_or_else(|| panic!("never there: {read:?}"));
            assert!(event.kind != "DELETED", "deleted: {read:?}");
            assert_eq!(event.content, *content, "{read:?}");
            let next = changes.next();
            let stale = next.is_some_and(|next| next.revision <= read.floor);
            assert!(!stale, "a stale read: {read:?}, before {next:?}");
        }
        None => {
            let (before, after): (Vec<_>, Vec<_>) =
                changes.partition(|event| event.revision <= read.floor);
            let absent = before.last().is_none_or(|event| event.kind == "DELETED");
            let deleted = after.iter().any(|event| event.kind == "DELETED");
            assert!(absent || deleted, "it was there: {read:?}");
        }
    }
}
