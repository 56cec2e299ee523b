//! One cached object: ready-to-send JSON beside the few parsed fields that lookups need.
//!
//! ```text
//! {"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"42","name":"a",…},…}
//! └────────── head ─────────────────┘               └─ version ──────────┘
//! ```
//!
//! The store holds the same bytes without the version, which is spliced in once, as the commit enters the cache. List
//! items skip the head. [`encode`] is the only writer of such bytes.

use bytes::{BufMut, Bytes, BytesMut};
use coracle_api::kinds::Storage;
use coracle_api::schema::from_kept_json;
use coracle_api::{Object, Resource};
use serde_json::{Map, Value};

/// What a stored value begins with: the format (1: JSON as [`encode`] writes it) and the encryption key (0: none).
const ENVELOPE: [u8; 2] = [1, 0];

/// An object as it was at one revision.
#[derive(Debug)]
pub struct Entry {
    /// The revision of the last change; the object's `resourceVersion`.
    pub revision: u64,
    /// `namespace/name`, or the name alone for cluster-scoped kinds.
    pub key: Box<str>,
    /// `metadata.labels`.
    pub labels: Vec<(String, String)>,
    /// What `Strategy::selectable_fields` says.
    pub fields: Vec<(&'static str, String)>,
    /// Whether the store holds what the entry shows, rather than less ([`Strategy::read_back`](coracle_api::Strategy)).
    pub settled: bool,
    /// Whether it has a `metadata.deletionTimestamp`.
    pub terminating: bool,
    json: Bytes,
    head: usize,
    version_length: usize,
    /// Where `,"managedFields":[…]` begins and ends in the JSON, in bytes before its end; both 0 where there is none.
    managed: (usize, usize),
}

/// What an entry holds of an object besides its bytes.
pub(super) struct Known {
    labels: Vec<(String, String)>,
    fields: Vec<(&'static str, String)>,
    terminating: bool,
    managed: bool,
}

impl Known {
    pub(super) fn of(resource: &Resource, object: &Object) -> Self {
        let labels = object.at("metadata.labels");
        let labels = labels.entries();
        Self {
            labels: labels
                .map(|(k, v)| (k.to_owned(), v.str().to_owned()))
                .collect(),
            fields: resource.strategy.selectable_fields(object),
            terminating: object.is_terminating(),
            managed: object.at("metadata.managedFields").exists(),
        }
    }

    /// Whether an entry of `resource` shows what its value says and nothing else, so that there is no need to read it.
    pub(super) fn is_all(resource: &Resource) -> bool {
        resource.storage == Storage::Own && resource.strategy.read_back().is_none()
    }
}

/// A stored value that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("the stored value of {key} is damaged")]
pub struct DamagedValue {
    /// The key in the store.
    pub key: String,
}

impl Entry {
    /// Reads the stored `value` of `key` as of `revision`; a value that another version stores is converted.
    pub fn from_stored(
        resource: &Resource,
        key: &str,
        value: &[u8],
        revision: u64,
    ) -> Result<Self, DamagedValue> {
        Self::parse(resource, key, value, revision).map(|(entry, _)| entry)
    }

    /// Does that, and hands out the parsed object too, which has no `resourceVersion`.
    pub(super) fn parse(
        resource: &Resource,
        key: &str,
        value: &[u8],
        revision: u64,
    ) -> Result<(Self, Object), DamagedValue> {
        let damaged = || DamagedValue {
            key: key.to_owned(),
        };
        let body = value.strip_prefix(&ENVELOPE).ok_or_else(damaged)?;
        let root: Map<String, Value> = from_kept_json(body).map_err(|_| damaged())?;
        let mut object = Object::new(root);
        let head = head(resource);
        if !body.starts_with(head.as_bytes()) {
            if matches!(resource.storage, Storage::SharedWith(..)) {
                object = resource.strategy.to_served(object);
            }
            return Self::parse(resource, key, &encode(resource, &object), revision);
        }
        if let Some(read_back) = resource.strategy.read_back()
            && read_back(&mut object)
        {
            let again = encode(resource, &object);
            let (entry, object) = Self::parse(resource, key, &again, revision)?;
            let entry = Self {
                settled: false,
                ..entry
            };
            return Ok((entry, object));
        }
        let entry = Self::of(resource, key, body, Known::of(resource, &object), revision);
        Ok((entry, object))
    }

    /// The entry of a stored `value` that [`encode`] has just made of the object that `known` is about. It needs no
    /// reading back: see [`Known::is_all`].
    pub(super) fn known(
        resource: &Resource,
        key: &str,
        value: &[u8],
        known: Known,
        revision: u64,
    ) -> Result<Self, DamagedValue> {
        let body = value.strip_prefix(&ENVELOPE).ok_or_else(|| DamagedValue {
            key: key.to_owned(),
        })?;
        Ok(Self::of(resource, key, body, known, revision))
    }

    fn of(resource: &Resource, key: &str, body: &[u8], known: Known, revision: u64) -> Self {
        let head = head(resource).len();
        let (json, version_length) = splice(body, head, 0, revision);
        let managed = match known.managed {
            true => managed_fields(&json, head).unwrap_or_default(),
            false => (0, 0),
        };
        Self {
            revision,
            key: key.into(),
            labels: known.labels,
            fields: known.fields,
            settled: true,
            terminating: known.terminating,
            json,
            head,
            version_length,
            managed,
        }
    }

    /// What comes before and after `metadata.managedFields` in the entry's JSON, be it all of it, an item, or at another
    /// revision.
    pub fn around_managed_fields<'a>(&self, json: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let (begin, end) = self.managed;
        (&json[..json.len() - begin], &json[json.len() - end..])
    }

    /// The object as JSON.
    pub fn json(&self) -> Bytes {
        self.json.clone()
    }

    /// The object as an item of a list: without kind and apiVersion. The opening brace is not part of it.
    pub fn item(&self) -> &[u8] {
        &self.json[self.head - METADATA.len()..]
    }

    /// The object as JSON, with another `resourceVersion`: what a deletion shows.
    pub fn json_at(&self, revision: u64) -> Bytes {
        splice(&self.json, self.head, self.version_length, revision).0
    }

    /// The object, parsed.
    pub fn object(&self) -> Object {
        Object::new(
            from_kept_json(&self.json).expect("bytes that were parsed when the entry was made"),
        )
    }

    /// Namespace; empty for cluster-scoped kinds.
    pub fn namespace(&self) -> &str {
        self.key
            .split_once('/')
            .map_or("", |(namespace, _)| namespace)
    }

    /// Name.
    pub fn name(&self) -> &str {
        self.key
            .split_once('/')
            .map_or(&*self.key, |(_, name)| name)
    }

    /// About how much memory the entry takes.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.json.len() + self.key.len()
    }
}

const METADATA: &str = r#""metadata":{"#;

/// What the JSON of every object of `resource` begins with, up to and including the brace that opens `metadata`.
fn head(resource: &Resource) -> String {
    format!(
        r#"{{"kind":"{}","apiVersion":"{}",{METADATA}"#,
        resource.kind,
        resource.api_version()
    )
}

/// Where the owners of fields, and the comma before them, begin and end in the JSON of an object that has some, counted
/// from its end. Nothing before them can look like them: a text's quotes are escaped, and no other list has that name.
fn managed_fields(json: &[u8], head: usize) -> Option<(usize, usize)> {
    const KEY: &[u8] = br#","managedFields":["#;
    let begin = head + memchr::memmem::find(&json[head..], KEY)?;
    let mut bytes = json[begin..].iter().enumerate().skip(KEY.len());
    let mut depth = 1_usize;
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => {
                while let Some((_, byte)) = bytes.next()
                    && *byte != b'"'
                {
                    if *byte == b'\\' {
                        bytes.next();
                    }
                }
            }
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((json.len() - begin, json.len() - (begin + at + 1)));
        }
    }
    None
}

/// `json` with `resourceVersion` put in place of the `old` bytes that follow `at`; and the length of what was put.
fn splice(json: &[u8], at: usize, old: usize, revision: u64) -> (Bytes, usize) {
    let empty = json.get(at + old) == Some(&b'}');
    let version = format!(
        r#""resourceVersion":"{revision}"{}"#,
        if empty { "" } else { "," }
    );
    let mut spliced = BytesMut::with_capacity(json.len() + version.len());
    spliced.put_slice(&json[..at]);
    spliced.put_slice(version.as_bytes());
    spliced.put_slice(&json[at + old..]);
    (spliced.freeze(), version.len())
}

/// The value to store for `object`: kind, apiVersion and metadata first, no `resourceVersion`.
pub fn encode(resource: &Resource, object: &Object) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(&ENVELOPE);
    out.extend_from_slice(head(resource).as_bytes());
    let mut first = true;
    let metadata = object.root().get("metadata").and_then(Value::as_object);
    for (key, value) in metadata
        .into_iter()
        .flatten()
        .filter(|(key, _)| *key != "resourceVersion")
    {
        write_field(&mut out, &mut first, key, value);
    }
    out.push(b'}');
    first = false;
    for (key, value) in object.root() {
        if !matches!(key.as_str(), "kind" | "apiVersion" | "metadata") {
            write_field(&mut out, &mut first, key, value);
        }
    }
    out.push(b'}');
    Bytes::from(out)
}

fn write_field(out: &mut Vec<u8>, first: &mut bool, key: &str, value: &Value) {
    if !std::mem::replace(first, false) {
        out.push(b',');
    }
    serde_json::to_writer(&mut *out, key).expect("writing a string to memory");
    out.push(b':');
    serde_json::to_writer(&mut *out, value).expect("writing a value to memory");
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::Registry;
    use serde_json::json;

    fn config_maps() -> &'static Resource {
        Registry::builtin()
            .by_plural("", "v1", "configmaps")
            .expect("config maps are served")
    }

    fn entry() -> Entry {
        let object = Object::from_value(json!({
            "data": {"a": "1"}, "metadata": {"name": "a", "namespace": "n", "labels": {"x": "y"}, "resourceVersion": "3"},
            "kind": "ConfigMap", "apiVersion": "v1",
        }));
        let value = encode(config_maps(), &object.expect("an object"));
        Entry::from_stored(config_maps(), "n/a", &value, 42).expect("well-formed")
    }

    #[test]
    fn the_revision_is_spliced_in_once() {
        let entry = entry();
        let object = entry.object();
        assert_eq!(
            (object.resource_version(), object.name(), entry.namespace()),
            ("42", "a", "n")
        );
        assert_eq!(entry.labels, [("x".to_owned(), "y".to_owned())]);
        let later: Value = serde_json::from_slice(&entry.json_at(1000)).expect("JSON");
        assert_eq!(later["metadata"]["resourceVersion"], "1000");
        assert_eq!(later["data"], json!({"a": "1"}));
    }

    #[test]
    fn list_items_have_neither_kind_nor_version() {
        let entry = entry();
        let item = [b"{", entry.item()].concat();
        let item: Value = serde_json::from_slice(&item).expect("JSON");
        assert!(item.get("kind").is_none() && item.get("apiVersion").is_none());
        assert_eq!(item["metadata"]["resourceVersion"], "42");
    }

    #[test]
    fn owners_of_fields_are_left_out() {
        let owners =
            json!([{"manager": "a\"]", "fieldsV1": {"f:data": {"k:{\"n\":\"[\"}": {}}}}, {}]);
        let said = "said: \\ \",\"managedFields\":[";
        let metadata = |owners: Option<&Value>| {
            let mut metadata = json!({"name": "a", "labels": {"a": said}, "resourceVersion": "42"});
            if let Some(owners) = owners {
                metadata["managedFields"] = owners.clone();
                metadata["selfLink"] = "after".into();
            }
            metadata
        };
        let inner = json!({"managedFields": [1]});
        for owners in [None, Some(&owners), Some(&json!([]))] {
            let object = json!({"metadata": metadata(owners), "data": {"a": said}, "inner": inner});
            let value = encode(
                config_maps(),
                &Object::from_value(object).expect("an object"),
            );
            let entry = Entry::from_stored(config_maps(), "n/a", &value, 42).expect("well-formed");
            for (json, version) in [(entry.json(), "42"), (entry.json_at(1000), "1000")] {
                let (before, after) = entry.around_managed_fields(&json);
                let shown: Value = serde_json::from_slice(&[before, after].concat()).expect("JSON");
                let mut wanted: Value = serde_json::from_slice(&json).expect("JSON");
                let metadata = wanted["metadata"].as_object_mut().expect("an object");
                metadata.shift_remove("managedFields");
                assert_eq!(shown, wanted);
                assert_eq!(shown["metadata"]["resourceVersion"], version);
            }
            let (before, after) = entry.around_managed_fields(entry.item());
            let item: Value =
                serde_json::from_slice(&[b"{", before, after].concat()).expect("JSON");
            assert!(item["metadata"].get("managedFields").is_none());
            assert_eq!(item["inner"], inner);
        }
    }

    #[test]
    fn foreign_bytes_are_damaged_not_a_panic() {
        assert!(Entry::from_stored(config_maps(), "n/a", b"{}", 1).is_err());
        assert!(Entry::from_stored(config_maps(), "n/a", &[1, 0, b'['], 1).is_err());
    }
}
