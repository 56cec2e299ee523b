//! MutatingAdmissionPolicyBinding: where a mutating policy holds, and with which parameters.

use coracle_clock::Timestamp;
use serde_json::Value;

use super::binding::{COLUMNS, binding, cells, default_binding};
use crate::kinds::{ALL_VERBS, NameRule, Storage};
use crate::{FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of mutating admission policy bindings.
pub static RESOURCE: Resource = Resource {
    group: super::GROUP,
    version: "v1",
    kind: "MutatingAdmissionPolicyBinding",
    plural: "mutatingadmissionpolicybindings",
    singular: "mutatingadmissionpolicybinding",
    short_names: &[],
    categories: &["api-extensions"],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: true,
    create_on_update: false,
    unconditional_update: false,
    storage: Storage::Own,
    deprecation: None,
    strategy: &MutatingAdmissionPolicyBinding,
};

/// MutatingAdmissionPolicyBinding: where a mutating policy holds, and with which parameters.
pub struct MutatingAdmissionPolicyBinding;

impl Strategy for MutatingAdmissionPolicyBinding {
    fn default(&self, object: &mut Object) {
        default_binding(object);
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        binding(&new.at("spec"), errors);
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        cells(object, now)
    }
}
