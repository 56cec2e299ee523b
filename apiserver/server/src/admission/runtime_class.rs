//! RuntimeClass: what the class of a pod costs, and where its pods may run.

use async_trait::async_trait;
use coracle_api::quantity::Quantity;
use coracle_api::{At, Object};
use serde_json::{Map, Value};

use super::{Admission, Attributes, Operation};
use crate::status::{ApiError, Result};

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct RuntimeClassAdmission;

#[async_trait]
impl Admission for RuntimeClassAdmission {
    async fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<()> {
        let (true, Some(pod)) = (concerns(attributes), object) else {
            return Ok(());
        };
        if let Some(class) = class_of(attributes, pod).await? {
            apply(pod, &class).map_err(|why| forbidden(attributes, why))?;
        }
        Ok(())
    }

    async fn verify(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<()> {
        let (true, Some(pod)) = (concerns(attributes), object) else {
            return Ok(());
        };
        let class = class_of(attributes, pod).await?;
        check(pod, class.as_ref()).map_err(|why| forbidden(attributes, why))
    }
}

fn concerns(attributes: &Attributes<'_>) -> bool {
    let resource = attributes.resource;
    attributes.operation == Operation::Create
        && attributes.subresource.is_empty()
        && resource.group.is_empty()
        && resource.plural == "pods"
}

fn forbidden(attributes: &Attributes<'_>, why: impl std::fmt::Display) -> ApiError {
    ApiError::forbidden(attributes.resource, attributes.name, why)
}

/// The class that the pod names, which has to be there.
async fn class_of(attributes: &Attributes<'_>, pod: &Object) -> Result<Option<Object>> {
    let Some(name) = pod.at("spec.runtimeClassName").as_str() else {
        return Ok(None);
    };
    let found = attributes
        .server
        .find("node.k8s.io", "runtimeclasses", "", name)
        .await?;
    let missing = || {
        forbidden(
            attributes,
            format!("pod rejected: RuntimeClass {name:?} not found"),
        )
    };
    found.map(|class| Some(class.object())).ok_or_else(missing)
}

/// Adds what the class asks for; an error says what of the pod contradicts it.
fn apply(pod: &mut Object, class: &Object) -> std::result::Result<(), String> {
    let overhead = class.at("overhead");
    if overhead.exists() {
        let fixed = overhead.key("podFixed");
        let own = pod.at("spec.overhead");
        if own.exists() && !same_amounts(&own, &fixed) {
            return Err(MISMATCH.to_owned());
        }
        if let Some(fixed) = fixed.value() {
            pod.set("spec.overhead", fixed.clone());
        }
    }
    let rules = class.at("scheduling");
    if !rules.exists() {
        return Ok(());
    }
    for (key, value) in rules.key("nodeSelector").entries() {
        let wanted = value.str();
        let selector = pod
            .map_mut("spec")
            .entry("nodeSelector")
            .or_insert_with(|| Value::Object(Map::new()));
        if let Some(selector) = selector.as_object_mut() {
            let own = selector.get(key).and_then(Value::as_str);
            if let Some(own) = own.filter(|own| *own != wanted) {
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {own}"
                ));
            }
            selector.insert(key.to_owned(), wanted.into());
        }
    }
    let list = |at: At<'_>| {
        at.value()
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let merged = merge(
        list(pod.at("spec.tolerations")),
        list(rules.key("tolerations")),
    );
    if !merged.is_empty() {
        pod.set("spec.tolerations", merged);
    }
    Ok(())
}

/// Whether the pod costs what its class says, and nothing without a class that says so.
fn check(pod: &Object, class: Option<&Object>) -> std::result::Result<(), &'static str> {
    let own = pod.at("spec.overhead");
    match class.map(|class| class.at("overhead")).filter(At::exists) {
        Some(overhead) if same_amounts(&own, &overhead.key("podFixed")) => Ok(()),
        Some(_) => Err(MISMATCH),
        None if own.exists() => Err(
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        ),
        None => Ok(()),
    }
}

fn same_amounts(one: &At<'_>, other: &At<'_>) -> bool {
    let amount = |at: At<'_>| at.as_str().and_then(|text| text.parse::<Quantity>().ok());
    one.len() == other.len()
        && one.entries().all(|(name, quantity)| {
            let other = other.entry(name);
            other.exists() && amount(quantity) == amount(other)
        })
}

/// Both lists, without what another entry covers; of two equal ones the first stays.
fn merge(mut all: Vec<Value>, more: Vec<Value>) -> Vec<Value> {
    all.extend(more);
    let mut merged: Vec<Value> = Vec::new();
    for (index, toleration) in all.iter().enumerate() {
        let covered = merged.iter().any(|other| covers(other, toleration))
            || all[index + 1..]
                .iter()
                .any(|other| other != toleration && covers(other, toleration));
        if !covered {
            merged.push(toleration.clone());
        }
    }
    merged
}

/// Whether one toleration tolerates all that another does.
fn covers(one: &Value, other: &Value) -> bool {
    if one == other {
        return true;
    }
    let text = |value: &Value, field: &str| {
        value
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let seconds = |value: &Value| value.get("tolerationSeconds").and_then(Value::as_i64);
    let every_key = text(one, "key").is_empty() && text(one, "operator") == "Exists";
    if text(one, "key") != text(other, "key") && !every_key {
        return false;
    }
    let effect = text(one, "effect");
    if !effect.is_empty() && effect != text(other, "effect") {
        return false;
    }
    if effect == "NoExecute"
        && let Some(most) = seconds(one)
        && seconds(other).is_none_or(|seconds| seconds > most)
    {
        return false;
    }
    match text(one, "operator").as_str() {
        "" | "Equal" => {
            text(other, "operator") == "Equal" && text(one, "value") == text(other, "value")
        }
        "Exists" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Object {
        Object::from_value(value).expect("an object")
    }

    #[test]
    fn a_pod_gets_what_its_class_asks_for() {
        let class = object(json!({
            "overhead": {"podFixed": {"cpu": "10m"}},
            "scheduling": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "k", "operator": "Exists"}]},
        }));
        let covered = json!({"key": "k", "operator": "Exists", "effect": "NoSchedule"});
        let mut pod = object(json!({"spec": {"tolerations": [covered]}}));
        apply(&mut pod, &class).expect("no contradiction");
        check(&pod, Some(&class)).expect("as the class says");
        assert_eq!(pod.at("spec.nodeSelector").entry("a").str(), "b");
        assert_eq!(pod.at("spec.tolerations").len(), 1);
        for contradiction in [
            json!({"spec": {"overhead": {"cpu": "1"}}}),
            json!({"spec": {"nodeSelector": {"a": "c"}}}),
        ] {
            assert!(apply(&mut object(contradiction), &class).is_err());
        }
        let same = json!({"spec": {"overhead": {"cpu": "0.01"}}});
        assert!(apply(&mut object(same.clone()), &class).is_ok());
        assert!(check(&object(same), None).is_err());
    }
}
