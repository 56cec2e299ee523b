//! Lists of cached objects, in every form that a client may ask for.
//!
//! ```text
//! plain JSON ──▶ Items: stored bytes, copied while they are sent
//! protobuf ────▶ kept messages, one after the other
//! tables, metadata, indented, YAML ──▶ parsed, shaped and written one by one
//! ```
//!
//! Whatever is made here is made in slices, between which others have their turn.

use std::sync::Arc;

use bytes::Bytes;
use coracle_api::schema::nests_deeper;
use coracle_api::{Object, protobuf};
use coracle_clock::Timestamp;
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::answer::{Answer, MOST_INDENTED, Payload, a_list, without_type};
use crate::cache::Entry;
use crate::call::Call;
use crate::items::Items;
use crate::negotiate::{self, Format, Output, Shape};
use crate::pause::others_first;

/// Bytes of stored objects that are parsed and shaped in one go: about 50 µs.
const SLICE: usize = 8 * 1024;
/// Bytes that are copied in one go.
const COPIED_SLICE: usize = 64 * 1024;
/// A list from so many bytes on is written on a thread of its own where it can't be written in slices.
const ASIDE_ABOVE: usize = 64 * 1024;

/// What a list is apart from its items.
struct Frame {
    /// The fields before the items.
    fields: Map<String, Value>,
    /// The name of the items' field.
    items: &'static str,
    /// Whether no items are `null` instead of an empty list.
    nil: bool,
}

/// Lets others have their turn after so many bytes of work.
struct Slices {
    done: usize,
    size: usize,
}

impl Slices {
    fn of(size: usize) -> Self {
        Self { done: 0, size }
    }

    async fn add(&mut self, bytes: usize) {
        self.done += bytes;
        if self.done >= self.size {
            self.done = 0;
            others_first().await;
        }
    }
}

impl Answer {
    /// A list of cached objects.
    pub(crate) async fn list(
        call: &Call,
        metadata: Value,
        entries: Vec<Arc<Entry>>,
        now: Timestamp,
    ) -> Self {
        let (resource, output) = (call.resource, call.output);
        let kind = format!("{}List", resource.kind);
        let mut fields = Map::new();
        let mut head = |kind: &str, api_version: String| {
            fields.insert("kind".to_owned(), kind.into());
            fields.insert("apiVersion".to_owned(), api_version.into());
            fields.insert("metadata".to_owned(), metadata.clone());
        };
        match output.shape {
            Shape::Object if output.is_plain() => {
                let version = resource.api_version();
                let items = Items::new(&kind, &version, &metadata, entries, call.form).await;
                let mut answer = Self::bytes(StatusCode::OK, negotiate::JSON, Bytes::new());
                answer.payload = Payload::Items(items);
                answer
            }
            Shape::Object if output.format == Format::Protobuf => {
                let raw = messages(call, &metadata, &entries).await;
                let bytes = protobuf::envelope(&resource.api_version(), &kind, &raw);
                Self::bytes(StatusCode::OK, negotiate::PROTOBUF, bytes)
            }
            Shape::Object => {
                head(&kind, resource.api_version());
                let frame = Frame {
                    fields,
                    items: "items",
                    nil: false,
                };
                let item = |entry: &Entry| without_type(entry.object());
                Self::shaped(output, frame, &entries, item).await
            }
            Shape::PartialMetadata(_) => Self::from(a_list(resource.group, &kind)),
            Shape::PartialMetadataList(version) => {
                head(
                    "PartialObjectMetadataList",
                    format!("meta.k8s.io/{version}"),
                );
                let frame = Frame {
                    fields,
                    items: "items",
                    // As Go writes a list that nothing was appended to.
                    nil: true,
                };
                let item = |entry: &Entry| call.partial(&entry.object(), version);
                Self::shaped(output, frame, &entries, item).await
            }
            Shape::Table(version) => {
                let frame = Frame {
                    fields: call.table_head(version, metadata, true),
                    items: "rows",
                    nil: call.table_has_nil_rows(),
                };
                let item = |entry: &Entry| call.table_row(version, entry.object(), now);
                Self::shaped(output, frame, &entries, item).await
            }
        }
    }

    /// A list of objects that are not stored: one for each node or pod at most.
    pub(crate) fn list_of(
        call: &Call,
        metadata: Value,
        objects: Vec<Object>,
        now: Timestamp,
    ) -> Self {
        let (resource, output) = (call.resource, call.output);
        let kind = format!("{}List", resource.kind);
        let (kind, api_version, items): (_, _, Vec<Value>) = match output.shape {
            Shape::Object => {
                let items = objects.into_iter().map(without_type);
                (kind, resource.api_version(), items.collect())
            }
            Shape::PartialMetadata(_) => return Self::from(a_list(resource.group, &kind)),
            Shape::PartialMetadataList(version) => {
                let items = objects.iter();
                let items = items.map(|object| call.partial(object, version));
                let kind = "PartialObjectMetadataList".to_owned();
                (kind, format!("meta.k8s.io/{version}"), items.collect())
            }
            Shape::Table(version) => {
                let rows = objects.into_iter();
                let rows = rows.map(|object| call.table_row(version, object, now));
                let mut table = call.table_head(version, metadata, true);
                table.insert("rows".to_owned(), rows.collect());
                return Self::value(StatusCode::OK, output, &Value::Object(table));
            }
        };
        let value =
            json!({"kind": kind, "apiVersion": api_version, "metadata": metadata, "items": items});
        Self::value(StatusCode::OK, output, &value)
    }

    async fn shaped(
        output: Output,
        frame: Frame,
        entries: &[Arc<Entry>],
        item: impl Fn(&Entry) -> Value,
    ) -> Self {
        if output.format == Format::Json {
            let bytes = frame.write(output.pretty, entries, item).await;
            return Self::bytes(StatusCode::OK, negotiate::JSON, bytes);
        }
        let (mut slices, mut bytes) = (Slices::of(SLICE), 0);
        let mut items = Vec::with_capacity(entries.len());
        for entry in entries {
            items.push(item(entry));
            bytes += entry.item().len();
            slices.add(entry.item().len()).await;
        }
        let value = frame.value(items);
        if bytes < ASIDE_ABOVE {
            return Self::value(StatusCode::OK, output, &value);
        }
        let write = move || Self::value(StatusCode::OK, output, &value);
        match tokio::task::spawn_blocking(write).await {
            Ok(answer) => answer,
            Err(error) => Self::from(crate::status::ApiError::internal(error)),
        }
    }
}

impl Frame {
    /// The list as JSON.
    async fn write(
        self,
        pretty: bool,
        entries: &[Arc<Entry>],
        item: impl Fn(&Entry) -> Value,
    ) -> Vec<u8> {
        if entries.is_empty() {
            return write_value(pretty, &self.value(Vec::new()));
        }
        let mut slices = Slices::of(SLICE);
        let name = self.items;
        let mut out = write_value(pretty, &Value::Object(self.fields));
        let end: &[u8] = if pretty { b"\n}" } else { b"}" };
        out.truncate(out.len() - end.len());
        let begin = if pretty {
            format!(",\n  \"{name}\": [")
        } else {
            format!(",\"{name}\":[")
        };
        out.extend_from_slice(begin.as_bytes());
        for (number, entry) in entries.iter().enumerate() {
            if number > 0 {
                out.push(b',');
            }
            let written = write_value(pretty, &item(entry));
            if pretty {
                // Text has no line ends in JSON but those between its values.
                for line in written.split(|byte| *byte == b'\n') {
                    out.extend_from_slice(b"\n    ");
                    out.extend_from_slice(line);
                }
            } else {
                out.extend_from_slice(&written);
            }
            slices.add(entry.item().len()).await;
        }
        out.extend_from_slice(if pretty { b"\n  ]\n}" } else { b"]}" });
        out
    }

    fn value(self, items: Vec<Value>) -> Value {
        let mut fields = self.fields;
        let items = match self.nil && items.is_empty() {
            true => Value::Null,
            false => items.into(),
        };
        fields.insert(self.items.to_owned(), items);
        Value::Object(fields)
    }
}

fn write_value(pretty: bool, value: &Value) -> Vec<u8> {
    let written = match pretty && !nests_deeper(value, MOST_INDENTED) {
        true => serde_json::to_vec_pretty(value),
        false => serde_json::to_vec(value),
    };
    written.expect("JSON values can always be written")
}

/// The message of a list, from those of its items.
async fn messages(call: &Call, metadata: &Value, entries: &[Arc<Entry>]) -> Vec<u8> {
    let (mut made, mut copied) = (Slices::of(SLICE), Slices::of(COPIED_SLICE));
    let mut items: Vec<Bytes> = Vec::with_capacity(entries.len());
    for entry in entries {
        let message = call.encoded.message(call.resource, entry);
        made.add(if message.1 { entry.item().len() } else { 64 })
            .await;
        items.push(message.0);
    }
    let size: usize = items.iter().map(|item| item.len() + 8).sum();
    let mut raw = protobuf::list_raw(metadata, []);
    raw.reserve(size);
    for item in items {
        protobuf::push_list_item(&mut raw, &item);
        copied.add(item.len()).await;
    }
    raw
}

#[cfg(test)]
mod tests {
    use coracle_api::{Object, Registry};
    use serde_json::json;

    use super::*;
    use crate::cache::encode;

    fn entries(count: u64) -> Vec<Arc<Entry>> {
        let registry = Registry::builtin();
        let config_maps = registry.by_plural("", "v1", "configmaps").expect("served");
        let entry = |number: u64| {
            let object = json!({"metadata": {"name": format!("a{number}")}, "data": {"a": "line\nline", "b": ""}});
            let value = encode(config_maps, &Object::from_value(object).expect("an object"));
            let entry = Entry::from_stored(config_maps, "n/a", &value, number + 1);
            Arc::new(entry.expect("well-formed"))
        };
        (0..count).map(entry).collect()
    }

    #[tokio::test]
    async fn a_list_that_is_written_item_by_item_is_the_list() {
        for (count, nil) in [(0, false), (0, true), (1, false), (500, true)] {
            let frame = || Frame {
                fields: Map::from_iter([
                    ("kind".to_owned(), "ConfigMapList".into()),
                    ("metadata".to_owned(), json!({"resourceVersion": "7"})),
                ]),
                items: "items",
                nil,
            };
            let entries = entries(count);
            let item = |entry: &Entry| without_type(entry.object());
            let whole = frame().value(entries.iter().map(|entry| item(entry)).collect());
            for pretty in [false, true] {
                let written = frame().write(pretty, &entries, item).await;
                let expected = write_value(pretty, &whole);
                assert_eq!(
                    String::from_utf8_lossy(&written),
                    String::from_utf8_lossy(&expected)
                );
            }
        }
    }
}
