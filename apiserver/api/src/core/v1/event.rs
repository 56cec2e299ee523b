//! Event: a report that something happened to an object.

use coracle_clock::Timestamp;
use serde_json::Value;

use crate::field_errors::ErrorType;
use crate::kinds::{ALL_VERBS, Column, NAME, NameRule, Storage, since_text};
use crate::object::default_text;
use crate::validation::names;
use crate::{FieldErrors, Object, Resource, Strategy};

/// Most bytes of a message that comes with an `eventTime`.
const LONGEST_NOTE: usize = 1024;

/// What the pipeline knows of events.
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    columns: COLUMNS,
    name_rule: NameRule::PathSegment,
    generation: false,
    create_on_update: true,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &Event,
};

/// Event: a report that something happened to an object.
pub struct Event;

impl Strategy for Event {
    fn validates_metadata(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Object) {
        for field in ["reportingComponent", "reportingInstance"] {
            default_text(object.root_mut(), field, "");
        }
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let bad = |field: &str, value: &str, detail: String, errors: &mut FieldErrors| {
            errors.push(ErrorType::Invalid, field, Some(Value::from(value)), detail);
        };
        let about = new.at("involvedObject.namespace");
        let namespace = new.namespace();
        let new_style = !new.at("eventTime").is_empty();
        let agrees = match (about.str(), new_style) {
            // What has no namespace is reported in `default`.
            ("", false) => ["", "default"].contains(&namespace),
            ("", true) => ["default", "kube-system"].contains(&namespace),
            (_, true) => true,
            (about, false) => about == namespace,
        };
        if !agrees {
            let detail = "does not match event.namespace".to_owned();
            bad(about.path(), about.str(), detail, errors);
        }
        if new_style {
            let text = |field: &str| new.at(field).str();
            let controller = text("reportingComponent");
            let missing = |field: &str, errors: &mut FieldErrors| {
                errors.push(ErrorType::Required, field, None, "");
            };
            if controller.is_empty() {
                missing("reportingController", errors);
            }
            for message in names::qualified_name(controller) {
                bad("reportingController", controller, message, errors);
            }
            for (field, longest) in [("reportingInstance", 128), ("action", 128), ("reason", 128)] {
                if text(field).is_empty() {
                    missing(field, errors);
                }
                if text(field).len() > longest {
                    let detail = format!("can have at most {longest} characters");
                    bad(field, "", detail, errors);
                }
            }
            if text("message").len() > LONGEST_NOTE {
                let detail = format!("can have at most {LONGEST_NOTE} characters");
                bad("message", "", detail, errors);
            }
        }
        for message in names::dns1123_subdomain(namespace) {
            bad("namespace", namespace, message, errors);
        }
    }

    fn selectable_fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        let text = |path: &str| object.at(path).str().to_owned();
        let source = match object.at("source.component").str() {
            "" => text("reportingComponent"),
            component => component.to_owned(),
        };
        vec![
            ("involvedObject.kind", text("involvedObject.kind")),
            ("involvedObject.namespace", text("involvedObject.namespace")),
            ("involvedObject.name", text("involvedObject.name")),
            ("involvedObject.uid", text("involvedObject.uid")),
            (
                "involvedObject.apiVersion",
                text("involvedObject.apiVersion"),
            ),
            (
                "involvedObject.resourceVersion",
                text("involvedObject.resourceVersion"),
            ),
            ("involvedObject.fieldPath", text("involvedObject.fieldPath")),
            ("reason", text("reason")),
            ("reportingComponent", text("reportingComponent")),
            ("source", source),
            ("type", text("type")),
        ]
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let text = |path: &str| object.at(path).str();
        let time = |path: &str| object.at(path).as_str().map(|time| since_text(time, now));
        let unknown = || Value::from("<unknown>");
        let first = time("firstTimestamp")
            .or_else(|| time("eventTime"))
            .unwrap_or_else(unknown);
        let mut last = time("lastTimestamp").unwrap_or_else(|| first.clone());
        let mut count = object
            .at("count")
            .as_i64()
            .filter(|count| *count != 0)
            .unwrap_or(1);
        if object.at("series").exists() {
            last = time("series.lastObservedTime").unwrap_or_else(unknown);
            count = object.at("series.count").as_i64().unwrap_or(0);
        }
        let kind = text("involvedObject.kind").to_lowercase();
        let target = match text("involvedObject.name") {
            "" => kind,
            name => format!("{kind}/{name}"),
        };
        let either = |one: &str, other: &str| {
            if text(one).is_empty() {
                text(other)
            } else {
                text(one)
            }
            .to_owned()
        };
        let component = either("source.component", "reportingComponent");
        let source = match either("source.host", "reportingInstance") {
            host if host.is_empty() => component,
            host => format!("{component}, {host}"),
        };
        vec![
            last,
            text("type").into(),
            text("reason").into(),
            target.into(),
            text("involvedObject.fieldPath").into(),
            source.into(),
            text("message").trim().into(),
            first,
            count.into(),
            object.name().into(),
        ]
    }
}

pub(crate) static COLUMNS: &[Column] = &[
    Column::string(
        "Last Seen",
        "The time at which the most recent occurrence of this event was recorded.",
    ),
    Column::string(
        "Type",
        "Type of this event (Normal, Warning), new types could be added in the future",
    ),
    Column::string(
        "Reason",
        "This should be a short, machine understandable string that gives the reason for the transition into \
         the object's current status.",
    ),
    Column::string("Object", "The object that this event is about."),
    Column::wide(
        "Subobject",
        "If referring to a piece of an object instead of an entire object, this string should contain a valid \
         JSON/Go field access statement, such as desiredState.manifest.containers[2]. For example, if the \
         object reference is to a container within a pod, this would take on a value like: \
         \"spec.containers{name}\" (where \"name\" refers to the name of the container that triggered the event) \
         or if no container name is specified \"spec.containers[2]\" (container with index 2 in this pod). This \
         syntax is chosen only to have some well-defined way of referencing a part of an object.",
    ),
    Column::wide(
        "Source",
        "The component reporting this event. Should be a short machine understandable string.",
    ),
    Column::string(
        "Message",
        "A human-readable description of the status of this operation.",
    ),
    Column::wide(
        "First Seen",
        "The time at which the event was first recorded. (Time of server receipt is in TypeMeta.)",
    ),
    Column::wide("Count", "The number of times this event has occurred."),
    Column {
        priority: 1,
        ..NAME
    },
];
