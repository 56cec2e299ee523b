//! The quality of service that a pod's requests and limits buy it.

use std::collections::BTreeMap;

use crate::At;
use crate::quantity::Quantity;

/// `Guaranteed`, `Burstable` or `BestEffort` (`pkg/apis/core/v1/helper/qos`).
pub fn class(spec: &At<'_>) -> &'static str {
    let mut requests: BTreeMap<&str, Quantity> = BTreeMap::new();
    let mut limits: BTreeMap<&str, Quantity> = BTreeMap::new();
    let mut guaranteed = true;
    let pod_level = spec.key("resources");
    if pod_level.key("requests").len() + pod_level.key("limits").len() > 0 {
        add(&pod_level, "requests", &mut requests);
        guaranteed &= add(&pod_level, "limits", &mut limits) == 2;
    } else {
        for list in ["containers", "initContainers"] {
            for container in spec.key(list).items() {
                let resources = container.key("resources");
                add(&resources, "requests", &mut requests);
                guaranteed &= add(&resources, "limits", &mut limits) == 2;
            }
        }
    }
    if requests.is_empty() && limits.is_empty() {
        return "BestEffort";
    }
    let equal = requests
        .iter()
        .all(|(name, request)| limits.get(name) == Some(request));
    if guaranteed && equal && requests.len() == limits.len() {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// Adds up CPU and memory, and returns how many of the two are there; zero counts as absent.
fn add<'a>(resources: &At<'a>, list: &str, sums: &mut BTreeMap<&'a str, Quantity>) -> usize {
    let mut found = 0;
    for (name, value) in resources.key(list).entries() {
        let quantity = value
            .as_str()
            .and_then(|text| text.parse::<Quantity>().ok());
        let Some(quantity) =
            quantity.filter(|quantity| !quantity.is_zero() && !quantity.is_negative())
        else {
            continue;
        };
        if !["cpu", "memory"].contains(&name) {
            continue;
        }
        found += 1;
        match sums.get_mut(name) {
            Some(sum) => *sum += quantity,
            None => {
                sums.insert(name, quantity);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn class_of(resources: Value) -> &'static str {
        let spec = json!({"containers": [{"resources": resources}]});
        class(&At::root(&spec, "spec"))
    }

    #[test]
    fn classes_follow_requests_and_limits() {
        assert_eq!(class_of(json!({})), "BestEffort");
        assert_eq!(class_of(json!({"requests": {"cpu": "1"}})), "Burstable");
        let all = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(
            class_of(json!({"requests": {"cpu": "1000m", "memory": "1Gi"}, "limits": all})),
            "Guaranteed"
        );
        assert_eq!(
            class_of(json!({"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": all})),
            "Burstable"
        );
    }
}
