//! Answers: status, representation, warnings; and how they become an HTTP response.

use std::collections::HashSet;

use bytes::Bytes;
use coracle_api::schema::{SchemaRef, nests_deeper};
use coracle_api::{Object, protobuf};
use coracle_clock::Timestamp;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, VARY,
};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use crate::body::{self, Body};
use crate::cache::Entry;
use crate::call::Call;
use crate::flowcontrol::Place;
use crate::gzip;
use crate::held::{self, Cut, Piece, Rest};
use crate::items::{Form, Items};
use crate::negotiate::{self, Format, Output, Shape};
use crate::status::{ApiError, Result};
use crate::table;

/// Characters of warnings that an answer carries: upstream's `truncateAtTotalRunes`.
const MOST_WARNED: usize = 4 * 1024;
/// Characters of each once they are more: `truncateItemRunes`.
const MOST_OF_A_WARNING: usize = 256;

/// How deep what is indented may nest.
pub(crate) const MOST_INDENTED: usize = 120;

/// What a handler answers.
pub(crate) struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// Body.
    pub payload: Payload,
    /// Texts of `Warning` headers.
    pub warnings: Vec<String>,
    /// Further headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What went wrong, while it is still to be written in the format that the client accepts.
    pub failure: Option<ApiError>,
    /// The place among the requests at work, until the answer is sent.
    pub place: Option<Place>,
    /// Whether the client may take as long as it likes to read: a log, a tunnel.
    pub unhurried: bool,
}

/// In the extensions of an answer that its client may read as slowly as it likes.
#[derive(Clone, Copy)]
pub(crate) struct Unhurried;

/// The body of an [`Answer`].
pub(crate) enum Payload {
    /// All of it.
    Bytes(Bytes),
    /// A list, written as it is sent.
    Items(Items),
    /// As it comes.
    Stream(Body),
    /// Nothing, but what follows the answer on its connection: a tunnel, which keeps what it is sent until it ends.
    Tunnel(oneshot::Sender<Box<dyn Send>>),
}

/// An object to show: as cached, or as made for this answer.
#[derive(Clone, Copy)]
pub(crate) enum Shown<'a> {
    /// Ready bytes.
    Entry(&'a Entry),
    /// Not stored (dry run, scale, status).
    Object(&'a Object),
}

impl Shown<'_> {
    fn object(&self) -> Object {
        match self {
            Self::Entry(entry) => entry.object(),
            Self::Object(object) => Object::clone(object),
        }
    }

    fn json(&self, form: Form) -> Bytes {
        match (self, form) {
            (Self::Entry(entry), Form::Whole) => entry.json(),
            (Self::Entry(entry), _) => {
                let json = entry.json();
                let (before, after) = form.parts(entry, &json);
                Bytes::from([before, after].concat())
            }
            (Self::Object(object), Form::Whole) => to_json(object.root()),
            (Self::Object(object), Form::WithoutManagedFields) => {
                let mut object = Object::clone(object);
                object.remove("metadata.managedFields");
                to_json(object.root())
            }
        }
    }
}

/// A value as JSON bytes.
pub(crate) fn to_json(value: &impl serde::Serialize) -> Bytes {
    Bytes::from(serde_json::to_vec(value).expect("JSON values can always be written"))
}

impl Answer {
    /// Bytes of a media type.
    pub(crate) fn bytes(
        status: StatusCode,
        content_type: &'static str,
        bytes: impl Into<Bytes>,
    ) -> Self {
        let payload = Payload::Bytes(bytes.into());
        Self {
            status,
            content_type,
            payload,
            warnings: Vec::new(),
            headers: Vec::new(),
            failure: None,
            place: None,
            unhurried: false,
        }
    }

    /// Plain text.
    pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Self {
        Self::bytes(status, "text/plain; charset=utf-8", text.into())
    }

    /// Metrics in Prometheus' text form.
    pub(crate) fn metrics(text: String) -> Self {
        Self::bytes(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            text,
        )
    }

    /// A JSON value, in the format that was negotiated.
    pub(crate) fn value(status: StatusCode, output: Output, value: &Value) -> Self {
        match output.format {
            // What nests more is written on one line, which is YAML, too: indented it would be mostly spaces.
            Format::Yaml if nests_deeper(value, MOST_INDENTED) => {
                Self::bytes(status, negotiate::YAML, to_json(value))
            }
            Format::Yaml => {
                // Upstream makes YAML of JSON by way of Go's maps, which come sorted.
                let mut sorted = value.clone();
                sorted.sort_all_objects();
                match serde_saphyr::to_string(&sorted) {
                    Ok(text) => Self::bytes(status, negotiate::YAML, text),
                    Err(error) => Self::from(ApiError::internal(error)),
                }
            }
            Format::Protobuf => Self::bytes(status, negotiate::PROTOBUF, to_protobuf(value)),
            Format::Json if output.pretty && !nests_deeper(value, MOST_INDENTED) => {
                let text =
                    serde_json::to_vec_pretty(value).expect("JSON values can always be written");
                Self::bytes(status, negotiate::JSON, text)
            }
            Format::Json => Self::bytes(status, negotiate::JSON, to_json(value)),
        }
    }

    /// One object.
    pub(crate) fn object(
        call: &Call,
        status: StatusCode,
        shown: Shown<'_>,
        now: Timestamp,
    ) -> Self {
        let output = call.output;
        let value = match (output.shape, shown) {
            (Shape::Object, _) if output.is_plain() => {
                return Self::bytes(status, negotiate::JSON, shown.json(call.form));
            }
            (Shape::Object, Shown::Entry(entry)) if output.format == Format::Protobuf => {
                let bytes = call.protobuf(entry);
                return Self::bytes(status, negotiate::PROTOBUF, bytes);
            }
            (Shape::Object, _) => shown.object().into_value(),
            (Shape::PartialMetadata(version), _) => call.partial(&shown.object(), version),
            (Shape::PartialMetadataList(_), _) => return Self::from(no_list(&shown.object())),
            (Shape::Table(version), _) => {
                let object = shown.object();
                let revision = object.resource_version().to_owned();
                call.table(
                    version,
                    object,
                    now,
                    json!({"resourceVersion": revision}),
                    true,
                )
            }
        };
        Self::value(status, output, &value)
    }

    /// Keeps what is `held`, such as a place, until the answer's stream or the tunnel after it ends.
    pub(crate) fn hold(&mut self, held: impl Send + 'static) {
        let payload = std::mem::replace(&mut self.payload, Payload::Bytes(Bytes::new()));
        self.payload = match payload {
            Payload::Stream(stream) => Payload::Stream(
                stream
                    .map_frame(move |frame| {
                        let _held = &held;
                        frame
                    })
                    .boxed_unsync(),
            ),
            Payload::Tunnel(tunnel) => {
                // A tunnel that has ended already holds nothing.
                let _ = tunnel.send(Box::new(held));
                return;
            }
            bytes => bytes,
        };
    }

    /// Adds warnings before those that are there.
    pub(crate) fn with_warnings(mut self, warnings: Vec<String>) -> Self {
        self.warnings.splice(0..0, warnings);
        self
    }

    /// Writes a failure in the format that the client accepts.
    pub(crate) fn settled(mut self, output: Output) -> Self {
        let Some(error) = self.failure.take() else {
            return self;
        };
        let written = Self::value(self.status, output, &error.to_value());
        Self {
            warnings: self.warnings,
            headers: self.headers,
            ..written
        }
    }

    /// The response; large blocks are compressed for clients that accept it.
    pub(crate) fn into_response(
        self,
        accept_encoding: Option<&str>,
        piece: Piece,
        cut: Option<Cut>,
    ) -> Response<Body> {
        let mut response = Response::new(body::empty());
        if self.unhurried {
            response.extensions_mut().insert(Unhurried);
        }
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        if !self.content_type.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        }
        for warning in told(&self.warnings) {
            if let Ok(value) = HeaderValue::from_bytes(warning_header(warning).as_bytes()) {
                headers.append(http::header::WARNING, value);
            }
        }
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        let mut rest = None;
        match self.payload {
            Payload::Stream(stream) => *response.body_mut() = stream,
            Payload::Tunnel(_) => {}
            Payload::Bytes(bytes) => rest = Some(Rest::Bytes(bytes)),
            Payload::Items(items) => rest = Some(Rest::Items(items)),
        }
        if let Some(mut all) = rest {
            if gzip::is_wanted(accept_encoding, all.len().unwrap_or_default()) {
                all = all.gzip();
                let headers = response.headers_mut();
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
            }
            *response.body_mut() = held::held(all, piece, self.place, cut);
        }
        response
    }
}

impl From<ApiError> for Answer {
    fn from(error: ApiError) -> Self {
        let mut answer = Self::bytes(error.code(), negotiate::JSON, Bytes::new());
        if let Some(seconds) = error.retry_after() {
            answer
                .headers
                .push((RETRY_AFTER, HeaderValue::from(seconds)));
        }
        answer.failure = Some(error);
        answer
    }
}

/// A value in the protobuf envelope. Kinds that have no schema of their own are put together by hand.
pub(crate) fn to_protobuf(value: &Value) -> Vec<u8> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let metadata = |value: &Value| value.get("metadata").cloned().unwrap_or_default();
    let raw = match kind {
        "PartialObjectMetadata" => protobuf::partial_raw(&metadata(value)),
        "PartialObjectMetadataList" => {
            let items: Vec<Vec<u8>> = value["items"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|item| protobuf::partial_raw(&metadata(item)))
                .collect();
            protobuf::list_raw(&metadata(value), items.iter().map(Vec::as_slice))
        }
        _ => {
            // The oldest documents of discovery have a kind and no version.
            let version = if api_version.is_empty() {
                "v1"
            } else {
                api_version
            };
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            let schema = SchemaRef::for_kind(group, version, kind).unwrap_or_else(SchemaRef::any);
            protobuf::encode_raw(value, &schema)
        }
    };
    protobuf::envelope(api_version, kind, &raw)
}

/// 406: metadata of one object was asked for, and there are many.
pub(crate) fn a_list(group: &str, kind: &str) -> ApiError {
    let asked = "you requested PartialObjectMetadata, but the requested object is a list";
    ApiError::new(
        406,
        "NotAcceptable",
        format!("{asked} (*{}.{kind})", go_package(group)),
    )
}

/// 406: metadata of many objects was asked for, and there is one.
fn no_list(object: &Object) -> ApiError {
    let api_version = object.at("apiVersion").str();
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let (package, kind) = (go_package(group), object.at("kind").str());
    let asked = "you requested PartialObjectMetadataList, but the requested object is not a list";
    ApiError::new(406, "NotAcceptable", format!("{asked} (*{package}.{kind})"))
}

/// The Go package of a group's internal types, which upstream's messages name.
fn go_package(group: &str) -> &str {
    match group {
        "" | "events.k8s.io" => "core",
        group => group.split('.').next().unwrap_or(group),
    }
}

/// Each of the warnings once. If they are too long together, each is cut, and what then is still too much is left out.
fn told(warnings: &[String]) -> Vec<&str> {
    let (mut told, mut length, mut cut) = (Vec::<&str>::new(), 0, false);
    let mut seen = HashSet::new();
    let warnings = warnings.iter().map(String::as_str);
    for warning in warnings.filter(|warning| !warning.is_empty() && seen.insert(*warning)) {
        if cut && length >= MOST_WARNED {
            break;
        }
        told.push(if cut { beginning(warning) } else { warning });
        length += told[told.len() - 1].chars().count();
        if length > MOST_WARNED && !cut {
            cut = true;
            told.iter_mut().for_each(|text| *text = beginning(text));
            length = told.iter().map(|text| text.chars().count()).sum();
        }
    }
    told
}

fn beginning(text: &str) -> &str {
    let end = text.char_indices().nth(MOST_OF_A_WARNING);
    end.map_or(text, |(end, _)| &text[..end])
}

/// `299 - "text"`, with quotes and backslashes escaped and control characters left out.
fn warning_header(text: &str) -> String {
    let mut header = String::with_capacity(text.len() + 8);
    header.push_str("299 - \"");
    for character in text.chars().filter(|character| !character.is_control()) {
        if matches!(character, '"' | '\\') {
            header.push('\\');
        }
        header.push(character);
    }
    header.push('"');
    header
}

/// An object without kind and apiVersion, as an item of a list.
pub(crate) fn without_type(mut object: Object) -> Value {
    object.remove("kind");
    object.remove("apiVersion");
    object.into_value()
}

impl Call {
    /// `PartialObjectMetadata`.
    pub(crate) fn partial(&self, object: &Object, version: &str) -> Value {
        let metadata = object.at("metadata").value().and_then(Value::as_object);
        let shown = |field: &str| self.form == Form::Whole || field != "managedFields";
        let metadata = metadata
            .into_iter()
            .flatten()
            .filter(|(field, _)| shown(field));
        let mut metadata = metadata
            .map(|(field, value)| (field.clone(), value.clone()))
            .collect();
        self.resource.strategy.metadata_form(&mut metadata);
        json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata})
    }

    /// A cached object in the protobuf envelope.
    pub(crate) fn protobuf(&self, entry: &Entry) -> Vec<u8> {
        let (message, _) = self.encoded.message(self.resource, entry);
        protobuf::envelope(&self.resource.api_version(), self.resource.kind, &message)
    }

    /// The table form of an object. `headings` is off for the second and later events of a watch.
    pub(crate) fn table(
        &self,
        version: &str,
        object: Object,
        now: Timestamp,
        metadata: Value,
        headings: bool,
    ) -> Value {
        let mut table = self.table_head(version, metadata, headings);
        let row = self.table_row(version, object, now);
        table.insert("rows".to_owned(), Value::Array(vec![row]));
        Value::Object(table)
    }

    /// A table without its rows.
    pub(crate) fn table_head(
        &self,
        version: &str,
        metadata: Value,
        headings: bool,
    ) -> Map<String, Value> {
        let mut table = Map::new();
        table.insert("kind".to_owned(), "Table".into());
        table.insert(
            "apiVersion".to_owned(),
            format!("meta.k8s.io/{version}").into(),
        );
        table.insert("metadata".to_owned(), metadata);
        let columns = match headings {
            true => table::columns(self.resource),
            false => Value::Null,
        };
        table.insert("columnDefinitions".to_owned(), columns);
        table
    }

    /// Whether the rows of an empty table are `null`: so upstream's fallback for kinds without columns of their own.
    pub(crate) fn table_has_nil_rows(&self) -> bool {
        let columns = self.resource.columns;
        columns.iter().any(|column| column.name == "Created At")
    }

    /// A table's row of an object.
    pub(crate) fn table_row(&self, version: &str, object: Object, now: Timestamp) -> Value {
        let mut row = table::row(self.resource, &object, now);
        row["object"] = match self.info.query.get("includeObject").unwrap_or_default() {
            "None" => Value::Null,
            "Object" => object.into_value(),
            _ => self.partial(&object, version),
        };
        row
    }
}

/// Turns a failure into its answer, whose bytes [`Answer::settled`] makes.
pub(crate) fn settle(result: Result<Answer>) -> Answer {
    result.unwrap_or_else(Answer::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_quoted() {
        assert_eq!(
            warning_header("unknown field \"spec.x\"\n"),
            r#"299 - "unknown field \"spec.x\"""#
        );
    }

    #[test]
    fn warnings_that_are_too_much_are_cut_and_then_left_out() {
        let few: Vec<String> = vec!["a".repeat(4096), String::new(), "a".repeat(4096)];
        assert_eq!(told(&few), [&few[0]]);
        let many: Vec<String> = (0..100)
            .map(|n| format!("{n:03}{}", "é".repeat(997)))
            .collect();
        let told = told(&many);
        assert_eq!(told.len(), 16);
        let first = format!("000{}", "é".repeat(253));
        assert_eq!((told[0], told[15].chars().count()), (first.as_str(), 256));
    }

    #[tokio::test]
    async fn large_answers_are_compressed_when_accepted() {
        let large = || Answer::bytes(StatusCode::OK, negotiate::JSON, vec![b'x'; 300_000]);
        let response = large().into_response(Some("gzip"), Piece::Large, None);
        assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
        let response = large().into_response(None, Piece::Large, None);
        assert!(!response.headers().contains_key(CONTENT_ENCODING));
    }
}
