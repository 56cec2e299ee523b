//! RoleBinding: who has a role in one namespace.

use coracle_clock::Timestamp;
use serde_json::Value;

use super::{binding, binding_cells, default_binding, same_role};
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, Storage};
use crate::{FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of role bindings.
pub static RESOURCE: Resource = Resource {
    group: super::GROUP,
    version: "v1",
    kind: "RoleBinding",
    plural: "rolebindings",
    singular: "rolebinding",
    short_names: &[],
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
    strategy: &RoleBinding,
};

/// RoleBinding: who has a role in one namespace.
pub struct RoleBinding;

impl Strategy for RoleBinding {
    fn default(&self, object: &mut Object) {
        default_binding(object);
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        binding(new, &["Role", "ClusterRole"], true, errors);
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        same_role(new, old, errors);
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        binding_cells(object, now)
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "Role",
        "RoleRef can reference a Role in the current namespace or a ClusterRole in the global namespace. If the \
         RoleRef cannot be resolved, the Authorizer must return an error.",
    ),
    AGE,
    Column::wide("Users", "Users in the roleBinding"),
    Column::wide("Groups", "Groups in the roleBinding"),
    Column::wide("ServiceAccounts", "ServiceAccounts in the roleBinding"),
];
