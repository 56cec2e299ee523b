//! Bearer tokens: those who know some, asked one after another, behind a short memory of successes.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use async_trait::async_trait;
use coracle_clock::Clock;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::Identity;
use crate::server::Server;

/// How long a token that was good is believed without asking again, as upstream's `TokenSuccessCacheTTL`.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Most tokens remembered; the oldest make room.
const MOST_REMEMBERED: usize = 4096;

/// Whose a token is, and which of the audiences asked for it is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    /// Who.
    pub identity: Identity,
    /// For whom.
    pub audiences: Vec<String>,
    /// What else there is to say of it.
    pub remarks: Remarks,
}

/// What is said of a token that is good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remarks {
    /// To whoever shows it.
    pub warning: Option<&'static str>,
    /// In audit events: key and value of an annotation.
    pub annotation: Option<(&'static str, String)>,
}

/// Why a token is refused by whom it concerns. Only a TokenReview tells.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Rejection(String);

impl Rejection {
    /// With a text in upstream's words.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Knows some tokens.
#[async_trait]
pub trait TokenAuthenticator: Send + Sync {
    /// `None`: not a token of this one's. An error: it is, and it is wrong. `audiences`: whom the token has to be for;
    /// one of them suffices.
    async fn authenticate(
        &self,
        server: &Server,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Authenticated>, Rejection>;
}

/// All who know tokens, in order.
pub(super) struct Tokens {
    authenticators: Vec<Box<dyn TokenAuthenticator>>,
    remembered: Memory,
}

impl Tokens {
    pub(super) fn new(authenticators: Vec<Box<dyn TokenAuthenticator>>) -> Self {
        Self {
            authenticators,
            remembered: Memory::new(),
        }
    }

    /// The first who knows the token decides; an error of one leaves it to the others.
    pub(super) async fn authenticate(
        &self,
        server: &Server,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Authenticated>, Vec<Rejection>> {
        let key = self.remembered.key(token, audiences, server.clock());
        let now = server.clock().monotonic();
        if let Some(known) = self.remembered.get(&key, now) {
            return Ok(Some(known));
        }
        let mut rejections = Vec::new();
        for authenticator in &self.authenticators {
            match authenticator.authenticate(server, token, audiences).await {
                Ok(Some(authenticated)) => {
                    self.remembered.put(key, authenticated.clone(), now);
                    return Ok(Some(authenticated));
                }
                Ok(None) => {}
                Err(rejection) => rejections.push(rejection),
            }
        }
        match rejections.is_empty() {
            true => Ok(None),
            false => Err(rejections),
        }
    }
}

/// The successes of the last seconds. Tokens themselves are not kept, only salted digests.
struct Memory {
    salt: Mutex<Option<[u8; 32]>>,
    successes: Mutex<Successes>,
}

#[derive(Default)]
struct Successes {
    known: HashMap<Key, Authenticated>,
    /// Oldest first, with the time until which it counts.
    order: VecDeque<(Key, Duration)>,
}

type Key = [u8; 32];

impl Memory {
    fn new() -> Self {
        Self {
            salt: Mutex::new(None),
            successes: Mutex::default(),
        }
    }

    fn key(&self, token: &str, audiences: &[String], clock: &Clock) -> Key {
        let salt = *self.salt.lock().get_or_insert_with(|| {
            let mut salt = [0; 32];
            clock.random_bytes(&mut salt);
            salt
        });
        let mut digest = Sha256::new();
        digest.update(salt);
        for part in [token]
            .into_iter()
            .chain(audiences.iter().map(String::as_str))
        {
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }

    fn get(&self, key: &Key, now: Duration) -> Option<Authenticated> {
        let mut successes = self.successes.lock();
        successes.forget(now);
        successes.known.get(key).cloned()
    }

    fn put(&self, key: Key, authenticated: Authenticated, now: Duration) {
        let mut successes = self.successes.lock();
        successes.forget(now);
        if successes.known.insert(key, authenticated).is_some() {
            return;
        }
        successes.order.push_back((key, now + REMEMBERED));
        if successes.order.len() > MOST_REMEMBERED
            && let Some((oldest, _)) = successes.order.pop_front()
        {
            successes.known.remove(&oldest);
        }
    }
}

impl Successes {
    fn forget(&mut self, now: Duration) {
        while let Some((key, until)) = self.order.front()
            && *until <= now
        {
            self.known.remove(key);
            self.order.pop_front();
        }
    }
}

/// Those of `named` that are asked for; `None` when there are none.
pub(super) fn intersection(named: &[String], asked: &[String]) -> Option<Vec<String>> {
    let both: Vec<String> = named
        .iter()
        .filter(|name| asked.contains(name))
        .cloned()
        .collect();
    (!both.is_empty()).then_some(both)
}

/// What upstream says of a token for others.
pub(super) fn audience_problem(named: &[String], asked: &[String]) -> Rejection {
    let list = |all: &[String]| {
        let quoted: Vec<String> = all.iter().map(|one| format!("{one:?}")).collect();
        format!("[{}]", quoted.join(" "))
    };
    Rejection::new(format!(
        "token audiences {} is invalid for the target audiences {}",
        list(named),
        list(asked)
    ))
}

/// Whether two secrets are the same, in a time that depends on their lengths only.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    // Digests of both are compared, so that an early end of the comparison tells nothing about the secrets.
    Sha256::digest(a) == Sha256::digest(b) && a.len() == b.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn someone(name: &str) -> Authenticated {
        Authenticated {
            identity: Identity::new(name, [] as [&str; 0]),
            audiences: vec!["api".to_owned()],
            remarks: Remarks::default(),
        }
    }

    #[tokio::test]
    async fn successes_are_remembered_for_a_while_and_not_without_bound() {
        let memory = Memory::new();
        let clock = Clock::fake(1);
        let key = |token: &str, audience: &str| memory.key(token, &[audience.to_owned()], &clock);
        let at = Duration::from_secs;
        memory.put(key("t", "a"), someone("jane"), at(0));
        assert_eq!(memory.get(&key("t", "a"), at(9)), Some(someone("jane")));
        assert_eq!(memory.get(&key("t", "b"), at(9)), None, "another audience");
        assert_eq!(
            memory.get(&key("ta", ""), at(9)),
            None,
            "parts do not run together"
        );
        assert_eq!(memory.get(&key("t", "a"), at(10)), None);
        for number in 0..MOST_REMEMBERED + 5 {
            memory.put(key(&number.to_string(), "a"), someone("joe"), at(20));
        }
        assert_eq!(memory.successes.lock().known.len(), MOST_REMEMBERED);
        assert_eq!(
            memory.get(&key("4", "a"), at(20)),
            None,
            "the oldest made room"
        );
        assert!(memory.get(&key("5", "a"), at(20)).is_some());
    }

    #[test]
    fn audiences_are_told_as_go_prints_them() {
        let texts = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            audience_problem(&texts(&["a", "b"]), &texts(&["c"])).to_string(),
            r#"token audiences ["a" "b"] is invalid for the target audiences ["c"]"#
        );
        assert_eq!(
            intersection(&texts(&["a", "b"]), &texts(&["b"])),
            Some(texts(&["b"]))
        );
        assert_eq!(intersection(&texts(&["a"]), &texts(&["b"])), None);
    }

    #[test]
    fn secrets_are_the_same_or_not() {
        assert!(same(b"secret", b"secret"));
        assert!(!same(b"secret", b"secrex"));
        assert!(!same(b"secret", b""));
    }
}
