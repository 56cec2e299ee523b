//! Tokens that are kept in Secrets of type `kubernetes.io/service-account-token`; they have no end and no audience.
//!
//! The rules are those of upstream's pkg/serviceaccount/legacy.go.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_api::Object;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::Identity;
use super::super::token::{Rejection, same};
use super::account_identity;
use crate::server::Server;

/// Who issues these.
pub(super) const ISSUER: &str = "kubernetes/serviceaccount";
/// A Secret with this label is no longer believed.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// What such a token says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Claims {
    sub: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    name: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
}

/// The claims of `account`'s token in the Secret `secret`.
pub(super) fn claims(account: &Object, secret: &str) -> Value {
    let (namespace, name) = (account.namespace(), account.name());
    json!({
        "iss": ISSUER,
        "kubernetes.io/serviceaccount/namespace": namespace,
        "kubernetes.io/serviceaccount/secret.name": secret,
        "kubernetes.io/serviceaccount/service-account.name": name,
        "kubernetes.io/serviceaccount/service-account.uid": account.uid(),
        "sub": format!("system:serviceaccount:{namespace}:{name}"),
    })
}

/// The account, as long as it and the Secret with this very token are there.
pub(super) async fn check(
    server: &Server,
    claims: &Claims,
    token: &str,
) -> Result<Identity, Rejection> {
    let find = async |plural: &str, name: &str| {
        let found = server.find("", plural, &claims.namespace, name).await;
        found.ok().flatten().map(|entry| entry.object())
    };
    check_claims(claims)?;
    let secret = find("secrets", &claims.secret).await;
    let account = find("serviceaccounts", &claims.name).await;
    decide(claims, token, secret.as_ref(), account.as_ref())
}

fn check_claims(claims: &Claims) -> Result<(), Rejection> {
    for (claim, name) in [
        (&claims.sub, "sub"),
        (&claims.namespace, "namespace"),
        (&claims.secret, "secretName"),
        (&claims.name, "serviceAccountName"),
        (&claims.uid, "serviceAccountUID"),
    ] {
        if claim.is_empty() {
            return Err(Rejection::new(format!("{name} claim is missing")));
        }
    }
    let subject = format!("system:serviceaccount:{}:{}", claims.namespace, claims.name);
    if claims.sub != subject {
        return Err(Rejection::new("sub claim is invalid"));
    }
    Ok(())
}

fn decide(
    claims: &Claims,
    token: &str,
    secret: Option<&Object>,
    account: Option<&Object>,
) -> Result<Identity, Rejection> {
    let Claims {
        namespace,
        name,
        secret: secret_name,
        uid: claimed,
        ..
    } = claims;
    let secret = secret
        .filter(|secret| !secret.is_terminating())
        .ok_or_else(|| Rejection::new("Token has been invalidated"))?;
    let kept = STANDARD.decode(secret.at("data").entry("token").str());
    if !same(&kept.unwrap_or_default(), token.as_bytes()) {
        return Err(Rejection::new("Token does not match server's copy"));
    }
    let account =
        account.ok_or_else(|| Rejection::new(format!("serviceaccounts {name:?} not found")))?;
    if account.is_terminating() {
        let text = format!("ServiceAccount {namespace}/{name} has been deleted");
        return Err(Rejection::new(text));
    }
    let uid = account.uid();
    if uid != claimed {
        let text = format!("ServiceAccount UID ({uid}) does not match claim ({claimed})");
        return Err(Rejection::new(text));
    }
    if !secret.at("metadata.labels").entry(INVALID_SINCE).is_empty() {
        return Err(Rejection::new(format!(
            "the token in secret {namespace}/{secret_name} for service account {namespace}/{name} has been marked \
             invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the \
             '{INVALID_SINCE}' label from the secret to temporarily allow use of this token"
        )));
    }
    Ok(account_identity(namespace, name, claimed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).expect("an object")
    }

    fn account() -> Object {
        object(json!({"metadata": {"name": "sa", "namespace": "ns", "uid": "u1"}}))
    }

    fn secret(token: &str) -> Object {
        object(json!({"metadata": {"name": "s"}, "data": {"token": STANDARD.encode(token)}}))
    }

    fn read(account: &Object) -> Claims {
        serde_json::from_value(claims(account, "s")).expect("claims")
    }

    #[test]
    fn the_secret_has_to_hold_this_very_token() {
        let (account, claims) = (account(), read(&account()));
        let verdict = |secret: Option<&Object>, account: Option<&Object>| {
            let outcome =
                check_claims(&claims).and_then(|()| decide(&claims, "t", secret, account));
            outcome.map_or_else(|rejection| rejection.to_string(), |identity| identity.user)
        };
        let good = secret("t");
        assert_eq!(
            verdict(Some(&good), Some(&account)),
            "system:serviceaccount:ns:sa"
        );
        assert_eq!(verdict(None, Some(&account)), "Token has been invalidated");
        assert_eq!(
            verdict(Some(&secret("other")), Some(&account)),
            "Token does not match server's copy"
        );
        assert_eq!(
            verdict(Some(&good), None),
            "serviceaccounts \"sa\" not found"
        );
        let mut another = account.clone();
        another.set("metadata.uid", "u2");
        assert_eq!(
            verdict(Some(&good), Some(&another)),
            "ServiceAccount UID (u2) does not match claim (u1)"
        );
        let mut marked = good.clone();
        marked
            .map_mut("metadata.labels")
            .insert(INVALID_SINCE.to_owned(), "2026-01-01".into());
        assert!(verdict(Some(&marked), Some(&account)).contains("has been marked invalid"));
    }

    #[test]
    fn every_claim_has_to_be_there_and_agree() {
        let mut claims = read(&account());
        claims.sub = "system:serviceaccount:ns:other".to_owned();
        assert_eq!(
            check_claims(&claims),
            Err(Rejection::new("sub claim is invalid"))
        );
        claims.uid.clear();
        assert_eq!(
            check_claims(&claims),
            Err(Rejection::new("serviceAccountUID claim is missing"))
        );
    }
}
