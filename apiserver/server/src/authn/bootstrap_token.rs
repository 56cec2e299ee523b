//! Bootstrap tokens: `id.secret`, kept in Secrets of `kube-system`, for nodes that join.
//!
//! The rules are those of upstream's plugin/pkg/auth/authenticator/token/bootstrap; what is wrong with a token is nobody's
//! business, so it is simply not known.

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_api::Object;
use coracle_clock::Timestamp;

use super::Identity;
use super::token::{Authenticated, Rejection, Remarks, TokenAuthenticator, intersection, same};
use crate::server::Server;

/// The type of the Secrets.
const TYPE: &str = "bootstrap.kubernetes.io/token";
/// The group of all who show such a token.
const BOOTSTRAPPERS: &str = "system:bootstrappers";
/// Most characters after the prefix of a group's name.
const MOST_GROUP_CHARACTERS: usize = 256;

/// Knows the tokens in Secrets named `bootstrap-token-ID`.
pub(super) struct BootstrapTokens;

#[async_trait]
impl TokenAuthenticator for BootstrapTokens {
    async fn authenticate(
        &self,
        server: &Server,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Authenticated>, Rejection> {
        let trusted = intersection(&server.authentication.api_audiences, audiences);
        let (Some(audiences), Some((id, secret))) = (trusted, parse(token)) else {
            return Ok(None);
        };
        let name = format!("bootstrap-token-{id}");
        let found = server.find("", "secrets", "kube-system", &name).await;
        let found = found.map_err(|error| Rejection::new(error.to_string()))?;
        let now = server.clock().now();
        let identity = found.and_then(|entry| identity(&entry.object(), id, secret, now));
        Ok(identity.map(|identity| Authenticated {
            identity,
            audiences,
            remarks: Remarks::default(),
        }))
    }
}

/// Identifier and secret of a token that looks like one: six and sixteen small letters or digits.
fn parse(token: &str) -> Option<(&str, &str)> {
    let plain = |text: &str, length: usize| {
        text.len() == length
            && text
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
    };
    let (id, secret) = token.split_once('.')?;
    (plain(id, 6) && plain(secret, 16)).then_some((id, secret))
}

/// Who shows the token, if the Secret `object` says that it is good.
fn identity(object: &Object, id: &str, secret: &str, now: Timestamp) -> Option<Identity> {
    let data = |key: &str| {
        let bytes = STANDARD.decode(object.at("data").entry(key).str());
        String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
    };
    let expiration = data("expiration");
    let over = !expiration.is_empty()
        && expiration
            .parse::<Timestamp>()
            .map_or(true, |end| end < now);
    let good = !object.is_terminating()
        && object.at("type").str() == TYPE
        && same(data("token-secret").as_bytes(), secret.as_bytes())
        && data("token-id") == id
        && !over
        && data("usage-bootstrap-authentication") == "true";
    if !good {
        return None;
    }
    let mut groups = vec![BOOTSTRAPPERS.to_owned()];
    let extra = data("auth-extra-groups");
    for group in extra.split(',').filter(|_| !extra.is_empty()) {
        if !is_group(group) {
            return None;
        }
        groups.push(group.to_owned());
    }
    groups.sort();
    groups.dedup();
    Some(Identity::new(format!("system:bootstrap:{id}"), groups))
}

/// Whether a token may put its bearer into the group.
fn is_group(group: &str) -> bool {
    let Some(rest) = group
        .strip_prefix(BOOTSTRAPPERS)
        .and_then(|rest| rest.strip_prefix(':'))
    else {
        return false;
    };
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    rest.len() <= MOST_GROUP_CHARACTERS
        && rest.bytes().last().is_some_and(letter)
        && rest
            .bytes()
            .all(|byte| letter(byte) || matches!(byte, b':' | b'-'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: &str = "2026-06-01T00:00:00Z";

    fn shown(changes: &[(&str, &str)]) -> Option<Vec<String>> {
        let mut data = json!({});
        let usual = [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
            ("expiration", "2026-06-01T00:00:01Z"),
            ("auth-extra-groups", "system:bootstrappers:worker"),
        ];
        for (key, value) in usual.iter().chain(changes) {
            data[*key] = STANDARD.encode(value).into();
        }
        let secret = Object::from_value(json!({"type": TYPE, "data": data})).expect("an object");
        let now = NOW.parse().expect("a time");
        let identity = identity(&secret, "abcdef", "0123456789abcdef", now)?;
        assert_eq!(identity.user, "system:bootstrap:abcdef");
        Some(identity.groups)
    }

    #[test]
    fn a_good_token_is_a_bootstrapper() {
        let groups = [
            "system:bootstrappers",
            "system:bootstrappers:worker",
            "system:authenticated",
        ];
        assert_eq!(shown(&[]), Some(groups.map(str::to_owned).to_vec()));
        assert!(shown(&[("expiration", "")]).is_some(), "without an end");
    }

    #[test]
    fn any_other_is_nobody() {
        for (key, value) in [
            ("token-secret", "0123456789abcdeg"),
            ("token-id", "abcdeg"),
            ("expiration", "2026-05-31T23:59:59Z"),
            ("expiration", "some day"),
            ("usage-bootstrap-authentication", "false"),
            ("auth-extra-groups", "system:masters"),
            ("auth-extra-groups", "system:bootstrappers:"),
            ("auth-extra-groups", "system:bootstrappers:a-,x"),
        ] {
            assert_eq!(shown(&[(key, value)]), None, "{key}: {value}");
        }
    }

    #[test]
    fn tokens_have_one_form() {
        assert_eq!(
            parse("abcdef.0123456789abcdef"),
            Some(("abcdef", "0123456789abcdef"))
        );
        for bad in [
            "abcdef.0123456789abcde",
            "ABCDEF.0123456789abcdef",
            "abcdef",
            "abcde.f0123456789abcdef",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
