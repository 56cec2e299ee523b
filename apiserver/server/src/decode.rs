//! Request bodies become objects: by format, by schema, with the findings that `fieldValidation` asks for.

use bytes::Bytes;
use coracle_api::protobuf::Envelope;
use coracle_api::schema::{self, Decoded, SchemaRef};
use coracle_api::{Object, Resource};
use serde_json::{Map, Value};

use crate::negotiate::Input;
use crate::options::FieldValidation;
use crate::status::{ApiError, Result};

/// An object as decoded, and the warnings that its answer carries.
#[derive(Debug)]
pub(crate) struct Body {
    /// The object, without defaults.
    pub object: Object,
    /// Unknown and duplicate fields, for `Warning` headers.
    pub warnings: Vec<String>,
}

/// What a body is expected to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    /// Group.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Kind.
    pub kind: &'static str,
}

impl Expected {
    /// A body of the resource's own kind.
    pub(crate) fn of(resource: &Resource) -> Self {
        Self {
            group: resource.group,
            version: resource.version,
            kind: resource.kind,
        }
    }

    /// `group/version`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The schema of the kind.
    pub(crate) fn schema(&self) -> SchemaRef {
        SchemaRef::for_kind(self.group, self.version, self.kind).unwrap_or_else(SchemaRef::any)
    }
}

/// Decodes a request body as the expected kind.
pub(crate) fn body(
    bytes: &Bytes,
    input: Input,
    expected: Expected,
    validation: FieldValidation,
) -> Result<Body> {
    let found = match input {
        Input::Json => schema::type_meta_of_json(bytes)
            .map(|meta| (meta.kind, meta.api_version))
            .map_err(|error| error.to_string()),
        Input::Yaml => schema::decode_yaml(bytes, &SchemaRef::any())
            .map_err(|error| error.to_string())
            .and_then(|decoded| type_of(&decoded.value)),
        Input::Protobuf => return protobuf(bytes, expected, validation),
    };
    let found = found.and_then(well_formed);
    let (kind, api_version) = found.map_err(|error| unrecognized(bytes, expected, &error))?;
    check_type(&kind, &api_version, expected)?;
    let schema = expected.schema();
    let decoded = match input {
        Input::Yaml => schema::decode_yaml(bytes, &schema),
        _ => schema::decode_json(bytes, &schema),
    };
    let decoded = decoded.map_err(|error| {
        ApiError::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: {error}",
            expected.kind, expected.version, expected.kind
        ))
    })?;
    finish(decoded, expected, validation)
}

/// Reads a patched or otherwise changed object again.
pub(crate) fn value(value: Value, expected: Expected, validation: FieldValidation) -> Result<Body> {
    let decoded = schema::decode_value(value, &expected.schema())
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    finish(decoded, expected, validation)
}

/// Reads an object again that a strategic merge patch has changed.
pub(crate) fn merged(
    value: Value,
    expected: Expected,
    validation: FieldValidation,
) -> Result<Body> {
    let decoded = schema::decode_unstructured(value, &expected.schema())
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    finish(decoded, expected, validation)
}

/// Reports what the schema does not know as `validation` asks, and puts kind and apiVersion in their place.
fn finish(decoded: Decoded, expected: Expected, validation: FieldValidation) -> Result<Body> {
    let warnings = match validation {
        FieldValidation::Ignore => Vec::new(),
        FieldValidation::Warn => decoded.strict.iter().map(ToString::to_string).collect(),
        FieldValidation::Strict => match decoded.strict_message() {
            Some(message) => {
                return Err(ApiError::bad_request(format!(
                    "{} in version {:?} cannot be handled as a {}: {message}",
                    expected.kind, expected.version, expected.kind
                )));
            }
            None => Vec::new(),
        },
    };
    let Value::Object(root) = decoded.value else {
        return Err(ApiError::bad_request(
            "the object provided is not a JSON object",
        ));
    };
    Ok(Body {
        object: Object::new(typed(root, expected)).with_empties(decoded.empties),
        warnings,
    })
}

/// `root` with kind and apiVersion first.
fn typed(root: Map<String, Value>, expected: Expected) -> Map<String, Value> {
    let mut object = Map::with_capacity(root.len() + 2);
    object.insert("kind".to_owned(), expected.kind.into());
    object.insert("apiVersion".to_owned(), expected.api_version().into());
    object.extend(
        root.into_iter()
            .filter(|(key, _)| key != "kind" && key != "apiVersion"),
    );
    object
}

/// Kind and apiVersion of a body; the error is in the words of Go's decoder.
pub(crate) fn type_of(value: &Value) -> Result<(String, String), String> {
    let target = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
    let mismatch = |what: &str, place: &str| {
        Err(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {what} into Go {place}"
        ))
    };
    let map = match value {
        Value::Object(map) => map,
        Value::Null => return Ok(Default::default()),
        other => return mismatch(json_type(other), &format!("value of type {target}")),
    };
    let mut found = [String::new(), String::new()];
    for (slot, key) in found.iter_mut().zip(["kind", "apiVersion"]) {
        match map.get(key) {
            None | Some(Value::Null) => {}
            Some(Value::String(text)) => *slot = text.clone(),
            Some(other) => {
                return mismatch(
                    json_type(other),
                    &format!("struct field .{key} of type string"),
                );
            }
        }
    }
    let [kind, api_version] = found;
    Ok((kind, api_version))
}

/// Refuses an apiVersion that is no version of a group.
pub(crate) fn well_formed(
    (kind, api_version): (String, String),
) -> Result<(String, String), String> {
    match api_version.matches('/').count() {
        0 | 1 => Ok((kind, api_version)),
        _ => Err(format!("unexpected GroupVersion string: {api_version}")),
    }
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn unrecognized(bytes: &[u8], expected: Expected, why: &str) -> ApiError {
    let kind = expected.kind;
    let (shown, more) = excerpt(bytes);
    ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {why} ({shown}{more})"
    ))
}

/// The beginning of a body, as Go's error shows it: text if it looks like an object, else hexadecimal.
fn excerpt(bytes: &[u8]) -> (String, &'static str) {
    if bytes.is_empty() {
        return ("<empty>".to_owned(), "");
    }
    let more = if bytes.len() > 30 { " ..." } else { "" };
    let start = &bytes[..bytes.len().min(30)];
    let shown = match std::str::from_utf8(start) {
        Ok(text) if text.trim_start().starts_with('{') => text.to_owned(),
        _ => start.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    (shown, more)
}

/// Refuses a body of another type; an absent kind or version means the expected one.
fn check_type(kind: &str, api_version: &str, expected: Expected) -> Result<()> {
    let expected_version = expected.api_version();
    let kind_fits = kind.is_empty() || kind == expected.kind;
    let version_fits = api_version.is_empty() || api_version == expected_version;
    if kind_fits && version_fits {
        return Ok(());
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let (group, version) = if api_version.is_empty() {
        (expected.group, expected.version)
    } else {
        (group, version)
    };
    let kind = if kind.is_empty() { expected.kind } else { kind };
    // Upstream still knows the scales that these versions had, though it serves none of them.
    let old_scale = kind == "Scale"
        && matches!(
            api_version,
            "apps/v1beta1" | "apps/v1beta2" | "extensions/v1beta1"
        );
    if !old_scale && SchemaRef::for_kind(group, version, kind).is_none() {
        let message = unregistered(kind, api_version, expected.group);
        return Err(ApiError::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {}: {message}",
            expected.kind
        )));
    }
    if !kind_fits {
        return Err(ApiError::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {}: {}",
            expected.kind,
            unknown_conversion(version, kind, expected)
        )));
    }
    Err(ApiError::bad_request(format!(
        "the API version in the data ({api_version}) does not match the expected API version ({expected_version})"
    )))
}

/// Where upstream registers the kinds of a group, as its messages say it.
fn scheme(group: &str) -> &'static str {
    match group {
        "apiextensions.k8s.io" => "k8s.io/apiextensions-apiserver/pkg/apiserver/apiserver.go:55",
        _ => "pkg/api/legacyscheme/scheme.go:30",
    }
}

fn unregistered(kind: &str, api_version: &str, asked: &str) -> String {
    let scheme = scheme(asked);
    format!("no kind {kind:?} is registered for version {api_version:?} in scheme {scheme:?}")
}

/// Whether an object says of no version that it is.
pub(crate) fn has_no_version(value: &Value) -> bool {
    type_of(value).is_ok_and(|(_, api_version)| matches!(api_version.as_str(), "" | "/"))
}

/// What is wrong with the type of an object that a patch has changed to another one.
pub(crate) fn patched_type(value: &Value, expected: Expected) -> Option<String> {
    let (kind, api_version) = match type_of(value).and_then(well_formed) {
        Ok(found) => found,
        Err(why) => return Some(why),
    };
    if kind.is_empty() || api_version.is_empty() {
        return None;
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    if SchemaRef::for_kind(group, version, &kind).is_none() {
        return Some(unregistered(&kind, &api_version, group));
    }
    (kind != expected.kind).then(|| unknown_conversion(version, &kind, expected))
}

/// Upstream's words for a kind that is another one than what is expected.
fn unknown_conversion(version: &str, kind: &str, expected: Expected) -> String {
    let internal = expected.group.split('.').next();
    let internal = internal.filter(|group| !group.is_empty()).unwrap_or("core");
    format!(
        "converting ({version}.{kind}) to ({internal}.{}): unknown conversion",
        expected.kind
    )
}

/// Decodes a protobuf body of the given kind into its JSON form.
pub(crate) fn protobuf_value(bytes: &[u8], schema: &SchemaRef) -> Result<Value> {
    let value = Envelope::open(bytes).and_then(|envelope| envelope.decode(schema));
    value.map_err(|error| ApiError::bad_request(error.to_string()))
}

fn protobuf(bytes: &Bytes, expected: Expected, validation: FieldValidation) -> Result<Body> {
    let envelope =
        Envelope::open(bytes).map_err(|error| unrecognized(bytes, expected, &error.to_string()))?;
    check_type(&envelope.kind, &envelope.api_version, expected)?;
    let value = envelope.decode(&expected.schema()).map_err(|error| {
        ApiError::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: {error}",
            expected.kind, expected.version, expected.kind
        ))
    })?;
    // Protobuf has no names, hence no unknown ones.
    finish(
        Decoded {
            value,
            strict: Vec::new(),
            empties: Vec::new(),
        },
        expected,
        validation,
    )
}
