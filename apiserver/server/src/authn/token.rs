//! Bearer tokens: those who know some, asked one after another, behind a short memory of successes.

use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use super::Identity;
use crate::expiring::{Expiring, Salted};
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
    /// The successes of the last seconds. Tokens themselves are not kept.
    remembered: Expiring<Authenticated>,
    digests: Salted,
}

impl Tokens {
    pub(super) fn new(authenticators: Vec<Box<dyn TokenAuthenticator>>) -> Self {
        Self {
            authenticators,
            remembered: Expiring::new(MOST_REMEMBERED),
            digests: Salted::default(),
        }
    }

    /// The first who knows the token decides; an error of one leaves it to the others.
    pub(super) async fn authenticate(
        &self,
        server: &Server,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Authenticated>, Vec<Rejection>> {
        let key = self.digests.digest(token, audiences, server.clock());
        let now = server.clock().monotonic();
        if let Some(known) = self.remembered.get(&key, now) {
            return Ok(Some(known));
        }
        let mut rejections = Vec::new();
        for authenticator in &self.authenticators {
            match authenticator.authenticate(server, token, audiences).await {
                Ok(Some(authenticated)) => {
                    let until = now + REMEMBERED;
                    self.remembered.put(key, authenticated.clone(), now, until);
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
