//! What `ephemeralcontainers` and `resize` may change of a Pod; everything else stays as it was.

use serde_json::{Map, Value};

use super::qos;
use crate::{At, FieldErrors, Object};

/// An annotation that static pods have.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Resources that can be changed while a container runs.
const RESIZABLE: &[&str] = &["cpu", "memory"];

/// Takes the containers to debug with, and nothing else, from the new Pod.
pub fn keep_ephemeral(new: &mut Object, old: &Object) {
    let added = new.at("spec.ephemeralContainers").value().cloned();
    restore(new, old);
    match added {
        Some(added) => new.set("spec.ephemeralContainers", added),
        None => drop(new.remove("spec.ephemeralContainers")),
    }
}

/// Takes what containers may use, and nothing else, from the new Pod.
pub fn keep_resources(new: &mut Object, old: &Object) {
    let wanted = new.clone();
    restore(new, old);
    let same = |list: &str| wanted.at("spec").key(list).len() == old.at("spec").key(list).len();
    for list in ["containers", "initContainers"] {
        // Adding containers is refused later; then there is nothing to pair.
        if !same(list) {
            if let Some(given) = wanted.at("spec").key(list).value() {
                new.map_mut("spec").insert(list.to_owned(), given.clone());
            }
            continue;
        }
        let given = wanted.at("spec").key(list);
        let given: Vec<At<'_>> = given.items().collect();
        let mut index = 0;
        crate::object::each_object(new.map_mut("spec"), list, |container| {
            for field in ["resources", "resizePolicy"] {
                put(
                    container,
                    field,
                    given.get(index).map(|given| given.key(field)),
                );
            }
            index += 1;
        });
    }
}

fn put(container: &mut Map<String, Value>, field: &str, given: Option<At<'_>>) {
    match given.as_ref().and_then(At::value) {
        Some(value) => drop(container.insert(field.to_owned(), value.clone())),
        None => drop(container.shift_remove(field)),
    }
}

/// Puts the old spec and status back.
fn restore(new: &mut Object, old: &Object) {
    for part in ["spec", "status"] {
        match old.at(part).value() {
            Some(value) => new.set(part, value.clone()),
            None => drop(new.remove(part)),
        }
    }
}

/// Reports containers to debug with that were changed or taken away.
pub fn ephemeral(new: &Object, old: &Object, errors: &mut FieldErrors) {
    if is_static(old) {
        let whole = At::maybe(None, "");
        errors.forbidden(&whole, "static pods do not support ephemeral containers");
        return;
    }
    let list = new.at("spec.ephemeralContainers");
    let now: Vec<At<'_>> = list.items().collect();
    for before in old.at("spec.ephemeralContainers").items() {
        let name = before.key("name");
        let name = name.str();
        match now
            .iter()
            .find(|container| container.key("name").str() == name)
        {
            None => errors.forbidden(
                &list,
                format!("existing ephemeral containers {name:?} may not be removed\n"),
            ),
            // Upstream shows a diff of its Go structs here.
            Some(container) if container.value() != before.value() => errors.forbidden(
                &list,
                format!("existing ephemeral containers {name:?} may not be changed\n"),
            ),
            Some(_) => {}
        }
    }
}

/// Reports changes of what containers may use that can't be made while they run.
pub fn resize(new: &Object, old: &Object, errors: &mut FieldErrors) {
    if is_static(old) {
        errors.forbidden(&At::maybe(None, ""), "static pods cannot be resized");
        return;
    }
    if old.at("spec.os.name").str() == "windows" {
        errors.forbidden(&At::maybe(None, ""), "windows pods cannot be resized");
        return;
    }
    let (spec, before) = (new.at("spec"), old.at("spec"));
    for list in ["containers", "initContainers"] {
        if spec.key(list).len() != before.key(list).len() {
            let detail = format!("{list} may not be added or removed on resize");
            errors.forbidden(&spec.key(list), detail);
        }
    }
    let was = match old.at("status.qosClass").str() {
        "" => qos::class(&before),
        known => known,
    };
    if qos::class(&spec) != was {
        errors.invalid(
            &At::maybe(None, "spec"),
            "Pod QOS Class may not change as a result of resizing",
        );
    }
    for list in ["containers", "initContainers"] {
        let (now, was) = (spec.key(list), before.key(list));
        for (now, was) in now.items().zip(was.items()) {
            let restartable = list == "containers" || was.key("restartPolicy").str() == "Always";
            let (resources, earlier) = (now.key("resources"), was.key("resources"));
            if !restartable {
                if resources.value() != earlier.value() {
                    let detail = "resources for non-sidecar init containers are immutable";
                    errors.forbidden(&resources, detail);
                }
                continue;
            }
            quantities(&resources, &earlier, errors);
        }
    }
}

fn quantities(now: &At<'_>, was: &At<'_>, errors: &mut FieldErrors) {
    for part in ["limits", "requests"] {
        let (now, was) = (now.key(part), was.key(part));
        for (name, quantity) in was.entries() {
            let entry = now.entry(name);
            if !entry.exists() {
                errors.forbidden(&now, format!("resource {part} cannot be removed"));
            } else if !RESIZABLE.contains(&name) && entry.value() != quantity.value() {
                errors.forbidden(&now, "only cpu and memory resources are mutable");
            }
        }
        for (name, _) in now.entries() {
            if !RESIZABLE.contains(&name) && !was.entry(name).exists() {
                errors.forbidden(&now, "only cpu and memory resources are mutable");
            }
        }
    }
}

fn is_static(pod: &Object) -> bool {
    pod.at("metadata.annotations").entry(MIRROR).exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(container: Value, ephemeral: Value) -> Object {
        let spec =
            json!({"nodeName": "n", "containers": [container], "ephemeralContainers": ephemeral});
        let pod = json!({"metadata": {"name": "x"}, "spec": spec, "status": {}});
        Object::from_value(pod).expect("an object")
    }

    fn found(
        check: impl Fn(&Object, &Object, &mut FieldErrors),
        new: &Object,
        old: &Object,
    ) -> Vec<String> {
        let mut errors = FieldErrors::default();
        check(new, old, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn containers_to_debug_with_are_added_and_stay() {
        let plain = json!({"name": "a", "image": "i"});
        let old = pod(plain.clone(), json!([{"name": "d", "image": "x"}]));
        let mut more = pod(
            json!({"name": "a", "image": "other"}),
            json!([{"name": "d", "image": "x"}, {"name": "e", "image": "y"}]),
        );
        keep_ephemeral(&mut more, &old);
        assert_eq!(more.at("spec.containers").index(0).key("image").str(), "i");
        assert_eq!(more.at("spec.ephemeralContainers").len(), 2);
        assert!(found(ephemeral, &more, &old).is_empty());
        let none = pod(plain.clone(), json!([]));
        assert_eq!(
            found(ephemeral, &none, &old),
            [
                "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be removed\n"
            ]
        );
        let changed = pod(plain, json!([{"name": "d", "image": "z"}]));
        assert_eq!(found(ephemeral, &changed, &old).len(), 1);
    }

    #[test]
    fn what_containers_may_use_changes_within_its_class() {
        let using = |resources: Value| json!({"name": "a", "image": "i", "resources": resources});
        let old = pod(using(json!({"requests": {"cpu": "1"}})), json!([]));
        let mut grown = pod(
            json!({"name": "b", "resources": {"requests": {"cpu": "2", "memory": "1Gi"}}}),
            json!([]),
        );
        keep_resources(&mut grown, &old);
        let container = grown.at("spec.containers").index(0);
        assert_eq!(container.key("name").str(), "a");
        assert_eq!(container.at("resources.requests.cpu").str(), "2");
        assert!(found(resize, &grown, &old).is_empty());
        for (resources, finding) in [
            (json!({}), "Pod QOS Class may not change"),
            (
                json!({"requests": {"memory": "1Gi"}}),
                "resource requests cannot be removed",
            ),
            (
                json!({"requests": {"cpu": "1", "example.com/gpu": "1"}}),
                "only cpu and memory resources are mutable",
            ),
        ] {
            let new = pod(using(resources), json!([]));
            let all = found(resize, &new, &old).join(", ");
            assert!(all.contains(finding), "{all}");
        }
    }
}
