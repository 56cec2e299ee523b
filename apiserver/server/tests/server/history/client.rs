//! A client that does something at random, again and again, and notes what it is told.

use std::sync::Arc;
use std::time::Duration;

use coracle_clock::Clock;
use serde_json::{Value, json};

use super::api::{Answer, Api};
use super::notes::{
    Attempt, Floor, List, Notes, Outcome, Read, State, content, items, object, revision, text,
};
use crate::support::CONFIG_MAPS;

/// How many objects there are at most.
const NAMES: u64 = 12;

/// How far back clients look, in revisions.
const PAST: u64 = 60;

/// How long a client waits after a failure of the server.
const PAUSE: Duration = Duration::from_millis(10);

/// One of the clients.
pub(super) struct Client {
    pub(super) api: Arc<Api>,
    pub(super) clock: Clock,
    /// What its contents begin with; no other client's do.
    pub(super) id: String,
    pub(super) floor: Floor,
    pub(super) notes: Notes,
}

impl Client {
    /// Does something as long as `goes_on` says so of the number of things done.
    pub(super) async fn run(mut self, goes_on: impl Fn(u64) -> bool) -> Notes {
        let mut number = 0;
        while goes_on(number) {
            let served = match self.clock.random_below(16) {
                0 | 1 => self.list().await,
                2 => self.pages().await,
                3 => self.list_of_the_past().await,
                4 => self.get().await.is_some(),
                _ => self.write(number).await,
            };
            if !served {
                tokio::time::sleep(PAUSE).await;
            }
            number += 1;
        }
        self.notes
    }

    /// The answer to a question, unless the server failed.
    async fn ask(&self, path: &str) -> Option<Answer> {
        let answer = self.api.call("GET", path, None).await?;
        (answer.code < 500).then_some(answer)
    }

    async fn list(&mut self) -> bool {
        let floor = self.floor.get();
        let Some(answer) = self.ask(CONFIG_MAPS).await else {
            return false;
        };
        let list = succeeded(answer);
        self.note_list(revision(&list), String::new(), items(&list), floor);
        true
    }

    fn note_list(&mut self, revision: u64, after: String, shown: State, floor: u64) {
        self.floor.raise(revision);
        self.notes.lists.push(List {
            revision,
            after,
            shown,
            floor,
        });
    }

    /// Lists in pages, which show one state; where that is forgotten, the rest may be of a later one.
    async fn pages(&mut self) -> bool {
        let limit = 1 + self.clock.random_below(4);
        let mut floor = self.floor.get();
        let (mut path, mut after) = (format!("{CONFIG_MAPS}?limit={limit}"), String::new());
        let (mut at, mut shown) = (None, State::new());
        loop {
            let Some(mut answer) = self.ask(&path).await else {
                return false;
            };
            if answer.code == 410 {
                let message = text(&answer.body["message"]);
                assert!(message.contains("inconsistent list"), "{message}");
                assert_eq!(answer.body["reason"], "Expired");
                self.notes.gone[1] += 1;
                // What follows is a list of its own, of what comes after the last page.
                after = shown
                    .last_key_value()
                    .expect("a page had a token")
                    .0
                    .clone();
                (at, shown, floor) = (None, State::new(), self.floor.get());
                let token = text(&answer.body["metadata"]["continue"]);
                let Some(rest) = self.ask(&format!("{CONFIG_MAPS}?continue={token}")).await else {
                    return false;
                };
                answer = rest;
            }
            let list = succeeded(answer);
            let revision = revision(&list);
            assert_eq!(*at.get_or_insert(revision), revision, "pages of two states");
            let page = items(&list);
            assert!(page.keys().all(|name| !shown.contains_key(name)), "twice");
            shown.extend(page);
            match text(&list["metadata"]["continue"]) {
                token if token.is_empty() => {
                    self.note_list(revision, after, shown, floor);
                    return true;
                }
                token => path = format!("{CONFIG_MAPS}?limit={limit}&continue={token}"),
            }
            // Others get a chance to write, or to compact, in between.
            tokio::task::yield_now().await;
        }
    }

    async fn list_of_the_past(&mut self) -> bool {
        let back = self.clock.random_below(PAST);
        let at = self.floor.get().saturating_sub(back).max(1);
        let path = format!("{CONFIG_MAPS}?resourceVersion={at}&resourceVersionMatch=Exact");
        let Some(answer) = self.ask(&path).await else {
            return false;
        };
        if answer.code == 410 {
            assert_eq!(answer.body["reason"], "Expired", "{}", answer.body);
            self.notes.gone[0] += 1;
            return true;
        }
        let list = succeeded(answer);
        assert_eq!(revision(&list), at, "another state than was asked for");
        self.note_list(at, String::new(), items(&list), 0);
        true
    }

    /// Reads an object: `None` when the server failed, or else its name and revision.
    async fn get(&mut self) -> Option<(String, Option<u64>)> {
        let name = self.name();
        let floor = self.floor.get();
        let answer = self.ask(&format!("{CONFIG_MAPS}/{name}")).await?;
        let found = (answer.code != 404).then(|| {
            let object = succeeded(answer);
            (revision(&object), content(&object))
        });
        let revision = found.as_ref().map(|(revision, _)| *revision);
        self.floor.raise(revision.unwrap_or(0));
        self.notes.reads.push(Read {
            name: name.clone(),
            found,
            floor,
        });
        Some((name, revision))
    }

    /// Creates, replaces or deletes; `false` when the server failed.
    async fn write(&mut self, number: u64) -> bool {
        let kind = self.clock.random_below(3);
        let (name, replaces) = match kind {
            0 => (self.name(), None),
            _ => match self.get().await {
                None => return false,
                Some((_, None)) => return true,
                Some(found) => found,
            },
        };
        // Somebody else gets a chance to be faster.
        tokio::task::yield_now().await;
        let content = (kind != 2).then(|| format!("{}/{number}", self.id));
        self.attempt(name, replaces, content).await != Outcome::Unknown
    }

    /// Leaves `content`, or nothing, where the revision `replaces` is, or nothing.
    pub(super) async fn attempt(
        &mut self,
        name: String,
        replaces: Option<u64>,
        content: Option<String>,
    ) -> Outcome {
        let path = format!("{CONFIG_MAPS}/{name}");
        let at = replaces.map(|revision| revision.to_string());
        let answer = match &content {
            Some(content) => {
                let mut object = object(&name, content);
                if let Some(at) = &at {
                    object["metadata"]["resourceVersion"] = at.clone().into();
                }
                let (method, path) = match at {
                    Some(_) => ("PUT", path.as_str()),
                    None => ("POST", CONFIG_MAPS),
                };
                self.api.call(method, path, Some(object)).await
            }
            None => {
                let options = json!({"preconditions": {"resourceVersion": at}});
                self.api.call("DELETE", &path, Some(options)).await
            }
        };
        let outcome = match answer {
            None => Outcome::Unknown,
            Some(answer) => match answer.code {
                200 | 201 => {
                    // A deletion's answer has no revision of its own.
                    let revision = content.as_ref().map(|_| revision(&answer.body));
                    self.floor.raise(revision.unwrap_or(0));
                    Outcome::Answered(revision)
                }
                404 | 409 => Outcome::Refused,
                500.. => Outcome::Unknown,
                code => panic!("{code} to {name}: {}", answer.body),
            },
        };
        self.notes.attempts.push(Attempt {
            name,
            replaces,
            content,
            outcome,
        });
        outcome
    }

    fn name(&self) -> String {
        format!("object-{:02}", self.clock.random_below(NAMES))
    }
}

#[track_caller]
pub(super) fn succeeded(answer: Answer) -> Value {
    assert_eq!(answer.code, 200, "{}", answer.body);
    answer.body
}
