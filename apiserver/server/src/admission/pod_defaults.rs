//! What upstream's Priority and DefaultTolerationSeconds plugins give every pod.
//!
//! PriorityClasses are not served yet, so every pod has priority 0, unless it names one of the two system classes.

use async_trait::async_trait;
use coracle_api::Object;
use serde_json::{Value, json};

use super::{Admission, Attributes, Operation};
use crate::status::{ApiError, Result};

/// How long a pod stays on a node that is not ready or unreachable, in seconds.
const TOLERATION_SECONDS: i64 = 300;

/// Classes that exist in every cluster, and their values.
const SYSTEM_CLASSES: &[(&str, i64)] = &[
    ("system-cluster-critical", 2_000_000_000),
    ("system-node-critical", 2_000_001_000),
];

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct PodDefaults;

#[async_trait]
impl Admission for PodDefaults {
    async fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<()> {
        let resource = attributes.resource;
        let is_pod = resource.group.is_empty()
            && resource.plural == "pods"
            && attributes.subresource.is_empty();
        let (true, Some(pod)) = (is_pod, object) else {
            return Ok(());
        };
        match attributes.operation {
            Operation::Create => {
                set_priority(pod)
                    .map_err(|why| ApiError::forbidden(resource, attributes.name, why))?;
                tolerate(pod);
            }
            Operation::Update => {
                // Both are set once; a client that sends an older form of the object means no change.
                for field in ["spec.priority", "spec.preemptionPolicy"] {
                    let before = attributes
                        .old
                        .and_then(|old| old.at(field).value().cloned());
                    if let Some(before) = before.filter(|_| !pod.at(field).exists()) {
                        pod.set(field, before);
                    }
                }
                tolerate(pod);
            }
            Operation::Delete => {}
        }
        Ok(())
    }
}

fn set_priority(pod: &mut Object) -> std::result::Result<(), String> {
    let class = pod.at("spec.priorityClassName").str();
    let value = match SYSTEM_CLASSES.iter().find(|(name, _)| *name == class) {
        Some((_, value)) => *value,
        None if class.is_empty() => 0,
        None => return Err(format!("no PriorityClass with name {class} was found")),
    };
    if pod
        .at("spec.priority")
        .as_i64()
        .is_some_and(|asked| asked != value)
    {
        return Err(format!(
            "the integer value of priority ({}) must not be provided in pod spec; priority admission controller computed \
             {value} from the given PriorityClass name",
            pod.at("spec.priority").as_i64().unwrap_or_default()
        ));
    }
    pod.set("spec.priority", value);
    pod.set_default("spec.preemptionPolicy", "PreemptLowerPriority");
    Ok(())
}

/// Adds the two tolerations, unless the pod has its own for the same taint.
fn tolerate(pod: &mut Object) {
    for taint in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let covered = pod.at("spec.tolerations").items().any(|toleration| {
            let key = toleration.key("key").str();
            let effect = toleration.key("effect").str();
            (key == taint || key.is_empty()) && matches!(effect, "NoExecute" | "")
        });
        if covered {
            continue;
        }
        let toleration = json!({
            "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS,
        });
        let tolerations = pod
            .map_mut("spec")
            .entry("tolerations")
            .or_insert_with(|| json!([]));
        if let Some(list) = tolerations.as_array_mut() {
            list.push(toleration);
        } else if tolerations.is_null() {
            *tolerations = Value::Array(vec![toleration]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: Value) -> Object {
        Object::from_value(json!({"spec": spec})).expect("an object")
    }

    #[test]
    fn own_tolerations_are_kept() {
        let own = json!({"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"});
        let mut pod = pod(json!({"tolerations": [own.clone()]}));
        tolerate(&mut pod);
        let tolerations = pod.at("spec.tolerations");
        assert_eq!(
            (tolerations.len(), tolerations.index(0).value()),
            (2, Some(&own))
        );
    }

    #[test]
    fn unknown_classes_are_refused() {
        assert!(set_priority(&mut pod(json!({"priorityClassName": "none"}))).is_err());
        let mut critical = pod(json!({"priorityClassName": "system-node-critical"}));
        set_priority(&mut critical).expect("a system class");
        assert_eq!(critical.at("spec.priority").as_i64(), Some(2_000_001_000));
    }
}
