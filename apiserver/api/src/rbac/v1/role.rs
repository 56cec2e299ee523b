//! Role: what may be done in one namespace.

use coracle_clock::Timestamp;
use serde_json::Value;

use super::rules;
use crate::kinds::{ALL_VERBS, DEFAULT_COLUMNS, NameRule, Storage, default_cells};
use crate::{FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of roles.
pub static RESOURCE: Resource = Resource {
    group: super::GROUP,
    version: "v1",
    kind: "Role",
    plural: "roles",
    singular: "role",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    columns: DEFAULT_COLUMNS,
    name_rule: NameRule::PathSegment,
    generation: false,
    create_on_update: true,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &Role,
};

/// Role: what may be done in one namespace.
pub struct Role;

impl Strategy for Role {
    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        rules(&new.at("rules"), true, errors);
    }

    fn cells(&self, object: &Object, _now: Timestamp) -> Vec<Value> {
        default_cells(object)
    }
}
