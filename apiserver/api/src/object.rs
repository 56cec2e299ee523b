//! The one dynamic, order-keeping value that the request pipeline carries.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};

/// An API object as decoded: a JSON object that keeps its key order.
///
/// Unknown fields and explicit zeros survive, which is why no typed struct is ever on the write
/// path. Reads go through [`Object::at`], whose result knows its own field path.
#[derive(Clone, Debug, Default)]
pub struct Object {
    root: Map<String, Value>,
    empties: Vec<(String, Value)>,
}

/// What was given as empty does not count: it is not kept.
impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.root == other.root
    }
}

impl Object {
    /// Wraps a decoded JSON object.
    pub fn new(root: Map<String, Value>) -> Self {
        Self {
            root,
            empties: Vec::new(),
        }
    }

    /// Notes which lists and maps were given as empty, and are hence absent: their places, and `[]` or `{}`. Findings
    /// show them as given, and some kinds take them for a change.
    pub fn with_empties(mut self, empties: Vec<(String, Value)>) -> Self {
        self.empties = empties;
        self
    }

    /// The lists and maps that were given as empty.
    pub fn empties(&self) -> &[(String, Value)] {
        &self.empties
    }

    /// Wraps `value` when it is a JSON object.
    pub fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Object(root) => Some(Self::new(root)),
            _ => None,
        }
    }

    /// The whole object.
    pub fn root(&self) -> &Map<String, Value> {
        &self.root
    }

    /// The whole object, to change.
    pub fn root_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.root
    }

    /// The object as a JSON value.
    pub fn into_value(self) -> Value {
        Value::Object(self.root)
    }

    /// The value at a dotted path such as `spec.template.metadata`; absent values read as empty.
    /// Keys that contain dots are reached with [`At::key`].
    pub fn at<'a>(&'a self, path: &str) -> At<'a> {
        let mut segments = path.split('.');
        let first = self.root.get(segments.next().unwrap_or_default());
        At::maybe(first.and_then(|first| below(first, segments)), path)
    }

    /// `metadata.name`, or empty.
    pub fn name(&self) -> &str {
        self.metadata("name")
    }

    /// `metadata.namespace`, or empty.
    pub fn namespace(&self) -> &str {
        self.metadata("namespace")
    }

    /// `metadata.uid`, or empty.
    pub fn uid(&self) -> &str {
        self.metadata("uid")
    }

    /// `metadata.resourceVersion`, or empty.
    pub fn resource_version(&self) -> &str {
        self.metadata("resourceVersion")
    }

    /// Whether `metadata.deletionTimestamp` is set.
    pub fn is_terminating(&self) -> bool {
        self.at("metadata.deletionTimestamp").exists()
    }

    /// A string field of `metadata`, or empty.
    pub fn metadata(&self, field: &str) -> &str {
        self.root
            .get("metadata")
            .and_then(|m| m.get(field))
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// `metadata`, made when it is absent or not an object.
    pub fn metadata_mut(&mut self) -> &mut Map<String, Value> {
        self.map_mut("metadata")
    }

    /// The JSON object at a dotted path, made (with every parent) when it is absent or not an object.
    pub fn map_mut(&mut self, path: &str) -> &mut Map<String, Value> {
        let mut map = &mut self.root;
        for segment in path.split('.') {
            let slot = map.entry(segment).or_insert(Value::Null);
            if !slot.is_object() {
                *slot = Value::Object(Map::new());
            }
            map = slot.as_object_mut().expect("made an object above");
        }
        map
    }

    /// The value at a dotted path, if every step is there.
    pub fn get_mut(&mut self, path: &str) -> Option<&mut Value> {
        let mut segments = path.split('.');
        let mut value = self.root.get_mut(segments.next()?)?;
        for segment in segments {
            value = value.get_mut(segment)?;
        }
        Some(value)
    }

    /// Sets the value at a dotted path, making parents.
    pub fn set(&mut self, path: &str, value: impl Into<Value>) {
        match path.rsplit_once('.') {
            Some((parent, last)) => self.map_mut(parent).insert(last.to_owned(), value.into()),
            None => self.root.insert(path.to_owned(), value.into()),
        };
    }

    /// Sets the value at a dotted path when nothing (or null) is there.
    pub fn set_default(&mut self, path: &str, value: impl Into<Value>) {
        if !self.at(path).exists() {
            self.set(path, value);
        }
    }

    /// Puts back what `old` has at a dotted path, or nothing.
    pub fn restore(&mut self, old: &Object, path: &str) {
        match old.at(path).value() {
            Some(value) => self.set(path, value.clone()),
            None => drop(self.remove(path)),
        }
    }

    /// Removes the value at a dotted path, keeping the order of what remains.
    pub fn remove(&mut self, path: &str) -> Option<Value> {
        match path.rsplit_once('.') {
            Some((parent, last)) => self.get_mut(parent)?.as_object_mut()?.shift_remove(last),
            None => self.root.shift_remove(path),
        }
    }
}

/// A place in an [`Object`]: the value there, if any, and its field path.
///
/// Most paths are never read, and that of a place thousands of levels down is long: it is put together when it is asked
/// for.
#[derive(Clone, Debug)]
pub struct At<'a> {
    value: Option<&'a Value>,
    place: Arc<Place<'a>>,
    path: OnceLock<String>,
}

/// A step of a path, after those before it.
#[derive(Debug)]
struct Place<'a> {
    before: Option<Arc<Place<'a>>>,
    step: Step<'a>,
}

#[derive(Debug)]
enum Step<'a> {
    /// `spec`, or the dotted path of several fields.
    Field(Cow<'a, str>),
    /// `[a.b/c]`
    Entry(Cow<'a, str>),
    /// `[0]`
    Index(usize),
}

impl Place<'_> {
    fn path(&self) -> String {
        let mut places = vec![self];
        while let Some(before) = places.last().and_then(|place| place.before.as_deref()) {
            places.push(before);
        }
        let mut path = String::new();
        for place in places.into_iter().rev() {
            match &place.step {
                Step::Field(name) => {
                    path.push_str(if path.is_empty() { "" } else { "." });
                    path.push_str(name);
                }
                Step::Entry(key) => path.extend(["[", key, "]"]),
                Step::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        path
    }
}

impl<'a> At<'a> {
    fn new(value: Option<&'a Value>, before: Option<Arc<Place<'a>>>, step: Step<'a>) -> Self {
        Self {
            value,
            place: Arc::new(Place { before, step }),
            path: OnceLock::new(),
        }
    }

    fn below(&self, value: Option<&'a Value>, step: Step<'a>) -> Self {
        Self::new(value, Some(self.place.clone()), step)
    }

    /// What a map has at `name`, and the name: the map's own if it is there.
    fn named(&self, name: &str) -> (Option<&'a Value>, Cow<'a, str>) {
        let found = self.value.and_then(Value::as_object);
        match found.and_then(|map| map.get_key_value(name)) {
            Some((name, value)) => (Some(value), Cow::Borrowed(name)),
            None => (None, Cow::Owned(name.to_owned())),
        }
    }

    /// A place outside any [`Object`], for values that are validated by themselves.
    pub fn root(value: &'a Value, path: impl Into<String>) -> Self {
        Self::maybe(Some(value), path)
    }

    /// A place that may be empty, under a path of the caller's choice.
    pub fn maybe(value: Option<&'a Value>, path: impl Into<String>) -> Self {
        Self::new(value, None, Step::Field(Cow::Owned(path.into())))
    }

    /// The value; null counts as absent.
    pub fn value(&self) -> Option<&'a Value> {
        self.value.filter(|value| !value.is_null())
    }

    /// The field path in upstream's notation: `spec.containers[0].name`, `metadata.labels[a.b/c]`.
    pub fn path(&self) -> &str {
        self.path.get_or_init(|| self.place.path())
    }

    /// The last step of the path, as it was asked for: the field `spec`, the entry `a.b/c`; empty for an item of a list.
    pub fn name(&self) -> &str {
        match &self.place.step {
            Step::Field(name) | Step::Entry(name) => name,
            Step::Index(_) => "",
        }
    }

    /// Whether there is a value other than null.
    pub fn exists(&self) -> bool {
        self.value().is_some()
    }

    /// Whether there is no value, or one that Go would call empty (`""`, `0`, `false`, `[]`, `{}`).
    pub fn is_empty(&self) -> bool {
        match self.value() {
            None => true,
            Some(Value::String(text)) => text.is_empty(),
            Some(Value::Array(items)) => items.is_empty(),
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Bool(flag)) => !flag,
            Some(Value::Number(number)) => number.as_f64() == Some(0.0),
            Some(Value::Null) => true,
        }
    }

    /// The field `name` of the object here, with a dotted path.
    pub fn key(&self, name: &str) -> At<'a> {
        let (value, name) = self.named(name);
        self.below(value, Step::Field(name))
    }

    /// A dotted path below this place.
    pub fn at(&self, path: &str) -> At<'a> {
        let value = self.value.and_then(|value| below(value, path.split('.')));
        self.below(value, Step::Field(Cow::Owned(path.to_owned())))
    }

    /// The entry `key` of the map here; its path reads `labels[key]`.
    pub fn entry(&self, key: &str) -> At<'a> {
        let (value, key) = self.named(key);
        self.below(value, Step::Entry(key))
    }

    /// The item at `index` of the list here.
    pub fn index(&self, index: usize) -> At<'a> {
        let value = self.value.and_then(|value| value.get(index));
        self.below(value, Step::Index(index))
    }

    /// The items of the list here; none when it is not a list.
    pub fn items(&self) -> impl Iterator<Item = At<'a>> + '_ {
        let items = self.value.and_then(Value::as_array);
        let items = items.map_or(&[][..], Vec::as_slice).iter().enumerate();
        items.map(|(index, item)| self.below(Some(item), Step::Index(index)))
    }

    /// The entries of the map here; none when it is not a map. Paths read `labels[key]`.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, At<'a>)> + '_ {
        let entries = self.value.and_then(Value::as_object).into_iter().flatten();
        entries.map(|(key, value)| {
            let at = self.below(Some(value), Step::Entry(Cow::Borrowed(key)));
            (key.as_str(), at)
        })
    }

    /// Number of items or entries.
    pub fn len(&self) -> usize {
        match self.value {
            Some(Value::Array(items)) => items.len(),
            Some(Value::Object(map)) => map.len(),
            _ => 0,
        }
    }

    /// The string here.
    pub fn as_str(&self) -> Option<&'a str> {
        self.value.and_then(Value::as_str)
    }

    /// The string here, or empty.
    pub fn str(&self) -> &'a str {
        self.as_str().unwrap_or_default()
    }

    /// The whole number here.
    pub fn as_i64(&self) -> Option<i64> {
        self.value.and_then(Value::as_i64)
    }

    /// The boolean here.
    pub fn as_bool(&self) -> Option<bool> {
        self.value.and_then(Value::as_bool)
    }

    /// Whether the value is `true`.
    pub fn is_true(&self) -> bool {
        self.as_bool() == Some(true)
    }
}

/// What lies below a value, step by step.
fn below<'a>(value: &'a Value, mut path: std::str::Split<'_, char>) -> Option<&'a Value> {
    path.try_fold(value, |value, segment| value.get(segment))
}

/// Inserts a text when none, null or an empty one is there.
pub fn default_text(map: &mut Map<String, Value>, field: &str, text: &str) {
    match map.get(field) {
        None | Some(Value::Null) => {}
        Some(Value::String(given)) if given.is_empty() => {}
        Some(_) => return,
    }
    map.insert(field.to_owned(), Value::from(text));
}

/// Inserts a number when none, null or zero is there.
pub fn default_int(map: &mut Map<String, Value>, field: &str, number: i64) {
    if map
        .get(field)
        .is_none_or(|given| given.is_null() || given.as_i64() == Some(0))
    {
        map.insert(field.to_owned(), Value::from(number));
    }
}

/// Inserts a value when none or null is there.
pub fn default_value(map: &mut Map<String, Value>, field: &str, value: impl FnOnce() -> Value) {
    if map.get(field).is_none_or(Value::is_null) {
        map.insert(field.to_owned(), value());
    }
}

/// Calls `change` with every object in the list `field`.
pub fn each_object(
    map: &mut Map<String, Value>,
    field: &str,
    mut change: impl FnMut(&mut Map<String, Value>),
) {
    let items = map.get_mut(field).and_then(Value::as_array_mut);
    for item in items.into_iter().flatten().filter_map(Value::as_object_mut) {
        change(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object() -> Object {
        let value = json!({"metadata": {"name": "a", "labels": {"x.y/z": "1"}}, "spec": {"ports": [{"port": 80}]}});
        Object::from_value(value).expect("an object")
    }

    #[test]
    fn paths_read_as_upstream_writes_them() {
        let object = object();
        let ports = object.at("spec.ports");
        let port = ports.items().next().expect("one port").key("port");
        assert_eq!(
            (port.path(), port.as_i64()),
            ("spec.ports[0].port", Some(80))
        );
        let labels = object.at("metadata.labels");
        assert_eq!(labels.entry("x.y/z").path(), "metadata.labels[x.y/z]");
    }

    #[test]
    fn setting_makes_parents_and_removing_keeps_order() {
        let mut object = object();
        object.set("status.phase", "Pending");
        object.set_default("status.phase", "Running");
        assert_eq!(object.at("status.phase").str(), "Pending");
        object.remove("metadata");
        assert_eq!(object.root().keys().collect::<Vec<_>>(), ["spec", "status"]);
    }
}
