//! ResourceSlice: devices that a driver offers, on one node or on several.

use coracle_clock::Timestamp;
use serde_json::Value;

use super::device::{counters, device};
use super::parts::{driver, each_once, pool};
use crate::At;
use crate::core::v1::pod_spec::scheduling::node_selector;
use crate::field_errors::ErrorType;
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, Storage, age};
use crate::schema::internal_form;
use crate::validation::names;
use crate::{FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of resource slices.
pub static RESOURCE: Resource = Resource {
    group: super::GROUP,
    version: "v1",
    kind: "ResourceSlice",
    plural: "resourceslices",
    singular: "resourceslice",
    short_names: &[],
    categories: &[],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: true,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &ResourceSlice,
};

/// ResourceSlice: devices that a driver offers, on one node or on several.
pub struct ResourceSlice;

impl Strategy for ResourceSlice {
    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let spec = new.at("spec");
        driver(&spec.key("driver"), errors);
        let pool_at = spec.key("pool");
        pool(&pool_at.key("name"), errors);
        let (count, generation) = (pool_at.key("resourceSliceCount"), pool_at.key("generation"));
        if count.as_i64().unwrap_or(0) <= 0 {
            let shown = Some(Value::from(count.as_i64().unwrap_or(0)));
            let detail = "must be greater than zero";
            errors.push(ErrorType::Invalid, count.path(), shown, detail);
        }
        if generation.as_i64().unwrap_or(0) < 0 {
            errors.invalid(&generation, "must be greater than or equal to zero");
        }
    }

    fn validate_create(&self, new: &Object, errors: &mut FieldErrors) {
        contents(&new.at("spec"), errors);
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        for field in ["pool.name", "driver", "nodeName"] {
            errors.immutable(&new.at("spec").at(field), &old.at("spec").at(field));
        }
        contents(&new.at("spec"), errors);
    }

    fn selectable_fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        let text = |field: &str| object.at("spec").key(field).str().to_owned();
        vec![
            ("spec.nodeName", text("nodeName")),
            ("spec.driver", text("driver")),
        ]
    }

    fn unknown_field(&self, field: &str) -> String {
        format!("field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: {field}")
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let spec = object.at("spec");
        vec![
            object.name().into(),
            spec.key("nodeName").str().into(),
            spec.key("driver").str().into(),
            spec.at("pool.name").str().into(),
            age(object, now),
        ]
    }
}

/// Most devices of a slice, and of one whose devices have taints or counters.
const MOST_DEVICES: (usize, usize) = (128, 64);
/// Most counter sets of a slice.
const MOST_COUNTER_SETS: usize = 8;

/// Where the devices are, and which they are.
fn contents(spec: &At<'_>, errors: &mut FieldErrors) {
    places(spec, errors);
    let (devices, shared) = (spec.key("devices"), spec.key("sharedCounters"));
    if devices.exists() && shared.exists() {
        let shown = Some(Value::from(""));
        let detail = "only one of `sharedCounters` or `devices` is allowed";
        errors.push(ErrorType::Invalid, spec.path(), shown, detail);
    }
    let advanced = devices.items().any(|device| {
        !device.key("taints").is_empty() || !device.key("consumesCounters").is_empty()
    });
    let most = match advanced {
        true => MOST_DEVICES.1,
        false => MOST_DEVICES.0,
    };
    let per_device = spec.key("perDeviceNodeSelection").is_true();
    let name = |item: &At<'_>| item.key("name").str().to_owned();
    each_once(&devices, most, errors, name, |at, errors| {
        device(at, per_device, errors);
    });
    each_once(&shared, MOST_COUNTER_SETS, errors, name, |set, errors| {
        counters(set, "name", errors);
    });
}

fn places(spec: &At<'_>, errors: &mut FieldErrors) {
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let mut set: Vec<String> = Vec::new();
    let (name, selector) = (spec.key("nodeName"), spec.key("nodeSelector"));
    if name.exists() {
        if name.is_empty() {
            errors.invalid(&name, "must be either unset or set to a non-empty string");
        } else {
            set.push("`nodeName`".to_owned());
            errors.text(&name, names::dns1123_subdomain);
        }
    }
    if selector.exists() {
        set.push("`nodeSelector`".to_owned());
        node_selector(&selector, errors);
        let terms = selector.key("nodeSelectorTerms");
        if terms.len() != 1 {
            let list = terms
                .items()
                .map(|term| internal_form("io.k8s.api.core.v1.NodeSelectorTerm", term.value()));
            let shown = terms.value().map(|_| Value::Array(list.collect()));
            let detail = "must have exactly one node selector term";
            errors.push(ErrorType::Invalid, terms.path(), shown, detail);
        }
    }
    for field in ["allNodes", "perDeviceNodeSelection"] {
        let flag = spec.key(field);
        if flag.is_true() {
            set.push(format!("`{field}`"));
        } else if flag.exists() {
            errors.invalid(&flag, "must be either unset or set to true");
        }
    }
    match set.len() {
        0 => errors.required(spec, ONE),
        1 => {}
        _ => {
            let shown = Some(Value::from(format!("{{{}}}", set.join(", "))));
            let detail = format!("{ONE}, but multiple fields are set");
            errors.push(ErrorType::Invalid, spec.path(), shown, detail);
        }
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "Node",
        "NodeName identifies the node which provides the resources in this pool. A field selector can be used to \
         list only ResourceSlice objects belonging to a certain node.\n\nThis field can be used to limit access from \
         nodes to ResourceSlices with the same node name. It also indicates to autoscalers that adding new nodes of \
         the same type as some old node might also make new resources available.\n\nExactly one of NodeName, \
         NodeSelector, AllNodes, and PerDeviceNodeSelection must be set. This field is immutable.",
    ),
    Column::string(
        "Driver",
        "Driver identifies the DRA driver providing the capacity information. A field selector can be used to list \
         only ResourceSlice objects with a certain driver name.\n\nMust be a DNS subdomain and should end with a DNS \
         domain owned by the vendor of the driver. It should use only lower case characters. This field is immutable.",
    ),
    Column::string(
        "Pool",
        "Name is used to identify the pool. For node-local devices, this is often the node name, but this is not \
         required.\n\nIt must not be longer than 253 characters and must consist of one or more DNS sub-domains \
         separated by slashes. This field is immutable.",
    ),
    AGE,
];
