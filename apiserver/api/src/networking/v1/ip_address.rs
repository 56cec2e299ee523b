//! IPAddress: an address that belongs to a Service.

use coracle_clock::Timestamp;
use serde_json::Value;

use super::segment;
use crate::kinds::{ALL_VERBS, Column, NAME, NameRule, Storage};
use crate::schema::{SchemaRef, go_form};
use crate::validation::names;
use crate::{FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of IP addresses.
pub static RESOURCE: Resource = Resource {
    group: "networking.k8s.io",
    version: "v1",
    kind: "IPAddress",
    plural: "ipaddresses",
    singular: "ipaddress",
    short_names: &["ip"],
    categories: &[],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[],
    columns: COLUMNS,
    name_rule: NameRule::Address,
    generation: false,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &IPAddress,
};

/// IPAddress: an address that belongs to a Service; its name is the address.
pub struct IPAddress;

impl Strategy for IPAddress {
    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let parent = new.at("spec.parentRef");
        if !parent.exists() {
            return errors.required(&parent, "");
        }
        if !parent.key("group").is_empty() {
            errors.text(&parent.key("group"), names::dns1123_subdomain);
        }
        segment(&parent.key("resource"), errors);
        segment(&parent.key("name"), errors);
        if !parent.key("namespace").is_empty() {
            segment(&parent.key("namespace"), errors);
        }
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        let (now, before) = (new.at("spec.parentRef"), old.at("spec.parentRef"));
        if now.value() != before.value() {
            let schema = SchemaRef::for_kind("networking.k8s.io", "v1", "IPAddress")
                .and_then(|kind| kind.child("spec")?.child("parentRef"))
                .unwrap_or_else(SchemaRef::any);
            let shown = go_form(now.value().unwrap_or(&Value::Null), &schema);
            errors.invalid_as(&now, shown, "field is immutable");
        }
    }

    fn selectable_fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        let parent = |field: &str| object.at("spec.parentRef").key(field).str().to_owned();
        vec![
            ("spec.parentRef.group", parent("group")),
            ("spec.parentRef.resource", parent("resource")),
            ("spec.parentRef.namespace", parent("namespace")),
            ("spec.parentRef.name", parent("name")),
        ]
    }

    fn cells(&self, object: &Object, _now: Timestamp) -> Vec<Value> {
        let parent = object.at("spec.parentRef");
        let mut text = "<none>".to_owned();
        if parent.exists() {
            let (resource, group) = (parent.key("resource").str(), parent.key("group").str());
            text = match group {
                "" => resource.to_lowercase(),
                group => format!("{resource}.{group}").to_lowercase(),
            };
            for part in ["namespace", "name"] {
                let part = parent.key(part).str();
                if !part.is_empty() {
                    text = format!("{text}/{part}");
                }
            }
        }
        vec![object.name().into(), text.into()]
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "ParentRef",
        "ParentRef references the resource that an IPAddress is attached to. An IPAddress must reference a \
         parent object.",
    ),
];
