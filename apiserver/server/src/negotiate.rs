//! Which representation an answer gets, and which format a body is in.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};

use crate::status::{ApiError, Result};

/// `application/json`.
pub(crate) const JSON: &str = "application/json";
/// `application/yaml`.
pub(crate) const YAML: &str = "application/yaml";
/// Kubernetes' protobuf envelope.
pub(crate) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

const OBJECT_TYPES: &[&str] = &[JSON, YAML, PROTOBUF];
const LIST_TYPES: &[&str] = &[
    JSON,
    YAML,
    PROTOBUF,
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];

/// The bytes that an answer is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Protobuf; only for clients that accept nothing else, since JSON is what we have ready.
    Protobuf,
}

/// What an answer shows of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The object itself.
    Object,
    /// `meta.k8s.io` `Table`, in this version.
    Table(&'static str),
    /// `meta.k8s.io` `PartialObjectMetadata` or its list, in this version.
    PartialMetadata(&'static str),
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    /// Bytes.
    pub format: Format,
    /// Content.
    pub shape: Shape,
    /// Whether lines are indented (`?pretty=1`).
    pub pretty: bool,
}

impl Output {
    /// Plain JSON of the object.
    pub(crate) const PLAIN: Self = Self {
        format: Format::Json,
        shape: Shape::Object,
        pretty: false,
    };

    /// Whether stored bytes can be sent as they are.
    pub(crate) fn is_plain(self) -> bool {
        self == Self::PLAIN
    }
}

/// Chooses the representation from `Accept`. `list` adds the types that watches may ask for.
pub(crate) fn output(headers: &HeaderMap, pretty: Option<&str>, verb: &str) -> Result<Output> {
    let pretty = matches!(pretty, Some("1" | "true"));
    let accept = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect::<Vec<_>>()
        .join(",");
    if accept.trim().is_empty() {
        return Ok(Output {
            pretty,
            ..Output::PLAIN
        });
    }
    let mut protobuf = None;
    for clause in accept.split(',') {
        let mut parts = clause.split(';').map(str::trim);
        let format = match parts.next().unwrap_or_default() {
            "application/json" | "*/*" => Format::Json,
            "application/yaml" if verb != "watch" => Format::Yaml,
            "application/vnd.kubernetes.protobuf" => Format::Protobuf,
            _ => continue,
        };
        let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
        let get = |key: &str| {
            parameters
                .iter()
                .find(|(k, _)| *k == key)
                .map(|(_, value)| *value)
        };
        let version = match get("v") {
            Some("v1") | None => "v1",
            Some("v1beta1") => "v1beta1",
            Some(_) => continue,
        };
        let shape = match (get("as"), get("g")) {
            (None, _) => Shape::Object,
            (Some("Table"), Some("meta.k8s.io")) => Shape::Table(version),
            (Some("PartialObjectMetadata"), Some("meta.k8s.io")) if verb != "list" => {
                Shape::PartialMetadata(version)
            }
            (Some("PartialObjectMetadataList"), Some("meta.k8s.io")) if verb == "list" => {
                Shape::PartialMetadata(version)
            }
            (Some("PartialObjectMetadataList"), Some("meta.k8s.io")) => {
                let message = "you requested PartialObjectMetadataList, but the requested object is not a list";
                return Err(ApiError::new(406, "NotAcceptable", message));
            }
            (Some("PartialObjectMetadata"), Some("meta.k8s.io")) => {
                let message =
                    "you requested PartialObjectMetadata, but the requested object is a list";
                return Err(ApiError::new(406, "NotAcceptable", message));
            }
            _ => continue,
        };
        let output = Output {
            format,
            shape,
            pretty,
        };
        if format != Format::Protobuf {
            return Ok(output);
        }
        if !matches!(shape, Shape::Table(_)) && verb != "watch" {
            protobuf.get_or_insert(output);
        }
    }
    if let Some(output) = protobuf {
        return Ok(output);
    }
    let lists = matches!(verb, "list" | "watch" | "deletecollection");
    Err(ApiError::not_acceptable(if lists {
        LIST_TYPES
    } else {
        OBJECT_TYPES
    }))
}

/// The format of a request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Protobuf in the `k8s\0` envelope.
    Protobuf,
}

/// The format that `Content-Type` names; nothing means JSON.
pub(crate) fn input(headers: &HeaderMap) -> Result<Input> {
    match media_type(headers) {
        "" | "application/json" => Ok(Input::Json),
        "application/yaml" => Ok(Input::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Input::Protobuf),
        _ => Err(ApiError::unsupported_media_type(OBJECT_TYPES)),
    }
}

/// `Content-Type` without parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(accept: &str, verb: &str) -> Result<Output> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a header"));
        output(&headers, None, verb)
    }

    #[test]
    fn kubectl_gets_tables() {
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(
            chosen(accept, "list").expect("acceptable").shape,
            Shape::Table("v1")
        );
    }

    #[test]
    fn json_is_preferred_to_protobuf() {
        let output = chosen(
            "application/xml, application/vnd.kubernetes.protobuf, application/json",
            "get",
        );
        assert_eq!(output.expect("acceptable").format, Format::Json);
        let output = chosen("application/vnd.kubernetes.protobuf", "get");
        assert_eq!(output.expect("acceptable").format, Format::Protobuf);
    }

    #[test]
    fn unknown_types_are_not_acceptable() {
        let error = chosen("application/*", "get").expect_err("not acceptable");
        assert_eq!(error.code(), 406);
        assert!(
            error.to_string().ends_with(
                "application/json, application/yaml, application/vnd.kubernetes.protobuf"
            )
        );
    }
}
