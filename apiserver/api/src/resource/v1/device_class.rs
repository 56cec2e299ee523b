//! DeviceClass: devices that can be asked for by one name.

use coracle_clock::Timestamp;
use serde_json::Value;

use super::parts::{MOST_ITEMS, each, opaque, selectors};
use crate::kinds::{AGE, ALL_VERBS, NAME, NameRule, Storage, age};
use crate::validation::names;
use crate::{FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of device classes.
pub static RESOURCE: Resource = Resource {
    group: super::GROUP,
    version: "v1",
    kind: "DeviceClass",
    plural: "deviceclasses",
    singular: "deviceclass",
    short_names: &[],
    categories: &[],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[],
    columns: &[NAME, AGE],
    name_rule: NameRule::Subdomain,
    generation: true,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &DeviceClass,
};

/// DeviceClass: devices that can be asked for by one name.
pub struct DeviceClass;

impl Strategy for DeviceClass {
    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let spec = new.at("spec");
        selectors(&spec.key("selectors"), errors);
        each(&spec.key("config"), MOST_ITEMS, errors, opaque);
        let name = spec.key("extendedResourceName");
        if name.exists() && !is_extended(name.str()) {
            errors.invalid(&name, "must be a valid extended resource name");
        }
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![object.name().into(), age(object, now)]
    }
}

/// Whether pods can ask for a resource of this name in `requests`: it has a domain that is not Kubernetes' own.
fn is_extended(name: &str) -> bool {
    name.contains('/')
        && !name.contains("kubernetes.io/")
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}
