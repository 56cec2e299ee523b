//! PATCH: JSON, merge and strategic merge patches, applied to whatever is stored now; applied configurations go to
//! [`super::apply`].

use bytes::Bytes;
use coracle_api::field_errors::ErrorType;
use coracle_api::patch::{Patch, PatchError, PatchType, go_format};
use coracle_api::schema::parse_json;
use coracle_api::{FieldErrors, Object};
use serde_json::{Value, json};

use super::{apply as server_side, expected, shown, update};
use crate::answer::Answer;
use crate::call::Call;
use crate::decode;
use crate::negotiate;
use crate::options::{FieldValidation, WriteOptions};
use crate::server::Server;
use crate::status::{ApiError, Result};

/// A patch body as read, with the findings that strict validation asks for.
pub(crate) struct Parsed {
    /// Upstream tells what is wrong with a body only once there is an object to patch.
    patch: Result<Patch, PatchError>,
    findings: Vec<String>,
    /// Whether it is a strategic merge patch, which upstream's messages show instead of the patched object.
    strategic: bool,
    /// The patch as sent.
    body: Bytes,
}

/// Reads the options and the body of a patch, which the body's media type tells how to apply.
pub(crate) fn parse(call: &Call, body: &Bytes) -> Result<(WriteOptions, Parsed)> {
    let (kind, prefix) = match negotiate::media_type(&call.headers) {
        "application/json-patch+json" => (PatchType::Json, "json patch "),
        "application/merge-patch+json" => (PatchType::Merge, ""),
        "application/strategic-merge-patch+json" => (PatchType::Strategic, ""),
        _ => return Err(ApiError::unsupported_patch_type()),
    };
    let options = WriteOptions::parse(&call.info.query, "PatchOptions")?;
    let parsed = match options.field_validation {
        FieldValidation::Ignore => {
            Patch::parse_leniently(kind, body).map(|patch| (patch, Vec::new()))
        }
        FieldValidation::Warn | FieldValidation::Strict => Patch::parse(kind, body),
    };
    let (patch, strict) = match parsed {
        Ok((patch, strict)) => (Ok(patch), strict),
        Err(error) => (Err(error), Vec::new()),
    };
    let findings = strict
        .iter()
        .map(|finding| format!("{prefix}{finding}"))
        .collect();
    let parsed = Parsed {
        patch,
        findings,
        strategic: kind == PatchType::Strategic,
        body: body.clone(),
    };
    Ok((options, parsed))
}

impl From<PatchError> for ApiError {
    fn from(error: PatchError) -> Self {
        let message = error.to_string();
        match error {
            PatchError::BadRequest(_) => Self::bad_request(message),
            PatchError::TooManyOperations(_) => Self::new(413, "RequestEntityTooLarge", message),
            PatchError::Rejected => {
                Self::new(422, "Invalid", message).with_plain_details("", "", "")
            }
            PatchError::Internal(_) => Self::unclassified(message),
        }
    }
}

/// Patches the object that the path names.
pub(crate) async fn patch(server: &Server, call: &Call, body: Bytes) -> Result<Answer> {
    if server_side::is_apply(call) {
        return server_side::apply(server, call, body).await;
    }
    let (options, patch) = parse(call, &body)?;
    let change = update::Change {
        part: update::Part::of(call),
        uid_precondition: false,
        make: &|old| {
            let patched = apply(call, &patch, old)?;
            let object = decode_patched(call, &patch, patched, &options)?;
            update::check_name(call, &object)?;
            super::create::check_namespace(call, &object)?;
            Ok(object)
        },
    };
    let outcome = update::apply(server, call, &options, &change).await?;
    let outcome = outcome.ok_or_else(|| ApiError::not_found(call.resource, call.name()))?;
    Ok(outcome.answer(server, call))
}

/// The patched form of `old`.
pub(crate) fn apply(call: &Call, parsed: &Parsed, old: &Object) -> Result<Value> {
    let patch = parsed.patch.as_ref().map_err(Clone::clone)?;
    Ok(patch.apply(old.clone().into_value(), &expected(call).schema())?)
}

/// Reads a patched object by its schema; what does not fit is 422 about the patch, as upstream has it.
pub(crate) fn decode_patched(
    call: &Call,
    parsed: &Parsed,
    mut patched: Value,
    options: &WriteOptions,
) -> Result<Object> {
    // An explicitly empty list asks to forget all owners, as one empty entry does.
    let managed = patched.pointer_mut("/metadata/managedFields");
    if let Some(managed) = managed.filter(|managed| managed.as_array().is_some_and(Vec::is_empty)) {
        *managed = json!([{}]);
    }
    let about_patch = |value: String, why: String| {
        let mut errors = FieldErrors::default();
        errors.push(ErrorType::Invalid, "patch", Some(Value::from(value)), why);
        ApiError::invalid_as("", "", "", "", &errors)
    };
    // Shown to users if anything is wrong with it.
    let kept = (!parsed.strategic).then(|| patched.clone());
    let shown = || match &kept {
        Some(kept) => shown::patched(kept, &expected(call).schema(), &parsed.body),
        None => parse_json(&parsed.body).map_or_else(
            |_| String::from_utf8_lossy(&parsed.body).into_owned(),
            |patch| go_format(&patch),
        ),
    };
    if let Some(kept) = &kept
        && let Some(why) = decode::patched_type(kept, expected(call))
    {
        return Err(about_patch(shown(), why));
    }
    let decoded = match &kept {
        None => decode::merged(patched, expected(call), FieldValidation::Warn),
        Some(kept) if decode::has_no_version(kept) => Ok(of_no_version(kept)),
        Some(_) => decode::value(patched, expected(call), FieldValidation::Warn),
    };
    let mut decoded = decoded.map_err(|error| about_patch(shown(), error.to_string()))?;
    if parsed.strategic {
        decoded.warnings.sort();
    }
    let mut findings = parsed.findings.clone();
    findings.append(&mut decoded.warnings);
    match options.field_validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => call.warn(findings),
        FieldValidation::Strict if findings.is_empty() => {}
        FieldValidation::Strict => {
            return Err(about_patch(
                shown(),
                format!("strict decoding error: {}", findings.join(", ")),
            ));
        }
    }
    Ok(decoded.object)
}

/// An object of no version: upstream reads it as its own form of the kind, whose fields have other names, so nothing is
/// left of it.
fn of_no_version(patched: &Value) -> decode::Body {
    let keys = patched.as_object().into_iter().flat_map(|map| map.keys());
    let mut unknown: Vec<&String> = keys
        .filter(|key| !matches!(key.as_str(), "kind" | "apiVersion"))
        .collect();
    unknown.sort();
    let unknown = unknown
        .into_iter()
        .map(|key| format!("unknown field {key:?}"));
    decode::Body {
        object: Object::default(),
        warnings: unknown.collect(),
    }
}
