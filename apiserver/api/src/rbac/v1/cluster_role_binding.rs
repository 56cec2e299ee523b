//! ClusterRoleBinding: who has a ClusterRole in the whole cluster.

use coracle_clock::Timestamp;
use serde_json::Value;

use super::{binding, binding_cells, default_binding, same_role};
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, Storage};
use crate::{FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of cluster role bindings.
pub static RESOURCE: Resource = Resource {
    group: super::GROUP,
    version: "v1",
    kind: "ClusterRoleBinding",
    plural: "clusterrolebindings",
    singular: "clusterrolebinding",
    short_names: &[],
    categories: &[],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[],
    columns: COLUMNS,
    name_rule: NameRule::PathSegment,
    generation: false,
    create_on_update: true,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &ClusterRoleBinding,
};

/// ClusterRoleBinding: who has a ClusterRole in the whole cluster.
pub struct ClusterRoleBinding;

impl Strategy for ClusterRoleBinding {
    fn default(&self, object: &mut Object) {
        default_binding(object);
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        binding(new, &["ClusterRole"], false, errors);
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
        "RoleRef can only reference a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the \
         Authorizer must return an error.",
    ),
    AGE,
    Column::wide("Users", "Users in the clusterRoleBinding"),
    Column::wide("Groups", "Groups in the clusterRoleBinding"),
    Column::wide(
        "ServiceAccounts",
        "ServiceAccounts in the clusterRoleBinding",
    ),
];
