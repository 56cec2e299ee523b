//! ResourceClaim: devices that pods of one namespace ask for together.

use std::collections::HashSet;

use coracle_clock::Timestamp;
use serde_json::{Value, json};

use super::{allocation, claim};
use crate::field_errors::ErrorType;
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, STATUS, Storage, age};
use crate::schema::internal_form;
use crate::strategy::ALL_METADATA;
use crate::{At, FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of resource claims.
pub static RESOURCE: Resource = Resource {
    group: super::GROUP,
    version: "v1",
    kind: "ResourceClaim",
    plural: "resourceclaims",
    singular: "resourceclaim",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[STATUS],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: false,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &ResourceClaim,
};

/// ResourceClaim: devices that pods of one namespace ask for together.
pub struct ResourceClaim;

impl Strategy for ResourceClaim {
    fn default(&self, object: &mut Object) {
        claim::default_spec(object.map_mut("spec"));
        object.set_default("status", json!({}));
    }

    fn prepare_for_create(&self, new: &mut Object) {
        new.set("status", json!({}));
    }

    fn prepare_for_status_update(&self, new: &mut Object, old: &Object) {
        forget_freed(new, old);
    }

    fn status_metadata(&self) -> &'static [&'static str] {
        ALL_METADATA
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        claim::spec(&new.at("spec"), errors);
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        if new.at("spec").value() != old.at("spec").value() {
            let definition = "io.k8s.api.resource.v1.ResourceClaimSpec";
            let shown = internal_form(definition, new.at("spec").value());
            errors.push(
                ErrorType::Invalid,
                "spec",
                Some(shown),
                "field is immutable",
            );
        }
    }

    fn validate_status_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        allocation::status(new, old, errors);
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let mut states = Vec::new();
        if object.is_terminating() {
            states.push("deleted");
        }
        if object.at("status.allocation").exists() {
            states.push("allocated");
            if !object.at("status.reservedFor").is_empty() {
                states.push("reserved");
            }
        } else if !object.is_terminating() {
            states.push("pending");
        }
        vec![
            object.name().into(),
            states.join(",").into(),
            age(object, now),
        ]
    }
}

/// What is said of devices goes with their allocation, so that writers which do not know of it need not care.
fn forget_freed(new: &mut Object, old: &Object) {
    let identity = |device: At<'_>| -> Vec<String> {
        ["driver", "pool", "device", "shareID"]
            .map(|part| device.key(part).str().to_owned())
            .into()
    };
    let allocated = |claim: &Object| -> HashSet<Vec<String>> {
        let results = claim.at("status.allocation.devices.results");
        results.items().map(identity).collect()
    };
    let kept = allocated(new);
    let freed: HashSet<_> = allocated(old).difference(&kept).cloned().collect();
    let devices = new.at("status.devices");
    if freed.is_empty() || devices.is_empty() {
        return;
    }
    let left: Vec<Value> = devices
        .items()
        .filter(|device| !freed.contains(&identity(device.clone())))
        .filter_map(|device| device.value().cloned())
        .collect();
    match left.is_empty() {
        true => drop(new.remove("status.devices")),
        false => new.set("status.devices", left),
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "State",
        "A summary of the current state (allocated, pending, reserved, etc.).",
    ),
    AGE,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_devices_goes_with_their_allocation() {
        let device = |name: &str| json!({"driver": "d", "pool": "p", "device": name});
        let claim = |allocated: &[&str], told: &[&str]| {
            let list = |names: &[&str]| names.iter().map(|name| device(name)).collect::<Value>();
            let status = json!({
                "allocation": {"devices": {"results": list(allocated)}},
                "devices": list(told),
            });
            Object::from_value(json!({"metadata": {"name": "x"}, "status": status})).expect("one")
        };
        for (old, new, told, left) in [
            (
                &["a", "b"][..],
                &["b"][..],
                &["a", "b", "c"][..],
                &["b", "c"][..],
            ),
            (&["a"], &["a"], &["a"], &["a"]),
            (&["a"], &[], &["a"], &[]),
        ] {
            let mut claimed = claim(new, told);
            forget_freed(&mut claimed, &claim(old, told));
            let devices = claimed.at("status.devices");
            let names: Vec<String> = devices
                .items()
                .map(|device| device.key("device").str().to_owned())
                .collect();
            assert_eq!(names, left, "{old:?} to {new:?}");
            assert_eq!(devices.exists(), !left.is_empty());
        }
    }
}
