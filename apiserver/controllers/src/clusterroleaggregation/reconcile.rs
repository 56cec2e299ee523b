//! The rules that a ClusterRole gathers.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_client::Selector;
use coracle_client::kube::core::SelectorExt;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};

/// All that a round may know.
#[derive(Clone, Debug)]
pub(crate) struct World {
    /// The role that gathers.
    pub(crate) role: Arc<ClusterRole>,
    /// Every ClusterRole.
    pub(crate) all: Vec<Arc<ClusterRole>>,
}

/// Whether the role's rules come from others.
pub(crate) fn gathers(role: &ClusterRole) -> bool {
    role.aggregation_rule.is_some()
}

/// The rules that the role should have, if it has others: those of the roles that each selector picks, by name, each
/// rule once.
pub(crate) fn reconcile(world: &World) -> Option<Vec<PolicyRule>> {
    let aggregation = world.role.aggregation_rule.as_ref()?;
    let mut all: Vec<_> = world.all.iter().collect();
    all.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in aggregation.cluster_role_selectors.iter().flatten() {
        // A selector that says nothing legal picks nobody.
        let Ok(selector) = Selector::try_from(selector.clone()) else {
            continue;
        };
        let nothing = BTreeMap::new();
        let picked = all.iter().filter(|role| {
            role.metadata.name != world.role.metadata.name
                && selector.matches(role.metadata.labels.as_ref().unwrap_or(&nothing))
        });
        for rule in picked.flat_map(|role| role.rules.iter().flatten()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    (world.role.rules.clone().unwrap_or_default() != rules).then_some(rules)
}
