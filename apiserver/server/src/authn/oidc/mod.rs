//! Tokens of issuers elsewhere: OpenID Connect.
//!
//! ```text
//! token ▶ whose? ▶ audience ▶ time ▶ signature ◀── keys ◀── the issuer (discovery, JWKS)
//!                                        └▶ claims ▶ user ▶ rules ▶ Identity
//! ```
//!
//! One [`Issuer`] per entry of the configuration. An issuer that is not reached hurts nobody but those who show its tokens.
//! Rules and texts: `k8s.io/apiserver/plugin/pkg/authenticator/token/oidc`, and `go-oidc`'s verifier. Unlike upstream,
//! ES512 is not served, and distributed claims are not fetched.

mod claims;
mod keys;
mod verify;

use std::sync::Arc;

use coracle_clock::Clock;
use serde_json::{Map, Value};
use tokio_util::sync::DropGuard;

pub(super) use keys::KeysError;
use keys::RemoteKeys;

use super::Identity;
use super::jws::Jws;
use super::token::Rejection;
use crate::config::JwtAuthenticator;
use crate::outgoing::Outside;

/// One issuer whose tokens are believed.
pub(super) struct Issuer {
    configured: JwtAuthenticator,
    keys: Arc<Followed>,
}

/// Keys that are looked for as long as somebody has them.
struct Followed {
    keys: Arc<RemoteKeys>,
    _search: DropGuard,
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
            None => {
                let keys = Arc::new(RemoteKeys::new(place, outside, clock)?);
                let search = keys.follow();
                Arc::new(Followed {
                    keys,
                    _search: search,
                })
            }
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
        let keys = &self.keys.keys;
        if !keys.are_known() {
            return Err(Rejection::new("oidc: authenticator not initialized"));
        }
        let refused = |why: String| Rejection::new(format!("oidc: verify token: {why}"));
        let jws = Jws::parse(token).ok_or_else(|| refused(verify::unsupported(token)))?;
        let claims: Map<String, Value> = jws
            .unverified()
            .ok_or_else(|| refused("oidc: failed to unmarshal claims".to_owned()))?;
        // Cheap before dear: what is wrong anyway needs no signature, and makes nobody ask the issuer for keys.
        verify::check(&claims, &issuer.audiences, clock.now()).map_err(refused)?;
        if !keys.verify(&jws).await {
            let why = "failed to verify signature: failed to verify id token signature";
            return Err(refused(why.to_owned()));
        }
        claims::identity(&self.configured, claims)
            .map(Some)
            .map_err(Rejection::new)
    }
}
