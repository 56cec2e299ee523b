//! Authentication: who asks.
//!
//! A request that came over a network is identified by the proxy in front of it, its connection's client certificate, its
//! bearer token, in this order; without any of them it is anonymous, and with wrong ones it is refused. A caller in the same process carries an [`Identity`] as a request extension that only the
//! wiring can set; [`crate::ApiServer::serve`] takes such extensions off whatever came over a network.

mod bootstrap_token;
mod certificate;
mod configured;
mod impersonation;
mod jws;
mod oidc;
mod request_header;
mod service_account;
mod static_tokens;
mod token;
mod webhook;

use std::sync::Arc;

use async_trait::async_trait;
use coracle_clock::Timestamp;
use http::header::{AUTHORIZATION, HeaderValue};
use http::request::Parts;
use parking_lot::RwLock;
use rustls::pki_types::CertificateDer;

use bootstrap_token::BootstrapTokens;
pub(crate) use certificate::Peer;
pub use certificate::{AnyClient, ClientAuthorities, SharedAuthorities, identity_from_certificate};
pub use configured::ConfiguredAuthentication;
pub use impersonation::impersonate;
pub use jws::{KeyError, PublicKey, SigningKey};
pub use request_header::{HeaderNames, RequestHeader};
pub(crate) use service_account::{
    Bound, Grant, WARN_AFTER_SECONDS, discovery_document, key_set, note_uses,
};
pub use service_account::{ServiceAccountTokens, TokenKeys, TokenLife};
pub use static_tokens::{StaticTokens, TokenFileError};
pub use token::{Authenticated, Rejection, Remarks, TokenAuthenticator};
pub use webhook::TokenWebhook;

use crate::server::Server;
use crate::status::{ApiError, Result};
use token::Tokens;

/// The group of cluster administrators.
pub const MASTERS: &str = "system:masters";
/// The group of everyone who authenticated.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The user of requests without credentials.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group of requests without credentials.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";

/// Whom the tokens of service accounts are for, unless they say otherwise; it is their issuer too.
pub const PRIVATE_AUDIENCE: &str = "https://kubernetes.default.svc.cluster.local";

/// Who asks. In-process callers put one into the request's extensions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User name.
    pub user: String,
    /// Stable identifier of the user; mostly empty.
    pub uid: String,
    /// Groups, `system:authenticated` included.
    pub groups: Vec<String>,
    /// Further facts about the user.
    pub extra: Vec<(String, Vec<String>)>,
}

impl Identity {
    /// An authenticated user with `groups`; `system:authenticated` is added.
    pub fn new(
        user: impl Into<String>,
        groups: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let mut groups: Vec<String> = groups.into_iter().map(Into::into).collect();
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Self {
            user: user.into(),
            groups,
            ..Self::default()
        }
    }

    /// The identity of a part of the control plane, such as `system:kube-scheduler`.
    pub fn component(user: impl Into<String>) -> Self {
        Self::new(user, [] as [&str; 0])
    }

    /// The identity of requests without credentials.
    pub fn anonymous() -> Self {
        Self {
            user: ANONYMOUS.to_owned(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }

    /// Whether the user is in `group`.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// A connection's client certificate as it was judged, put into requests by [`crate::ApiServer::serve`].
#[derive(Debug)]
pub(crate) struct Connected {
    /// The certificates, the client's own first: they are judged again when other authorities count.
    chain: Vec<CertificateDer<'static>>,
    /// As a user's, by the authorities of that generation.
    user: RwLock<(u64, Peer)>,
    /// As a proxy's: the last second in which it is one's.
    proxy_until: Option<i64>,
}

/// Whom to believe besides in-process callers and client certificates.
pub struct AuthenticationOptions {
    /// Who signs users' certificates. Without them, certificates that the TLS configuration let through are believed.
    pub client_authorities: Option<Arc<SharedAuthorities>>,
    /// The proxies that may say who asks.
    pub request_header: Option<RequestHeader>,
    /// Tokens read from a file.
    pub static_tokens: StaticTokens,
    /// The cluster's own tokens; without them none can be asked for.
    pub service_accounts: Option<Arc<ServiceAccountTokens>>,
    /// Issuers elsewhere, and where strangers may go.
    pub configured: Option<Arc<ConfiguredAuthentication>>,
    /// A service that knows tokens.
    pub webhook: Option<TokenWebhook>,
    /// Whether requests without credentials are answered, unless a configuration says otherwise.
    pub anonymous: bool,
}

impl Default for AuthenticationOptions {
    /// Strangers are let in, as strangers; there is nothing else.
    fn default() -> Self {
        Self {
            client_authorities: None,
            request_header: None,
            static_tokens: StaticTokens::default(),
            service_accounts: None,
            configured: None,
            webhook: None,
            anonymous: true,
        }
    }
}

/// All who know callers, in upstream's order; then anonymous.
pub struct Authentication {
    client_authorities: Option<Arc<SharedAuthorities>>,
    request_header: Option<RequestHeader>,
    tokens: Tokens,
    configured: Option<Arc<ConfiguredAuthentication>>,
    anonymous: bool,
    /// Whom tokens have to be for when they are shown to this server.
    pub(crate) api_audiences: Vec<String>,
    pub(crate) service_accounts: Option<Arc<ServiceAccountTokens>>,
}

impl Authentication {
    /// With what is configured.
    pub fn new(options: AuthenticationOptions) -> Self {
        let AuthenticationOptions {
            client_authorities,
            request_header,
            static_tokens,
            service_accounts,
            configured,
            webhook,
            anonymous,
        } = options;
        let mut authenticators: Vec<Box<dyn TokenAuthenticator>> = vec![Box::new(static_tokens)];
        if let Some(tokens) = &service_accounts {
            authenticators.push(Box::new(Arc::clone(tokens)));
        }
        authenticators.push(Box::new(BootstrapTokens));
        if let Some(configured) = &configured {
            authenticators.push(Box::new(Arc::clone(configured)));
        }
        if let Some(webhook) = webhook {
            authenticators.push(Box::new(webhook));
        }
        let issuer = service_accounts.as_ref().map(|tokens| tokens.issuer());
        Self {
            client_authorities,
            request_header,
            tokens: Tokens::new(authenticators),
            configured,
            anonymous,
            api_audiences: vec![issuer.unwrap_or(PRIVATE_AUDIENCE).to_owned()],
            service_accounts,
        }
    }

    /// Judges the certificates of a connection, the client's own first.
    pub(crate) fn connected(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Connected {
        let generation = self.generation();
        let user = self.judge(chain, now);
        let proxy_until = self.request_header.as_ref().and_then(|proxies| {
            let peer = Peer::judge(chain, proxies.authorities.as_ref(), now);
            proxies.proxy_until(&peer)
        });
        Connected {
            chain: chain.iter().map(|one| one.clone().into_owned()).collect(),
            user: RwLock::new((generation, user)),
            proxy_until,
        }
    }

    /// Which authorities count now: a number that changes when they do.
    fn generation(&self) -> u64 {
        let authorities = self.client_authorities.as_ref();
        authorities.map_or(0, |authorities| authorities.generation())
    }

    fn judge(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Peer {
        match (&self.client_authorities, chain.first()) {
            (Some(authorities), _) => Peer::judge(chain, authorities.as_ref(), now),
            (None, Some(own)) => Peer::of(own),
            (None, None) => Peer::Rejected,
        }
    }

    /// Whose the connection is, by the authorities that count now.
    fn user(&self, connected: &Connected, now: Timestamp) -> Peer {
        // Read before they judge: authorities that come meanwhile judge again, at the next request.
        let generation = self.generation();
        let known = connected.user.read();
        if known.0 == generation {
            return known.1.clone();
        }
        drop(known);
        let user = self.judge(&connected.chain, now);
        *connected.user.write() = (generation, user.clone());
        user
    }

    /// Who asks. Credentials that nobody knows are 401, not anonymous. They are taken off the request: nobody further down
    /// is tempted to use them, or to hand them on.
    pub(crate) async fn authenticate(
        &self,
        server: &Server,
        request: &mut Parts,
    ) -> Result<Identity> {
        let identity = self.identify(server, request).await;
        request.headers.remove(AUTHORIZATION);
        HeaderNames::standard().strip(&mut request.headers);
        if let Some(proxies) = &self.request_header {
            proxies.headers.strip(&mut request.headers);
        }
        identity
    }

    async fn identify(&self, server: &Server, request: &mut Parts) -> Result<Identity> {
        if let Some(identity) = request.extensions.get::<Identity>() {
            return Ok(identity.clone());
        }
        let mut refused = false;
        if let Some(connected) = request.extensions.get::<Arc<Connected>>() {
            let time = server.clock().now();
            let now = time.as_second();
            if connected.proxy_until.is_some_and(|until| until >= now)
                && let Some(proxies) = &self.request_header
                && let Some(identity) = proxies.headers.identity(&request.headers)?
            {
                return Ok(identity);
            }
            match self.user(connected, time) {
                Peer::Verified { until, .. } if until < now => refused = true,
                Peer::Verified { identity, .. } => {
                    if let Some(identity) = identity {
                        return Ok(Arc::unwrap_or_clone(identity));
                    }
                }
                Peer::Rejected => refused = true,
            }
        }
        let header = request.headers.get(AUTHORIZATION);
        let Some(token) = header.and_then(|header| bearer_token(header.as_bytes())) else {
            return match !refused && self.is_open(request.uri.path()) {
                true => Ok(Identity::anonymous()),
                false => Err(ApiError::unauthorized()),
            };
        };
        let audiences = &self.api_audiences;
        match self.tokens.authenticate(server, &token, audiences).await {
            Ok(Some(authenticated)) => {
                request.extensions.insert(authenticated.remarks);
                Ok(authenticated.identity)
            }
            Ok(None) => Err(ApiError::unauthorized()),
            Err(rejections) => {
                tracing::debug!(target: "coracle::access", ?rejections, "a token was refused");
                Err(ApiError::unauthorized())
            }
        }
    }

    /// Whether strangers may ask for the path.
    fn is_open(&self, path: &str) -> bool {
        match &self.configured {
            None => self.anonymous,
            Some(configured) => configured.is_open(path, self.anonymous),
        }
    }

    /// Whose the token is if it is for one of `audiences`, for a TokenReview; the error is upstream's text.
    pub(crate) async fn review(
        &self,
        server: &Server,
        token: &str,
        audiences: &[String],
    ) -> std::result::Result<Authenticated, String> {
        // Upstream asks with a header; so spaces end a token, and one that begins with a space is none.
        let Some(token) = bearer_token(format!("Bearer {token}").as_bytes()) else {
            return Ok(Authenticated {
                identity: Identity::anonymous(),
                audiences: audiences.to_vec(),
                remarks: Remarks::default(),
            });
        };
        let rejections = match self.tokens.authenticate(server, &token, audiences).await {
            Ok(Some(authenticated)) => return Ok(authenticated),
            Ok(None) => Vec::new(),
            Err(rejections) => rejections,
        };
        // Upstream's loopback authenticator speaks first, and knows no token but its own.
        let mut texts = vec!["invalid bearer token".to_owned()];
        for rejection in rejections {
            let text = rejection.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        Err(match texts.as_slice() {
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        })
    }
}

#[async_trait]
impl<T: TokenAuthenticator> TokenAuthenticator for Arc<T> {
    async fn authenticate(
        &self,
        server: &Server,
        token: &str,
        audiences: &[String],
    ) -> std::result::Result<Option<Authenticated>, Rejection> {
        T::authenticate(self, server, token, audiences).await
    }
}

/// The text of a header that says who asks: UTF-8, as names may be. What is not is no way to be somebody else.
fn header_text<'v>(name: &str, value: &'v HeaderValue) -> Result<&'v str> {
    std::str::from_utf8(value.as_bytes())
        .map_err(|_| ApiError::bad_request(format!("the header {name} is not UTF-8")))
}

/// The bearer token of an `Authorization` header: the word after `Bearer`.
fn bearer_token(header: &[u8]) -> Option<String> {
    let header = std::str::from_utf8(header).ok()?;
    // Two spaces leave an empty word between them, which is no token: so upstream splits.
    let mut words = header.trim().split(' ');
    let scheme = words.next()?;
    let token = words.next().unwrap_or_default();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_the_second_word() {
        for (header, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer abc", Some("abc")),
            (" BEARER abc def", Some("abc")),
            ("Bearer  abc", None),
            ("Bearer ", None),
            ("Bearer", None),
            ("Basic abc", None),
            ("", None),
        ] {
            assert_eq!(
                bearer_token(header.as_bytes()).as_deref(),
                token,
                "{header:?}"
            );
        }
        assert_eq!(bearer_token(b"Bearer \xff"), None);
    }
}
