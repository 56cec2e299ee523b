//! Event under the names of `events.k8s.io`: the same objects as the core group's events, which are the stored ones.

use coracle_clock::Timestamp;
use serde_json::Value;

use crate::core::v1::event as core;
use crate::field_errors::ErrorType;
use crate::kinds::{ALL_VERBS, NameRule, Storage};
use crate::schema::{SchemaRef, decode_value};
use crate::{FieldErrors, Object, Resource, Strategy};

/// What is called differently here: the name in this group, and the one in the core group.
const NAMES: [(&str, &str); 7] = [
    ("reportingController", "reportingComponent"),
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// What the pipeline knows of events in this group.
pub static RESOURCE: Resource = Resource {
    group: "events.k8s.io",
    version: "v1",
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    columns: core::COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: false,
    create_on_update: true,
    unconditional_update: true,
    storage: Storage::SharedWith("", "events"),
    deprecation: None,
    strategy: &Event,
};

/// Event under the names of `events.k8s.io`.
pub struct Event;

impl Strategy for Event {
    fn to_stored(&self, object: Object) -> Object {
        let names = NAMES.iter().map(|(here, there)| (*here, *there));
        renamed(object, "", "v1", names)
    }

    fn to_served(&self, object: Object) -> Object {
        let names = NAMES.iter().map(|(here, there)| (*there, *here));
        renamed(object, "events.k8s.io", "v1", names)
    }

    fn validate_served(&self, new: &Object, old: Option<&Object>, errors: &mut FieldErrors) {
        match old {
            None => created(new, errors),
            Some(old) => updated(new, old, errors),
        }
    }

    fn selectable_fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        let text = |path: &str| object.at(path).str().to_owned();
        [
            "reason",
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reportingController",
            "type",
        ]
        .map(|path| (path, text(path)))
        .into()
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        core::Event.cells(&self.to_stored(object.clone()), now)
    }
}

fn renamed(
    mut object: Object,
    group: &str,
    version: &str,
    names: impl Iterator<Item = (&'static str, &'static str)>,
) -> Object {
    for (from, to) in names {
        if let Some(value) = object.remove(from) {
            object.root_mut().insert(to.to_owned(), value);
        }
    }
    let api_version = match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    };
    object.set("apiVersion", api_version);
    let schema = SchemaRef::for_kind(group, version, "Event").unwrap_or_else(SchemaRef::any);
    let whole = object.into_value();
    let decoded = decode_value(whole.clone(), &schema).map(|decoded| decoded.value);
    Object::from_value(decoded.unwrap_or(whole)).unwrap_or_default()
}

/// New events of this group leave the core group's older fields alone.
fn created(new: &Object, errors: &mut FieldErrors) {
    series(new, errors);
    if new.at("eventTime").is_empty() {
        errors.required(&new.at("eventTime"), "");
    }
    let mut bad = |field: &str, detail: String| {
        errors.push(ErrorType::Invalid, field, Some("".into()), detail);
    };
    let kind = new.at("type").str();
    if !["Normal", "Warning"].contains(&kind) {
        bad("type", format!("has invalid value: {kind}"));
    }
    for field in ["firstTimestamp", "lastTimestamp", "count"] {
        if !new.at(field).is_empty() {
            bad(field, "needs to be unset".to_owned());
        }
    }
    let source = new.at("source");
    if !source.key("component").is_empty() || !source.key("host").is_empty() {
        bad("source", "needs to be unset".to_owned());
    }
}

fn updated(new: &Object, old: &Object, errors: &mut FieldErrors) {
    if new.at("series").value() != old.at("series").value() {
        series(new, errors);
    }
    let schema = SchemaRef::for_kind("", "v1", "Event").unwrap_or_else(SchemaRef::any);
    // Upstream looks at the reason twice, and calls one field by its name in this group.
    let fixed = [
        "involvedObject",
        "reason",
        "message",
        "source",
        "firstTimestamp",
        "lastTimestamp",
        "count",
        "reason",
        "type",
        "eventTime",
        "action",
        "related",
        "reportingComponent",
        "reportingInstance",
    ];
    for field in fixed {
        let (now, before) = (new.at(field), old.at(field));
        let both_empty = now.is_empty() && before.is_empty();
        if both_empty || now.value() == before.value() {
            continue;
        }
        let shown = match (now.value(), schema.child(field)) {
            (Some(value), Some(form)) => crate::schema::go_form(value, &form),
            (Some(value), None) => value.clone(),
            (None, _) => Value::from(""),
        };
        let path = match field {
            "reportingComponent" => "reportingController",
            other => other,
        };
        errors.push(ErrorType::Invalid, path, Some(shown), "field is immutable");
    }
}

fn series(event: &Object, errors: &mut FieldErrors) {
    let series = event.at("series");
    if !series.exists() {
        return;
    }
    if series.key("count").as_i64().unwrap_or(0) < 2 {
        let detail = "should be at least 2";
        errors.push(ErrorType::Invalid, "series.count", Some("".into()), detail);
    }
    if series.key("lastObservedTime").is_empty() {
        errors.push(ErrorType::Required, "series.lastObservedTime", None, "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_two_groups_tell_the_same_story() {
        let here = json!({
            "kind": "Event", "apiVersion": "events.k8s.io/v1", "metadata": {"name": "x", "namespace": "n"},
            "eventTime": "2030-01-01T00:00:00.000001Z", "reportingController": "example.com/c", "reportingInstance": "i",
            "action": "a", "reason": "r", "regarding": {"namespace": "n"}, "note": "said", "type": "Normal",
            "deprecatedSource": {}, "deprecatedFirstTimestamp": null, "deprecatedLastTimestamp": null,
        });
        let here = Object::from_value(here).expect("an object");
        let there = Event.to_stored(here.clone());
        assert_eq!(there.at("message").str(), "said");
        assert_eq!(there.at("apiVersion").str(), "v1");
        assert_eq!(Event.to_served(there.clone()), here);
        let mut errors = FieldErrors::default();
        Event.validate_served(&there, None, &mut errors);
        assert!(errors.is_empty());
        let mut changed = there.clone();
        changed.set("reason", "other");
        Event.validate_served(&changed, Some(&there), &mut errors);
        assert_eq!(errors.len(), 2);
    }
}
