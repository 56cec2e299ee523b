//! The tokens in pods' volumes: asked for as the node, bound to the pod, and made anew before they end.
//!
//! ```text
//! volume's source ──▶ held and not due? ──▶ the token as it is
//!                          │ no
//!                          ▼
//!                     TokenRequest ──▶ held     (failed: the old one, while it is still good)
//! ```
//!
//! When a token is due follows upstream's pkg/kubelet/token: after 80 % of its life or a day, a little earlier by chance,
//! so that pods that started together do not ask together. Tokens are held in memory only; a kubelet that was started
//! again asks again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use coracle_client::{Error, ObjectKey};
use coracle_clock::{Clock, Timestamp};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::kubelet::Kubelet;

/// The life of a token whose source does not say (the API's default).
const DEFAULT_SECONDS: i64 = 3600;
/// A token older than this is replaced, however long it would live.
const OLDEST: Duration = Duration::from_secs(24 * 3600);
/// Most that chance brings a replacement forward.
const MOST_JITTER: Duration = Duration::from_secs(10);

/// What a volume asks for: the audience (empty: the API server's) and the life in seconds.
type Wanted = (String, i64);

/// The tokens of one pod, for its volumes' files.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodTokens(HashMap<Wanted, String>);

impl PodTokens {
    /// The token for a volume's source.
    pub(crate) fn of(&self, source: &ServiceAccountTokenProjection) -> Option<&str> {
        self.0.get(&wanted(source)).map(String::as_str)
    }
}

/// All tokens that this node's pods have, by the pod's UID.
#[derive(Debug, Default)]
pub(crate) struct Tokens(Mutex<HashMap<String, HashMap<Wanted, Held>>>);

/// A token and its times.
#[derive(Clone, PartialEq, Eq)]
struct Held {
    token: String,
    issued: Timestamp,
    expires: Timestamp,
    jitter: Duration,
}

/// Tokens are not for logs.
impl std::fmt::Debug for Held {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Held(until {})", self.expires)
    }
}

impl Held {
    /// Whether it is time for another one.
    fn is_due(&self, now: Timestamp) -> bool {
        let life = Duration::try_from(self.expires - self.issued).unwrap_or_default();
        let eighty_percent = life.mul_f64(0.8);
        now > self.issued + eighty_percent.min(OLDEST).saturating_sub(self.jitter)
    }

    fn is_over(&self, now: Timestamp) -> bool {
        now > self.expires
    }
}

impl Tokens {
    /// Forgets the tokens of a pod.
    pub(crate) fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    fn held(&self, uid: &str, wanted: &Wanted) -> Option<Held> {
        self.0.lock().get(uid)?.get(wanted).cloned()
    }

    fn hold(&self, uid: &str, wanted: Wanted, held: Held) {
        let mut all = self.0.lock();
        all.entry(uid.to_owned()).or_default().insert(wanted, held);
    }
}

impl Kubelet {
    /// The tokens that the pod's volumes want, made anew where they are due. The error, beside those that there are,
    /// names the volume, and says why in upstream's words.
    pub(crate) async fn tokens_of(&self, pod: &Pod) -> (PodTokens, Result<(), (String, String)>) {
        let (mut tokens, mut first) = (PodTokens::default(), Ok(()));
        for (volume, source) in sources(pod) {
            let wanted = wanted(source);
            if let Entry::Vacant(place) = tokens.0.entry(wanted) {
                match self.token(pod, place.key()).await {
                    Ok(token) => drop(place.insert(token)),
                    Err(why) => first = first.and(Err((volume.to_owned(), why))),
                }
            }
        }
        (tokens, first)
    }

    async fn token(&self, pod: &Pod, wanted: &Wanted) -> Result<String, String> {
        let uid = coracle_client::uid(pod);
        let clock = self.0.ctx.clock();
        let held = self.0.tokens.held(uid, wanted);
        let now = clock.now();
        if let Some(held) = held.as_ref().filter(|held| !held.is_due(now)) {
            return Ok(held.token.clone());
        }
        let problem = match self.request_token(pod, wanted).await {
            Ok(answer) => match read(&answer, now, clock) {
                Some(new) => {
                    let token = new.token.clone();
                    self.0.tokens.hold(uid, wanted.clone(), new);
                    return Ok(token);
                }
                None => "the answer to the TokenRequest has no token".to_owned(),
            },
            Err(error) => error.message().to_owned(),
        };
        match held {
            Some(held) if !held.is_over(now) => {
                tracing::warn!(pod = uid, problem, "a token could not be made anew yet");
                Ok(held.token)
            }
            Some(_) => Err(format!("token expired and refresh failed: {problem}")),
            None => Err(format!("failed to fetch token: {problem}")),
        }
    }

    async fn request_token(&self, pod: &Pod, (audience, seconds): &Wanted) -> Result<Value, Error> {
        let meta = &pod.metadata;
        let spec = pod.spec.as_ref();
        let account = spec.and_then(|spec| spec.service_account_name.as_deref());
        let account = account.filter(|name| !name.is_empty()).unwrap_or("default");
        let key = ObjectKey::new(meta.namespace.clone().unwrap_or_default(), account);
        let audiences = Some(audience).filter(|audience| !audience.is_empty());
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": audiences.into_iter().collect::<Vec<_>>(),
                "expirationSeconds": seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": meta.name, "uid": meta.uid},
            },
        });
        let objects = self.0.ctx.objects();
        objects
            .create_subresource::<ServiceAccount>(&key, "token", &body)
            .await
    }
}

/// The sources of tokens in the pod's volumes, with the volumes' names.
fn sources(pod: &Pod) -> impl Iterator<Item = (&str, &ServiceAccountTokenProjection)> {
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    volumes.flat_map(|volume| {
        let projected = volume.projected.iter();
        let sources = projected.flat_map(|projected| projected.sources.iter().flatten());
        sources.filter_map(|source| {
            Some((volume.name.as_str(), source.service_account_token.as_ref()?))
        })
    })
}

fn wanted(source: &ServiceAccountTokenProjection) -> Wanted {
    let audience = source.audience.clone().unwrap_or_default();
    (
        audience,
        source.expiration_seconds.unwrap_or(DEFAULT_SECONDS),
    )
}

/// The token in a TokenRequest's answer. The life that counts is the one the answer tells, though the token may say
/// more.
fn read(answer: &Value, now: Timestamp, clock: &Clock) -> Option<Held> {
    let token = answer["status"]["token"].as_str()?.to_owned();
    let expires = answer["status"]["expirationTimestamp"]
        .as_str()?
        .parse()
        .ok()?;
    let jitter = clock.random_below(MOST_JITTER.as_millis() as u64);
    Some(Held {
        token,
        issued: now,
        expires,
        jitter: Duration::from_millis(jitter),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn a_token_is_due_after_most_of_its_life_or_a_day() {
        for (life, jitter, due_after) in [
            (3600, 0, 2880),
            (3600, 10, 2870),
            (600, 0, 480),
            (30 * 86_400, 0, 86_400),
        ] {
            let held = Held {
                token: "t".to_owned(),
                issued: at(0),
                expires: at(life),
                jitter: Duration::from_secs(jitter),
            };
            assert!(!held.is_due(at(due_after)), "{life} {jitter}");
            assert!(held.is_due(at(due_after + 1)), "{life} {jitter}");
            assert!(!held.is_over(at(life)) && held.is_over(at(life + 1)));
        }
    }

    #[test]
    fn a_token_is_never_shown_in_a_log() {
        let answer =
            json!({"status": {"token": "s3cret", "expirationTimestamp": "2026-01-01T00:00:00Z"}});
        let held = read(&answer, at(0), &Clock::fake(1)).expect("a token");
        assert_eq!(held.token, "s3cret");
        assert!(!format!("{held:?}").contains("s3cret"));
    }

    #[test]
    fn an_answer_without_a_token_is_none() {
        assert_eq!(read(&json!({"status": {}}), at(0), &Clock::fake(1)), None);
    }
}
