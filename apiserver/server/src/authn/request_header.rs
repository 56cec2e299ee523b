//! A proxy in front that has found out who asks, and says so in headers (upstream's `--requestheader-…`).
//!
//! It is believed only over a connection with a client certificate of the proxies' own authority; from anybody else the
//! headers are text.

use http::HeaderMap;

use super::Identity;
use super::certificate::{ClientAuthorities, Peer};
use crate::request_info::percent_decode;

const USER: &str = "x-remote-user";
const UID: &str = "x-remote-uid";
const GROUP: &str = "x-remote-group";
const EXTRA: &str = "x-remote-extra-";

/// Which proxies are believed.
pub struct RequestHeader {
    /// Who signs the proxies' certificates.
    pub authorities: ClientAuthorities,
    /// Common names that proxies may have; empty: any.
    pub allowed_names: Vec<String>,
}

impl RequestHeader {
    /// Whether a connection with the certificate `peer`, which this one's authorities judged, is a proxy's.
    pub(super) fn is_proxy(&self, peer: &Peer, now: i64) -> bool {
        let Peer::Verified { identity, until } = peer else {
            return false;
        };
        let name = identity.as_ref().map(|identity| identity.user.as_str());
        let allowed = self.allowed_names.is_empty()
            || name.is_some_and(|name| self.allowed_names.iter().any(|one| one == name));
        *until >= now && allowed
    }
}

/// Who asks by the headers, which are taken off so that nobody further on sees them.
pub(super) fn take(headers: &mut HeaderMap) -> Option<Identity> {
    let all = |headers: &HeaderMap, name: &str| -> Vec<String> {
        let values = headers.get_all(name).into_iter();
        let values = values.filter_map(|value| value.to_str().ok());
        values.map(|value| value.trim().to_owned()).collect()
    };
    let user = all(headers, USER)
        .into_iter()
        .find(|user| !user.is_empty())?;
    let extras: Vec<(String, String)> = headers
        .keys()
        .filter_map(|name| {
            let key = name.as_str().strip_prefix(EXTRA)?;
            Some((name.as_str().to_owned(), percent_decode(key)))
        })
        .collect();
    let uid = all(headers, UID).into_iter().next().unwrap_or_default();
    let mut identity = Identity {
        uid,
        ..Identity::new(user, all(headers, GROUP))
    };
    for (name, key) in &extras {
        identity.extra.push((key.clone(), all(headers, name)));
    }
    for name in [USER, UID, GROUP]
        .into_iter()
        .chain(extras.iter().map(|(name, _)| name.as_str()))
    {
        headers.remove(name);
    }
    Some(identity)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn headers_name_a_user() {
        let mut headers = HeaderMap::new();
        assert_eq!(take(&mut headers), None);
        for (name, value) in [
            ("x-remote-user", "jane"),
            ("x-remote-uid", "u1"),
            ("x-remote-group", "a"),
            ("x-remote-group", "b"),
            ("x-remote-extra-example.com%2fkey", "v"),
            ("accept", "*/*"),
        ] {
            let name: http::HeaderName = name.parse().expect("a name");
            headers.append(name, value.parse().expect("a value"));
        }
        let jane = take(&mut headers).expect("named");
        assert_eq!((jane.user.as_str(), jane.uid.as_str()), ("jane", "u1"));
        assert_eq!(jane.groups, ["a", "b", "system:authenticated"]);
        assert_eq!(
            jane.extra,
            [("example.com/key".to_owned(), vec!["v".to_owned()])]
        );
        assert_eq!(headers.len(), 1, "the others are gone");
    }

    #[test]
    fn proxies_have_a_name_and_an_end() {
        let verifier = |names: &[&str]| RequestHeader {
            authorities: rustls::server::WebPkiClientVerifier::no_client_auth(),
            allowed_names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let peer = Peer::Verified {
            identity: Some(Arc::new(Identity::new("proxy", [] as [&str; 0]))),
            until: 100,
        };
        assert!(verifier(&[]).is_proxy(&peer, 100));
        assert!(verifier(&["proxy"]).is_proxy(&peer, 100));
        assert!(!verifier(&["other"]).is_proxy(&peer, 100));
        assert!(!verifier(&[]).is_proxy(&peer, 101));
        assert!(!verifier(&[]).is_proxy(&Peer::Rejected, 0));
    }
}
