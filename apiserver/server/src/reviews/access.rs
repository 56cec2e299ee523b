//! Who may do what.

use std::borrow::Cow;

use async_trait::async_trait;
use coracle_api::selector::FieldSelector;
use coracle_api::{At, Object};
use serde_json::{Map, Value, json};

use super::Review;
use crate::authn::Identity;
use crate::authz::{Attributes, Decision, together};
use crate::call::Call;
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
        let (asked, mut errors) = attributes(&identity, &spec);
        let mut status = Map::new();
        let reason = match server.authorization.decide(&asked).await {
            Decision::Allow(reason) => {
                status.insert("allowed".to_owned(), true.into());
                reason
            }
            Decision::Deny(reason) => {
                status.insert("allowed".to_owned(), false.into());
                status.insert("denied".to_owned(), true.into());
                reason
            }
            Decision::NoOpinion(reason) => {
                status.insert("allowed".to_owned(), false.into());
                reason
            }
            Decision::Failed { denied, error } => {
                status.insert("allowed".to_owned(), false.into());
                if denied {
                    status.insert("denied".to_owned(), true.into());
                }
                errors.insert(0, error);
                String::new()
            }
        };
        if !reason.is_empty() {
            status.insert("reason".to_owned(), reason.into());
        }
        if !errors.is_empty() {
            status.insert("evaluationError".to_owned(), errors.join("; ").into());
        }
        question.set("status", Value::Object(status));
        Ok(())
    }
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

/// What the question is about, and which parts of it cannot be understood and are left out.
fn attributes<'a>(identity: &'a Identity, spec: &At<'a>) -> (Attributes<'a>, Vec<String>) {
    let (resource, other) = (
        spec.key("resourceAttributes"),
        spec.key("nonResourceAttributes"),
    );
    if other.exists() {
        let (verb, path) = (other.key("verb").str(), other.key("path").str());
        return (Attributes::path(identity, verb, path), Vec::new());
    }
    let text = |field: &str| resource.key(field).str();
    let (fields, mut errors) = fields(&resource.key("fieldSelector"));
    let labels = labels(&resource.key("labelSelector"));
    if labels
        .parse::<coracle_api::selector::LabelSelector>()
        .is_err()
    {
        errors.push("spec.resourceAttributes.labelSelector ignored due to parse error".to_owned());
    }
    let attributes = Attributes {
        namespace: text("namespace"),
        subresource: text("subresource"),
        name: text("name").into(),
        version: text("version"),
        fields,
        labels,
        ..Attributes::resource(identity, text("verb"), text("group"), text("resource"))
    };
    (attributes, errors)
}

/// The label selector of a question: raw, or as requirements.
fn labels<'a>(selector: &At<'a>) -> Cow<'a, str> {
    let requirements = selector.key("requirements");
    if requirements.is_empty() {
        return selector.key("rawSelector").str().into();
    }
    let terms = requirements.items().map(|requirement| {
        let key = requirement.key("key").str();
        let values = requirement.key("values");
        let values: Vec<&str> = values.items().map(|value| value.str()).collect();
        match requirement.key("operator").str() {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        }
    });
    terms.collect::<Vec<_>>().join(",").into()
}

/// The field selector of a question: raw, or as requirements, of which those count that a selector could have.
fn fields(selector: &At<'_>) -> (FieldSelector, Vec<String>) {
    let mut left_out = false;
    let mut terms = vec![selector.key("rawSelector").str().to_owned()];
    for requirement in selector.key("requirements").items() {
        let values: Vec<String> = requirement
            .key("values")
            .items()
            .map(|value| {
                value
                    .str()
                    .replace('\\', "\\\\")
                    .replace(',', "\\,")
                    .replace('=', "\\=")
            })
            .collect();
        let key = requirement.key("key").str();
        match (requirement.key("operator").str(), &values[..]) {
            ("In", [value]) => terms.push(format!("{key}={value}")),
            ("NotIn", [value]) => terms.push(format!("{key}!={value}")),
            _ => left_out = true,
        }
    }
    terms.retain(|term| !term.is_empty());
    let parsed = terms.join(",").parse::<FieldSelector>();
    let some = parsed.as_ref().is_ok_and(|fields| !fields.is_empty());
    let errors = match (left_out || parsed.is_err(), some) {
        (false, _) => Vec::new(),
        (true, true) => vec![
            "spec.resourceAttributes.fieldSelector partially ignored due to parse error".to_owned(),
        ],
        (true, false) => {
            vec!["spec.resourceAttributes.fieldSelector ignored due to parse error".to_owned()]
        }
    };
    (parsed.unwrap_or_default(), errors)
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
        let mut status = json!({
            "resourceRules": rules.resources, "nonResourceRules": rules.others, "incomplete": rules.incomplete,
        });
        if !rules.errors.is_empty() {
            status["evaluationError"] = together(&rules.errors).into();
        }
        question.set("status", status);
        Ok(())
    }
}
