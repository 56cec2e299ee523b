//! What a registry asks for before it answers, and the token that satisfies it. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::keyring::Credential;

/// A `WWW-Authenticate` that is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Name and password with each request.
    Basic,
    /// A token from a server.
    Bearer {
        /// Where the token server is.
        realm: String,
        /// Whom the token is for.
        service: Option<String>,
        /// What it is to allow.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The one to take of several headers; tokens before passwords.
    pub(crate) fn of<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut found = None;
        for (scheme, parameters) in headers.flat_map(split) {
            let value = |name: &str| {
                let mut all = parameters.iter();
                all.find(|(key, _)| key == name)
                    .map(|(_, value)| value.clone())
            };
            match scheme.as_str() {
                "bearer" => {
                    if let Some(realm) = value("realm") {
                        return Some(Self::Bearer {
                            realm,
                            service: value("service"),
                            scope: value("scope"),
                        });
                    }
                }
                "basic" => found = Some(Self::Basic),
                _ => {}
            }
        }
        found
    }
}

/// Schemes in lower case, each with its parameters (RFC 9110, 11.6.1).
fn split(header: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header.trim();
    while !rest.is_empty() {
        let end = rest.find([' ', '=', ',']).unwrap_or(rest.len());
        let word = &rest[..end];
        let after = rest[end..].trim_start();
        if let Some(value) = after.strip_prefix('=').filter(|_| !word.is_empty()) {
            let (value, left) = value_of(value.trim_start());
            if let Some((_, parameters)) = found.last_mut() {
                parameters.push((word.to_ascii_lowercase(), value));
            }
            rest = left;
        } else {
            if !word.is_empty() {
                found.push((word.to_ascii_lowercase(), Vec::new()));
            }
            rest = after;
        }
        rest = rest.trim_start_matches([',', ' ', '=']);
    }
    found
}

fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

/// The value of `Authorization` for name and password.
pub(crate) fn basic(credential: &Credential) -> String {
    let text = format!("{}:{}", credential.username, credential.password);
    format!("Basic {}", STANDARD.encode(text))
}

/// The query of a request for a token; `scope` when the challenge has none.
pub(crate) fn token_query(
    service: Option<&str>,
    scope: &str,
    credential: Option<&Credential>,
) -> String {
    let mut parts = Vec::new();
    if let Some(service) = service {
        parts.push(format!("service={}", encode(service)));
    }
    for scope in scope.split(' ').filter(|scope| !scope.is_empty()) {
        parts.push(format!("scope={}", encode(scope)));
    }
    if let Some(credential) = credential.filter(|c| !c.username.is_empty()) {
        parts.push(format!("account={}", encode(&credential.username)));
    }
    parts.join("&")
}

/// The form that turns an identity token into a token for a registry.
pub(crate) fn refresh_form(service: Option<&str>, scope: &str, identity_token: &str) -> String {
    format!(
        "grant_type=refresh_token&client_id=coracle&service={}&scope={}&refresh_token={}",
        encode(service.unwrap_or_default()),
        encode(scope),
        encode(identity_token)
    )
}

/// The token in a token server's answer.
pub(crate) fn token_of(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        token: String,
        #[serde(default)]
        access_token: String,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let token = match answer.token.is_empty() {
        true => answer.access_token,
        false => answer.token,
    };
    // A header cannot carry anything else.
    Some(token).filter(|token| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()))
}

fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let bearer = Challenge::Bearer {
            realm: "https://auth.docker.io/token".to_owned(),
            service: Some("registry.docker.io".to_owned()),
            scope: Some("repository:a/b:pull,push".to_owned()),
        };
        assert_eq!(Challenge::of([hub].into_iter()), Some(bearer.clone()));
        let basic = r#"Basic realm="a, \"b\"""#;
        assert_eq!(Challenge::of([basic].into_iter()), Some(Challenge::Basic));
        assert_eq!(
            Challenge::of([basic, hub].into_iter()),
            Some(bearer.clone())
        );
        let both = format!("{basic}, {hub}");
        assert_eq!(Challenge::of([both.as_str()].into_iter()), Some(bearer));
        for odd in [
            "",
            "Negotiate",
            "Bearer",
            "=",
            ",,,",
            "Bearer realm=\"",
            "\"",
            "Digest a=b",
        ] {
            Challenge::of([odd].into_iter());
        }
        assert_eq!(Challenge::of(["Bearer scope=x"].into_iter()), None);
    }

    #[test]
    fn tokens_are_asked_for_and_found() {
        let credential = Credential {
            username: "a b".to_owned(),
            ..Credential::default()
        };
        assert_eq!(
            token_query(Some("r.io"), "repository:x:pull", Some(&credential)),
            "service=r.io&scope=repository%3Ax%3Apull&account=a%20b"
        );
        assert_eq!(token_of(br#"{"token":"t"}"#).unwrap(), "t");
        assert_eq!(
            token_of(br#"{"access_token":"t","expires_in":5}"#).unwrap(),
            "t"
        );
        for bad in [&b""[..], b"{}", br#"{"token":"a\nb"}"#, br#"{"token":5}"#] {
            assert_eq!(token_of(bad), None);
        }
    }
}
