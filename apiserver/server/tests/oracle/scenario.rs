//! Scenarios as they are recorded: a few requests each, and the answers that upstream gave to them.

use std::io::Read;
use std::path::PathBuf;

use flate2::read::GzDecoder;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// Requests that follow each other, in a namespace of their own.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Scenario {
    pub(crate) name: String,
    #[serde(default)]
    needs: Vec<String>,
    /// Whether a namespace is made for it.
    #[serde(default = "yes")]
    pub(crate) namespace: bool,
    #[serde(default)]
    pub(crate) namespace_labels: Map<String, Value>,
    /// Whether managed fields are compared too.
    #[serde(default)]
    pub(crate) managed_fields: bool,
    pub(crate) steps: Vec<Step>,
    /// All that its requests say, as one text: what is in here came from the client and is no accident.
    #[serde(skip)]
    pub(crate) sent: String,
}

/// One request, how to send it, and what is compared of its answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Step {
    pub(crate) method: String,
    pub(crate) path: String,
    #[serde(default)]
    pub(crate) query: Map<String, Value>,
    /// Headers besides the usual ones; `null` takes a usual one away.
    #[serde(default)]
    pub(crate) headers: Map<String, Value>,
    /// JSON, or a text that is sent as it is.
    #[serde(default, deserialize_with = "present")]
    pub(crate) body: Option<Value>,
    pub(crate) body_base64: Option<String>,
    pub(crate) pad: Option<Pad>,
    /// Variables, and where in the answer their values are.
    #[serde(default)]
    pub(crate) capture: Map<String, Value>,
    /// Seconds to wait before the request.
    #[serde(default)]
    pub(crate) wait: f64,
    pub(crate) until: Option<Until>,
    /// Steps that happen while the answer is still coming.
    #[serde(default)]
    pub(crate) during: Vec<Step>,
    /// Places that are not compared.
    #[serde(default)]
    pub(crate) ignore: Vec<String>,
    #[serde(rename = "as")]
    pub(crate) user: Option<User>,
    #[serde(default)]
    pub(crate) check: Check,
    #[serde(default)]
    pub(crate) select: Vec<String>,
    #[serde(default)]
    pub(crate) check_headers: Vec<String>,
    pub(crate) expect: Value,
}

/// A text of this length is put at this place of the body.
#[derive(Deserialize)]
pub(crate) struct Pad {
    pub(crate) pointer: String,
    pub(crate) length: usize,
}

/// The request is sent again until its answer is like this.
#[derive(Deserialize)]
pub(crate) struct Until {
    pub(crate) status: Option<u16>,
    pub(crate) pointer: Option<String>,
    pub(crate) equals: Option<Value>,
}

#[derive(Deserialize)]
pub(crate) struct User {
    pub(crate) user: String,
    #[serde(default)]
    pub(crate) groups: Vec<String>,
}

/// How much of an answer is compared.
#[derive(Default, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Check {
    #[default]
    All,
    Status,
    Headers,
    Select,
}

impl Scenario {
    fn parse(line: &str) -> Result<Self, serde_json::Error> {
        let mut scenario: Self = serde_json::from_str(line)?;
        let mut value: Value = serde_json::from_str(line)?;
        for step in value["steps"].as_array_mut().into_iter().flatten() {
            step.as_object_mut().map(|step| step.remove("expect"));
        }
        scenario.sent = value["steps"].to_string();
        Ok(scenario)
    }

    /// Whether `pattern`, in which `*` stands for anything, is the whole name.
    pub(crate) fn matches(&self, pattern: &str) -> bool {
        let mut parts = pattern.split('*');
        let Some(mut rest) = self.name.strip_prefix(parts.next().unwrap_or_default()) else {
            return false;
        };
        let Some(last) = parts.next_back() else {
            return rest.is_empty();
        };
        for part in parts {
            match rest.find(part) {
                Some(start) => rest = &rest[start + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

/// The areas that were recorded, those with the most to do first.
pub(crate) fn areas() -> Vec<String> {
    let folder = folder().join("scenarios");
    let entries = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("failed to list {}: {error}", folder.display()));
    let mut found: Vec<(u64, String)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            Some((
                entry.metadata().ok()?.len(),
                name.strip_suffix(".jsonl.gz")?.to_owned(),
            ))
        })
        .collect();
    assert!(!found.is_empty(), "no scenarios in {}", folder.display());
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, area)| area).collect()
}

/// The scenarios of an area that need nothing but an API server.
pub(crate) fn load(area: &str) -> Vec<Scenario> {
    let path = folder().join(format!("scenarios/{area}.jsonl.gz"));
    let mut text = String::new();
    std::fs::File::open(&path)
        .and_then(|file| GzDecoder::new(file).read_to_string(&mut text))
        .unwrap_or_else(|error| panic!("failed to read {}: {error}", path.display()));
    let parse = |(number, line)| {
        Scenario::parse(line).unwrap_or_else(|error| panic!("{area}, line {number}: {error}"))
    };
    let scenarios = (1..).zip(text.lines()).map(parse);
    scenarios
        .filter(|scenario| scenario.needs.is_empty())
        .collect()
}

/// Where the recorded data is.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/oracle"))
}

fn yes() -> bool {
    true
}

/// Tells `null` from nothing at all.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// The value that a JSON pointer names.
pub(crate) fn at<'v>(value: &'v Value, pointer: &str) -> Option<&'v Value> {
    value.pointer(pointer)
}

/// Takes away what `pointer` names; a `*` in it stands for every item or key.
pub(crate) fn remove(value: &mut Value, pointer: &str) {
    let Some(pointer) = pointer.strip_prefix('/') else {
        return;
    };
    let (head, rest) = match pointer.find('/') {
        Some(slash) => (&pointer[..slash], &pointer[slash..]),
        None => (pointer, ""),
    };
    let head = head.replace("~1", "/").replace("~0", "~");
    match value {
        Value::Array(items) if rest.is_empty() && head == "*" => items.clear(),
        Value::Object(map) if rest.is_empty() && head == "*" => map.clear(),
        Value::Array(items) if head == "*" => items.iter_mut().for_each(|item| remove(item, rest)),
        Value::Object(map) if head == "*" => map.values_mut().for_each(|item| remove(item, rest)),
        Value::Array(items) => match head.parse::<usize>() {
            Ok(index) if index < items.len() && rest.is_empty() => drop(items.remove(index)),
            Ok(index) if index < items.len() => remove(&mut items[index], rest),
            _ => {}
        },
        Value::Object(map) if rest.is_empty() => drop(map.shift_remove(&head)),
        Value::Object(map) => {
            if let Some(item) = map.get_mut(&head) {
                remove(item, rest);
            }
        }
        _ => {}
    }
}

/// Puts a text where `pointer` says, making objects on the way.
pub(crate) fn set(value: &mut Value, pointer: &str, text: String) {
    let mut place = value;
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        place = match place {
            Value::Array(items) => {
                let index: usize = part.parse().expect("recorded pointers fit their bodies");
                &mut items[index]
            }
            other => &mut other[part],
        };
    }
    *place = Value::String(text);
}
