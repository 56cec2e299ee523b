//! Whether a token's claims say that it is for us, and now.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coracle_clock::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::authn::jws::ALGORITHMS;

/// How far ahead of ours an issuer's clock may be, in seconds.
const LEEWAY: i64 = 60;

/// Who issued the token, by its own account; `None` if it does not look like one.
pub(super) fn untrusted_issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Issued {
        #[serde(default)]
        iss: String,
    }
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let issued: Issued = serde_json::from_slice(&payload).ok()?;
    // Google's old name for itself.
    match issued.iss.as_str() {
        "accounts.google.com" => Some("https://accounts.google.com".to_owned()),
        _ => Some(issued.iss),
    }
}

/// Why a token that names its issuer cannot be read: mostly its algorithm.
pub(super) fn unsupported(token: &str) -> String {
    #[derive(Deserialize)]
    struct Header {
        alg: String,
    }
    let header = token.split('.').next().unwrap_or_default();
    let header = URL_SAFE_NO_PAD.decode(header).ok();
    let header = header.and_then(|bytes| serde_json::from_slice::<Header>(&bytes).ok());
    match header {
        Some(Header { alg }) => format!(
            "oidc: id token signed with unsupported algorithm, expected {} got {alg:?}",
            quoted(ALGORITHMS)
        ),
        None => "oidc: malformed jwt".to_owned(),
    }
}

/// Audience and times. `now` is compared with whole seconds, as tokens have them.
pub(super) fn check(
    claims: &Map<String, Value>,
    audiences: &[String],
    now: Timestamp,
) -> Result<(), String> {
    let named = match claims.get("aud") {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !named
        .iter()
        .any(|named| audiences.iter().any(|audience| audience == named))
    {
        let expected = match audiences {
            [one] => format!("{one:?}"),
            several => format!("in {}", quoted(several.iter().map(String::as_str))),
        };
        let got = quoted(named);
        return Err(format!("oidc: expected audience {expected} got {got}"));
    }
    // Without an end, a token has ended.
    let end = time(claims.get("exp"))?.unwrap_or(i64::MIN);
    if end < now.as_second() {
        return Err(format!(
            "oidc: token is expired (Token Expiry: {})",
            shown(end)
        ));
    }
    match time(claims.get("nbf"))? {
        Some(from) if now.as_second() + LEEWAY < from => Err(format!(
            "oidc: current time {} before the nbf (not before) time: {}",
            shown(now.as_second()),
            shown(from)
        )),
        _ => Ok(()),
    }
}

fn time(claim: Option<&Value>) -> Result<Option<i64>, String> {
    match claim {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => {
            let whole = number.as_i64();
            let near = number.as_f64().map(|seconds| seconds as i64);
            Ok(whole.or(near))
        }
        Some(_) => Err("oidc: failed to unmarshal claims: a time is no number".to_owned()),
    }
}

/// As Go prints a list of texts.
fn quoted<'t>(all: impl IntoIterator<Item = &'t str>) -> String {
    let quoted: Vec<String> = all.into_iter().map(|one| format!("{one:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

/// As Go prints a time.
fn shown(seconds: i64) -> String {
    let Ok(at) = Timestamp::from_second(seconds) else {
        return "0001-01-01 00:00:00 +0000 UTC".to_owned();
    };
    let text = at.to_string();
    format!("{} +0000 UTC", text.trim_end_matches('Z').replace('T', " "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checked(claims: Value) -> Result<(), String> {
        let Value::Object(claims) = claims else {
            panic!("claims are an object");
        };
        let now = Timestamp::from_second(1_000_000).expect("a time");
        check(&claims, &["a".to_owned(), "b".to_owned()], now)
    }

    #[test]
    fn audiences_and_times_are_looked_at() {
        let good = json!({"aud": "a", "exp": 1_000_000});
        assert_eq!(checked(good), Ok(()));
        assert_eq!(
            checked(json!({"aud": ["x", "b"], "exp": 2e6, "nbf": 1_000_060})),
            Ok(())
        );
        for (claims, why) in [
            (
                json!({"aud": "x", "exp": 2_000_000}),
                "oidc: expected audience in [\"a\" \"b\"] got [\"x\"]",
            ),
            (
                json!({"exp": 2_000_000}),
                "oidc: expected audience in [\"a\" \"b\"] got []",
            ),
            (
                json!({"aud": "a", "exp": 999_999}),
                "oidc: token is expired (Token Expiry: 1970-01-12 13:46:39 +0000 UTC)",
            ),
            (
                json!({"aud": "a"}),
                "oidc: token is expired (Token Expiry: 0001-01-01 00:00:00 +0000 UTC)",
            ),
            (
                json!({"aud": "a", "exp": 2_000_000, "nbf": 1_000_061}),
                "oidc: current time 1970-01-12 13:46:40 +0000 UTC before the nbf (not before) time: 1970-01-12 13:47:41 +0000 UTC",
            ),
            (
                json!({"aud": "a", "exp": "never"}),
                "oidc: failed to unmarshal claims: a time is no number",
            ),
        ] {
            assert_eq!(checked(claims).expect_err(why), why);
        }
    }

    #[test]
    fn issuers_are_read_without_belief() {
        let token = |payload: &str| format!("e30.{}.x", URL_SAFE_NO_PAD.encode(payload));
        assert_eq!(
            untrusted_issuer(&token(r#"{"iss":"https://a"}"#)).as_deref(),
            Some("https://a")
        );
        assert_eq!(untrusted_issuer(&token("{}")).as_deref(), Some(""));
        let google = untrusted_issuer(&token(r#"{"iss":"accounts.google.com"}"#));
        assert_eq!(google.as_deref(), Some("https://accounts.google.com"));
        for wrong in ["", "a.b", "a.b.c", "a.b.c.d", "{}", &token(r#"{"iss":1}"#)] {
            assert_eq!(untrusted_issuer(wrong), None, "{wrong}");
        }
    }
}
