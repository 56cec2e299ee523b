//! ClusterRole: what may be done in the whole cluster, or in whichever namespace binds it.

use coracle_clock::Timestamp;
use serde_json::Value;

use super::rules;
use crate::kinds::{ALL_VERBS, DEFAULT_COLUMNS, NameRule, Storage, default_cells};
use crate::validation::selectors::label_selector;
use crate::{FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of cluster roles.
pub static RESOURCE: Resource = Resource {
    group: super::GROUP,
    version: "v1",
    kind: "ClusterRole",
    plural: "clusterroles",
    singular: "clusterrole",
    short_names: &[],
    categories: &[],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[],
    columns: DEFAULT_COLUMNS,
    name_rule: NameRule::PathSegment,
    generation: false,
    create_on_update: true,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &ClusterRole,
};

/// ClusterRole: what may be done in the whole cluster, or in whichever namespace binds it.
pub struct ClusterRole;

impl Strategy for ClusterRole {
    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        rules(&new.at("rules"), false, errors);
        let selectors = new.at("aggregationRule.clusterRoleSelectors");
        if new.at("aggregationRule").exists() && selectors.is_empty() {
            errors.required(
                &selectors,
                "at least one clusterRoleSelector required if aggregationRule is non-nil",
            );
        }
        for selector in selectors.items() {
            label_selector(&selector, errors);
        }
    }

    fn cells(&self, object: &Object, _now: Timestamp) -> Vec<Value> {
        default_cells(object)
    }
}
