//! PATCH with `application/apply-patch+yaml`: server-side apply.

use bytes::Bytes;
use coracle_api::Object;
use coracle_api::apply::{ApplyError, FieldManager};
use coracle_api::schema::{self, SchemaRef};
use http::StatusCode;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::{MAX_RETRIES, create, expected, update};
use crate::answer::Answer;
use crate::call::Call;
use crate::decode;
use crate::metadata;
use crate::negotiate;
use crate::options::{FieldValidation, WriteOptions};
use crate::server::Server;
use crate::status::{ApiError, Result};

/// The media type of applied configurations; JSON is YAML too.
const MEDIA_TYPE: &str = "application/apply-patch+yaml";

/// Whether the request applies a configuration.
pub(crate) fn is_apply(call: &Call) -> bool {
    negotiate::media_type(&call.headers) == MEDIA_TYPE
}

/// A configuration as read.
pub(crate) struct Config {
    /// What it states.
    pub value: Value,
    /// Keys that it states twice.
    duplicates: Vec<String>,
}

impl Config {
    /// Reads a body.
    pub(crate) fn read(body: &Bytes) -> Result<Self> {
        let refused =
            |error: String| ApiError::bad_request(format!("error decoding YAML: {error}"));
        let decoded = schema::decode_yaml(first_document(body), &SchemaRef::any())
            .map_err(|error| refused(error.to_string()))?;
        let duplicates = decoded.strict.iter().map(ToString::to_string).collect();
        let found = match decoded.value {
            value @ Value::Object(_) => return Ok(Self { value, duplicates }),
            Value::Null => {
                let value = Value::Object(Map::new());
                return Ok(Self { value, duplicates });
            }
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
        };
        Err(refused(format!(
            "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {found} into Go value of type \
             map[string]interface {{}}"
        )))
    }

    /// Warnings about the body, or its refusal, as `fieldValidation` asks.
    pub(crate) fn findings(&self, options: &WriteOptions) -> Result<Vec<String>> {
        match options.field_validation {
            FieldValidation::Strict if !self.duplicates.is_empty() => {
                let words = |finding: &String| match finding.strip_prefix("line ") {
                    Some(_) => {
                        format!(
                            "error converting YAML to JSON: yaml: unmarshal errors:\n  {finding}"
                        )
                    }
                    None => finding.clone(),
                };
                let findings: Vec<String> = self.duplicates.iter().map(words).collect();
                let findings = findings.join(", ");
                Err(ApiError::bad_request(format!(
                    "error strict decoding YAML: {findings}"
                )))
            }
            FieldValidation::Ignore => Ok(Vec::new()),
            _ => Ok(self.duplicates.clone()),
        }
    }
}

/// The first document of a body; whatever follows it is not read.
fn first_document(body: &[u8]) -> &[u8] {
    let mut values = serde_json::Deserializer::from_slice(body).into_iter::<IgnoredAny>();
    if let Some(Ok(_)) = values.next() {
        return &body[..values.byte_offset()];
    }
    let (mut at, mut begun) = (0, false);
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        let marker =
            line.starts_with(b"---") && line[3..].first().is_none_or(u8::is_ascii_whitespace);
        if marker && begun {
            return &body[..at];
        }
        // Comments and blank lines may stand before the first document's marker.
        begun |= marker || !(line.starts_with(b"#") || line.trim_ascii().is_empty());
        at += line.len();
    }
    body
}

impl From<ApplyError> for ApiError {
    fn from(error: ApplyError) -> Self {
        let message = error.to_string();
        match error {
            ApplyError::BadRequest(_) => Self::bad_request(message),
            ApplyError::Schema(_) => Self::unclassified(message),
            ApplyError::Conflicts(conflicts) => {
                conflicts
                    .iter()
                    .fold(Self::new(409, "Conflict", message), |error, conflict| {
                        error.with_cause(
                            "FieldManagerConflict",
                            conflict.message(),
                            &conflict.field(),
                        )
                    })
            }
        }
    }
}

/// The keeper of owners for the path of `call`.
pub(crate) fn field_manager(call: &Call) -> FieldManager {
    let subresource = call.subresource.map_or("", |subresource| subresource.name);
    FieldManager::new(call.resource, subresource)
}

/// Upstream's word (and code, 500) for values that have the right shape for the schema but not for Go's types, such as
/// bytes that are no base64.
fn unconvertible(call: &Call, config: &Value, why: &ApiError) -> ApiError {
    let text = |field: &str| {
        let value = config
            .get("metadata")
            .and_then(|metadata| metadata.get(field));
        value.and_then(Value::as_str).unwrap_or_default()
    };
    let resource = call.resource;
    let kind = format!(
        "{}/{}, Kind={}",
        resource.group, resource.version, resource.kind
    );
    ApiError::unclassified(format!(
        "failed to convert new object ({}/{}; {kind}) to proper version: unable to convert unstructured object to {kind}: \
         {why}",
        text("namespace"),
        text("name"),
    ))
}

/// Applies the configuration in `body` to the object that the path names, or makes it.
pub(crate) async fn apply(server: &Server, call: &Call, body: Bytes) -> Result<Answer> {
    let options = WriteOptions::parse_apply(&call.info.query)?;
    let config = Config::read(&body)?;
    let manager = field_manager(call);
    let make = |live: Option<&Object>| -> Result<Object> {
        let now = metadata::seconds(server.clock().now());
        let applied = manager.apply(
            live,
            &config.value,
            &options.field_manager,
            options.force,
            &now,
        )?;
        let body = decode::merged(applied.object, expected(call), FieldValidation::Ignore);
        let body = body.map_err(|error| unconvertible(call, &config.value, &error))?;
        call.warn(config.findings(&options)?);
        update::check_name(call, &body.object)?;
        create::check_namespace(call, &body.object)?;
        Ok(body.object)
    };
    let change = update::Change {
        part: update::Part::of(call),
        uid_precondition: false,
        make: &|old| make(Some(old)),
    };
    for attempt in 0..=MAX_RETRIES {
        if let Some(outcome) = update::apply(server, call, &options, &change).await? {
            return Ok(outcome.answer(server, call));
        }
        if call.subresource.is_some() {
            return Err(ApiError::not_found(call.resource, call.name()));
        }
        let mut object = make(None)?;
        if !object.uid().is_empty() {
            let why = format!(
                "uid mismatch: the provided object specified uid {}, and no existing object was found",
                object.uid()
            );
            return Err(ApiError::conflict(call.resource, call.name(), why));
        }
        // A revision of an object that is gone says nothing about the new one.
        object.remove("metadata.resourceVersion");
        match create::store(server, call, &options, object, StatusCode::CREATED).await {
            // Someone was faster; now there is something to apply to.
            Err(error) if error.reason() == "AlreadyExists" && attempt < MAX_RETRIES => {}
            result => return result,
        }
    }
    unreachable!("the last attempt returns")
}
