//! What `ephemeralcontainers` may change of a Pod; everything else stays as it was. For `resize` see [`resize`](super::resize).

use crate::{At, FieldErrors, Object};

/// An annotation that static pods have.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Takes the containers to debug with, and nothing else, from the new Pod.
pub fn keep_ephemeral(new: &mut Object, old: &Object) {
    let added = new.at("spec.ephemeralContainers").value().cloned();
    restore(new, old);
    match added {
        Some(added) => new.set("spec.ephemeralContainers", added),
        None => drop(new.remove("spec.ephemeralContainers")),
    }
}

/// Puts the old spec and status back.
pub(super) fn restore(new: &mut Object, old: &Object) {
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

pub(super) fn is_static(pod: &Object) -> bool {
    pod.at("metadata.annotations").entry(MIRROR).exists()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

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
}
