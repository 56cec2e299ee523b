//! Whether a token whose signature is good still says the truth.

use std::sync::Arc;

use coracle_api::Object;
use coracle_clock::Timestamp;

use super::super::Identity;
use super::super::token::Rejection;
use super::account_identity;
use super::claims::{Claims, Named};
use crate::cache::Entry;
use crate::server::Server;
use crate::status::Result;

/// How far clocks may be apart, in seconds; an object that is being deleted counts as gone after this too.
const LEEWAY: i64 = 60;

const INVALIDATED: &str = "service account token has been invalidated";

/// What is there of what a token names.
#[derive(Default)]
struct World {
    account: Option<Object>,
    pod: Option<Object>,
    secret: Option<Object>,
    node: Option<Object>,
}

/// The identity that the token stands for, as long as what it names is there.
pub(super) async fn check(server: &Server, claims: &Claims) -> Result<Identity, Rejection> {
    let own = &claims.own;
    let find = async |plural: &str, namespace: &str, name: &str| {
        let found: Result<Option<Arc<Entry>>> = server.find("", plural, namespace, name).await;
        found
            .map(|entry| entry.map(|entry| entry.object()))
            .map_err(|_| Rejection::new(INVALIDATED))
    };
    let named = async |plural: &str, namespace: &str, named: &Option<Named>| match named {
        Some(named) => find(plural, namespace, &named.name).await,
        None => Ok(None),
    };
    let world = World {
        account: find("serviceaccounts", &own.namespace, &own.serviceaccount.name).await?,
        pod: named("pods", &own.namespace, &own.pod).await?,
        secret: named("secrets", &own.namespace, &own.secret).await?,
        node: named("nodes", "", &own.node).await?,
    };
    decide(claims, &world, server.clock().now())
}

/// The rules of upstream's `validator.Validate`, in its order.
fn decide(claims: &Claims, world: &World, now: Timestamp) -> Result<Identity, Rejection> {
    check_times(claims, now)?;
    let own = &claims.own;
    let (namespace, name) = (&own.namespace, &own.serviceaccount.name);
    let account = world.account.as_ref();
    let account =
        account.ok_or_else(|| Rejection::new(format!("serviceaccounts {name:?} not found")))?;
    if is_gone(account, now) {
        let text = format!("service account {namespace}/{name} has been deleted");
        return Err(Rejection::new(text));
    }
    let (uid, claimed) = (account.uid(), &own.serviceaccount.uid);
    if uid != claimed {
        let text = format!("service account UID ({uid}) does not match claim ({claimed})");
        return Err(Rejection::new(text));
    }
    check_named("secret", own.secret.as_ref(), world.secret.as_ref(), now)?;
    check_named("pod", own.pod.as_ref(), world.pod.as_ref(), now)?;
    // A pod's node is only told, not checked: the pod says whether the token is good.
    if own.pod.is_none() {
        check_named("node", own.node.as_ref(), world.node.as_ref(), now)?;
    }
    let mut identity = account_identity(namespace, name, claimed);
    let mut extra = |key: &str, value: &str| {
        if !value.is_empty() {
            let key = format!("authentication.kubernetes.io/{key}");
            identity.extra.push((key, vec![value.to_owned()]));
        }
    };
    if !claims.jti.is_empty() {
        extra("credential-id", &format!("JTI={}", claims.jti));
    }
    if let Some(node) = &own.node {
        extra("node-name", &node.name);
        extra("node-uid", &node.uid);
    }
    if let Some(pod) = &own.pod {
        extra("pod-name", &pod.name);
        extra("pod-uid", &pod.uid);
    }
    if own
        .warnafter
        .is_some_and(|at| at as i64 > 0 && now.as_second() > at as i64)
    {
        tracing::debug!(
            subject = claims.sub,
            "a stale service account token was used"
        );
    }
    Ok(identity)
}

fn check_times(claims: &Claims, now: Timestamp) -> Result<(), Rejection> {
    let now = now.as_second();
    let after = |time: Option<f64>| time.is_some_and(|time| now + LEEWAY < time as i64);
    if after(claims.nbf) {
        return Err(Rejection::new("service account token is not valid yet"));
    }
    if claims.exp.is_some_and(|end| now - LEEWAY > end as i64) {
        return Err(Rejection::new("service account token has expired"));
    }
    if after(claims.iat) {
        return Err(Rejection::new(
            "service account token is issued in the future",
        ));
    }
    Ok(())
}

/// An object that the token names has to be there, and be the same.
fn check_named(
    what: &str,
    named: Option<&Named>,
    found: Option<&Object>,
    now: Timestamp,
) -> Result<(), Rejection> {
    let Some(named) = named else {
        return Ok(());
    };
    let found = found.filter(|object| !is_gone(object, now));
    let uid = found.ok_or_else(|| Rejection::new(INVALIDATED))?.uid();
    if uid != named.uid {
        let text = format!(
            "{what} UID ({uid}) does not match service account {what} ref claim ({})",
            named.uid
        );
        return Err(Rejection::new(text));
    }
    Ok(())
}

/// Whether the object's deletion was due more than the leeway ago.
fn is_gone(object: &Object, now: Timestamp) -> bool {
    let deleted: Option<Timestamp> = object.metadata("deletionTimestamp").parse().ok();
    deleted.is_some_and(|deleted| deleted.as_second() < now.as_second() - LEEWAY)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn object(name: &str) -> Object {
        Object::from_value(json!({"metadata": {"name": name, "namespace": "ns", "uid": "u1"}}))
            .expect("an object")
    }

    fn deleted(name: &str, seconds_ago: i64) -> Object {
        let mut object = object(name);
        let at = Timestamp::from_second(NOW - seconds_ago).expect("a time");
        object.set("metadata.deletionTimestamp", at.to_string());
        object
    }

    fn claims(changes: Value) -> Claims {
        let mut claims = json!({
            "exp": NOW + 600, "nbf": NOW, "iat": NOW, "jti": "j",
            "kubernetes.io": {"namespace": "ns", "serviceaccount": {"name": "sa", "uid": "u1"}},
        });
        for (key, value) in changes.as_object().expect("an object") {
            match key.as_str() {
                "pod" | "secret" | "node" | "serviceaccount" => {
                    claims["kubernetes.io"][key] = value.clone();
                }
                _ => claims[key] = value.clone(),
            }
        }
        serde_json::from_value(claims).expect("claims")
    }

    fn world() -> World {
        World {
            account: Some(object("sa")),
            pod: Some(object("web")),
            secret: Some(object("s")),
            node: Some(object("n")),
        }
    }

    #[track_caller]
    fn verdict(claims: &Claims, world: &World) -> String {
        let now = Timestamp::from_second(NOW).expect("a time");
        decide(claims, world, now)
            .map_or_else(|rejection| rejection.to_string(), |identity| identity.user)
    }

    const GOOD: &str = "system:serviceaccount:ns:sa";

    #[test]
    fn time_has_a_minute_of_leeway() {
        for (changes, expected) in [
            (json!({}), GOOD),
            (json!({"exp": NOW - 60}), GOOD),
            (
                json!({"exp": NOW - 61}),
                "service account token has expired",
            ),
            (json!({"exp": null}), GOOD),
            (json!({"nbf": NOW + 60}), GOOD),
            (
                json!({"nbf": NOW + 61}),
                "service account token is not valid yet",
            ),
            (
                json!({"iat": NOW + 61}),
                "service account token is issued in the future",
            ),
        ] {
            assert_eq!(
                verdict(&claims(changes.clone()), &world()),
                expected,
                "{changes}"
            );
        }
    }

    #[test]
    fn an_account_that_is_gone_takes_its_tokens_along() {
        let with = |account: Option<Object>| World { account, ..world() };
        let claims = claims(json!({}));
        assert_eq!(
            verdict(&claims, &with(None)),
            "serviceaccounts \"sa\" not found"
        );
        assert_eq!(verdict(&claims, &with(Some(deleted("sa", 60)))), GOOD);
        assert_eq!(
            verdict(&claims, &with(Some(deleted("sa", 61)))),
            "service account ns/sa has been deleted"
        );
        let mut another = object("sa");
        another.set("metadata.uid", "u2");
        assert_eq!(
            verdict(&claims, &with(Some(another))),
            "service account UID (u2) does not match claim (u1)"
        );
    }

    #[test]
    fn so_does_what_a_token_is_bound_to() {
        for (kind, name) in [("pod", "web"), ("secret", "s"), ("node", "n")] {
            let good = claims(json!({kind: {"name": name, "uid": "u1"}}));
            let with = |object: Option<Object>| {
                let mut world = world();
                match kind {
                    "pod" => world.pod = object,
                    "secret" => world.secret = object,
                    _ => world.node = object,
                }
                world
            };
            assert_eq!(verdict(&good, &world()), GOOD);
            assert_eq!(verdict(&good, &with(None)), INVALIDATED, "{kind}");
            assert_eq!(
                verdict(&good, &with(Some(deleted(name, 60)))),
                GOOD,
                "{kind}"
            );
            assert_eq!(
                verdict(&good, &with(Some(deleted(name, 61)))),
                INVALIDATED,
                "{kind}"
            );
            let another = claims(json!({kind: {"name": name, "uid": "u2"}}));
            assert_eq!(
                verdict(&another, &world()),
                format!("{kind} UID (u1) does not match service account {kind} ref claim (u2)")
            );
        }
    }

    #[test]
    fn a_pods_node_is_told_and_not_checked() {
        let node = json!({"name": "gone", "uid": "u9"});
        let claims = claims(json!({"pod": {"name": "web", "uid": "u1"}, "node": node}));
        let now = Timestamp::from_second(NOW).expect("a time");
        let world = World {
            node: None,
            ..world()
        };
        let identity = decide(&claims, &world, now).expect("good");
        let extra: Vec<_> = identity
            .extra
            .iter()
            .map(|(key, values)| {
                (
                    key.trim_start_matches("authentication.kubernetes.io/"),
                    values[0].as_str(),
                )
            })
            .collect();
        let expected = [
            ("credential-id", "JTI=j"),
            ("node-name", "gone"),
            ("node-uid", "u9"),
            ("pod-name", "web"),
            ("pod-uid", "u1"),
        ];
        assert_eq!(extra, expected);
    }
}
