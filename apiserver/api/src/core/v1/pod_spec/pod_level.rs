//! Resources of a pod as a whole, `spec.resources`: what is filled in, and what is wrong with them.
//!
//! Follows `defaultPodRequests` of `pkg/apis/core/v1/defaults.go` and `validatePodResources` of
//! `pkg/apis/core/validation`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::containers;
use crate::field_errors::ErrorType;
use crate::quantity::Quantity;
use crate::{At, FieldErrors};

/// What a pod can ask for as a whole; a last `-` stands for all names that begin so.
const SUPPORTED: &[&str] = &["cpu", "hugepages-", "memory"];

fn is_supported(name: &str) -> bool {
    let mut supported = SUPPORTED.iter();
    supported.any(|one| name == *one || one.ends_with('-') && name.starts_with(one))
}

/// Fills in the requests of a pod that has limits as a whole: what its containers ask for together, or else its limits.
pub fn requests(spec: &mut Map<String, Value>) {
    // Few pods have any; the others are not worth a copy.
    let limits = spec.get("resources").and_then(|whole| whole.get("limits"));
    if limits.is_none() {
        return;
    }
    let at = Value::Object(spec.clone());
    let at = At::root(&at, "spec");
    let limits = at.at("resources.limits");
    if limits.is_empty() {
        return;
    }
    let given = at.at("resources.requests");
    let mut missing: Vec<(String, Value)> = Vec::new();
    for (name, sum) in together(&at, "requests") {
        let counts = is_supported(&name) && !name.starts_with("hugepages-");
        if counts && !given.entry(&name).exists() {
            missing.push((name, json!(sum.to_string())));
        }
    }
    for (name, limit) in limits.entries() {
        let is_known = given.entry(name).exists() || missing.iter().any(|(known, _)| known == name);
        if let (true, false, Some(limit)) = (is_supported(name), is_known, limit.value()) {
            missing.push((name.to_owned(), limit.clone()));
        }
    }
    let Some(resources) = spec.get_mut("resources").and_then(Value::as_object_mut) else {
        return;
    };
    if missing.is_empty() {
        return;
    }
    let requests = resources
        .entry("requests")
        .and_modify(|given| {
            if given.is_null() {
                *given = json!({});
            }
        })
        .or_insert_with(|| json!({}));
    if let Some(requests) = requests.as_object_mut() {
        requests.extend(missing);
    }
}

/// Reports what is wrong with the resources of a pod as a whole.
pub fn validate(spec: &At<'_>, errors: &mut FieldErrors) {
    let resources = spec.key("resources");
    if !resources.exists() {
        return;
    }
    if resources.key("claims").exists() {
        let detail = "claims may not be set for Resources at pod-level";
        errors.forbidden(&resources.key("claims"), detail);
    }
    if spec.at("os.name").str() == "windows" {
        errors.forbidden(&resources, "may not be set for a windows pod");
        return;
    }
    containers::quantities(&resources, errors, |name, _, at, errors| {
        if !name.contains('/') && !containers::is_standard(name) {
            let detail = "must be a standard resource type or fully qualified";
            errors.invalid_as(at, json!(name), detail);
        } else if !is_supported(name) {
            errors.not_supported(&At::maybe(Some(&json!(name)), at.path()), SUPPORTED);
        }
    });
    consistency(spec, &resources, errors);
}

/// A pod asks for at least what its containers do together, and no container may have more than its pod.
fn consistency(spec: &At<'_>, resources: &At<'_>, errors: &mut FieldErrors) {
    let (limits, requests) = (resources.key("limits"), resources.key("requests"));
    for (name, sum) in together(spec, "requests") {
        let asked = requests.entry(&name);
        let Some(quantity) = quantity(&asked) else {
            continue;
        };
        if is_supported(&name) && sum > quantity {
            let detail =
                format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.invalid_as(&asked, json!(quantity.to_string()), detail);
        }
    }
    for (name, sum) in together(spec, "limits") {
        let limit = limits.entry(&name);
        let Some(quantity) = quantity(&limit) else {
            continue;
        };
        if name.starts_with("hugepages-") && sum > quantity {
            let detail =
                format!("must be greater than or equal to aggregate container limits of {sum}");
            errors.invalid_as(&limit, json!(quantity.to_string()), detail);
        }
    }
    for (index, container) in spec.key("containers").items().enumerate() {
        for (name, limit) in container.at("resources.limits").entries() {
            let of_pod = quantity(&limits.entry(name));
            let (Some(own), Some(of_pod)) = (quantity(&limit), of_pod) else {
                continue;
            };
            if own > of_pod {
                // Upstream leads this path through the pod's resources.
                let path = format!("{}.containers[{index}][{name}].limits", resources.path());
                let detail = format!("must be less than or equal to pod limits of {of_pod}");
                errors.push(
                    ErrorType::Invalid,
                    &path,
                    Some(json!(own.to_string())),
                    detail,
                );
            }
        }
    }
}

/// What the containers have together (`AggregateContainerRequests`): they run at the same time, init containers one after
/// the other beside the sidecars that were started before them; the larger of the two counts.
fn together(spec: &At<'_>, list: &str) -> BTreeMap<String, Quantity> {
    let of = |container: &At<'_>| -> BTreeMap<String, Quantity> {
        let given = container.key("resources").key(list);
        let given = given.entries();
        given
            .filter_map(|(name, at)| Some((name.to_owned(), quantity(&at)?)))
            .collect()
    };
    let (mut sidecars, mut starting) = (BTreeMap::new(), BTreeMap::new());
    for container in spec.key("initContainers").items() {
        let mut own = of(&container);
        if container.key("restartPolicy").str() == "Always" {
            add(&mut sidecars, own);
            own = sidecars.clone();
        } else {
            add(&mut own, sidecars.clone());
        }
        for (name, quantity) in own {
            let most = starting.entry(name).or_insert(quantity);
            *most = (*most).max(quantity);
        }
    }
    let mut all = sidecars;
    for container in spec.key("containers").items() {
        add(&mut all, of(&container));
    }
    for (name, quantity) in starting {
        let most = all.entry(name).or_insert(quantity);
        *most = (*most).max(quantity);
    }
    all
}

fn add(sums: &mut BTreeMap<String, Quantity>, more: BTreeMap<String, Quantity>) {
    for (name, quantity) in more {
        match sums.get_mut(&name) {
            Some(sum) => *sum += quantity,
            None => drop(sums.insert(name, quantity)),
        }
    }
}

fn quantity(at: &At<'_>) -> Option<Quantity> {
    match at.value()? {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(resources: Value) -> Value {
        json!({"name": "a", "resources": resources})
    }

    fn found(spec: Value) -> Vec<String> {
        let mut errors = FieldErrors::default();
        validate(&At::root(&spec, "spec"), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_pod_with_limits_asks_for_what_its_containers_do_or_for_its_limits() {
        let containers = json!([
            asking(json!({"requests": {"cpu": "100m", "ephemeral-storage": "1Gi"}})),
            asking(json!({"requests": {"cpu": "200m"}})),
        ]);
        for (resources, requests) in [
            (json!({"limits": {"cpu": "1"}}), json!({"cpu": "300m"})),
            (
                json!({"limits": {"memory": "1Gi"}}),
                json!({"cpu": "300m", "memory": "1Gi"}),
            ),
            (
                json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}),
                json!({"cpu": "1"}),
            ),
            (json!({"limits": {}}), Value::Null),
        ] {
            let mut spec = json!({"containers": containers, "resources": resources});
            super::requests(spec.as_object_mut().expect("an object"));
            assert_eq!(spec["resources"]["requests"], requests, "{resources}");
        }
        let mut none = json!({"containers": containers});
        super::requests(none.as_object_mut().expect("an object"));
        assert_eq!(none.get("resources"), None);
    }

    #[test]
    fn containers_stay_within_their_pod() {
        let sidecar = json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}});
        let of = |resources: Value, container: Value| json!({"resources": resources, "initContainers": [sidecar], "containers": [asking(container)]});
        let fine = of(
            json!({"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}),
            json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2"}}),
        );
        assert_eq!(found(fine), Vec::<String>::new());
        for (resources, container, finding) in [
            (
                json!({"requests": {"cpu": "1500m"}}),
                json!({"requests": {"cpu": "1"}}),
                "spec.resources.requests[cpu]: Invalid value: \"1500m\": must be greater than or equal to aggregate container requests of 2",
            ),
            (
                json!({"limits": {"memory": "1Gi"}}),
                json!({"limits": {"memory": "2Gi"}}),
                "spec.resources.containers[0][memory].limits: Invalid value: \"2Gi\": must be less than or equal to pod limits of 1Gi",
            ),
            (
                json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
                json!({}),
                "spec.resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ),
            (
                json!({"limits": {"ephemeral-storage": "1Gi"}}),
                json!({}),
                "spec.resources.limits[ephemeral-storage]: Unsupported value: \"ephemeral-storage\": supported values: \"cpu\", \"hugepages-\", \"memory\"",
            ),
            (
                json!({"limits": {"disk": "1Gi"}}),
                json!({}),
                "spec.resources.limits[disk]: Invalid value: \"disk\": must be a standard resource type or fully qualified",
            ),
            (
                json!({"limits": {"cpu": "-1"}}),
                json!({}),
                "spec.resources.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
            ),
            (
                json!({"claims": [{"name": "x"}]}),
                json!({}),
                "spec.resources.claims: Forbidden: claims may not be set for Resources at pod-level",
            ),
        ] {
            let spec = of(resources, container);
            assert_eq!(found(spec.clone()), [finding], "{spec}");
        }
        let mut windows = of(json!({"limits": {"cpu": "1"}}), json!({}));
        windows["os"] = json!({"name": "windows"});
        assert_eq!(
            found(windows),
            ["spec.resources: Forbidden: may not be set for a windows pod"]
        );
    }
}
