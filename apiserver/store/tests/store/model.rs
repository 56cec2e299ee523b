//! Random histories, told to a store and to a sorted map: both must give the same answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_clock::Clock;
use coracle_store::{
    Error, Event, EventKind, MemoryStore, Op, Precondition, RedbStore, Revision, Store,
};
use proptest::prelude::*;
use proptest::sample::select;
use redb::backends::InMemoryBackend;

use crate::all_events;

#[derive(Clone, Debug)]
enum Step {
    Put {
        key: &'static str,
        value: u8,
        when: When,
        expires: bool,
    },
    Delete {
        key: &'static str,
        when: When,
    },
    Expire,
    /// Compacts to a share of the history, in parts of eight.
    Compact(u64),
    /// Lists a prefix at a share of the history, in pages.
    List {
        prefix: &'static str,
        at: u64,
        page: usize,
    },
}

#[derive(Clone, Copy, Debug)]
enum When {
    Always,
    Absent,
    Exists,
    /// The key's revision, or one that it hasn't got.
    Unchanged(bool),
}

const KEYS: &[&str] = &["a", "a/1", "a/2", "a/20", "b", "b/1"];

fn when() -> impl Strategy<Value = When> {
    select(vec![
        When::Always,
        When::Absent,
        When::Exists,
        When::Unchanged(true),
        When::Unchanged(false),
    ])
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (select(KEYS), any::<u8>(), when(), any::<bool>())
            .prop_map(|(key, value, when, expires)| Step::Put { key, value, when, expires }),
        4 => (select(KEYS), when()).prop_map(|(key, when)| Step::Delete { key, when }),
        1 => Just(Step::Expire),
        1 => (0..=9_u64).prop_map(Step::Compact),
        2 => (select(vec!["", "a", "a/", "a/2", "b", "c"]), 0..=9_u64, 1..4_usize)
            .prop_map(|(prefix, at, page)| Step::List { prefix, at, page }),
    ]
}

/// The sorted map, and how it came to be.
#[derive(Default)]
struct Model {
    keys: BTreeMap<&'static str, Entry>,
    /// The map after each write, from the first revision on.
    states: Vec<BTreeMap<&'static str, Entry>>,
    compacted: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    value: u8,
    create: u64,
    modified: u64,
    expires: bool,
}

impl Model {
    fn current(&self) -> u64 {
        self.states.len() as u64
    }

    fn allows(&self, key: &'static str, when: When, delete: bool) -> bool {
        match (when, self.keys.contains_key(key)) {
            (When::Absent, there) => !there && !delete,
            (When::Always, there) => there || !delete,
            (When::Exists, there) => there,
            (When::Unchanged(known), there) => known && there,
        }
    }

    fn put(&mut self, key: &'static str, value: u8, expires: bool) {
        let modified = self.current() + 1;
        let create = self.keys.get(key).map_or(modified, |entry| entry.create);
        self.keys.insert(
            key,
            Entry {
                value,
                create,
                modified,
                expires,
            },
        );
        self.states.push(self.keys.clone());
    }

    fn delete(&mut self, key: &'static str) {
        self.keys.remove(key);
        self.states.push(self.keys.clone());
    }

    /// A share of the history, from 0 (too old, mostly) over 8 (the present) to 9 (the future).
    fn at(&self, share: u64) -> u64 {
        if share > 8 {
            self.current() + 1
        } else {
            self.current() * share / 8
        }
    }

    fn list(&self, prefix: &str, at: u64) -> Vec<(&'static str, Entry)> {
        let state = &self.states[at as usize - 1];
        state
            .iter()
            .filter(|(key, _)| key.starts_with(prefix))
            .map(|(key, entry)| (*key, entry.clone()))
            .collect()
    }
}

async fn agree(store: Arc<dyn Store>, clock: Clock, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut model = Model {
        states: vec![BTreeMap::new()],
        compacted: 1,
        ..Model::default()
    };
    let mut live = store.watch(Revision::FIRST).await.unwrap();
    live.next().await.unwrap();
    for step in steps {
        match step {
            Step::Put {
                key,
                value,
                when,
                expires,
            } => {
                let ttl = expires.then_some(Duration::ZERO);
                let result = store
                    .write(
                        Op::put(key, vec![value]),
                        model.precondition(key, when),
                        ttl,
                    )
                    .await;
                if model.allows(key, when, false) {
                    model.put(key, value, expires);
                }
                model.check_write(result, key, when)?;
            }
            Step::Delete { key, when } => {
                let allowed = model.allows(key, when, true);
                let result = store
                    .write(Op::delete(key), model.precondition(key, when), None)
                    .await;
                if allowed {
                    model.delete(key);
                }
                prop_assert_eq!(result.is_ok(), allowed);
            }
            Step::Expire => {
                let due: Vec<_> = model
                    .keys
                    .iter()
                    .filter(|(_, entry)| entry.expires)
                    .map(|(key, _)| *key)
                    .collect();
                prop_assert_eq!(
                    store
                        .expire(clock.now() + Duration::from_secs(1))
                        .await
                        .unwrap(),
                    due.len()
                );
                for key in due {
                    model.delete(key);
                }
            }
            Step::Compact(share) => {
                let up_to = model.at(share);
                let result = store.compact(Revision(up_to)).await;
                prop_assert_eq!(result.is_ok(), up_to <= model.current());
                if result.is_ok() {
                    model.compacted = model.compacted.max(up_to);
                }
            }
            Step::List { prefix, at, page } => {
                check_list(&*store, &model, prefix, model.at(at), page).await?
            }
        }
        prop_assert_eq!(store.current_revision().0, model.current());
        prop_assert_eq!(store.compacted_revision().0, model.compacted);
    }
    for revision in 0..=model.current() {
        check_list(&*store, &model, "", revision, 2).await?;
    }
    check_events(all_events(&*store).await, &model, model.compacted)?;
    let mut seen = Vec::new();
    while let Some(Ok(coracle_store::WatchItem::Event(event))) = live.try_next() {
        seen.push(event);
    }
    check_events(seen, &model, 1)
}

impl Model {
    fn precondition(&self, key: &str, when: When) -> Precondition {
        match when {
            When::Always => Precondition::None,
            When::Absent => Precondition::Absent,
            When::Exists => Precondition::Exists,
            When::Unchanged(known) => {
                let modified = self.keys.get(key).map_or(1, |entry| entry.modified);
                Precondition::Revision(Revision(if known { modified } else { modified + 1 }))
            }
        }
    }

    /// Compares the answer to a put with the state after it.
    fn check_write(
        &self,
        result: Result<Revision, Error>,
        key: &'static str,
        when: When,
    ) -> Result<(), TestCaseError> {
        match (result, when) {
            (Ok(revision), _) => prop_assert_eq!(
                self.keys.get(key).map(|entry| entry.modified),
                Some(revision.0)
            ),
            (Err(Error::Conflict { current }), When::Absent | When::Unchanged(false)) => {
                prop_assert_eq!(
                    self.keys.get(key).map(|entry| entry.modified),
                    Some(current.mod_revision.0)
                );
            }
            (Err(Error::NotFound { .. }), When::Exists | When::Unchanged(_)) => {
                prop_assert!(!self.keys.contains_key(key));
            }
            (Err(error), _) => prop_assert!(false, "unexpected {:?}", error),
        }
        Ok(())
    }
}

async fn check_list(
    store: &dyn Store,
    model: &Model,
    prefix: &str,
    at: u64,
    limit: usize,
) -> Result<(), TestCaseError> {
    let mut found = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = match store
            .range(
                prefix.as_bytes(),
                Some(Revision(at)),
                after.as_deref(),
                limit,
            )
            .await
        {
            Err(Error::Compacted { .. }) => {
                prop_assert!(at < model.compacted);
                return Ok(());
            }
            Err(Error::FutureRevision { .. }) => {
                prop_assert!(at > model.current());
                return Ok(());
            }
            page => page.unwrap(),
        };
        prop_assert!(page.items.len() <= limit);
        after = page.items.last().map(|item| item.key.to_vec()).or(after);
        found.extend(page.items);
        if !page.more {
            break;
        }
    }
    prop_assert!((model.compacted..=model.current()).contains(&at));
    let found: Vec<_> = found
        .iter()
        .map(|item| {
            (
                str(&item.key),
                item.value[0],
                item.create_revision.0,
                item.mod_revision.0,
            )
        })
        .collect();
    let wanted = model.list(prefix, at);
    let wanted: Vec<_> = wanted
        .iter()
        .map(|(key, e)| (*key, e.value, e.create, e.modified))
        .collect();
    prop_assert_eq!(found, wanted);
    Ok(())
}

/// Replays `events` on the model's state at `from`, and compares each state on the way.
fn check_events(events: Vec<Event>, model: &Model, from: u64) -> Result<(), TestCaseError> {
    let revisions: Vec<_> = events.iter().map(|event| event.revision.0).collect();
    prop_assert_eq!(revisions, (from + 1..=model.current()).collect::<Vec<_>>());
    for event in events {
        let (before, after) = (
            &model.states[event.revision.0 as usize - 2],
            &model.states[event.revision.0 as usize - 1],
        );
        let key = str(&event.key);
        let side = |version: &coracle_store::Version| {
            (
                version.value[0],
                version.create_revision.0,
                version.mod_revision.0,
            )
        };
        let entry = |entry: &Entry| (entry.value, entry.create, entry.modified);
        match &event.kind {
            EventKind::Put {
                value,
                create_revision,
                previous,
            } => {
                prop_assert_eq!(previous.as_ref().map(side), before.get(key).map(entry));
                let now = (value[0], create_revision.0, event.revision.0);
                prop_assert_eq!(Some(now), after.get(key).map(entry));
            }
            EventKind::Delete { last } => {
                prop_assert_eq!(Some(side(last)), before.get(key).map(entry));
                prop_assert_eq!(after.get(key), None);
            }
        }
    }
    Ok(())
}

fn str(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("keys here are text")
}

/// Time stands still, so that what expires does so in the order of keys.
fn run(store: impl FnOnce(Clock) -> Arc<dyn Store>, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let clock = Clock::fake(1);
        let store = store(clock.clone());
        let result = agree(store.clone(), clock, steps).await;
        store.close().await;
        result
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_agrees_with_a_sorted_map(steps in prop::collection::vec(step(), 1..60)) {
        run(|clock| Arc::new(MemoryStore::new(clock)), steps)?;
    }

    #[test]
    fn redb_agrees_with_a_sorted_map(steps in prop::collection::vec(step(), 1..60)) {
        run(|clock| Arc::new(RedbStore::open_with_backends(InMemoryBackend::new, InMemoryBackend::new, 4096, || u64::MAX, clock).unwrap()), steps)?;
    }
}
