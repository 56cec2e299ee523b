//! Priority: a pod's class becomes its priority, and one class at most is the default.

use async_trait::async_trait;
use coracle_api::Object;

use super::{Admission, Attributes, Operation};
use crate::server::Server;
use crate::status::{ApiError, Result};

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Priority;

#[async_trait]
impl Admission for Priority {
    async fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Object>) -> Result<()> {
        let (true, Some(pod)) = (attributes.is("", "pods"), object) else {
            return Ok(());
        };
        match attributes.operation {
            Operation::Create => {
                let class = class_of(attributes.server, pod).await;
                class?
                    .and_then(|class| set_priority(pod, class))
                    .map_err(|why| {
                        ApiError::forbidden(attributes.resource, attributes.name, why)
                    })?;
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
            }
            Operation::Delete => {}
        }
        Ok(())
    }

    async fn verify(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<()> {
        let concerned = attributes.is("scheduling.k8s.io", "priorityclasses");
        let (true, Some(class)) = (concerned, object) else {
            return Ok(());
        };
        if !class.at("globalDefault").is_true() {
            return Ok(());
        }
        let other = default_class(classes(attributes.server).await?);
        let second = other.filter(|other| {
            attributes.operation == Operation::Create
                || (attributes.operation == Operation::Update && other.name() != class.name())
        });
        match second {
            Some(other) => Err(ApiError::forbidden(
                attributes.resource,
                attributes.name,
                format!(
                    "PriorityClass {} is already marked as default. Only one default can exist",
                    other.name()
                ),
            )),
            None => Ok(()),
        }
    }
}

/// What a class gives a pod.
#[derive(Clone, Debug, PartialEq)]
struct Class {
    name: String,
    value: i64,
    policy: String,
}

async fn classes(server: &Server) -> Result<Vec<Object>> {
    server.all("scheduling.k8s.io", "priorityclasses", "").await
}

/// The default class; of several that of the lowest priority.
fn default_class(classes: Vec<Object>) -> Option<Object> {
    classes
        .into_iter()
        .filter(|class| class.at("globalDefault").is_true())
        .min_by_key(|class| class.at("value").as_i64().unwrap_or(0))
}

async fn class_of(server: &Server, pod: &Object) -> Result<std::result::Result<Class, String>> {
    let classes = classes(server).await?;
    let name = pod.at("spec.priorityClassName").str();
    let class = if name.is_empty() {
        default_class(classes)
    } else {
        classes.into_iter().find(|class| class.name() == name)
    };
    let policy = |class: &Object| {
        let policy = class.at("preemptionPolicy");
        policy.as_str().unwrap_or("PreemptLowerPriority").to_owned()
    };
    Ok(match class {
        Some(class) => Ok(Class {
            name: class.name().to_owned(),
            value: class.at("value").as_i64().unwrap_or(0),
            policy: policy(&class),
        }),
        None if name.is_empty() => Ok(Class {
            name: String::new(),
            value: 0,
            policy: "PreemptLowerPriority".to_owned(),
        }),
        None => Err(format!("no PriorityClass with name {name} was found")),
    })
}

fn set_priority(pod: &mut Object, class: Class) -> std::result::Result<(), String> {
    let Class {
        name,
        value,
        policy,
    } = class;
    let computed = |what: &str, given: &str, value: &str| {
        format!(
            "the {what} ({given}) must not be provided in pod spec; priority admission controller computed {value} from \
             the given PriorityClass name"
        )
    };
    let asked = pod.at("spec.priority").as_i64();
    if let Some(asked) = asked.filter(|asked| *asked != value) {
        let (asked, value) = (asked.to_string(), value.to_string());
        return Err(computed("integer value of priority", &asked, &value));
    }
    let asked = pod.at("spec.preemptionPolicy").as_str();
    if let Some(asked) = asked.filter(|asked| *asked != policy) {
        return Err(computed("string value of PreemptionPolicy", asked, &policy));
    }
    if !name.is_empty() {
        pod.set("spec.priorityClassName", name);
    }
    pod.set("spec.priority", value);
    pod.set("spec.preemptionPolicy", policy);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object(value: Value) -> Object {
        Object::from_value(value).expect("an object")
    }

    #[test]
    fn a_class_decides_alone() {
        let class = Class {
            name: "high".to_owned(),
            value: 7,
            policy: "Never".to_owned(),
        };
        let mut pod = object(json!({"spec": {}}));
        set_priority(&mut pod, class.clone()).expect("accepted");
        assert_eq!(
            pod.at("spec").value(),
            Some(&json!({"priorityClassName": "high", "priority": 7, "preemptionPolicy": "Never"}))
        );
        set_priority(&mut pod, class.clone()).expect("the same again");
        for spec in [
            json!({"priority": 8}),
            json!({"preemptionPolicy": "PreemptLowerPriority"}),
        ] {
            assert!(set_priority(&mut object(json!({"spec": spec})), class.clone()).is_err());
        }
    }

    #[test]
    fn the_lowest_default_wins() {
        let class = |name: &str, value: i64, default: bool| {
            object(json!({"metadata": {"name": name}, "value": value, "globalDefault": default}))
        };
        let found = default_class(vec![
            class("a", 3, true),
            class("b", 2, true),
            class("c", 1, false),
        ]);
        assert_eq!(found.expect("one of them").name(), "b");
    }
}
