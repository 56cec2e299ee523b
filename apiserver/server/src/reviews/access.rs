//! Who may do what.

use async_trait::async_trait;
use coracle_api::{At, Object};
use serde_json::{Map, Value, json};

use super::Review;
use crate::authn::Identity;
use crate::authz::Decision;
use crate::call::Call;
use crate::request_info::{self, RequestInfo};
use crate::server::Server;
use crate::status::{ApiError, Result};

/// Whose access is asked about.
pub(super) enum Of {
    /// That of the user and groups in the question.
    Subject,
    /// That of the asker.
    Asker,
}

#[async_trait]
impl Review for Of {
    async fn answer(&self, server: &Server, call: &Call, question: &mut Object) -> Result<()> {
        let spec = question.at("spec");
        let identity = match self {
            Self::Subject => subject(&spec),
            Self::Asker => call.identity.clone(),
        };
        let request = request(&spec);
        let status = match server.authorization.decide(&identity, &request).await {
            Decision::Allow => json!({"allowed": true}),
            Decision::Deny(reason) => {
                with_reason(json!({"allowed": false, "denied": true}), reason)
            }
            Decision::NoOpinion(reason) => with_reason(json!({"allowed": false}), reason),
        };
        question.set("status", status);
        Ok(())
    }
}

fn with_reason(mut status: Value, reason: String) -> Value {
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    status
}

fn subject(spec: &At<'_>) -> Identity {
    let texts = |at: &At<'_>| at.items().map(|item| item.str().to_owned()).collect();
    let extra = spec.key("extra");
    Identity {
        user: spec.key("user").str().to_owned(),
        uid: spec.key("uid").str().to_owned(),
        groups: texts(&spec.key("groups")),
        extra: extra
            .entries()
            .map(|(key, values)| (key.to_lowercase(), texts(&values)))
            .collect(),
    }
}

/// The request that the question is about.
fn request(spec: &At<'_>) -> RequestInfo {
    let (resource, other) = (
        spec.key("resourceAttributes"),
        spec.key("nonResourceAttributes"),
    );
    if other.exists() {
        return RequestInfo {
            verb: request_info::known_verb(other.key("verb").str()),
            path: other.key("path").str().to_owned(),
            ..RequestInfo::default()
        };
    }
    let text = |field: &str| resource.key(field).str().to_owned();
    let version = text("version");
    RequestInfo {
        is_resource: true,
        verb: request_info::known_verb(resource.key("verb").str()),
        group: text("group"),
        // Upstream reads an absent version as any.
        version: if version.is_empty() {
            "*".to_owned()
        } else {
            version
        },
        namespace: text("namespace"),
        resource: text("resource"),
        name: text("name"),
        subresource: text("subresource"),
        ..RequestInfo::default()
    }
}

/// All that the asker may do in a namespace.
pub(super) struct Rules;

#[async_trait]
impl Review for Rules {
    async fn answer(&self, server: &Server, call: &Call, question: &mut Object) -> Result<()> {
        let namespace = question.at("spec.namespace").str().to_owned();
        if namespace.is_empty() {
            return Err(ApiError::bad_request("no namespace on request"));
        }
        let rules = server.authorization.rules(&call.identity, &namespace).await;
        let mut status = Map::new();
        status.insert("resourceRules".to_owned(), rules.resources.into());
        status.insert("nonResourceRules".to_owned(), rules.others.into());
        status.insert("incomplete".to_owned(), rules.incomplete.into());
        question.set("status", Value::Object(status));
        Ok(())
    }
}
