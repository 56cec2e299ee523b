//! A service that knows tokens: it is asked with a TokenReview.
//!
//! Rules: `k8s.io/apiserver/plugin/pkg/authenticator/token/webhook`.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use coracle_api::At;
use coracle_clock::Clock;
use serde_json::{Value, json};

use super::Identity;
use super::token::{Authenticated, Rejection, Remarks, TokenAuthenticator, intersection};
use crate::expiring::{Expiring, Salted};
use crate::outgoing::Webhook;
use crate::server::Server;

/// Most answers that are remembered.
const MOST_REMEMBERED: usize = 4096;

/// Asks a webhook, and remembers what it said: yes and no alike, but no failures.
pub struct TokenWebhook {
    webhook: Webhook,
    version: &'static str,
    remembered: Expiring<Option<Authenticated>>,
    /// How long.
    life: Duration,
    clock: Clock,
    digests: Salted,
}

impl TokenWebhook {
    /// Asks in `v1` or `v1beta1` (anything else is the former); remembers answers for `life`.
    pub fn new(webhook: Webhook, version: &str, life: Duration, clock: Clock) -> Self {
        Self {
            webhook,
            version: if version == "v1beta1" {
                "v1beta1"
            } else {
                "v1"
            },
            remembered: Expiring::new(MOST_REMEMBERED),
            life,
            clock,
            digests: Salted::default(),
        }
    }

    async fn ask(&self, token: &str, audiences: &[String]) -> Result<Value, Rejection> {
        let question = json!({
            "apiVersion": format!("authentication.k8s.io/{}", self.version),
            "kind": "TokenReview",
            "metadata": {"creationTimestamp": null},
            "spec": {"token": token, "audiences": audiences},
            "status": {"user": {}},
        });
        let reply = self.webhook.ask(Bytes::from(question.to_string())).await;
        let reply = reply.map_err(|error| {
            tracing::warn!(%error, "the webhook that knows tokens did not answer");
            Rejection::new(error.to_string())
        })?;
        let answer: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let expected = (
            "TokenReview",
            format!("authentication.k8s.io/{}", self.version),
        );
        let at = At::root(&answer, "");
        if (at.key("kind").str(), at.key("apiVersion").str()) != (expected.0, expected.1.as_str()) {
            let why = format!("the webhook's answer is no TokenReview of {}", expected.1);
            tracing::warn!("{why}");
            return Err(Rejection::new(why));
        }
        Ok(answer)
    }
}

#[async_trait]
impl TokenAuthenticator for TokenWebhook {
    async fn authenticate(
        &self,
        server: &Server,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Authenticated>, Rejection> {
        let key = self.digests.digest(token, audiences, &self.clock);
        let now = self.clock.monotonic();
        if let Some(known) = self.remembered.get(&key, now) {
            return Ok(known);
        }
        let answer = self.ask(token, audiences).await?;
        let known = judge(&answer, &server.authentication.api_audiences, audiences)?;
        if !self.life.is_zero() {
            let until = now + self.life;
            self.remembered.put(key, known.clone(), now, until);
        }
        Ok(known)
    }
}

/// Who it is, by the answer. A webhook that names no audiences knows none, so the token is for whom ours are.
fn judge(
    answer: &Value,
    own: &[String],
    asked: &[String],
) -> Result<Option<Authenticated>, Rejection> {
    let status = At::root(answer, "").key("status");
    let texts =
        |at: &At<'_>| -> Vec<String> { at.items().map(|item| item.str().to_owned()).collect() };
    let named = texts(&status.key("audiences"));
    let named = if named.is_empty() { own } else { &named };
    let Some(audiences) = intersection(named, asked) else {
        return Ok(None);
    };
    if !status.key("authenticated").is_true() {
        return match status.key("error").str() {
            "" => Ok(None),
            error => Err(Rejection::new(error)),
        };
    }
    let user = status.key("user");
    let extra = user.key("extra");
    let extra = extra
        .entries()
        .map(|(key, values)| (key.to_owned(), texts(&values)));
    let identity = Identity {
        uid: user.key("uid").str().to_owned(),
        extra: extra.collect(),
        ..Identity::new(user.key("username").str(), texts(&user.key("groups")))
    };
    Ok(Some(Authenticated {
        identity,
        audiences,
        remarks: Remarks::default(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(|one| (*one).to_owned()).collect()
    }

    #[test]
    fn answers_are_judged() {
        let user =
            json!({"username": "jane", "uid": "7", "groups": ["a"], "extra": {"e.org/k": ["v"]}});
        let yes = json!({"status": {"authenticated": true, "user": user}});
        let known = judge(&yes, &texts(&["api"]), &texts(&["api"])).expect("no error");
        let known = known.expect("known");
        assert_eq!(known.identity.user, "jane");
        assert!(known.identity.is_in("a") && known.identity.is_in("system:authenticated"));
        assert_eq!(
            known.identity.extra,
            [("e.org/k".to_owned(), texts(&["v"]))]
        );
        assert_eq!(known.audiences, texts(&["api"]));
        assert_eq!(
            judge(&yes, &texts(&["api"]), &texts(&["other"])),
            Ok(None),
            "not for others"
        );
        let mut named = yes.clone();
        named["status"]["audiences"] = json!(["other"]);
        let known = judge(&named, &texts(&["api"]), &texts(&["other"])).expect("no error");
        assert_eq!(known.map(|known| known.audiences), Some(texts(&["other"])));
        assert_eq!(judge(&named, &texts(&["api"]), &texts(&["api"])), Ok(None));
        let no = json!({"status": {"authenticated": false, "error": "revoked"}});
        let why = judge(&no, &texts(&["api"]), &texts(&["api"]));
        assert_eq!(why, Err(Rejection::new("revoked")));
        assert_eq!(
            judge(&json!({}), &texts(&["api"]), &texts(&["api"])),
            Ok(None)
        );
    }
}
