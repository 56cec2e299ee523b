//! Tokens of service accounts: issued by this server, signed, bound to objects, and believed again.
//!
//! ```text
//! TokenRequest ▶ claims ▶ signed JWT ──────▶ bearer ──────▶ signature ▶ audience ▶ time ▶ is everything it names there?
//!                                                              ▲
//!                        current key, then the previous ones ──┘
//! ```
//!
//! The claims are those of upstream's pkg/serviceaccount/claims.go; [`legacy`] are the tokens kept in Secrets.

mod check;
mod claims;
mod legacy;
mod uses;

use std::sync::Arc;

use async_trait::async_trait;
use coracle_api::Object;
use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::{Value, json};

pub(crate) use claims::{Bound, Grant, WARN_AFTER_SECONDS};
pub(crate) use uses::note_uses;

use super::jws::{Jws, KeyError, PublicKey, SigningKey};
use super::token::{
    Authenticated, Rejection, Remarks, TokenAuthenticator, audience_problem, intersection,
};
use super::{Identity, PRIVATE_AUDIENCE};
use crate::server::Server;
use uses::Uses;

/// The group of all service accounts.
const ACCOUNTS: &str = "system:serviceaccounts";
/// How user names of service accounts begin.
const USER_PREFIX: &str = "system:serviceaccount:";

/// The keys that tokens are signed and verified with.
#[derive(Debug)]
pub struct TokenKeys {
    signer: SigningKey,
    verifiers: Vec<PublicKey>,
}

impl TokenKeys {
    /// Signs with `signer`; believes it and `previous` ones, whose tokens stay good until they expire.
    pub fn new(signer: SigningKey, previous: impl IntoIterator<Item = PublicKey>) -> Self {
        let mut verifiers = vec![signer.public().clone()];
        for key in previous {
            if !verifiers.contains(&key) {
                verifiers.push(key);
            }
        }
        Self { signer, verifiers }
    }

    /// A new key that is forgotten with the process.
    pub fn generate() -> Result<Self, KeyError> {
        Ok(Self::new(SigningKey::generate()?, []))
    }
}

/// How long tokens may live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenLife {
    /// The longest that may be asked for, in seconds; more is shortened with a warning. `None`: as long as the API allows.
    pub longest: Option<i64>,
    /// Whether the token that pods mount by themselves lives for a year and is only reported as stale after the
    /// hour that was asked for.
    pub extend: bool,
}

impl Default for TokenLife {
    fn default() -> Self {
        Self {
            longest: None,
            extend: true,
        }
    }
}

/// Issues tokens and believes them.
pub struct ServiceAccountTokens {
    /// Who issues: the `iss` of new tokens, and the first of those that are believed.
    issuers: Vec<String>,
    keys: RwLock<Arc<TokenKeys>>,
    life: TokenLife,
    /// Uses of tokens in Secrets, for whoever writes them down.
    uses: Uses,
}

impl ServiceAccountTokens {
    /// Tokens of the cluster's own issuer.
    pub fn new(keys: impl Into<Arc<TokenKeys>>) -> Self {
        Self {
            issuers: vec![PRIVATE_AUDIENCE.to_owned()],
            keys: RwLock::new(keys.into()),
            life: TokenLife::default(),
            uses: Uses::default(),
        }
    }

    /// With other lives.
    pub fn with_life(mut self, life: TokenLife) -> Self {
        self.life = life;
        self
    }

    /// Replaces the keys from now on: new tokens are signed with the new one, and only its verifiers are believed.
    pub fn set_keys(&self, keys: TokenKeys) {
        *self.keys.write() = Arc::new(keys);
    }

    /// Who issues.
    pub fn issuer(&self) -> &str {
        &self.issuers[0]
    }

    pub(crate) fn life(&self) -> &TokenLife {
        &self.life
    }

    /// All keys that are believed, the signing one first.
    pub(crate) fn public_keys(&self) -> Vec<PublicKey> {
        self.keys.read().verifiers.clone()
    }

    /// The token of `grant`.
    pub(crate) fn issue(&self, grant: &Grant<'_>) -> Result<String, KeyError> {
        let keys = Arc::clone(&self.keys.read());
        keys.signer.sign(&claims::write(self.issuer(), grant))
    }

    /// The token that a Secret of type `kubernetes.io/service-account-token` carries for `account`. It never expires.
    pub fn issue_legacy(&self, account: &Object, secret: &str) -> Result<String, KeyError> {
        let keys = Arc::clone(&self.keys.read());
        keys.signer.sign(&legacy::claims(account, secret))
    }

    fn verified<T: serde::de::DeserializeOwned>(&self, jws: &Jws<'_>) -> Result<T, Rejection> {
        let keys = Arc::clone(&self.keys.read());
        let named = |key: &&PublicKey| jws.header.kid.is_empty() || key.id() == jws.header.kid;
        let mut keys = keys.verifiers.iter().filter(named).peekable();
        if keys.peek().is_none() {
            return Err(Rejection::new("invalid signature, no keys found"));
        }
        jws.verified(keys)
            .ok_or_else(|| Rejection::new("go-jose/go-jose: error in cryptographic primitive"))
    }
}

/// Who issued a token, by its own account.
#[derive(Deserialize)]
struct Issued {
    #[serde(default)]
    iss: String,
}

#[async_trait]
impl TokenAuthenticator for ServiceAccountTokens {
    async fn authenticate(
        &self,
        server: &Server,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Authenticated>, Rejection> {
        let Some(jws) = Jws::parse(token) else {
            return Ok(None);
        };
        let Some(Issued { iss }) = jws.unverified() else {
            return Ok(None);
        };
        let trusted = &server.authentication.api_audiences;
        if iss == legacy::ISSUER {
            let claims: legacy::Claims = self.verified(&jws)?;
            let audiences = intersection(trusted, audiences)
                .ok_or_else(|| audience_problem(trusted, audiences))?;
            let (verdict, used) = legacy::check(server, &claims, token).await?;
            let remarks = used.remarks();
            self.uses.tell(used, server.clock().now());
            return Ok(Some(Authenticated {
                identity: verdict?,
                audiences,
                remarks,
            }));
        }
        if !self.issuers.contains(&iss) {
            return Ok(None);
        }
        let claims: claims::Claims = self.verified(&jws)?;
        let named = match claims.aud.0.as_slice() {
            [] => trusted,
            named => named,
        };
        let audiences =
            intersection(named, audiences).ok_or_else(|| audience_problem(named, audiences))?;
        let identity = check::check(server, &claims).await?;
        Ok(Some(Authenticated {
            identity,
            audiences,
            remarks: Remarks::default(),
        }))
    }
}

/// The identity of a service account.
pub(crate) fn account_identity(namespace: &str, name: &str, uid: &str) -> Identity {
    let groups = [ACCOUNTS.to_owned(), format!("{ACCOUNTS}:{namespace}")];
    Identity {
        uid: uid.to_owned(),
        ..Identity::new(format!("{USER_PREFIX}{namespace}:{name}"), groups)
    }
}

/// What the server, reached at `host` (`host:port`), says about itself as an issuer, for those who verify tokens
/// elsewhere (OIDC discovery).
pub(crate) fn discovery_document(tokens: &ServiceAccountTokens, host: &str) -> Value {
    let mut algorithms: Vec<&str> = Vec::new();
    let keys = tokens.public_keys();
    algorithms.extend(keys.iter().map(PublicKey::algorithm));
    algorithms.sort_unstable();
    algorithms.dedup();
    json!({
        "issuer": tokens.issuer(),
        "jwks_uri": format!("https://{host}/openid/v1/jwks"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
    })
}

/// The keys that verify tokens, as a JSON Web Key Set.
pub(crate) fn key_set(tokens: &ServiceAccountTokens) -> Value {
    let keys: Vec<Value> = tokens.public_keys().iter().map(PublicKey::to_jwk).collect();
    json!({"keys": keys})
}
