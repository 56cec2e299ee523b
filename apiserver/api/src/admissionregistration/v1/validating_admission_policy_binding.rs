//! ValidatingAdmissionPolicyBinding: where a validating policy holds, and with which parameters.

use coracle_clock::Timestamp;
use serde_json::Value;

use super::binding::{COLUMNS, binding, cells, default_binding};
use crate::kinds::{ALL_VERBS, NameRule, Storage};
use crate::{FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of validating admission policy bindings.
pub static RESOURCE: Resource = Resource {
    group: super::GROUP,
    version: "v1",
    kind: "ValidatingAdmissionPolicyBinding",
    plural: "validatingadmissionpolicybindings",
    singular: "validatingadmissionpolicybinding",
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
    strategy: &ValidatingAdmissionPolicyBinding,
};

/// ValidatingAdmissionPolicyBinding: where a validating policy holds, and with which parameters.
pub struct ValidatingAdmissionPolicyBinding;

impl Strategy for ValidatingAdmissionPolicyBinding {
    fn default(&self, object: &mut Object) {
        default_binding(object);
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        binding(&new.at("spec"), errors);
        let actions = new.at("spec.validationActions");
        let mut seen: Vec<&str> = Vec::new();
        for action in actions.items() {
            errors.one_of(&action, &["Audit", "Deny", "Warn"]);
            if seen.contains(&action.str()) {
                errors.duplicate(&action);
            }
            seen.push(action.str());
        }
        if seen.contains(&"Deny") && seen.contains(&"Warn") {
            errors.invalid(
                &actions,
                "must not contain both Deny and Warn (repeating the same validation failure information in the API \
                 response and headers serves no purpose)",
            );
        }
        if seen.is_empty() {
            errors.required(&actions, "at least one validation action is required");
        }
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        cells(object, now)
    }
}
