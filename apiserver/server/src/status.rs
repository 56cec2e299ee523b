//! Every failure as the `Status` that upstream would send.
//!
//! The constructors are named after `k8s.io/apimachinery/pkg/api/errors` and word their messages as it does. The rest
//! of the server speaks [`ApiError`]; [`ApiError::to_value`] is the one place where it becomes JSON.

use coracle_api::{FieldErrors, Resource};
use http::StatusCode;
use serde_json::{Map, Value, json};

/// The result of anything that a client asked for.
pub type Result<T, E = ApiError> = std::result::Result<T, E>;

/// A failed request: what a `Status` with `status: Failure` says.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError(Box<Failure>);

#[derive(Clone, Debug, PartialEq)]
struct Failure {
    code: u16,
    reason: &'static str,
    message: String,
    details: Option<Map<String, Value>>,
    retry_after: Option<u32>,
    /// A token to go on with, in `metadata.continue`.
    continue_token: Option<String>,
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for ApiError {}

impl ApiError {
    /// A failure without details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Failure {
            code,
            reason,
            message: message.into(),
            details: None,
            retry_after: None,
            continue_token: None,
        }))
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401: there were credentials, and they are wrong.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403 about one object.
    pub fn forbidden(resource: &Resource, name: &str, why: impl std::fmt::Display) -> Self {
        let about = match name.is_empty() {
            true => resource.qualified(),
            false => format!("{} {name:?}", resource.qualified()),
        };
        let message = format!("{about} is forbidden: {why}");
        Self::new(403, "Forbidden", message).about(resource, name)
    }

    /// 404: the object is absent.
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        Self::new(
            404,
            "NotFound",
            format!("{} {name:?} not found", resource.qualified()),
        )
        .about(resource, name)
    }

    /// 404: nothing is served at the path.
    pub fn unknown_path() -> Self {
        Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        )
        .with_empty_details()
    }

    /// 405: the path is served, the method is not.
    pub fn method_not_allowed() -> Self {
        Self::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
        .with_empty_details()
    }

    /// 406: none of the accepted media types can be produced.
    pub fn not_acceptable(available: &[&str]) -> Self {
        let message = format!(
            "406: Not Acceptable\n\nAvailable representations: {}",
            available.join(", ")
        );
        Self::new(406, "NotAcceptable", message).with_empty_details()
    }

    /// 406: the media types that are accepted are there, but not in the form asked for.
    pub fn only_accepted(accepted: &[&str]) -> Self {
        let list = accepted.join(", ");
        let message = format!("only the following media types are accepted: {list}");
        Self::new(406, "NotAcceptable", message)
    }

    /// 415 for a body.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let list = accepted.join(", ");
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {list}"
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 415 for a patch.
    pub fn unsupported_patch_type() -> Self {
        Self::new(415, "UnsupportedMediaType", "415: Unsupported Media Type").with_empty_details()
    }

    /// 409: the name is taken.
    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        Self::new(
            409,
            "AlreadyExists",
            format!("{} {name:?} already exists", resource.qualified()),
        )
        .about(resource, name)
    }

    /// 409: every name that was generated is taken; the client may try again.
    pub fn generated_name_taken(resource: &Resource, name: &str) -> Self {
        let message = format!(
            "{} {name:?} already exists, the server was not able to generate a unique name for the object",
            resource.qualified()
        );
        let mut error = Self::new(409, "AlreadyExists", message).about(resource, name);
        error.detail("retryAfterSeconds", 1);
        error.0.retry_after = Some(1);
        error
    }

    /// 409: the object is not as the client thought.
    pub fn conflict(resource: &Resource, name: &str, why: impl std::fmt::Display) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {name:?}: {why}",
            resource.qualified()
        );
        Self::new(409, "Conflict", message).about(resource, name)
    }

    /// 409: the object changed since the client read it.
    pub fn modified(resource: &Resource, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    /// 409 of a deletion's precondition; upstream names the kind here, not the resource.
    pub fn precondition(resource: &Resource, name: &str, why: impl std::fmt::Display) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {name:?}: {why}",
            qualified_kind(resource)
        );
        Self::new(409, "Conflict", message).about_kind(resource, name)
    }

    /// 410: the revision is no longer known.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 413: the body is larger than any object may be.
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            413,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {limit}"),
        )
    }

    /// 422: the object breaks rules.
    pub fn invalid(resource: &Resource, name: &str, errors: &FieldErrors) -> Self {
        Self::invalid_as(
            resource.group,
            resource.kind,
            &qualified_kind(resource),
            name,
            errors,
        )
    }

    /// 422 about something that is not a served kind, such as `ListOptions.meta.k8s.io`.
    pub fn invalid_as(
        group: &str,
        kind: &str,
        qualified: &str,
        name: &str,
        errors: &FieldErrors,
    ) -> Self {
        let mut texts: Vec<String> = Vec::new();
        for error in errors.iter() {
            // Upstream's aggregate prints equal findings once; the causes keep them all.
            let text = format!("{}: {}", field_path(&error.field), error.body());
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let joined = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let causes: Vec<Value> = errors
            .iter()
            .map(|error| json!({"reason": error.kind.reason(), "message": error.body(), "field": field_path(&error.field)}))
            .collect();
        let mut error = Self::new(
            422,
            "Invalid",
            format!("{qualified} {name:?} is invalid: {joined}"),
        );
        error.set_details(group, kind, name);
        error.detail("causes", causes);
        error
    }

    /// 429: too much at once.
    pub fn too_many_requests(retry_after: u32) -> Self {
        Self::too_many("Too many requests, please try again later.", retry_after)
    }

    /// 429 for another reason; no time to wait is 0.
    pub fn too_many(message: impl Into<String>, retry_after: u32) -> Self {
        let mut error = Self::new(429, "TooManyRequests", message);
        if retry_after > 0 {
            error.detail("retryAfterSeconds", retry_after);
            error.0.retry_after = Some(retry_after);
        }
        error
    }

    /// 500 with upstream's prefix.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        let mut error = Self::new(
            500,
            "InternalError",
            format!("Internal error occurred: {message}"),
        );
        error.detail("causes", vec![json!({"message": message.to_string()})]);
        error
    }

    /// 500 without a reason: what upstream answers for errors that it does not classify.
    pub fn unclassified(message: impl Into<String>) -> Self {
        Self::new(500, "", message)
    }

    /// 503: not now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// 504: the request took longer than it may.
    pub fn timed_out() -> Self {
        let message = "Timeout: request did not complete within requested timeout - context deadline exceeded";
        Self::new(504, "Timeout", message).with_empty_details()
    }

    /// 504: a read asked for a revision that does not exist yet.
    pub fn revision_too_large(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let mut error = Self::new(504, "Timeout", message);
        let cause =
            json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        error.detail("causes", vec![cause]);
        error.detail("retryAfterSeconds", 1);
        error.0.retry_after = Some(1);
        error
    }

    /// Names the object in the details, by resource.
    pub fn about(mut self, resource: &Resource, name: &str) -> Self {
        self.set_details(resource.group, resource.plural, name);
        self
    }

    /// Names the object in the details, by kind.
    pub fn about_kind(mut self, resource: &Resource, name: &str) -> Self {
        self.set_details(resource.group, resource.kind, name);
        self
    }

    /// Names the object in the details by the words of the path; empty words are left out.
    pub fn with_plain_details(mut self, group: &str, resource: &str, name: &str) -> Self {
        self.0.details.get_or_insert_with(Map::new);
        for (key, value) in [("name", name), ("group", group), ("kind", resource)] {
            if !value.is_empty() {
                self.detail(key, value);
            }
        }
        self
    }

    /// Adds a cause to the details.
    pub fn with_cause(mut self, reason: &str, message: impl Into<String>, field: &str) -> Self {
        let mut cause = json!({"reason": reason, "message": message.into()});
        if !field.is_empty() {
            cause["field"] = field.into();
        }
        let details = self.0.details.get_or_insert_with(Map::new);
        match details.entry("causes").or_insert_with(|| json!([])) {
            Value::Array(causes) => causes.push(cause),
            _ => unreachable!("causes are only ever set as a list"),
        }
        self
    }

    /// Puts words before the message.
    pub fn with_prefix(mut self, prefix: &str) -> Self {
        self.0.message.insert_str(0, prefix);
        self
    }

    /// Offers a continue token that works, if inconsistently.
    pub fn with_continue(mut self, token: String) -> Self {
        self.0.continue_token = Some(token);
        self
    }

    /// HTTP status.
    pub fn code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The machine-readable reason; may be empty.
    pub fn reason(&self) -> &'static str {
        self.0.reason
    }

    /// Value of the `Retry-After` header.
    pub fn retry_after(&self) -> Option<u32> {
        self.0.retry_after
    }

    /// The `Status` object.
    pub fn to_value(&self) -> Value {
        let failure = &*self.0;
        let mut status = Map::new();
        status.insert("kind".into(), "Status".into());
        status.insert("apiVersion".into(), "v1".into());
        let metadata = failure
            .continue_token
            .as_ref()
            .map_or(json!({}), |token| json!({"continue": token}));
        status.insert("metadata".into(), metadata);
        status.insert("status".into(), "Failure".into());
        status.insert("message".into(), failure.message.clone().into());
        if !failure.reason.is_empty() {
            status.insert("reason".into(), failure.reason.into());
        }
        if let Some(details) = &failure.details {
            status.insert("details".into(), Value::Object(details.clone()));
        }
        status.insert("code".into(), failure.code.into());
        Value::Object(status)
    }

    fn with_empty_details(mut self) -> Self {
        self.0.details = Some(Map::new());
        self
    }

    fn set_details(&mut self, group: &str, kind: &str, name: &str) {
        if !name.is_empty() {
            self.detail("name", name);
        }
        if !group.is_empty() {
            self.detail("group", group);
        }
        if !kind.is_empty() {
            self.detail("kind", kind);
        }
    }

    fn detail(&mut self, key: &str, value: impl Into<Value>) {
        self.0
            .details
            .get_or_insert_with(Map::new)
            .insert(key.to_owned(), value.into());
    }
}

/// How Go prints a path; the empty one is that of the whole object.
fn field_path(field: &str) -> &str {
    if field.is_empty() { "[]" } else { field }
}

/// `Kind.group`, or the kind alone for the core group: how 422 messages name it.
pub(crate) fn qualified_kind(resource: &Resource) -> String {
    if resource.group.is_empty() {
        resource.kind.to_owned()
    } else {
        format!("{}.{}", resource.kind, resource.group)
    }
}

/// A `Status` that reports success, as deletions answer.
pub(crate) fn success(details: Option<Value>) -> Value {
    let mut status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    if let Some(details) = details {
        status["details"] = details;
    }
    status
}

impl From<coracle_store::Error> for ApiError {
    /// Failures of the store that no caller expected; conflicts and absence are handled where they mean something.
    fn from(error: coracle_store::Error) -> Self {
        use coracle_store::Error;
        match &error {
            Error::Full { .. } => Self::too_many_requests(1),
            Error::Closed => Self::unavailable("the server is shutting down"),
            Error::TooLarge { length, limit, .. } => Self::new(
                413,
                "RequestEntityTooLarge",
                format!(
                    "Request entity too large: the object has {length} bytes, limit is {limit}"
                ),
            ),
            Error::Compacted {
                requested,
                compacted,
                ..
            } => Self::expired(format!(
                "The resourceVersion for the provided list is too old: {requested} ({compacted})"
            )),
            Error::FutureRevision { requested, current } => {
                Self::revision_too_large(requested.0, current.0)
            }
            _ if error.is_full_disk() => Self::internal(refusal(&error)),
            _ => {
                let why = refusal(&error);
                tracing::error!(error = why, "the store failed");
                Self::internal(why)
            }
        }
    }
}

/// Why the store takes no writes, for whoever operates it.
pub(crate) fn refusal(error: &coracle_store::Error) -> String {
    if error.is_full_disk() {
        return "the disk that holds the cluster's state is full: make room on it, and try again"
            .to_owned();
    }
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::Object;

    #[test]
    fn one_finding_is_bare_and_several_are_bracketed() {
        let object = Object::default();
        let mut errors = FieldErrors::default();
        errors.required(&object.at("spec.a"), "");
        let one = ApiError::invalid_as("apps", "Deployment", "Deployment.apps", "x", &errors);
        assert_eq!(
            one.to_string(),
            "Deployment.apps \"x\" is invalid: spec.a: Required value"
        );
        errors.required(&object.at("spec.b"), "why");
        let two = ApiError::invalid_as("apps", "Deployment", "Deployment.apps", "x", &errors);
        assert_eq!(
            two.to_string(),
            "Deployment.apps \"x\" is invalid: [spec.a: Required value, spec.b: Required value: why]"
        );
        assert_eq!(two.to_value()["details"]["causes"][1]["field"], "spec.b");
    }

    #[test]
    fn unclassified_failures_have_no_reason() {
        let value = ApiError::unclassified("odd").to_value();
        assert!(value.get("reason").is_none());
        assert_eq!(value["code"], 500);
    }
}
