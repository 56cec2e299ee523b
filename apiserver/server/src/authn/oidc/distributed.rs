//! A claim that is kept elsewhere: the token names the place, and a token from there has the claim
//! (OpenID Connect Core 1.0, 5.6.2).
//!
//! ```text
//! token ▶ _claim_names ▶ _claim_sources ▶ GET endpoint ▶ another token ▶ its issuer's keys ▶ the claim
//! ```
//!
//! Only the claim of the groups is looked for. Only a token that was verified makes us ask anybody, so its issuer answers
//! for whom it names. Upstream: `claimResolver` in `oidc.go`. Unlike there, endpoints have to be `https`, and the first
//! token of another issuer waits for its keys instead of being refused.

use std::collections::VecDeque;
use std::sync::Arc;

use coracle_clock::Clock;
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::{Followed, verify};
use crate::authn::jws::Jws;
use crate::config::Issuer;
use crate::outgoing::{Target, bearer};

const NAMES: &str = "_claim_names";
const SOURCES: &str = "_claim_sources";
/// Other issuers whose keys are kept; the one that came first is forgotten for the next.
const MOST_ISSUERS: usize = 16;

/// Those who vouch for claims that tokens of one issuer name.
#[derive(Default)]
pub(super) struct Others(Mutex<VecDeque<(String, Arc<Followed>)>>);

impl Others {
    fn keys(&self, url: &str, before: &Followed) -> Result<Arc<Followed>, String> {
        let mut known = self.0.lock();
        if let Some((_, found)) = known.iter().find(|(known, _)| known == url) {
            return Ok(Arc::clone(found));
        }
        let keys = before.keys.beside(url).map_err(|error| error.to_string())?;
        let made = Followed::new(Arc::new(keys));
        if known.len() == MOST_ISSUERS {
            known.pop_front();
        }
        known.push_back((url.to_owned(), Arc::clone(&made)));
        Ok(made)
    }
}

/// Whether every name has a source. `go-oidc` looks at this before anything else.
pub(super) fn check(claims: &Map<String, Value>) -> Result<(), String> {
    let names = texts(claims.get(NAMES), NAMES, "map[string]string")?;
    let sources = objects(claims.get(SOURCES))?;
    for (_, source) in names {
        if source.is_empty() {
            return Err("oidc: failed to obtain source from claim name".to_owned());
        }
        if !sources.is_some_and(|sources| sources.contains_key(source)) {
            return Err("oidc: source does not exist".to_owned());
        }
    }
    Ok(())
}

/// Puts the claim into `claims`, if it is kept elsewhere.
pub(super) async fn expand(
    claims: &mut Map<String, Value>,
    claim: &str,
    issuer: &Issuer,
    followed: &Arc<Followed>,
    clock: &Clock,
) -> Result<(), String> {
    if let Some(source) = source(claims, claim)? {
        let value = fetch(&source, claim, issuer, followed, clock).await?;
        claims.insert(claim.to_owned(), value);
    }
    Ok(())
}

/// Where a claim is kept.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    endpoint: String,
    access_token: String,
}

/// Where the claim is kept; `None` if it is here, or nowhere, or in a token within the token.
fn source(claims: &Map<String, Value>, claim: &str) -> Result<Option<Source>, String> {
    if claims.contains_key(claim) || !claims.contains_key(NAMES) {
        return Ok(None);
    }
    if !claims.contains_key(SOURCES) {
        return Err("oidc: no claim sources".to_owned());
    }
    let Some(name) = claims[NAMES][claim].as_str() else {
        return Ok(None);
    };
    let Some(source) = claims[SOURCES].get(name) else {
        let why =
            format!("id token _claim_names contained a source {name} missing in _claims_sources");
        return Err(why);
    };
    let text = |field: &str| source[field].as_str().unwrap_or_default().to_owned();
    let (endpoint, access_token) = (text("endpoint"), text("access_token"));
    Ok((!endpoint.is_empty()).then_some(Source {
        endpoint,
        access_token,
    }))
}

async fn fetch(
    source: &Source,
    claim: &str,
    issuer: &Issuer,
    followed: &Arc<Followed>,
    clock: &Clock,
) -> Result<Value, String> {
    let wrong = |why: String| format!("while getting distributed claim {claim:?}: {why}");
    let endpoint = &source.endpoint;
    let target = Target::parse(endpoint).map_err(|error| wrong(error.to_string()))?;
    let authorization = match source.access_token.as_str() {
        "" => None,
        token => {
            let header = bearer(token);
            Some(header.ok_or_else(|| wrong("its access token cannot be sent".to_owned()))?)
        }
    };
    let reply = followed.keys.call(&target, authorization).await;
    let reply = reply.map_err(|error| wrong(error.to_string()))?;
    if !(StatusCode::OK..=StatusCode::IM_USED).contains(&reply.status) {
        let status = reply.status;
        return Err(wrong(format!(
            "error while getting distributed claim JWT: {status}"
        )));
    }
    let text = String::from_utf8_lossy(&reply.body);
    let token = text.trim_end_matches(['\r', '\n']);
    let Some(other) = verify::untrusted_issuer(token) else {
        return Err(format!(
            "getting untrusted issuer from endpoint {endpoint} failed for claim {claim:?}: malformed token"
        ));
    };
    let keys = match other == issuer.url {
        true => Arc::clone(followed),
        false => followed
            .others
            .keys(&other, followed)
            .map_err(|why| format!("verifying untrusted issuer {other} failed: {why}"))?,
    };
    let found = verified(token, &issuer.audiences, &keys, clock).await;
    let found = found.map_err(|why| format!("verify distributed claim token: {why}"))?;
    found.get(claim).cloned().ok_or_else(|| {
        format!(
            "jwt returned by distributed claim endpoint {endpoint:?} did not contain claim: {claim}"
        )
    })
}

/// The claims of a token that is meant for one of `audiences`, is good now, and is signed with one of the keys.
pub(super) async fn verified(
    token: &str,
    audiences: &[String],
    followed: &Followed,
    clock: &Clock,
) -> Result<Map<String, Value>, String> {
    let jws = Jws::parse(token).ok_or_else(|| verify::unsupported(token))?;
    let claims: Map<String, Value> = jws
        .unverified()
        .ok_or_else(|| "oidc: failed to unmarshal claims".to_owned())?;
    // Cheap before dear: what is wrong anyway needs no signature, and makes nobody ask the issuer for keys.
    check(&claims)?;
    verify::check(&claims, audiences, clock.now())?;
    match followed.keys.verify(&jws).await {
        true => Ok(claims),
        false => Err("failed to verify signature: failed to verify id token signature".to_owned()),
    }
}

fn mismatch(found: &Value, field: &str, wanted: &str) -> String {
    let found = super::claims::kind(found);
    format!(
        "oidc: failed to unmarshal claims: json: cannot unmarshal {found} into Go struct field {field} of type {wanted}"
    )
}

/// The entries of a map of texts.
fn texts<'c>(
    value: Option<&'c Value>,
    name: &str,
    wanted: &str,
) -> Result<Vec<(&'c str, &'c str)>, String> {
    let map = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(map)) => map,
        Some(other) => return Err(mismatch(other, &format!("idToken.{name}"), wanted)),
    };
    let entries = map.iter().map(|(key, value)| match value {
        Value::String(text) => Ok((key.as_str(), text.as_str())),
        // Go reads null as nothing.
        Value::Null => Ok((key.as_str(), "")),
        other => Err(mismatch(other, &format!("idToken.{name}"), "string")),
    });
    entries.collect()
}

/// The sources, each of which is an object whose fields are texts.
fn objects(value: Option<&Value>) -> Result<Option<&Map<String, Value>>, String> {
    let map = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(map)) => map,
        Some(other) => {
            let field = format!("idToken.{SOURCES}");
            return Err(mismatch(other, &field, "map[string]oidc.claimSource"));
        }
    };
    for source in map.values() {
        let field = format!("idToken.{SOURCES}");
        if !matches!(source, Value::Object(_) | Value::Null) {
            return Err(mismatch(source, &field, "oidc.claimSource"));
        }
        for name in ["endpoint", "access_token"] {
            match source.get(name) {
                None | Some(Value::Null | Value::String(_)) => {}
                Some(other) => return Err(mismatch(other, &format!("{field}.{name}"), "string")),
            }
        }
    }
    Ok(Some(map))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn names_without_sources_are_refused() {
        let unreadable = "oidc: failed to unmarshal claims: json: cannot unmarshal";
        for (claims, why) in [
            (json!({}), None),
            (json!({NAMES: null, SOURCES: null}), None),
            (json!({NAMES: {"groups": "a"}, SOURCES: {"a": {}}}), None),
            (json!({SOURCES: {"a": {"endpoint": "x"}}}), None),
            (
                json!({NAMES: {"groups": "a"}}),
                Some("oidc: source does not exist".to_owned()),
            ),
            (
                json!({NAMES: {"other": "a"}, SOURCES: {"b": {}}}),
                Some("oidc: source does not exist".to_owned()),
            ),
            (
                json!({NAMES: {"groups": ""}, SOURCES: {"": {}}}),
                Some("oidc: failed to obtain source from claim name".to_owned()),
            ),
            (
                json!({NAMES: 5}),
                Some(format!(
                    "{unreadable} number into Go struct field idToken._claim_names of type map[string]string"
                )),
            ),
            (
                json!({SOURCES: {"a": {"endpoint": []}}}),
                Some(format!(
                    "{unreadable} array into Go struct field idToken._claim_sources.endpoint of type string"
                )),
            ),
        ] {
            assert_eq!(check(&object(claims.clone())).err(), why, "{claims}");
        }
    }

    #[test]
    fn a_claim_is_looked_for_where_its_source_is() {
        let at = |endpoint: &str, token: &str| {
            Ok(Some(Source {
                endpoint: endpoint.to_owned(),
                access_token: token.to_owned(),
            }))
        };
        let names = json!({"groups": "a", "other": "b"});
        for (claims, found) in [
            (json!({}), Ok(None)),
            (
                json!({NAMES: names, SOURCES: {"a": {"endpoint": "https://x", "access_token": "t"}, "b": {}}}),
                at("https://x", "t"),
            ),
            (
                json!({"groups": [], NAMES: names, SOURCES: {"a": {"endpoint": "https://x"}}}),
                Ok(None),
            ),
            (
                json!({NAMES: {"other": "b"}, SOURCES: {"b": {"endpoint": "https://x"}}}),
                Ok(None),
            ),
            (
                json!({NAMES: names, SOURCES: {"a": {"JWT": "x.y.z"}}}),
                Ok(None),
            ),
            (json!({NAMES: {}}), Err("oidc: no claim sources".to_owned())),
        ] {
            assert_eq!(source(&object(claims.clone()), "groups"), found, "{claims}");
        }
    }
}
