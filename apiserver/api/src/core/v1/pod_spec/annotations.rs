//! The annotations that mean something for pods (upstream's `ValidatePodSpecificAnnotations` and its like for updates).

use serde_json::{Map, Value, json};

use super::defaults::CONTAINER_LISTS;
use super::{scheduling, security};
use crate::field_errors::{ErrorType, go_quote};
use crate::schema::{SchemaRef, decode_json};
use crate::{At, FieldErrors, Object};

/// What the API shows of a pod that the node runs by itself.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Tolerations as JSON, from before they were a field. Nobody follows them any more.
const TOLERATIONS: &str = "scheduler.alpha.kubernetes.io/tolerations";
/// How much it costs to delete this pod rather than one of its kind.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
/// The form that AppArmor profiles once had; the container's name follows.
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
/// What an AppArmor profile of the node's own is written with in an annotation.
const LOCAL: &str = "localhost/";
/// The forms that seccomp profiles once had: a pod's, and a container's, whose name follows.
const SECCOMP: [&str; 2] = [
    "seccomp.security.alpha.kubernetes.io/pod",
    "container.seccomp.security.alpha.kubernetes.io/",
];

/// Reports what is wrong with annotations of a pod with this spec.
pub fn annotations(annotations: &At<'_>, spec: &At<'_>, errors: &mut FieldErrors) {
    let mirror = annotations.entry(MIRROR);
    if mirror.exists() && spec.key("nodeName").str().is_empty() {
        let detail = "must set spec.nodeName if mirror pod annotation is set";
        errors.invalid(&mirror, detail);
    }
    tolerations(annotations, errors);
    let cost = annotations.entry(DELETION_COST);
    if cost.exists() && !is_cost(cost.str()) {
        errors.invalid(&cost, "must be a 32bit integer");
    }
    seccomp(annotations, errors);
    app_armor(annotations, spec, errors);
}

fn tolerations(annotations: &At<'_>, errors: &mut FieldErrors) {
    let text = annotations.entry(TOLERATIONS);
    if text.str().is_empty() {
        return;
    }
    let spec = SchemaRef::builtin("io.k8s.api.core.v1.PodSpec").unwrap_or_else(SchemaRef::any);
    let list = spec.child("tolerations").unwrap_or_else(SchemaRef::any);
    match decode_json(text.str().as_bytes(), &list) {
        // Upstream reports the key as if it were a field.
        Ok(list) => {
            let path = format!("{}.{TOLERATIONS}", annotations.path());
            scheduling::tolerations(&At::maybe(Some(&list.value), path), errors);
        }
        Err(error) => {
            let (kind, key) = (ErrorType::Invalid, Some(TOLERATIONS.into()));
            errors.push(kind, annotations.path(), key, error.to_string());
        }
    }
}

fn seccomp(annotations: &At<'_>, errors: &mut FieldErrors) {
    let [pod, container] = SECCOMP;
    let own = annotations.entries().filter(|(key, _)| *key == pod);
    let others = annotations
        .entries()
        .filter(|(key, _)| key.starts_with(container));
    for (key, profile) in own.chain(others) {
        // Upstream reports these keys as if they were fields.
        let path = format!("{}.{key}", annotations.path());
        let text = profile.str();
        if let Some(local) = text.strip_prefix(LOCAL) {
            let local = Value::from(local);
            security::descending_path(&At::maybe(Some(&local), path), errors);
        } else if !matches!(text, "runtime/default" | "docker/default" | "unconfined") {
            let detail = "must be a valid seccomp profile";
            errors.push(ErrorType::Invalid, &path, Some(text.into()), detail);
        }
    }
}

fn app_armor(annotations: &At<'_>, spec: &At<'_>, errors: &mut FieldErrors) {
    for (key, profile) in annotations.entries() {
        let Some(name) = key.strip_prefix(APP_ARMOR) else {
            continue;
        };
        let mut containers = CONTAINER_LISTS
            .into_iter()
            .flat_map(|list| spec.key(list).items().collect::<Vec<_>>());
        if !containers.any(|container| container.key("name").str() == name) {
            errors.invalid_as(&profile, name.into(), "container not found");
        }
        let text = profile.str();
        if !matches!(text, "" | "runtime/default" | "unconfined") && !text.starts_with(LOCAL) {
            let detail = format!("invalid AppArmor profile name: {}", go_quote(text));
            errors.invalid(&profile, detail);
        }
    }
}

/// The AppArmor profile that an annotation stands for, if it stands for one.
fn app_armor_profile(annotation: &str) -> Option<Value> {
    let local = annotation.strip_prefix(LOCAL).unwrap_or_default();
    match annotation {
        "unconfined" => Some(json!({"type": "Unconfined"})),
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        _ if local.is_empty() || local.trim() != local || local.len() > security::LONGEST => None,
        _ => Some(json!({"type": "Localhost", "localhostProfile": local})),
    }
}

/// A container whose AppArmor profile is in an annotation alone.
struct OfOld {
    list: &'static str,
    index: usize,
    /// Where the annotation is.
    path: String,
    /// None: the annotation stands for no profile.
    profile: Option<Value>,
}

fn of_old(pod: &Object) -> Vec<OfOld> {
    let mut found = Vec::new();
    if pod.at("spec.os.name").str() == "windows" {
        return found;
    }
    let annotations = pod.at("metadata.annotations");
    let of_pod = pod.at("spec.securityContext.appArmorProfile");
    for list in CONTAINER_LISTS {
        for (index, container) in pod.at("spec").key(list).items().enumerate() {
            let key = format!("{APP_ARMOR}{}", container.key("name").str());
            let annotation = annotations.entry(&key);
            if !annotation.exists() || container.at("securityContext.appArmorProfile").exists() {
                continue;
            }
            let profile = app_armor_profile(annotation.str());
            if profile.is_none() || profile.as_ref() != of_pod.value() {
                found.push(OfOld {
                    list,
                    index,
                    path: annotation.path().to_owned(),
                    profile,
                });
            }
        }
    }
    found
}

/// What is said of AppArmor profiles in annotations, before they become fields.
pub fn warnings(pod: &Object) -> Vec<String> {
    let text = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
    let found = of_old(pod).into_iter();
    found
        .map(|of_old| format!("{}: {text}", of_old.path))
        .collect()
}

/// Makes fields of a new pod's AppArmor profiles that are in annotations.
pub fn make_fields(pod: &mut Object) {
    for of_old in of_old(pod) {
        let list = pod.get_mut(&format!("spec.{}", of_old.list));
        let container = list.and_then(|list| list.get_mut(of_old.index));
        let container = container.and_then(Value::as_object_mut);
        if let (Some(container), Some(profile)) = (container, of_old.profile) {
            let context = container.entry("securityContext").or_insert(Value::Null);
            if !context.is_object() {
                *context = Value::Object(Map::new());
            }
            context["appArmorProfile"] = profile;
        }
    }
}

/// Reports AppArmor profiles of a new pod that differ between annotation and field.
pub fn agreement(pod: &Object, errors: &mut FieldErrors) {
    if pod.at("spec.os.name").str() == "windows" {
        return;
    }
    let annotations = pod.at("metadata.annotations");
    let of_pod = pod.at("spec.securityContext.appArmorProfile");
    for list in CONTAINER_LISTS {
        for container in pod.at("spec").key(list).items() {
            let own = container.at("securityContext.appArmorProfile");
            let profile = if own.exists() { &own } else { &of_pod };
            let key = format!("{APP_ARMOR}{}", container.key("name").str());
            let annotation = annotations.entry(&key);
            if !annotation.exists() {
                continue;
            }
            let text = annotation.str();
            let same = match profile.key("type").str() {
                "Unconfined" => text == "unconfined",
                "RuntimeDefault" => text == "runtime/default",
                "Localhost" => text.starts_with(LOCAL),
                _ => continue,
            };
            if !same {
                let detail = "apparmor type in annotation and field must match";
                errors.forbidden(&own.key("type"), detail);
            } else if text.strip_prefix(LOCAL).unwrap_or_default()
                != profile.key("localhostProfile").str()
            {
                let detail = "apparmor profile in annotation and field must match";
                errors.forbidden(&own.key("localhostProfile"), detail);
            }
        }
    }
}

/// Whether it is an integer without a plus and without zeros in front.
fn is_cost(text: &str) -> bool {
    let plain = text == "0" || text.starts_with(|first: char| matches!(first, '-' | '1'..='9'));
    plain && text.parse::<i32>().is_ok()
}

/// Reports annotations that a pod keeps as it was made with them.
pub fn changes(new: &At<'_>, old: &At<'_>, errors: &mut FieldErrors) {
    let fixed = |key: &str| match key {
        MIRROR => Some("mirror pod annotation"),
        key if key.starts_with(APP_ARMOR) => Some("AppArmor annotations"),
        _ => None,
    };
    for (key, was) in old.entries() {
        let now = new.entry(key);
        if let (Some(kind), true) = (fixed(key), now.value() != was.value()) {
            errors.forbidden(&now, format!("may not remove or update {kind}"));
        }
    }
    for (key, _) in new.entries() {
        if let (Some(kind), false) = (fixed(key), old.entry(key).exists()) {
            errors.forbidden(&new.entry(key), format!("may not add {kind}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(value: &Value) -> At<'_> {
        At::maybe(Some(value), "a")
    }

    fn texts(errors: &FieldErrors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn profiles_of_old_are_of_a_container_and_have_a_form() {
        let spec = json!({"containers": [{"name": "c"}]});
        for (key, value, findings) in [
            (
                "container.apparmor.security.beta.kubernetes.io/c",
                "localhost/x",
                &[][..],
            ),
            (
                "container.apparmor.security.beta.kubernetes.io/d",
                "x",
                &[
                    "a[container.apparmor.security.beta.kubernetes.io/d]: Invalid value: \"d\": container not found",
                    "a[container.apparmor.security.beta.kubernetes.io/d]: Invalid value: \"x\": invalid AppArmor profile name: \"x\"",
                ],
            ),
            (
                "seccomp.security.alpha.kubernetes.io/pod",
                "runtime/default",
                &[],
            ),
            (
                "seccomp.security.alpha.kubernetes.io/pod",
                "x",
                &[
                    "a.seccomp.security.alpha.kubernetes.io/pod: Invalid value: \"x\": must be a valid seccomp profile",
                ],
            ),
            (
                "container.seccomp.security.alpha.kubernetes.io/c",
                "localhost//x",
                &[
                    "a.container.seccomp.security.alpha.kubernetes.io/c: Invalid value: \"/x\": must be a relative path",
                ],
            ),
        ] {
            let given = json!({key: value});
            let mut errors = FieldErrors::default();
            annotations(&at(&given), &at(&spec), &mut errors);
            assert_eq!(texts(&errors), findings, "{key}: {value}");
        }
    }

    #[test]
    fn app_armor_profiles_in_annotations_become_fields() {
        let key = |name: &str| format!("{APP_ARMOR}{name}");
        let mut pod = Object::from_value(json!({
            "metadata": {"annotations": {
                key("a"): "runtime/default", key("b"): "localhost/x", key("c"): "unconfined", key("d"): "y",
            }},
            "spec": {
                "securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}},
                "initContainers": [{"name": "a"}, {"name": "b"}],
                "containers": [
                    {"name": "c", "securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}}, {"name": "d"},
                ],
            },
        }))
        .expect("an object");
        let warned = |name| {
            format!(
                "metadata.annotations[{}]: deprecated since v1.30; use the \"appArmorProfile\" field instead",
                key(name)
            )
        };
        assert_eq!(warnings(&pod), [warned("b"), warned("d")]);
        make_fields(&mut pod);
        let local = json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "x"}});
        let expected = json!([{"name": "a"}, {"name": "b", "securityContext": local}]);
        assert_eq!(pod.at("spec.initContainers").value(), Some(&expected));
        let mut errors = FieldErrors::default();
        agreement(&pod, &mut errors);
        assert_eq!(
            texts(&errors),
            [
                "spec.containers[0].securityContext.appArmorProfile.type: Forbidden: apparmor type in annotation and field must match",
                "spec.containers[1].securityContext.appArmorProfile.type: Forbidden: apparmor type in annotation and field must match",
            ]
        );
    }

    #[test]
    fn tolerations_in_an_annotation_are_looked_at_as_those_of_the_spec() {
        for (given, findings) in [
            ("", vec![]),
            (r#"[{"key": "a", "operator": "Exists"}]"#, vec![]),
            (
                r#"[{"key": "a", "operator": "Exists", "value": "b"}]"#,
                vec![
                    "a.scheduler.alpha.kubernetes.io/tolerations[0].operator: Invalid value: {\"key\":\"a\",\"operator\":\"Exists\",\"value\":\"b\"}: value must be empty when `operator` is 'Exists'",
                ],
            ),
            (
                "{",
                vec![
                    "a: Invalid value: \"scheduler.alpha.kubernetes.io/tolerations\": unexpected end of JSON input",
                ],
            ),
        ] {
            let given = json!({TOLERATIONS: given});
            let mut errors = FieldErrors::default();
            annotations(&at(&given), &at(&json!({})), &mut errors);
            assert_eq!(texts(&errors), findings, "{given}");
        }
    }

    #[test]
    fn a_mirror_has_a_node_and_a_cost_is_a_number() {
        for (given, spec, finding) in [
            (json!({MIRROR: "x"}), json!({"nodeName": "n"}), ""),
            (
                json!({MIRROR: "x"}),
                json!({}),
                "a[kubernetes.io/config.mirror]: Invalid value: \"x\": must set spec.nodeName if mirror pod annotation is set",
            ),
            (json!({DELETION_COST: "-10"}), json!({}), ""),
            (json!({DELETION_COST: "0"}), json!({}), ""),
            (
                json!({DELETION_COST: "+1"}),
                json!({}),
                "a[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"+1\": must be a 32bit integer",
            ),
            (
                json!({DELETION_COST: "08"}),
                json!({}),
                "a[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"08\": must be a 32bit integer",
            ),
            (
                json!({DELETION_COST: "2147483648"}),
                json!({}),
                "a[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"2147483648\": must be a 32bit integer",
            ),
        ] {
            let mut errors = FieldErrors::default();
            annotations(&at(&given), &at(&spec), &mut errors);
            assert_eq!(texts(&errors).join("; "), finding, "{given}");
        }
    }

    #[test]
    fn what_a_pod_was_made_with_stays() {
        let armor = format!("{APP_ARMOR}c");
        let old = json!({MIRROR: "x", "other": "1"});
        for (new, finding) in [
            (json!({MIRROR: "x"}), ""),
            (
                json!({MIRROR: "y"}),
                "a[kubernetes.io/config.mirror]: Forbidden: may not remove or update mirror pod annotation",
            ),
            (
                json!({}),
                "a[kubernetes.io/config.mirror]: Forbidden: may not remove or update mirror pod annotation",
            ),
            (
                json!({MIRROR: "x", armor: "unconfined"}),
                "a[container.apparmor.security.beta.kubernetes.io/c]: Forbidden: may not add AppArmor annotations",
            ),
        ] {
            let mut errors = FieldErrors::default();
            changes(&at(&new), &at(&old), &mut errors);
            assert_eq!(texts(&errors).join("; "), finding, "{new}");
        }
    }
}
