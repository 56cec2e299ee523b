//! `serviceaccounts/token`: a token that says that its bearer is the account.
//!
//! A token may be bound to a pod, a Secret or a node, and is worth nothing when that is gone.

use bytes::Bytes;
use coracle_api::authentication::v1::token_request;
use coracle_api::field_errors::ErrorType;
use coracle_api::{FieldErrors, Object};
use http::StatusCode;
use serde_json::{Value, json};

use crate::answer::{Answer, Shown};
use crate::authn::{Bound, Grant, TokenLife, WARN_AFTER_SECONDS};
use crate::call::Call;
use crate::decode;
use crate::metadata;
use crate::negotiate;
use crate::options::WriteOptions;
use crate::server::Server;
use crate::status::{ApiError, Result};
use crate::storage;
use crate::verbs::{create as creation, expected};

const KIND: (&str, &str, &str) = (
    "authentication.k8s.io",
    "TokenRequest",
    "TokenRequest.authentication.k8s.io",
);

/// Makes a token for the account that the path names.
pub(crate) async fn create(server: &Server, call: &Call, body: Bytes) -> Result<Answer> {
    let options = WriteOptions::parse(&call.info.query, "CreateOptions")?;
    let input = negotiate::input(&call.headers)?;
    let decode::Body { object, warnings } =
        decode::body(&body, input, expected(call), options.field_validation)?;
    call.warn(warnings);
    creation::check_namespace(call, &object)?;
    issue(server, call, object).await
}

async fn issue(server: &Server, call: &Call, mut request: Object) -> Result<Answer> {
    token_request::default(&mut request);
    let mut errors = FieldErrors::default();
    let name = request.name();
    if !name.is_empty() && name != call.name() {
        let detail = "must match the service account name if specified";
        errors.push(
            ErrorType::Invalid,
            "metadata.name",
            Some(name.into()),
            detail,
        );
        return Err(invalid(call.name(), &errors));
    }
    let account = server.storage.get(call.resource, &call.key()).await?;
    let account = account
        .ok_or_else(|| ApiError::not_found(call.resource, call.name()))?
        .object();
    let api_audiences = &server.authentication.api_audiences;
    if request.at("spec.audiences").is_empty() {
        request.set("spec.audiences", json!(api_audiences));
    }
    let now = server.clock().now();
    complete(&mut request, &account, metadata::seconds(now));
    token_request::validate(&request, &mut errors);
    if !errors.is_empty() {
        return Err(invalid("", &errors));
    }
    let bound = match request.at("spec.boundObjectRef").exists() {
        true => Some(find_bound(server, call, &request).await?),
        false => None,
    };
    let Some(tokens) = &server.authentication.service_accounts else {
        return Err(ApiError::internal(
            "failed to generate token: this server has no key to sign tokens with",
        ));
    };
    let audiences = request.at("spec.audiences");
    let audiences: Vec<String> = audiences.items().map(|one| one.str().to_owned()).collect();
    let asked = request
        .at("spec.expirationSeconds")
        .as_i64()
        .unwrap_or_default();
    let is_pod = matches!(bound, Some(Held::Pod(..)));
    let for_api = audiences == *api_audiences;
    let life = life(asked, is_pod && for_api, tokens.life());
    let grant = Grant {
        account: &account,
        bound: bound.as_ref().map_or(Bound::Nothing, Held::bound),
        audiences: &audiences,
        now,
        seconds: life.seconds,
        warn_after: life.warn_after,
        id: server.clock().uuid(),
    };
    let token = tokens
        .issue(&grant)
        .map_err(|error| ApiError::internal(format!("failed to generate token: {error}")))?;
    request.set("spec.expirationSeconds", life.told);
    let end = now + std::time::Duration::from_secs(life.told.unsigned_abs());
    let status = json!({"token": token, "expirationTimestamp": metadata::seconds(end)});
    request.set("status", status);
    call.warn(life.warning);
    let shown = Shown::Object(&request);
    Ok(Answer::object(call, StatusCode::CREATED, shown, now))
}

/// How long a token is good.
#[derive(Debug, PartialEq, Eq)]
struct Life {
    /// What the token says.
    seconds: i64,
    /// What the answer says.
    told: i64,
    /// When use becomes stale, for a token that lives longer than it was asked to.
    warn_after: Option<i64>,
    warning: Option<String>,
}

/// The token that a pod mounts by itself is asked for with one particular life, and lives for a year: clients that read
/// it only once are found by its stale use before they fail.
fn life(asked: i64, mounted: bool, rules: &TokenLife) -> Life {
    const EXTENDED_SECONDS: i64 = 365 * 24 * 60 * 60;
    let (told, warning) = match rules.longest {
        Some(longest) if asked > longest => {
            let text =
                format!("requested expiration of {asked} seconds shortened to {longest} seconds");
            (longest, Some(text))
        }
        _ => (asked, None),
    };
    let extend = rules.extend && mounted && told == WARN_AFTER_SECONDS;
    Life {
        seconds: if extend { EXTENDED_SECONDS } else { told },
        told,
        warn_after: extend.then_some(told),
        warning,
    }
}

/// Fills in what the answer says about the account, in upstream's order of fields.
fn complete(request: &mut Object, account: &Object, now: String) {
    let mut metadata = request.at("metadata").value().cloned().unwrap_or(json!({}));
    let text = |value: &str| Value::from(value.to_owned());
    metadata["name"] = text(account.name());
    metadata["namespace"] = text(account.namespace());
    metadata["uid"] = text(account.uid());
    metadata["creationTimestamp"] = Value::from(now);
    let spec = |field: &str| request.at("spec").key(field).value().cloned();
    let spec = json!({
        "audiences": spec("audiences"),
        "expirationSeconds": spec("expirationSeconds"),
        "boundObjectRef": spec("boundObjectRef"),
    });
    request.set("metadata", metadata);
    request.set("spec", spec);
    request.remove("status");
}

fn invalid(name: &str, errors: &FieldErrors) -> ApiError {
    let (group, kind, qualified) = KIND;
    ApiError::invalid_as(group, kind, qualified, name, errors)
}

/// What a token is to be bound to.
enum Held {
    Pod(Object, Option<(String, String)>),
    Secret(Object),
    Node(Object),
}

impl Held {
    fn bound(&self) -> Bound<'_> {
        match self {
            Self::Pod(pod, node) => Bound::Pod(pod, node.clone()),
            Self::Secret(secret) => Bound::Secret(secret),
            Self::Node(node) => Bound::Node(node),
        }
    }
}

async fn find_bound(server: &Server, call: &Call, request: &Object) -> Result<Held> {
    let bound = request.at("spec.boundObjectRef");
    let (version, kind, name) = (
        bound.key("apiVersion").str(),
        bound.key("kind").str(),
        bound.key("name").str(),
    );
    let resource = match (version, kind) {
        ("v1", "Pod" | "Secret" | "Node") => server.registry.by_kind("", "v1", kind),
        _ => None,
    };
    let Some(resource) = resource else {
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let shown = format!("{group}/{version}, Kind={kind}");
        return Err(ApiError::bad_request(format!(
            "cannot bind token to object of type {shown}"
        )));
    };
    let key = storage::key(resource, call.namespace(), name);
    let entry = server.storage.get(resource, &key).await?;
    let object = entry
        .ok_or_else(|| ApiError::not_found(resource, name))?
        .object();
    if kind == "Pod" && object.at("spec.serviceAccountName").str() != call.name() {
        return Err(ApiError::bad_request(format!(
            "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
            call.name()
        )));
    }
    let uid = bound.key("uid").str();
    if !uid.is_empty() && uid != object.uid() {
        let message = format!(
            "Operation cannot be fulfilled on {kind} {name:?}: the UID in the bound object reference ({uid}) does not \
             match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(ApiError::new(409, "Conflict", message).with_plain_details("", kind, name));
    }
    Ok(match kind {
        "Pod" => {
            let node = node_of(server, &object).await?;
            Held::Pod(object, node)
        }
        "Secret" => Held::Secret(object),
        _ => Held::Node(object),
    })
}

/// Name and UID of the pod's node; a node that is not there is named all the same.
async fn node_of(server: &Server, pod: &Object) -> Result<Option<(String, String)>> {
    let name = pod.at("spec.nodeName").str();
    if name.is_empty() {
        return Ok(None);
    }
    let node = server.find("", "nodes", "", name).await?;
    let uid = node.map(|node| node.object().uid().to_owned());
    Ok(Some((name.to_owned(), uid.unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_mounted_token_lives_longer_than_it_is_asked_to() {
        let rules = |longest, extend| TokenLife { longest, extend };
        for (asked, mounted, rules, expected) in [
            (
                3607,
                true,
                rules(None, true),
                (31_536_000, 3607, Some(3607), false),
            ),
            (3607, false, rules(None, true), (3607, 3607, None, false)),
            (3607, true, rules(None, false), (3607, 3607, None, false)),
            (3600, true, rules(None, true), (3600, 3600, None, false)),
            (
                9000,
                false,
                rules(Some(7200), true),
                (7200, 7200, None, true),
            ),
            (
                3607,
                true,
                rules(Some(3600), true),
                (3600, 3600, None, true),
            ),
        ] {
            let life = life(asked, mounted, &rules);
            let shown = (
                life.seconds,
                life.told,
                life.warn_after,
                life.warning.is_some(),
            );
            assert_eq!(shown, expected, "{asked} {mounted} {rules:?}");
        }
    }
}
