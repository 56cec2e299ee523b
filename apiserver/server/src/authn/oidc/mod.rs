//! Tokens of issuers elsewhere: OpenID Connect.
//!
//! ```text
//! token ▶ whose? ▶ audience ▶ time ▶ signature ◀── keys ◀── the issuer (discovery, JWKS)
//!                                        └▶ claims ▶ user ▶ rules ▶ Identity
//! ```
//!
//! One [`Issuer`] per entry of the configuration. An issuer that is not reached hurts nobody but those who show its tokens.
//! Rules and texts: `k8s.io/apiserver/plugin/pkg/authenticator/token/oidc`, and `go-oidc`'s verifier.

mod claims;
mod distributed;
mod keys;
mod verify;

use std::sync::Arc;

use coracle_clock::Clock;
use tokio_util::sync::DropGuard;

pub(super) use keys::KeysError;
use keys::RemoteKeys;

use super::Identity;
use super::token::Rejection;
use crate::config::{JwtAuthenticator, Mapping};
use crate::outgoing::Outside;

/// One issuer whose tokens are believed.
pub(super) struct Issuer {
    configured: JwtAuthenticator,
    keys: Arc<Followed>,
}

/// Keys that are looked for as long as somebody has them.
struct Followed {
    keys: Arc<RemoteKeys>,
    /// Issuers of claims that this one's tokens name.
    others: distributed::Others,
    _search: DropGuard,
}

impl Followed {
    fn new(keys: Arc<RemoteKeys>) -> Arc<Self> {
        let search = keys.follow();
        Arc::new(Self {
            keys,
            others: distributed::Others::default(),
            _search: search,
        })
    }
}

impl Issuer {
    /// Begins to look for the issuer's keys, or goes on with those of one of `before` that is at the same place. Must be
    /// called within a tokio runtime.
    pub(super) fn start(
        configured: JwtAuthenticator,
        before: &[Self],
        outside: &Arc<dyn Outside>,
        clock: &Clock,
    ) -> Result<Self, KeysError> {
        let place = &configured.issuer;
        let same = before
            .iter()
            .find(|before| before.configured.issuer.is_at(place));
        let keys = match same {
            Some(before) => Arc::clone(&before.keys),
            None => Followed::new(Arc::new(RemoteKeys::new(place, outside, clock)?)),
        };
        Ok(Self { configured, keys })
    }

    /// `None`: somebody else's token. An error: this issuer's, and wrong.
    pub(super) async fn authenticate(
        &self,
        token: &str,
        clock: &Clock,
    ) -> Result<Option<Identity>, Rejection> {
        let issuer = &self.configured.issuer;
        if verify::untrusted_issuer(token).as_deref() != Some(issuer.url.as_str()) {
            return Ok(None);
        }
        if !self.keys.keys.are_known() {
            return Err(Rejection::new("oidc: authenticator not initialized"));
        }
        let verified = distributed::verified(token, &issuer.audiences, &self.keys, clock).await;
        let mut claims =
            verified.map_err(|why| Rejection::new(format!("oidc: verify token: {why}")))?;
        if let Some(Mapping::Claim(name, _)) = &self.configured.groups {
            let expanded = distributed::expand(&mut claims, name, issuer, &self.keys, clock).await;
            expanded.map_err(|why| {
                let why = format!("oidc: could not expand distributed claims: {why}");
                Rejection::new(why)
            })?;
        }
        claims::identity(&self.configured, claims)
            .map(Some)
            .map_err(Rejection::new)
    }
}
