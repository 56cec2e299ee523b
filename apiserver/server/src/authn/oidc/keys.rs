//! The keys of an issuer: found by discovery, kept, and asked for again when a token names one that is not known.
//!
//! ```text
//!            every 10 s            every hour, and on unknown keys (five at once, then one in 10 s)
//! nothing ──────────────▶ found ──────────────────────────────────────────────────────────────────▶ found
//! ```

use std::sync::Arc;
use std::time::Duration;

use coracle_clock::Clock;
use http::{HeaderValue, Method, StatusCode};
use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::authn::jws::{Jws, PublicKey};
use crate::config::Issuer;
use crate::outgoing::{Call, CallError, Client, Outside, Reply, Target, TargetError, TlsError};

/// How long after a failure the issuer is looked for again.
const SEARCH: Duration = Duration::from_secs(10);
/// How long keys are kept without asking.
const FRESH: Duration = Duration::from_secs(3600);
/// How long one request to an issuer may take.
const WITHIN: Duration = Duration::from_secs(10);
/// Most bytes of an issuer's documents.
const MOST_BYTES: usize = 1 << 20;
/// Most keys of an issuer.
const MOST_KEYS: usize = 200;
/// Most questions for unknown keys at once, and how long until another is free.
const QUESTIONS: (u32, Duration) = (5, Duration::from_secs(10));

/// Why an issuer cannot be asked, or has no keys.
#[derive(Debug, thiserror::Error)]
pub(in crate::authn) enum KeysError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("{at}: {why}")]
    Document { at: String, why: String },
}

/// The keys of one issuer.
pub(super) struct RemoteKeys {
    issuer: String,
    discovery: Target,
    client: Arc<Client>,
    state: RwLock<State>,
    /// Held while the issuer is asked, so that it is asked once for all who wait.
    asking: tokio::sync::Mutex<()>,
    questions: Mutex<Questions>,
}

#[derive(Default)]
struct State {
    jwks: Option<Target>,
    keys: Arc<Vec<PublicKey>>,
    /// How often they were read.
    generation: u64,
}

/// A bucket of tokens.
struct Questions {
    left: u32,
    since: Duration,
}

impl Questions {
    /// Takes one, if one is left.
    fn take(&mut self, now: Duration) -> bool {
        let (most, each) = QUESTIONS;
        let earned = now.saturating_sub(self.since).as_secs() / each.as_secs();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(most);
            self.left = self.left.saturating_add(earned).min(most);
            self.since = now;
        }
        let taken = self.left.checked_sub(1);
        self.left = taken.unwrap_or(0);
        taken.is_some()
    }
}

impl RemoteKeys {
    pub(super) fn new(
        issuer: &Issuer,
        outside: &Arc<dyn Outside>,
        clock: &Clock,
    ) -> Result<Self, KeysError> {
        let roots = issuer.authorities.clone();
        let client = Client::new(Arc::clone(outside), roots, clock.clone())?;
        Self::of(
            &issuer.url,
            issuer.discovery_url.as_deref(),
            Arc::new(client),
        )
    }

    /// The keys of another issuer, whom the same authorities vouch for.
    pub(super) fn beside(&self, url: &str) -> Result<Self, KeysError> {
        Self::of(url, None, Arc::clone(&self.client))
    }

    fn of(url: &str, discovery: Option<&str>, client: Arc<Client>) -> Result<Self, KeysError> {
        let usual = || {
            let base = url.strip_suffix('/').unwrap_or(url);
            format!("{base}/.well-known/openid-configuration")
        };
        let discovery = discovery.map_or_else(usual, str::to_owned);
        let since = client.clock().monotonic();
        Ok(Self {
            issuer: url.to_owned(),
            discovery: Target::parse(&discovery)?,
            client,
            state: RwLock::default(),
            asking: tokio::sync::Mutex::default(),
            questions: Mutex::new(Questions {
                left: QUESTIONS.0,
                since,
            }),
        })
    }

    /// Looks for the keys, and after that for new ones, until the guard is dropped.
    pub(super) fn follow(self: &Arc<Self>) -> DropGuard {
        let (keys, stop) = (Arc::clone(self), CancellationToken::new());
        let guard = stop.clone().drop_guard();
        tokio::spawn(async move {
            let look = async {
                loop {
                    let wait = match keys.refresh().await {
                        Ok(()) => FRESH,
                        Err(error) => {
                            tracing::warn!(issuer = keys.issuer, %error, "an issuer's keys were not found");
                            SEARCH
                        }
                    };
                    keys.client.clock().sleep(wait).await;
                }
            };
            stop.run_until_cancelled(look).await;
        });
        guard
    }

    /// Whether the issuer was ever reached.
    pub(super) fn are_known(&self) -> bool {
        self.state.read().generation > 0
    }

    /// Whether one of the keys signed it; asks the issuer when none of those that are known did.
    pub(super) async fn verify(&self, jws: &Jws<'_>) -> bool {
        let (good, seen) = self.verified(jws);
        if good {
            return true;
        }
        let _asking = self.asking.lock().await;
        // Somebody else may have asked meanwhile.
        let (good, now) = self.verified(jws);
        if good || now != seen {
            return good;
        }
        if !self.questions.lock().take(self.client.clock().monotonic()) {
            return false;
        }
        if let Err(error) = self.fetch().await {
            tracing::warn!(issuer = self.issuer, %error, "an issuer was not asked for new keys");
        }
        self.verified(jws).0
    }

    fn verified(&self, jws: &Jws<'_>) -> (bool, u64) {
        let (keys, generation) = {
            let state = self.state.read();
            (Arc::clone(&state.keys), state.generation)
        };
        let kid = &jws.header.kid;
        let named = |key: &&PublicKey| kid.is_empty() || key.id() == kid;
        let claims: Option<serde::de::IgnoredAny> = jws.verified(keys.iter().filter(named));
        (claims.is_some(), generation)
    }

    async fn refresh(&self) -> Result<(), KeysError> {
        let _asking = self.asking.lock().await;
        self.fetch().await
    }

    /// Asks the issuer; the keys that are known stay when it does not answer.
    async fn fetch(&self) -> Result<(), KeysError> {
        let known = self.state.read().jwks.clone();
        let jwks = match known {
            Some(jwks) => jwks,
            None => self.discover().await?,
        };
        let document = self.get(&jwks).await?;
        let Some(keys) = document["keys"].as_array() else {
            return Err(wrong(&jwks, "it has no keys".to_owned()));
        };
        // Keys of other types are for others.
        let keys = keys.iter().take(MOST_KEYS).map(PublicKey::from_jwk);
        let keys: Vec<PublicKey> = keys.filter_map(Result::ok).collect();
        let mut state = self.state.write();
        state.jwks = Some(jwks);
        state.keys = Arc::new(keys);
        state.generation += 1;
        Ok(())
    }

    async fn discover(&self) -> Result<Target, KeysError> {
        let document = self.get(&self.discovery).await?;
        let issuer = document["issuer"].as_str().unwrap_or_default();
        if issuer != self.issuer {
            return Err(wrong(
                &self.discovery,
                format!(
                    "oidc: issuer did not match the issuer returned by provider, expected {:?} got {issuer:?}",
                    self.issuer
                ),
            ));
        }
        Ok(Target::parse(
            document["jwks_uri"].as_str().unwrap_or_default(),
        )?)
    }

    /// Asks whoever is there, as the issuer is asked.
    pub(super) async fn call(
        &self,
        target: &Target,
        authorization: Option<HeaderValue>,
    ) -> Result<Reply, CallError> {
        let call = Call {
            method: Method::GET,
            body: None,
            authorization,
            within: WITHIN,
            most: MOST_BYTES,
        };
        self.client.send(target, call).await
    }

    async fn get(&self, target: &Target) -> Result<Value, KeysError> {
        let reply = self.call(target, None).await?;
        if reply.status != StatusCode::OK {
            return Err(wrong(
                target,
                format!("the server answered {}", reply.status),
            ));
        }
        serde_json::from_slice(&reply.body).map_err(|_| wrong(target, "it is no JSON".to_owned()))
    }
}

fn wrong(target: &Target, why: String) -> KeysError {
    KeysError::Document {
        at: target.to_string(),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_few() {
        let at = Duration::from_secs;
        let mut questions = Questions {
            left: 2,
            since: at(0),
        };
        assert!(questions.take(at(1)) && questions.take(at(1)));
        assert!(!questions.take(at(9)));
        assert!(questions.take(at(10)));
        assert!(!questions.take(at(19)));
        let later: Vec<bool> = (0..6).map(|_| questions.take(at(1000))).collect();
        assert_eq!(later, [true, true, true, true, true, false]);
    }
}
