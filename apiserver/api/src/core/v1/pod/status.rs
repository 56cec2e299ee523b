//! What a pod's status may say, and what it may not say any more (upstream's `ValidatePodStatusUpdate`).

use std::collections::HashSet;

use serde_json::Value;

use crate::field_errors::ErrorType;
use crate::validation::{address, names};
use crate::{At, FieldErrors, Object};

/// Conditions of the system, whose names are not looked at.
const SYSTEM_CONDITIONS: [&str; 3] = ["PodScheduled", "Ready", "Initialized"];

/// Puts back the generations that a status is about where the new one says none, condition by condition of each type.
pub(super) fn keep_observed_generations(new: &mut Object, old: &Object) {
    if let Some(seen) = old.at("status.observedGeneration").value() {
        new.set_default("status.observedGeneration", seen.clone());
    }
    let before = old.at("status.conditions");
    let mut before: Vec<(&str, Value)> = before
        .items()
        .map(|condition| {
            let seen = condition.key("observedGeneration");
            let seen = seen.value().cloned().unwrap_or_default();
            (
                condition
                    .key("type")
                    .value()
                    .and_then(Value::as_str)
                    .unwrap_or_default(),
                seen,
            )
        })
        .collect();
    let conditions = new.get_mut("status.conditions");
    let conditions = conditions.and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        let Some(condition) = condition.as_object_mut() else {
            continue;
        };
        let of = condition.get("type").and_then(Value::as_str);
        let Some(at) = before.iter().position(|(kind, _)| Some(*kind) == of) else {
            continue;
        };
        let (_, seen) = before.remove(at);
        if seen.is_number() && !condition.contains_key("observedGeneration") {
            condition.insert("observedGeneration".to_owned(), seen);
        }
    }
}

/// Makes `podIP` the first of `podIPs`; where they differ, it is the older field that counts, as in upstream's conversion.
pub(super) fn agree_on_addresses(object: &mut Object) {
    let one = object.at("status.podIP").str().to_owned();
    let first = object.at("status.podIPs").index(0).key("ip");
    let first = first.str().to_owned();
    if one.is_empty() && !first.is_empty() {
        object.set("status.podIP", first);
    } else if one != first {
        object.set("status.podIPs", serde_json::json!([{"ip": one}]));
    }
}

/// Reports what is wrong with a new status.
pub(super) fn validate(new: &Object, old: &Object, errors: &mut FieldErrors) {
    // Upstream reports conditions under `metadata`.
    let conditions = new.at("status.conditions");
    let conditions = At::maybe(conditions.value(), "metadata.conditions");
    for condition in conditions.items() {
        if !SYSTEM_CONDITIONS.contains(&condition.key("type").str()) {
            let place = format!("{}.Type", condition.path());
            let kind = condition.key("type");
            errors.text(&At::maybe(kind.value(), place), names::qualified_name);
        }
    }
    let nominated = new.at("status.nominatedNodeName");
    if !nominated.str().is_empty() && nominated.str() != old.at("status.nominatedNodeName").str() {
        errors.text(&nominated, names::dns1123_subdomain);
    }
    let policy = old.at("spec.restartPolicy");
    if !restarts_all(&old.at("spec")) {
        for (list, containers) in [
            ("containerStatuses", "containers"),
            ("initContainerStatuses", "initContainers"),
        ] {
            no_resurrection(new, old, list, containers, policy.str(), errors);
        }
    }
    // Nobody starts containers to debug with again.
    let ephemeral = "ephemeralContainerStatuses";
    no_resurrection(new, old, ephemeral, "", "Never", errors);
    resource_claims(new, errors);
    addresses(new, old, "podIPs", errors);
    addresses(new, old, "hostIPs", errors);
    for list in [
        "containerStatuses",
        "initContainerStatuses",
        "ephemeralContainerStatuses",
    ] {
        users(new, list, errors);
    }
}

fn resource_claims(new: &Object, errors: &mut FieldErrors) {
    let known = new.at("spec.resourceClaims");
    let mut taken = HashSet::new();
    for status in new.at("status.resourceClaimStatuses").items() {
        let name = status.key("name");
        if !known
            .items()
            .any(|claim| claim.key("name").str() == name.str())
        {
            let detail = "must match the name of an entry in `spec.resourceClaims`";
            errors.invalid(&name, detail);
        }
        if !taken.insert(name.str().to_owned()) {
            errors.duplicate(&name);
        }
        let claim = status.key("resourceClaimName");
        if claim.exists() {
            let place = At::maybe(claim.value(), name.path());
            errors.text(&place, names::dns1123_subdomain);
        }
    }
}

/// One address of each family, in a form that everybody reads alike; what was there before may stay.
fn addresses(new: &Object, old: &Object, list: &str, errors: &mut FieldErrors) {
    let (status, before) = (new.at("status"), old.at("status").key(list));
    let all = status.key(list);
    let first = all.index(0).key("ip");
    if list == "hostIPs" && first.exists() && status.key("hostIP").str() != first.str() {
        errors.invalid(&first, "must be equal to `hostIP`");
    }
    let mut taken = HashSet::new();
    let mut families = HashSet::new();
    let mut duplicates = Vec::new();
    for found in all.items() {
        let ip = found.key("ip");
        let known = before.items().any(|was| was.key("ip").str() == ip.str());
        if !known {
            address::ip(&At::maybe(ip.value(), found.path()), errors);
        }
        families.insert(ip.str().contains(':'));
        if !taken.insert(ip.str().to_owned()) {
            duplicates.push(found.clone());
        }
    }
    if all.len() > 1 && (all.len() > 2 || families.len() < 2) {
        let detail = "may specify no more than one IP for each IP family";
        errors.invalid_as(&all, shown(&all), detail);
    }
    for duplicate in duplicates {
        let shown = serde_json::json!({"IP": duplicate.key("ip").str()});
        errors.push(ErrorType::Duplicate, duplicate.path(), Some(shown), "");
    }
}

/// The addresses as upstream's structs print them.
fn shown(all: &At<'_>) -> Value {
    let shown = all
        .items()
        .map(|found| serde_json::json!({"IP": found.key("ip").str()}));
    shown.collect()
}

fn users(new: &Object, list: &str, errors: &mut FieldErrors) {
    let windows = new.at("spec.os.name").str() == "windows";
    for status in new.at("status").key(list).items() {
        let user = status.at("user.linux");
        if !user.exists() {
            continue;
        }
        let place = |part: &str| format!("{}.linux{part}", status.path());
        if windows {
            let user = At::maybe(user.value(), place(""));
            errors.forbidden(&user, "cannot be set for a windows pod");
            continue;
        }
        for (field, part) in [("uid", ".uid"), ("gid", ".gid")] {
            id(&At::maybe(user.key(field).value(), place(part)), errors);
        }
        for (index, group) in user.key("supplementalGroups").items().enumerate() {
            let part = format!(".supplementalGroups[{index}]");
            id(&At::maybe(group.value(), place(&part)), errors);
        }
    }
}

fn id(at: &At<'_>, errors: &mut FieldErrors) {
    if !(0..=i64::from(i32::MAX)).contains(&at.as_i64().unwrap_or(0)) {
        errors.invalid(at, "must be between 0 and 2147483647, inclusive");
    }
}

/// Whether the end of any container may have all of them start over (upstream's
/// `AllContainersCouldRestart`).
fn restarts_all(spec: &At<'_>) -> bool {
    ["containers", "initContainers"].into_iter().any(|list| {
        spec.key(list).items().any(|container| {
            let rules = container.key("restartPolicyRules");
            rules
                .items()
                .any(|rule| rule.key("action").str() == "RestartAllContainers")
        })
    })
}

/// A container that has ended for good doesn't run again.
fn no_resurrection(
    new: &Object,
    old: &Object,
    list: &str,
    containers: &str,
    policy: &str,
    errors: &mut FieldErrors,
) {
    if policy == "Always" {
        return;
    }
    let specs = old.at("spec").key(containers);
    let statuses = new.at("status").key(list);
    for (index, was) in old.at("status").key(list).items().enumerate() {
        let terminated = was.at("state.terminated");
        let name = was.key("name");
        let own_policy = specs
            .items()
            .any(|c| c.key("name").str() == name.str() && c.key("restartPolicy").exists());
        let failed = terminated.key("exitCode").as_i64().unwrap_or(0) != 0;
        if !terminated.exists() || own_policy || (policy == "OnFailure" && failed) {
            continue;
        }
        for now in statuses.items() {
            if now.key("name").str() == name.str() && !now.at("state.terminated").exists() {
                // Upstream counts in the old list.
                let place = format!("status.{list}[{index}].state");
                let state = At::maybe(now.key("state").value(), place);
                errors.forbidden(&state, "may not be transitioned to non-terminated state");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(status: Value) -> Object {
        let spec = json!({
            "restartPolicy": "Never", "nodeName": "n",
            "containers": [{"name": "a"}, {"name": "b"}],
            "resourceClaims": [{"name": "c", "resourceClaimName": "x"}],
        });
        let pod = json!({"metadata": {"name": "x"}, "spec": spec, "status": status});
        Object::from_value(pod).expect("an object")
    }

    fn found(new: Value, old: Value) -> Vec<String> {
        let mut errors = FieldErrors::default();
        validate(&pod(new), &pod(old), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_a_status_says_is_looked_at() {
        let name = "name part must consist of";
        let ended = json!([{"name": "b", "state": {"terminated": {"exitCode": 0}}}]);
        let runs = json!([{"name": "a", "state": {}}, {"name": "b", "state": {"running": {}}}]);
        let ip = "must be a valid IP address";
        for (new, old, finding) in [
            (
                json!({"conditions": [{"type": "Ready"}, {"type": "a.b/C"}]}),
                json!({}),
                None,
            ),
            (
                json!({"conditions": [{"type": "a b"}]}),
                json!({}),
                Some(("metadata.conditions[0].Type: Invalid value: \"a b\"", name)),
            ),
            (
                json!({"nominatedNodeName": "N"}),
                json!({}),
                Some(("status.nominatedNodeName: Invalid", "RFC 1123")),
            ),
            (
                json!({"nominatedNodeName": "N"}),
                json!({"nominatedNodeName": "N"}),
                None,
            ),
            (
                json!({"containerStatuses": runs}),
                json!({"containerStatuses": ended}),
                Some((
                    "status.containerStatuses[0].state: Forbidden",
                    "non-terminated",
                )),
            ),
            (
                json!({"ephemeralContainerStatuses": runs}),
                json!({"ephemeralContainerStatuses": ended}),
                Some((
                    "status.ephemeralContainerStatuses[0].state: Forbidden",
                    "non-terminated",
                )),
            ),
            (
                json!({"resourceClaimStatuses": [{"name": "c"}]}),
                json!({}),
                None,
            ),
            (
                json!({"resourceClaimStatuses": [{"name": "d"}]}),
                json!({}),
                Some((
                    "status.resourceClaimStatuses[0].name",
                    "must match the name",
                )),
            ),
            (
                json!({"resourceClaimStatuses": [{"name": "c"}, {"name": "c"}]}),
                json!({}),
                Some(("status.resourceClaimStatuses[1].name: Duplicate", "\"c\"")),
            ),
            (
                json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}),
                json!({}),
                None,
            ),
            (
                json!({"podIPs": [{"ip": "x"}]}),
                json!({}),
                Some(("status.podIPs[0]: Invalid", ip)),
            ),
            (
                json!({"podIPs": [{"ip": "x"}]}),
                json!({"podIPs": [{"ip": "x"}]}),
                None,
            ),
            (
                json!({"podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]}),
                json!({}),
                Some(("status.podIPs: Invalid", "each IP family")),
            ),
            (
                json!({"hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.1"}]}),
                json!({}),
                None,
            ),
            (
                json!({"hostIPs": [{"ip": "10.0.0.1"}]}),
                json!({}),
                Some(("status.hostIPs[0].ip", "must be equal to `hostIP`")),
            ),
            (
                json!({"containerStatuses": [{"name": "a", "user": {"linux": {"uid": 1, "gid": -1}}}]}),
                json!({}),
                Some((
                    "status.containerStatuses[0].linux.gid: Invalid value: -1",
                    "must be between",
                )),
            ),
        ] {
            let all = found(new.clone(), old);
            match finding {
                None => assert!(all.is_empty(), "{new}: {all:?}"),
                Some((place, detail)) => {
                    assert!(
                        all.len() == 1 && all[0].starts_with(place) && all[0].contains(detail),
                        "{new}: {all:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_address_is_the_first_of_the_addresses() {
        for (status, expected) in [
            (
                json!({"podIP": "a"}),
                json!({"podIP": "a", "podIPs": [{"ip": "a"}]}),
            ),
            (
                json!({"podIPs": [{"ip": "a"}, {"ip": "b"}]}),
                json!({"podIP": "a", "podIPs": [{"ip": "a"}, {"ip": "b"}]}),
            ),
            (
                json!({"podIP": "b", "podIPs": [{"ip": "a"}]}),
                json!({"podIP": "b", "podIPs": [{"ip": "b"}]}),
            ),
            (json!({}), json!({})),
        ] {
            let mut pod = pod(status);
            agree_on_addresses(&mut pod);
            assert_eq!(pod.at("status").value(), Some(&expected));
        }
    }
}
