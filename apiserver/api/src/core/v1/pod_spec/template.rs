//! What the kinds that carry a template of Pods share.

use serde_json::Value;

use super::warnings;
use crate::field_errors::ErrorType;
use crate::validation::numbers;
use crate::{At, FieldErrors, Object};

/// Reports Pods of a template that would not run for ever; `kind` is whose they are.
pub fn always_running(template: &At<'_>, kind: &str, errors: &mut FieldErrors) {
    let policy = template.at("spec.restartPolicy");
    if policy.str() != "Always" {
        errors.not_supported(&policy, &["Always"]);
    }
    let deadline = template.at("spec.activeDeadlineSeconds");
    if deadline.exists() {
        errors.forbidden(
            &deadline,
            format!("activeDeadlineSeconds in {kind} is not Supported"),
        );
    }
}

/// Reports disks that can be had by one Pod only, in a template of several.
pub fn shared_disks(template: &At<'_>, replicas: i64, errors: &mut FieldErrors) {
    if replicas <= 1 {
        return;
    }
    for volume in template.at("spec.volumes").items() {
        let disk = volume.key("gcePersistentDisk");
        if disk.exists() && !disk.key("readOnly").is_true() {
            errors.push(
                ErrorType::Invalid,
                disk.key("readOnly").path(),
                Some(Value::Bool(false)),
                "must be true for replicated pods > 1; GCE PD can only be mounted on multiple machines if it is \
                 read-only",
            );
        }
    }
}

/// Reports counts of Pods that contradict each other: a status of a ReplicaSet or ReplicationController.
pub fn replica_status(status: &At<'_>, errors: &mut FieldErrors) {
    for field in [
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "observedGeneration",
    ] {
        numbers::non_negative(&status.key(field), errors);
    }
    let count = |field: &str| status.key(field).as_i64().unwrap_or(0);
    for field in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
        if count(field) > count("replicas") {
            let detail = "cannot be greater than status.replicas";
            numbers::number_invalid(&status.key(field), detail, errors);
        }
    }
    if count("availableReplicas") > count("readyReplicas") {
        let detail = "cannot be greater than readyReplicas";
        numbers::number_invalid(&status.key("availableReplicas"), detail, errors);
    }
}

/// Reports a counter of name collisions that goes back.
pub fn collisions(new: &Object, old: &Object, errors: &mut FieldErrors) {
    let count = |object: &Object| object.at("status.collisionCount").as_i64();
    if let Some(before) = count(old)
        && count(new).is_none_or(|now| now < before)
    {
        let at = new.at("status.collisionCount");
        numbers::number_invalid(&at, "cannot be decremented", errors);
    }
}

/// Names and images of the containers of a pod's spec, with commas between.
pub fn containers_and_images(spec: &At<'_>) -> (String, String) {
    let containers = spec.key("containers");
    let list = |field: &str| {
        let texts: Vec<&str> = containers
            .items()
            .map(|container| container.key(field).str())
            .collect();
        texts.join(",")
    };
    (list("name"), list("image"))
}

/// Warnings about the template at `path`, and about the name of a new object whose Pods are called after it.
/// An update is warned about only when it changes what is asked for.
pub fn template_warnings(new: &Object, old: Option<&Object>, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    if old.is_none() {
        found.extend(warnings::name(new, "Pod names and hostnames"));
    }
    if changed(new, old) {
        found.extend(warnings::template(&new.at(path)));
    }
    found
}

/// Whether an object is new or asks for something else than before.
pub fn changed(new: &Object, old: Option<&Object>) -> bool {
    let generation = |object: &Object| object.at("metadata.generation").as_i64();
    old.is_none_or(|old| generation(new) != generation(old))
}
