//! `serviceaccounts/token`: a token that says that its bearer is the account.
//!
//! Requests are checked as upstream checks them. There is no key to sign tokens with yet, so a request that is in order
//! is refused as well.

use bytes::Bytes;
use coracle_api::authentication::v1::token_request;
use coracle_api::field_errors::ErrorType;
use coracle_api::{FieldErrors, Object};

use crate::answer::{Answer, settle};
use crate::authn::PRIVATE_AUDIENCE;
use crate::call::Call;
use crate::decode;
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
    creation::check_namespace(call, &object)?;
    let answer = settle(issue(server, call, object).await);
    Ok(answer.with_first_warnings(warnings))
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
    account.ok_or_else(|| ApiError::not_found(call.resource, call.name()))?;
    if request.at("spec.audiences").is_empty() {
        request.set("spec.audiences", vec![PRIVATE_AUDIENCE]);
    }
    token_request::validate(&request, &mut errors);
    if !errors.is_empty() {
        return Err(invalid("", &errors));
    }
    if request.at("spec.boundObjectRef").exists() {
        check_bound(server, call, &request).await?;
    }
    Err(ApiError::internal(
        "failed to generate token: this server has no key to sign tokens with",
    ))
}

fn invalid(name: &str, errors: &FieldErrors) -> ApiError {
    let (group, kind, qualified) = KIND;
    ApiError::invalid_as(group, kind, qualified, name, errors)
}

/// A token can be bound to an object, and is worth nothing when that is gone.
async fn check_bound(server: &Server, call: &Call, request: &Object) -> Result<()> {
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
    Ok(())
}
