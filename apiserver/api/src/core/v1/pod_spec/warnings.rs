//! What is accepted in a pod's spec but probably not meant: `GetWarningsForPodSpec`.

use std::collections::HashMap;

use crate::quantity::Quantity;
use crate::validation::names;
use crate::{At, Object};

/// About the name of an object that Pods are called after; `used` says how it is used.
pub fn name(object: &Object, used: &str) -> Option<String> {
    let found = names::dns1123_label(object.name());
    let advice = "which can result in surprising behavior; a DNS label is recommended:";
    (!found.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in {used}, {advice} [{}]",
            found.join(", ")
        )
    })
}

/// About the spec of a Pod or of a template of Pods.
pub fn pod_spec(spec: &At<'_>) -> Vec<String> {
    let mut found = Vec::new();
    null_selectors(spec, &mut found);
    for list in ["initContainers", "containers"] {
        for container in spec.key(list).items() {
            resources(&container.key("resources"), &mut found);
            environment(&container.key("env"), &mut found);
        }
    }
    let grace = spec.key("terminationGracePeriodSeconds");
    if grace.as_i64().is_some_and(|seconds| seconds < 0) {
        found.push(format!(
            "{}: must be >= 0; negative values are invalid and will be treated as 1",
            grace.path()
        ));
    }
    found
}

/// A selector that is absent selects nothing, which is not what most people expect.
fn null_selectors(spec: &At<'_>, found: &mut Vec<String>) {
    for constraint in spec.key("topologySpreadConstraints").items() {
        if !constraint.key("labelSelector").exists() {
            let path = constraint.key("labelSelector").path().to_owned();
            found.push(format!(
                "{path}: a null labelSelector results in matching no pod"
            ));
        }
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let affinity = spec.key("affinity").key(kind);
        let required = affinity.key("requiredDuringSchedulingIgnoredDuringExecution");
        let preferred = affinity.key("preferredDuringSchedulingIgnoredDuringExecution");
        let terms = required.items().chain(
            preferred
                .items()
                .map(|preferred| preferred.key("podAffinityTerm")),
        );
        for selector in terms
            .map(|term| term.key("labelSelector"))
            .filter(|selector| !selector.exists())
        {
            found.push(format!(
                "{}: a null labelSelector results in matching no pod",
                selector.path()
            ));
        }
    }
}

/// Memory can't be had in parts of a byte.
fn resources(resources: &At<'_>, found: &mut Vec<String>) {
    for list in ["limits", "requests"] {
        let quantities = resources.key(list);
        for name in ["memory", "ephemeral-storage"] {
            let at = quantities.entry(name);
            let quantity = at.as_str().and_then(|text| text.parse::<Quantity>().ok());
            if quantity.is_some_and(|quantity| Quantity::from_value(quantity.value()) != quantity) {
                let text = at.str();
                found.push(format!(
                    "{}: fractional byte value {text:?} is invalid, must be an integer",
                    at.path()
                ));
            }
        }
    }
}

fn environment(variables: &At<'_>, found: &mut Vec<String>) {
    let mut seen: HashMap<&str, String> = HashMap::new();
    for variable in variables.items() {
        let name = variable.key("name").str();
        let value = variable.key("value").str().to_owned();
        if let Some(earlier) = seen.insert(name, value.clone()) {
            // A value that refers to the earlier one doesn't hide it.
            if !value.contains(&format!("$({name})")) || earlier == value {
                let detail = "which may be dropped when using apply";
                found.push(format!(
                    "{}: hides previous definition of {name:?}, {detail}",
                    variable.path()
                ));
            }
        }
    }
}
