//! What `resize` may change of a Pod: what its containers, and the pod as a whole, may use. Everything else stays as it was.
//!
//! Follows `dropNonResizeUpdates` of `pkg/registry/core/pod` and `ValidatePodResize` of `pkg/apis/core/validation`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::qos;
use super::subresources::{is_static, restore};
use crate::quantity::Quantity;
use crate::{At, FieldErrors, Object};

/// Resources that can be changed while a container runs.
const RESIZABLE: &[&str] = &["cpu", "memory"];
const LISTS: [&str; 2] = ["containers", "initContainers"];
const MUTABLE: &str = "only cpu and memory resources are mutable";

/// Takes what containers and the pod may use, and nothing else, from the new Pod.
pub fn keep(new: &mut Object, old: &Object) {
    let wanted = new.clone();
    let (now, was) = (wanted.at("spec"), old.at("spec"));
    if LISTS
        .iter()
        .any(|list| now.key(list).len() != was.key(list).len())
    {
        // Adding containers is refused later; then there is nothing to pair.
        return;
    }
    restore(new, old);
    let spec = new.map_mut("spec");
    put(spec, "resources", Some(now.key("resources")));
    for list in LISTS {
        let given: Vec<At<'_>> = now.key(list).items().collect();
        let mut names = given.iter().zip(was.key(list).items().collect::<Vec<_>>());
        if names.any(|(now, was)| now.key("name").str() != was.key("name").str()) {
            // So is another order.
            if let Some(given) = now.key(list).value() {
                spec.insert(list.to_owned(), given.clone());
            }
            continue;
        }
        let mut index = 0;
        crate::object::each_object(spec, list, |container| {
            for field in ["resources", "resizePolicy"] {
                let given = given.get(index).map(|given| given.key(field));
                put(container, field, given);
            }
            index += 1;
        });
    }
}

fn put(map: &mut Map<String, Value>, field: &str, given: Option<At<'_>>) {
    match given.as_ref().and_then(At::value) {
        Some(value) => drop(map.insert(field.to_owned(), value.clone())),
        None => drop(map.shift_remove(field)),
    }
}

/// Reports changes of what a pod may use that can't be made while it runs.
pub fn validate(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let nowhere = At::maybe(None, "");
    if is_static(old) {
        *errors = FieldErrors::default();
        errors.forbidden(&nowhere, "static pods cannot be resized");
        return;
    }
    if old.at("spec.os.name").str() == "windows" {
        *errors = FieldErrors::default();
        errors.forbidden(&nowhere, "windows pods cannot be resized");
        return;
    }
    let (spec, before) = (new.at("spec"), old.at("spec"));
    let was = match old.at("status.qosClass").str() {
        "" => qos::class(&before),
        known => known,
    };
    if qos::class(&spec) != was {
        let shown = Value::from(new.at("status.qosClass").str());
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.invalid_as(&spec, shown, detail);
    }
    if !tells_resources(old) {
        let detail = "Pod running on node without support for resize";
        errors.forbidden(&spec, detail);
    }
    pod_level(&spec, &before, errors);
    let found = errors.len();
    for list in LISTS {
        order(list, &spec.key(list), &before.key(list), errors);
    }
    if errors.len() > found {
        return;
    }
    for list in ["initContainers", "containers"] {
        let was = before.key(list);
        for (now, was) in spec.key(list).items().zip(was.items()) {
            removed(&now.key("resources"), &was.key("resources"), "", errors);
        }
    }
    for list in LISTS {
        let was = before.key(list);
        for (now, was) in spec.key(list).items().zip(was.items()) {
            match list {
                "containers" if !is_kept(&now, &was) => errors.forbidden(&spec, MUTABLE),
                "containers" => {}
                _ => init_container(&now, &was, errors),
            }
        }
    }
}

/// Whether the node that runs the pod says what its containers have; one that does not cannot change it either.
fn tells_resources(pod: &Object) -> bool {
    let statuses = pod.at("status.containerStatuses");
    let mut statuses = statuses.items();
    let running = statuses.find(|status| status.at("state.running").exists());
    running.is_none_or(|status| status.key("resources").exists())
}

fn pod_level(spec: &At<'_>, before: &At<'_>, errors: &mut FieldErrors) {
    let (now, was) = (spec.key("resources"), before.key("resources"));
    let is_set = |whole: &At<'_>| whole.key("requests").len() + whole.key("limits").len() > 0;
    if !is_set(&now) && !is_set(&was) {
        return;
    }
    if was.exists() && !now.exists() {
        errors.forbidden(&now, "pod-level resources cannot be removed");
        return;
    }
    removed(&now, &was, "pod-level ", errors);
    if rest(&now) != rest(&was) {
        errors.forbidden(spec, format!("{MUTABLE} at pod-level"));
    }
}

fn order(list: &str, now: &At<'_>, was: &At<'_>, errors: &mut FieldErrors) {
    if now.len() != was.len() {
        errors.forbidden(now, format!("{list} may not be added or removed on resize"));
        return;
    }
    for (now, was) in now.items().zip(was.items()) {
        let name = now.key("name");
        if name.str() != was.key("name").str() {
            errors.forbidden(
                &name,
                format!("{list} may not be renamed or reordered on resize"),
            );
        }
    }
}

fn removed(now: &At<'_>, was: &At<'_>, whose: &str, errors: &mut FieldErrors) {
    for list in ["requests", "limits"] {
        let given = now.key(list);
        let was = was.key(list);
        if was.entries().any(|(name, _)| !given.entry(name).exists()) {
            errors.forbidden(&given, format!("{whose}resource {list} cannot be removed"));
        }
    }
}

fn init_container(now: &At<'_>, was: &At<'_>, errors: &mut FieldErrors) {
    if !is_kept(now, was) {
        let detail = "only cpu and memory resources for init or sidecar containers are mutable";
        errors.forbidden(now, detail);
    }
    let is_sidecar = now.key("restartPolicy").str() == "Always";
    let policies = now.key("resizePolicy");
    let restarts = policies
        .items()
        .any(|policy| policy.key("restartPolicy").str() == "RestartContainer");
    let same = |list: &str| {
        let (now, was) = (
            now.key("resources").key(list),
            was.key("resources").key(list),
        );
        amounts(&now, |_| true) == amounts(&was, |_| true)
    };
    if restarts && !is_sidecar && !(same("requests") && same("limits")) {
        let detail = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
        errors.forbidden(now, detail);
    }
}

/// Whether nothing but the processor and the memory of a container is another than before.
fn is_kept(now: &At<'_>, was: &At<'_>) -> bool {
    let policy = |container: &At<'_>| container.key("resizePolicy").value().cloned();
    rest(&now.key("resources")) == rest(&was.key("resources")) && policy(now) == policy(was)
}

type Amounts<'a> = BTreeMap<&'a str, Option<Quantity>>;

/// What of resources cannot be changed.
fn rest<'a>(resources: &At<'a>) -> (Amounts<'a>, Amounts<'a>, Option<&'a Value>) {
    let of = |list: &str| amounts(&resources.key(list), |name| !RESIZABLE.contains(&name));
    let claims = resources.key("claims");
    let claims = claims.value().filter(|_| !claims.is_empty());
    (of("requests"), of("limits"), claims)
}

fn amounts<'a>(list: &At<'a>, counts: impl Fn(&str) -> bool) -> Amounts<'a> {
    let counted = list.entries().filter(|(name, _)| counts(name));
    counted
        .map(|(name, at)| (name, at.str().parse().ok()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: Value, status: Value) -> Object {
        let pod = json!({"metadata": {"name": "x"}, "spec": spec, "status": status});
        Object::from_value(pod).expect("an object")
    }

    fn found(new: &Object, old: &Object) -> Vec<String> {
        let mut errors = FieldErrors::default();
        validate(new, old, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    /// A pod with these resources of its own, of its init container, its sidecar, and its container.
    fn using(whole: Value, init: Value, sidecar: Value, main: Value) -> Object {
        let of = |name: &str, resources: Value| json!({"name": name, "image": "i", "resources": resources});
        let mut sidecar = of("sidecar", sidecar);
        sidecar["restartPolicy"] = json!("Always");
        let mut spec = json!({
            "initContainers": [of("init", init), sidecar],
            "containers": [of("main", main)],
        });
        if !whole.is_null() {
            spec["resources"] = whole;
        }
        pod(spec, json!({"qosClass": "Burstable"}))
    }

    fn cpu(requests: &str) -> Value {
        json!({"requests": {"cpu": requests}})
    }

    #[test]
    fn resources_are_taken_and_nothing_else() {
        let old = using(
            json!({"limits": {"cpu": "1"}}),
            cpu("1"),
            cpu("1"),
            cpu("1"),
        );
        let mut new = using(
            json!({"limits": {"cpu": "2"}}),
            cpu("2"),
            cpu("3"),
            cpu("4"),
        );
        new.set("spec.hostNetwork", true);
        keep(&mut new, &old);
        assert_eq!(new.at("spec.resources.limits.cpu").str(), "2");
        let requests = |list: &str, index| {
            let container = new.at("spec").key(list).index(index);
            container.at("resources.requests.cpu").str().to_owned()
        };
        let all = [
            requests("initContainers", 0),
            requests("initContainers", 1),
            requests("containers", 0),
        ];
        assert_eq!(all, ["2", "3", "4"]);
        assert!(!new.at("spec.hostNetwork").exists());
        assert_eq!(found(&new, &old), Vec::<String>::new());
    }

    #[test]
    fn what_a_pod_has_as_a_whole_grows_and_is_not_taken_away() {
        let of = |whole: Value| using(whole, cpu("1"), cpu("1"), cpu("1"));
        let both = json!({"requests": {"cpu": "2"}, "limits": {"memory": "1Gi"}});
        let old = of(both.clone());
        for (whole, findings) in [
            (
                json!({"requests": {"cpu": "3", "memory": "1Mi"}, "limits": {"memory": "2Gi", "cpu": "9"}}),
                vec![],
            ),
            (
                Value::Null,
                vec!["spec.resources: Forbidden: pod-level resources cannot be removed"],
            ),
            (
                json!({"requests": {"memory": "1"}, "limits": {"cpu": "9"}}),
                vec![
                    "spec.resources.requests: Forbidden: pod-level resource requests cannot be removed",
                    "spec.resources.limits: Forbidden: pod-level resource limits cannot be removed",
                ],
            ),
            (
                json!({"requests": {"cpu": "2", "hugepages-2Mi": "2Mi"}, "limits": {"memory": "1Gi"}}),
                vec!["spec: Forbidden: only cpu and memory resources are mutable at pod-level"],
            ),
        ] {
            assert_eq!(found(&of(whole.clone()), &old), findings, "{whole}");
        }
        // A pod may get them later, too.
        assert_eq!(found(&of(both), &of(Value::Null)), Vec::<String>::new());
    }

    #[test]
    fn what_containers_have_changes_within_its_class() {
        let of = |init, sidecar, main| using(Value::Null, init, sidecar, main);
        let old = of(cpu("1"), cpu("1"), cpu("1"));
        let gpu = json!({"requests": {"cpu": "1", "example.com/gpu": "1"}});
        let memory = json!({"requests": {"memory": "1Gi"}});
        for (new, findings) in [
            (of(cpu("2"), cpu("2"), cpu("2")), vec![]),
            (
                of(json!({}), json!({}), json!({})),
                vec![
                    "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing",
                    "spec.initContainers[0].resources.requests: Forbidden: resource requests cannot be removed",
                    "spec.initContainers[1].resources.requests: Forbidden: resource requests cannot be removed",
                    "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
                ],
            ),
            (
                of(cpu("1"), cpu("1"), memory),
                vec![
                    "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
                ],
            ),
            (
                of(cpu("1"), cpu("1"), gpu.clone()),
                vec!["spec: Forbidden: only cpu and memory resources are mutable"],
            ),
            (
                of(gpu, cpu("1"), cpu("1")),
                vec![
                    "spec.initContainers[0]: Forbidden: only cpu and memory resources for init or sidecar containers are mutable",
                ],
            ),
        ] {
            assert_eq!(found(&new, &old), findings);
        }
    }

    #[test]
    fn containers_stay_in_their_places() {
        let of = |names: &[&str]| {
            let all = names.iter().map(|name| json!({"name": name, "image": "i"}));
            pod(json!({"containers": all.collect::<Vec<_>>()}), json!({}))
        };
        let old = of(&["a", "b"]);
        for (names, findings) in [
            (
                vec!["b", "a"],
                vec![
                    "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize",
                    "spec.containers[1].name: Forbidden: containers may not be renamed or reordered on resize",
                ],
            ),
            (
                vec!["a"],
                vec![
                    "spec.containers: Forbidden: containers may not be added or removed on resize",
                ],
            ),
        ] {
            let mut new = of(&names);
            keep(&mut new, &old);
            assert_eq!(found(&new, &old), findings);
        }
    }

    #[test]
    fn a_node_that_does_not_tell_what_containers_have_cannot_resize_them() {
        let of = |status: Value| {
            let spec = json!({"containers": [{"name": "a", "image": "i"}]});
            pod(spec, json!({"containerStatuses": [status]}))
        };
        let running = of(json!({"name": "a", "state": {"running": {}}}));
        assert_eq!(
            found(&running, &running),
            ["spec: Forbidden: Pod running on node without support for resize"]
        );
        let tells = of(json!({"name": "a", "state": {"running": {}}, "resources": {}}));
        assert_eq!(found(&tells, &tells), Vec::<String>::new());
        let mut mirror = tells.clone();
        mirror.set(
            "metadata.annotations",
            json!({"kubernetes.io/config.mirror": "x"}),
        );
        assert_eq!(
            found(&tells, &mirror),
            [": Forbidden: static pods cannot be resized"]
        );
    }

    #[test]
    fn an_init_container_that_would_restart_is_not_resized() {
        let of = |requests: Value| {
            let policy = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
            let init =
                json!({"name": "i", "image": "i", "resources": requests, "resizePolicy": policy});
            pod(
                json!({"initContainers": [init], "containers": []}),
                json!({}),
            )
        };
        assert_eq!(
            found(&of(cpu("2")), &of(cpu("1"))),
            [
                "spec.initContainers[0]: Forbidden: non-sidecar init containers with a resize policy of RestartContainer cannot be resized"
            ]
        );
        assert_eq!(found(&of(cpu("1")), &of(cpu("1"))), Vec::<String>::new());
    }
}
