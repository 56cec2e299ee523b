//! A proxy in front that has found out who asks, and says so in headers (upstream's `--requestheader-…`).
//!
//! It is believed only over a connection with a client certificate of the proxies' own authority; from anybody else the
//! headers are text.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName};

use super::certificate::{ClientAuthorities, Peer};
use super::{Identity, header_text};
use crate::request_info::percent_decode;
use crate::status::Result;

/// Which proxies are believed, and where they say who asks.
pub struct RequestHeader {
    /// Who signs the proxies' certificates.
    pub authorities: ClientAuthorities,
    /// Common names that proxies may have; empty: any.
    pub allowed_names: Vec<String>,
    /// The headers.
    pub headers: HeaderNames,
}

/// The headers in which proxies say who asks. Of several for one thing the first that says something counts; groups and
/// extras are taken from all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderNames {
    /// The user's name.
    pub users: Vec<HeaderName>,
    /// The user's identifier.
    pub uids: Vec<HeaderName>,
    /// Groups, one a header.
    pub groups: Vec<HeaderName>,
    /// How the names of headers begin whose rest is the key of an extra; lower case.
    pub extra_prefixes: Vec<String>,
}

impl Default for HeaderNames {
    /// Upstream's: `X-Remote-User`, `X-Remote-Group`, `X-Remote-Extra-`, and no identifier.
    fn default() -> Self {
        Self {
            users: vec![HeaderName::from_static("x-remote-user")],
            uids: Vec::new(),
            groups: vec![HeaderName::from_static("x-remote-group")],
            extra_prefixes: vec!["x-remote-extra-".to_owned()],
        }
    }
}

impl RequestHeader {
    /// Until which second a connection with the certificate `peer`, which this one's authorities judged, is a proxy's;
    /// `None`: it is none.
    pub(super) fn proxy_until(&self, peer: &Peer) -> Option<i64> {
        let Peer::Verified { identity, until } = peer else {
            return None;
        };
        let name = identity.as_ref().map(|identity| identity.user.as_str());
        let allowed = self.allowed_names.is_empty()
            || name.is_some_and(|name| self.allowed_names.iter().any(|one| one == name));
        allowed.then_some(*until)
    }
}

impl HeaderNames {
    /// The names that proxies use if they are not told others.
    pub(super) fn standard() -> &'static Self {
        static STANDARD: LazyLock<HeaderNames> = LazyLock::new(|| HeaderNames {
            uids: vec![HeaderName::from_static("x-remote-uid")],
            ..HeaderNames::default()
        });
        &STANDARD
    }

    /// Who asks by the headers. One that is not UTF-8 is an error: without it, somebody else would ask.
    pub(super) fn identity(&self, headers: &HeaderMap) -> Result<Option<Identity>> {
        let all = |names: &[HeaderName]| -> Result<Vec<String>> {
            let mut texts = Vec::new();
            for name in names {
                for value in headers.get_all(name) {
                    let text = header_text(name.as_str(), value)?.trim();
                    if !text.is_empty() {
                        texts.push(text.to_owned());
                    }
                }
            }
            Ok(texts)
        };
        let first = |names: &[HeaderName]| all(names).map(|all| all.into_iter().next());
        let Some(user) = first(&self.users)? else {
            return Ok(None);
        };
        let uid = first(&self.uids)?.unwrap_or_default();
        let mut identity = Identity {
            uid,
            ..Identity::new(user, all(&self.groups)?)
        };
        for name in headers.keys() {
            let Some(key) = self.extra(name) else {
                continue;
            };
            let (key, values) = (percent_decode(key), all(std::slice::from_ref(name))?);
            match identity.extra.iter_mut().find(|(known, _)| *known == key) {
                Some((_, known)) => known.extend(values),
                None => identity.extra.push((key, values)),
            }
        }
        Ok(Some(identity))
    }

    /// Takes the headers off, whoever has sent them.
    pub(super) fn strip(&self, headers: &mut HeaderMap) {
        for name in [&self.users, &self.uids, &self.groups]
            .into_iter()
            .flatten()
        {
            headers.remove(name);
        }
        let extras = headers.keys().filter(|name| self.extra(name).is_some());
        for name in extras.cloned().collect::<Vec<HeaderName>>() {
            headers.remove(name);
        }
    }

    /// The key of the extra that a header of this name has, escaped.
    fn extra<'n>(&self, name: &'n HeaderName) -> Option<&'n str> {
        let mut prefixes = self.extra_prefixes.iter();
        prefixes.find_map(|prefix| name.as_str().strip_prefix(&**prefix))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn headers_name_a_user() {
        let mut headers = HeaderMap::new();
        let names = HeaderNames {
            uids: vec![HeaderName::from_static("x-remote-uid")],
            ..HeaderNames::default()
        };
        let identity = |headers: &HeaderMap| names.identity(headers).expect("UTF-8");
        assert_eq!(identity(&headers), None);
        for (name, value) in [
            ("x-remote-user", "jos\u{e9}"),
            ("x-remote-uid", "u1"),
            ("x-remote-group", "a"),
            ("x-remote-group", "b"),
            ("x-remote-extra-example.com%2fkey", "v"),
            ("accept", "*/*"),
        ] {
            let name: http::HeaderName = name.parse().expect("a name");
            let value = http::HeaderValue::from_bytes(value.as_bytes());
            headers.append(name, value.expect("a value"));
        }
        let jose = identity(&headers).expect("named");
        assert_eq!((jose.user.as_str(), jose.uid.as_str()), ("jos\u{e9}", "u1"));
        assert_eq!(jose.groups, ["a", "b", "system:authenticated"]);
        assert_eq!(
            jose.extra,
            [("example.com/key".to_owned(), vec!["v".to_owned()])]
        );
        let mut stripped = headers.clone();
        HeaderNames::standard().strip(&mut stripped);
        assert_eq!(stripped.len(), 1, "the others are gone");
        for name in ["x-remote-user", "x-remote-group", "x-remote-extra-a"] {
            let mut headers = headers.clone();
            let latin1 = http::HeaderValue::from_bytes(b"jos\xe9").expect("a value");
            headers.insert(name, latin1);
            let error = names.identity(&headers).expect_err("no UTF-8").to_string();
            assert_eq!(error, format!("the header {name} is not UTF-8"));
        }
    }

    #[test]
    fn headers_have_the_names_that_they_were_given() {
        let header = HeaderName::from_static;
        let names = HeaderNames {
            users: vec![header("x-user"), header("x-name")],
            uids: Vec::new(),
            groups: vec![header("x-team"), header("x-group")],
            extra_prefixes: vec!["x-more-".to_owned(), "x-extra-".to_owned()],
        };
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-user", ""),
            ("x-name", "jane"),
            ("x-remote-user", "admin"),
            ("x-remote-group", "system:masters"),
            ("x-remote-uid", "u1"),
            ("x-group", "b"),
            ("x-team", "a"),
            ("x-more-scope", "read"),
            ("x-extra-scope", "write"),
        ] {
            headers.append(header(name), value.parse().expect("a value"));
        }
        let jane = names.identity(&headers).expect("UTF-8").expect("named");
        assert_eq!((jane.user.as_str(), jane.uid.as_str()), ("jane", ""));
        assert_eq!(jane.groups, ["a", "b", "system:authenticated"]);
        let [(key, values)] = &jane.extra[..] else {
            panic!("one key: {:?}", jane.extra);
        };
        assert_eq!((key.as_str(), values.len()), ("scope", 2));
        names.strip(&mut headers);
        assert_eq!(headers.len(), 3, "the others are text that nobody reads");
        // Without a name there is nobody, whatever else is said.
        let mut headers = HeaderMap::new();
        headers.append(header("x-team"), "system:masters".parse().expect("a value"));
        assert_eq!(names.identity(&headers).expect("UTF-8"), None);
    }

    #[test]
    fn proxies_have_a_name_and_an_end() {
        let verifier = |names: &[&str]| RequestHeader {
            authorities: rustls::server::WebPkiClientVerifier::no_client_auth(),
            allowed_names: names.iter().map(|name| (*name).to_owned()).collect(),
            headers: HeaderNames::default(),
        };
        let peer = Peer::Verified {
            identity: Some(Arc::new(Identity::new("proxy", [] as [&str; 0]))),
            until: 100,
        };
        assert_eq!(verifier(&[]).proxy_until(&peer), Some(100));
        assert_eq!(verifier(&["proxy"]).proxy_until(&peer), Some(100));
        assert_eq!(verifier(&["other"]).proxy_until(&peer), None);
        assert_eq!(verifier(&[]).proxy_until(&Peer::Rejected), None);
    }
}
