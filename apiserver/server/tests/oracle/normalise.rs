//! Puts stable names in place of what is different in every run: UIDs, versions, times, generated names, addresses.
//!
//! Both sides of a comparison went through the same rules; the recorded side did so when it was recorded. What a
//! scenario sends itself is never touched.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

use coracle_clock::Timestamp;
use regex::{Captures, Regex};
use serde_json::{Map, Value};

use crate::scenario::{Scenario, Step};

/// Columns of tables that tell how long ago something was.
const AGES: &[&str] = &["Age", "Last Seen", "First Seen", "Duration", "AGE"];
/// The characters of generated names.
const GENERATED: &str = "bcdfghjklmnpqrstvwxz2456789";
/// The longest part of a generated name that is not generated.
const LONGEST_BASE: usize = 58;

/// Pieces of text that always become the same, where the text contains the first string at all.
static PIECES: LazyLock<Vec<(&str, Regex, &str)>> = LazyLock::new(|| {
    let piece = |hint, pattern, stable| (hint, regex(pattern), stable);
    vec![
        piece(
            "kube-api-access-",
            r"\bkube-api-access-[a-z0-9]{5}\b",
            "kube-api-access-<gen>",
        ),
        piece("eyJ", r"eyJ[\w-]+\.[\w-]+\.[\w-]*", "<jwt>"),
        piece("?hash=", r"\?hash=[0-9A-F]+", "?hash=<hash>"),
        piece("0x", r"\(0x[0-9a-f]+\)|0x[0-9a-f]{9,}", "<pointer>"),
    ]
});
static ADDRESS: LazyLock<Regex> = LazyLock::new(|| regex(r"\b10\.\d+\.\d+\.\d+\b(/?)"));
/// A time as RFC 3339 or Go writes it.
static TIME: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"\b(\d{4}-\d\d-\d\d)[T ]\d\d:\d\d:\d\d(\.\d+)?( ?(Z|UTC|[+-]\d\d:?\d\d))?( UTC)?( m=[+-][\d.]+)?",
    )
});
static UID: LazyLock<Regex> =
    LazyLock::new(|| regex(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"));
/// Where messages say which version is the newest, whoever made it.
static NEWEST: LazyLock<Regex> =
    LazyLock::new(|| regex(r"(current: |too old resource version: \S+ \()\d+"));
static VERSION_AT_END: LazyLock<Regex> = LazyLock::new(|| regex(r"\b\d{3,9}\)"));
static VERSIONS: LazyLock<Regex> = LazyLock::new(|| regex("(?i)resource ?version"));
static AGE: LazyLock<Regex> = LazyLock::new(|| regex(r"^(\d+[smhdy])+$"));
static PORT: LazyLock<Regex> = LazyLock::new(|| regex(r":(\d{5})/"));

/// The stable names of one scenario's accidents, numbered as they appear.
pub(crate) struct Normaliser<'a> {
    /// What the requests say.
    sent: &'a str,
    namespace: String,
    keep_managed_fields: bool,
    /// What generated names begin with.
    bases: Vec<String>,
    /// The days that are about now.
    days: BTreeSet<String>,
    uids: HashMap<String, String>,
    /// In the order in which they appeared.
    versions: Vec<(String, String)>,
    /// Allocated addresses.
    addresses: Vec<String>,
}

impl<'a> Normaliser<'a> {
    pub(crate) fn new(scenario: &'a Scenario, namespace: &str, now: Timestamp) -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        let mut bases = Vec::new();
        for step in &scenario.steps {
            collect_bases(step, namespace, &mut bases);
        }
        let days = (0..5).map(|day| (now - 2 * DAY + day * DAY).to_string()[..10].to_owned());
        Self {
            sent: &scenario.sent,
            namespace: namespace.to_owned(),
            keep_managed_fields: scenario.managed_fields,
            bases,
            days: days.collect(),
            uids: HashMap::new(),
            versions: Vec::new(),
            addresses: Vec::new(),
        }
    }

    /// A whole body.
    pub(crate) fn body(&mut self, mut body: Value) -> Value {
        self.fields(&mut body);
        self.texts(body)
    }

    /// A text, of a body or a header.
    pub(crate) fn text(&mut self, text: &str) -> String {
        let mut text = text.to_owned();
        for base in &self.bases {
            text = without_suffixes(&text, base);
        }
        text = text.replace(&self.namespace, "${ns}");
        for address in &self.addresses {
            text = text.replace(address, "<ip>");
        }
        for (hint, pattern, stable) in &*PIECES {
            if text.contains(hint) {
                text = pattern.replace_all(&text, *stable).into_owned();
            }
        }
        if text.contains("10.") {
            let stable = |found: &Captures<'_>| {
                // A slash makes it a range of addresses.
                let is_kept = &found[1] == "/" || self.sent.contains(&found[0]);
                if is_kept {
                    found[0].to_owned()
                } else {
                    "<ip>".to_owned()
                }
            };
            text = ADDRESS.replace_all(&text, stable).into_owned();
        }
        if text.contains(':') {
            let stable = |found: &Captures<'_>| {
                let is_now = self.days.contains(&found[1]);
                if is_now {
                    "<now>".to_owned()
                } else {
                    found[0].to_owned()
                }
            };
            text = TIME.replace_all(&text, stable).into_owned();
        }
        if text.contains('-') && text.len() >= 36 {
            let (sent, uids) = (self.sent, &mut self.uids);
            let stable = |found: &Captures<'_>| {
                if sent.contains(&found[0]) {
                    return found[0].to_owned();
                }
                let next = format!("<uid{}>", uids.len() + 1);
                uids.entry(found[0].to_owned()).or_insert(next).clone()
            };
            text = UID.replace_all(&text, stable).into_owned();
        }
        text
    }

    /// A message for humans, which may name versions of resources.
    fn message(&mut self, text: &str) -> String {
        let mut text = self.text(text);
        if !VERSIONS.is_match(&text) {
            return text;
        }
        text = NEWEST.replace_all(&text, "${1}<rv>").into_owned();
        for (version, stable) in &self.versions {
            let version = regex(&format!(r"\b{version}\b"));
            text = version.replace_all(&text, stable).into_owned();
        }
        VERSION_AT_END.replace_all(&text, "<rv>)").into_owned()
    }

    /// First pass: fields that are different in every run because of what they are.
    fn fields(&mut self, value: &mut Value) {
        if let Value::Array(items) = value {
            items.iter_mut().for_each(|item| self.fields(item));
        }
        let Value::Object(map) = value else {
            return;
        };
        let is_list = is_list(map);
        if let Some(Value::Object(metadata)) = map.get_mut("metadata") {
            self.metadata(metadata, is_list);
        }
        if map.get("kind").is_some_and(|kind| kind == "Table") {
            self.table(map);
        }
        for (key, item) in map.iter_mut() {
            let is_free = |text: &str| text.parse::<IpAddr>().is_ok() && !self.sent.contains(text);
            match (key.as_str(), &mut *item) {
                ("clusterIP" | "podIP" | "hostIP", Value::String(text)) if is_free(text) => {
                    if !self.addresses.contains(text) {
                        self.addresses.push(text.clone());
                    }
                    *text = "<ip>".to_owned();
                }
                ("clusterIPs", Value::Array(items)) => {
                    for item in items {
                        if item.as_str().is_some_and(is_free) {
                            *item = "<ip>".into();
                        }
                    }
                }
                ("nodePort" | "healthCheckNodePort", Value::Number(port))
                    if port.as_u64() != Some(0) && !self.sent.contains(&port.to_string()) =>
                {
                    *item = "<port>".into();
                }
                ("storageVersionHash" | "discoveryVersionHash", Value::String(hash)) => {
                    *hash = "<hash>".to_owned();
                }
                ("token", Value::String(token)) if token.starts_with("eyJ") => {
                    *token = "<jwt>".to_owned();
                }
                ("ownerReferences" | "involvedObject", _) => {}
                _ => self.fields(item),
            }
        }
    }

    fn metadata(&mut self, metadata: &mut Map<String, Value>, is_list: bool) {
        let is_list = is_list || !metadata.contains_key("uid");
        if let Some(Value::String(version)) = metadata.get_mut("resourceVersion") {
            let is_number =
                !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit());
            if is_number && version != "0" {
                *version = if is_list {
                    "<rv>".to_owned()
                } else {
                    self.version(version)
                };
            }
        }
        if let Some(Value::String(token)) = metadata.get_mut("continue")
            && !token.is_empty()
        {
            *token = "<continue>".to_owned();
        }
        if !self.keep_managed_fields {
            metadata.shift_remove("managedFields");
        }
    }

    fn version(&mut self, version: &str) -> String {
        if let Some((_, stable)) = self.versions.iter().find(|(known, _)| known == version) {
            return stable.clone();
        }
        let stable = format!("<rv{}>", self.versions.len() + 1);
        self.versions.push((version.to_owned(), stable.clone()));
        stable
    }

    fn table(&self, table: &mut Map<String, Value>) {
        let Some(columns) = table.get("columnDefinitions").and_then(Value::as_array) else {
            return;
        };
        let is_age = |column: &Value| AGES.iter().any(|age| column["name"] == *age);
        let ages: Vec<bool> = columns.iter().map(is_age).collect();
        let rows = table.get_mut("rows").and_then(Value::as_array_mut);
        for row in rows.into_iter().flatten() {
            let cells = row.get_mut("cells").and_then(Value::as_array_mut);
            for (index, cell) in cells.into_iter().flatten().enumerate() {
                let Value::String(text) = cell else {
                    continue;
                };
                if ages.get(index) == Some(&true) && AGE.is_match(text) {
                    *text = "<age>".to_owned();
                } else if text.parse::<IpAddr>().is_ok() && !self.sent.contains(&*text) {
                    *text = "<ip>".to_owned();
                } else if text.contains(':') {
                    let stable = |found: &Captures<'_>| {
                        let is_kept = self.sent.contains(&found[1]);
                        if is_kept {
                            found[0].to_owned()
                        } else {
                            ":<port>/".to_owned()
                        }
                    };
                    *text = PORT.replace_all(text, stable).into_owned();
                }
            }
        }
    }

    /// Second pass: pieces of texts and of keys.
    fn texts(&mut self, value: Value) -> Value {
        match value {
            Value::String(text) => self.text(&text).into(),
            Value::Array(items) => items.into_iter().map(|item| self.texts(item)).collect(),
            Value::Object(map) => {
                let pairs = map.into_iter().map(|(key, item)| {
                    let item_after = |this: &mut Self| match item {
                        Value::String(text) if key == "message" => this.message(&text).into(),
                        item => this.texts(item),
                    };
                    (self.text(&key), item_after(self))
                });
                Value::Object(pairs.collect())
            }
            other => other,
        }
    }
}

/// Lists' versions have no number: other scenarios move them.
fn is_list(map: &Map<String, Value>) -> bool {
    let has_items = map
        .get("items")
        .or_else(|| map.get("rows"))
        .is_some_and(Value::is_array);
    let is_bare = map
        .keys()
        .all(|key| matches!(&**key, "metadata" | "kind" | "apiVersion" | "spec"));
    let is_named = map
        .get("metadata")
        .is_some_and(|metadata| metadata.get("name").is_some());
    has_items || is_bare && !is_named
}

/// What generated names begin with, in the bodies of a step and of those during it.
fn collect_bases(step: &Step, namespace: &str, found: &mut Vec<String>) {
    fn of_value(value: &Value, namespace: &str, found: &mut Vec<String>) {
        match value {
            Value::Array(items) => items
                .iter()
                .for_each(|item| of_value(item, namespace, found)),
            Value::Object(map) => {
                map.values()
                    .for_each(|item| of_value(item, namespace, found));
                if let Some(Value::String(base)) = map.get("generateName")
                    && !base.is_empty()
                {
                    let base = base.replace("${ns}", namespace);
                    found.push(base.chars().take(LONGEST_BASE).collect());
                }
            }
            _ => {}
        }
    }
    step.during
        .iter()
        .for_each(|inner| collect_bases(inner, namespace, found));
    step.body
        .iter()
        .for_each(|body| of_value(body, namespace, found));
}

/// `text` with `<gen>` in place of what was generated after each `base` that stands alone.
fn without_suffixes(text: &str, base: &str) -> String {
    const LENGTH: usize = 5;
    let is_part = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit();
    let mut stable = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(base) {
        let (before, after) = rest.split_at(start);
        let after = &after[base.len()..];
        let suffix = after
            .chars()
            .take_while(|character| GENERATED.contains(*character))
            .count();
        let begins = !(before.ends_with(is_part) || before.is_empty() && stable.ends_with(is_part));
        let ends = suffix >= LENGTH && !after[LENGTH..].starts_with(is_part);
        stable += before;
        stable += base;
        rest = after;
        if begins && ends {
            stable += "<gen>";
            rest = &after[LENGTH..];
        }
    }
    stable + rest
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a well-formed pattern")
}
