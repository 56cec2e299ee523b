//! Authentication: who asks.
//!
//! A request that came over a network is identified by its connection's client certificate, else by its bearer token,
//! else it is anonymous. A caller in the same process carries an [`Identity`] as a request extension that only the
//! wiring can set; [`crate::ApiServer::serve`] takes such extensions off whatever came over a network.

mod certificate;
mod impersonation;
mod tokens;

use std::sync::Arc;

use async_trait::async_trait;
use http::request::Parts;

pub use certificate::identity_from_certificate;
pub use impersonation::impersonate;
pub use tokens::{StaticTokens, TokenFileError};

use crate::status::{ApiError, Result};

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

/// Finds out who asks.
#[async_trait]
pub trait Authenticator: Send + Sync {
    /// `None`: these credentials are not this authenticator's. An error: they are, and they are wrong.
    async fn authenticate(&self, request: &Parts) -> Result<Option<Identity>>;
}

/// The identity of a connection's client certificate, put there by [`crate::ApiServer::serve`].
#[derive(Clone, Debug)]
pub struct PeerIdentity(pub Arc<Identity>);

/// The authenticators in order, then anonymous.
pub struct Authentication {
    authenticators: Vec<Box<dyn Authenticator>>,
}

impl Authentication {
    /// The in-process identity, the client certificate, and `further` ones, in that order.
    pub fn new(further: Vec<Box<dyn Authenticator>>) -> Self {
        Self {
            authenticators: further,
        }
    }

    /// Who asks. A bearer token that nobody knows is 401, not anonymous.
    pub async fn authenticate(&self, request: &Parts) -> Result<Identity> {
        if let Some(identity) = request.extensions.get::<Identity>() {
            return Ok(identity.clone());
        }
        if let Some(PeerIdentity(identity)) = request.extensions.get() {
            return Ok(Identity::clone(identity));
        }
        self.token(request).await
    }

    /// Who asks, by the request's bearer token alone.
    pub async fn token(&self, request: &Parts) -> Result<Identity> {
        for authenticator in &self.authenticators {
            if let Some(identity) = authenticator.authenticate(request).await? {
                return Ok(identity);
            }
        }
        match bearer_token(request) {
            Some(_) => Err(ApiError::unauthorized()),
            None => Ok(Identity::anonymous()),
        }
    }
}

/// The bearer token of a request: the word after `Bearer`.
pub fn bearer_token(request: &Parts) -> Option<&str> {
    let header = request
        .headers
        .get(http::header::AUTHORIZATION)?
        .to_str()
        .ok()?;
    // Two spaces leave an empty word between them, which is no token: so upstream splits.
    let mut words = header.trim().split(' ');
    let scheme = words.next()?;
    let token = words.next().unwrap_or_default();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
