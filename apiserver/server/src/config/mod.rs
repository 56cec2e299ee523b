//! The files that configure who is believed and who may do what: `apiserver.config.k8s.io`.
//!
//! ```text
//! text ─▶ strict decoding ─▶ rules ─▶ AuthenticationConfiguration │ AuthorizationConfiguration, its expressions compiled
//! ```
//!
//! Both are values; what they ask for is built in [`crate::authn`] and [`crate::authz`]. Rules and texts:
//! `k8s.io/apiserver/pkg/apis/apiserver/validation` of Kubernetes 1.36.

mod authentication;
mod authorization;
mod shape;
mod url;

use coracle_api::schema::{self, SchemaRef};
use coracle_api::{At, FieldErrors};
use serde_json::Value;

pub use authentication::{
    Anonymous, AuthenticationConfiguration, ClaimRule, Extra, Issuer, JwtAuthenticator, Mapping,
    Rule,
};
pub use authorization::{AuthorizationConfiguration, Authorizer, WebhookAuthorizer};
use shape::Shape;

/// The group of both kinds.
const GROUP: &str = "apiserver.config.k8s.io";

/// Why a configuration is not used. All that was found is in one text, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It is no such file.
    #[error("{0}")]
    Decode(String),
    /// It breaks rules.
    #[error("{0}")]
    Invalid(String),
}

/// Reads a file of one kind, in one of `versions`; fields that the kind does not have, and those that are there twice, are
/// refused.
fn decode(
    text: &str,
    kind: &str,
    versions: &[&str],
    fields: &[(&str, Shape)],
) -> Result<Value, ConfigError> {
    let wrong = |why: String| ConfigError::Decode(why);
    if text.trim().is_empty() {
        return Err(wrong("empty config data".to_owned()));
    }
    let decoded = schema::decode_yaml(text.as_bytes(), &SchemaRef::any());
    let decoded = decoded.map_err(|error| wrong(error.to_string()))?;
    let root = At::root(&decoded.value, "");
    let (version, found) = (root.key("apiVersion").str(), root.key("kind").str());
    if found.is_empty() {
        return Err(wrong("Object 'Kind' is missing".to_owned()));
    }
    let known = version
        .strip_prefix(GROUP)
        .and_then(|version| version.strip_prefix('/'))
        .is_some_and(|version| versions.contains(&version));
    if !known || found != kind {
        return Err(wrong(format!(
            "no kind {found:?} is registered for version {version:?}: expected {kind} of {GROUP}/{}",
            versions.join(&format!(", {GROUP}/"))
        )));
    }
    let mut strict: Vec<String> = decoded.strict.iter().map(ToString::to_string).collect();
    shape::check(&decoded.value, fields, &mut strict).map_err(wrong)?;
    match strict.is_empty() {
        true => Ok(decoded.value),
        false => Err(wrong(format!(
            "strict decoding error: {}",
            strict.join(", ")
        ))),
    }
}

/// All findings as one text, as Go's `Aggregate` writes them; `Ok` if there are none.
fn settled(errors: &FieldErrors) -> Result<(), ConfigError> {
    if errors.is_empty() {
        return Ok(());
    }
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Err(ConfigError::Invalid(crate::authz::together(&texts)))
}

#[cfg(test)]
mod tests;
