//! PriorityClass: a name for how important a pod is.

use coracle_clock::Timestamp;
use serde_json::Value;

use crate::field_errors::ErrorType;
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, Storage, age};
use crate::object::default_value;
use crate::{FieldErrors, Object, Resource, Strategy};

/// The highest value of a class that is not the system's.
const HIGHEST_OF_USERS: i64 = 1_000_000_000;

/// A class that every cluster has.
pub struct SystemClass {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: i64,
    /// What it is for.
    pub description: &'static str,
}

/// The classes that every cluster has; no other class may have a name that begins with `system-`.
pub static SYSTEM_CLASSES: &[SystemClass] = &[
    SystemClass {
        name: "system-node-critical",
        value: 2_000_001_000,
        description: "Used for system critical pods that must not be moved from their current node.",
    },
    SystemClass {
        name: "system-cluster-critical",
        value: 2_000_000_000,
        description: "Used for system critical pods that must run in the cluster, but can be moved to another node \
                      if necessary.",
    },
];

/// What the pipeline knows of priority classes.
pub static RESOURCE: Resource = Resource {
    group: "scheduling.k8s.io",
    version: "v1",
    kind: "PriorityClass",
    plural: "priorityclasses",
    singular: "priorityclass",
    short_names: &["pc"],
    categories: &[],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: false,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &PriorityClass,
};

/// PriorityClass: a name for how important a pod is.
pub struct PriorityClass;

impl Strategy for PriorityClass {
    fn default(&self, object: &mut Object) {
        default_value(object.root_mut(), "preemptionPolicy", || {
            "PreemptLowerPriority".into()
        });
    }

    fn prepare_for_create(&self, new: &mut Object) {
        // Every class has its first generation for ever, as upstream's have.
        new.metadata_mut().insert("generation".to_owned(), 1.into());
    }

    fn validate_create(&self, new: &Object, errors: &mut FieldErrors) {
        let value = new.at("value");
        if new.name().starts_with("system-") {
            if let Err(why) = known(new) {
                let detail = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {why}"
                );
                errors.forbidden(&new.at("metadata.name"), detail);
            }
        } else if value.as_i64().unwrap_or(0) > HIGHEST_OF_USERS {
            let detail =
                format!("maximum allowed value of a user defined priority is {HIGHEST_OF_USERS}");
            errors.forbidden(&value, detail);
        }
        let policy = new.at("preemptionPolicy");
        match policy.as_str() {
            None | Some("Never" | "PreemptLowerPriority") => {}
            Some("") => errors.required(&policy, ""),
            Some(_) => errors.not_supported(&policy, &["Never", "PreemptLowerPriority"]),
        }
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        let number = |object: &Object| object.at("value").as_i64().unwrap_or(0);
        if number(new) != number(old) {
            errors.push(
                ErrorType::Forbidden,
                "value",
                None,
                "may not be changed in an update.",
            );
        }
        errors.unchanged(new, old, &["preemptionPolicy"]);
    }

    fn refuse_deletion(&self, name: &str) -> Option<&'static str> {
        let system = SYSTEM_CLASSES.iter().any(|class| class.name == name);
        system.then_some("this is a system priority class and cannot be deleted")
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            object.at("value").as_i64().unwrap_or(0).into(),
            object.at("globalDefault").is_true().into(),
            age(object, now),
            object.at("preemptionPolicy").str().into(),
        ]
    }
}

/// Whether a class with a system name is what it has to be.
fn known(class: &Object) -> Result<(), String> {
    let name = class.name();
    let Some(system) = SYSTEM_CLASSES.iter().find(|system| system.name == name) else {
        return Err(format!("{name} is not a known system priority class"));
    };
    if class.at("value").as_i64().unwrap_or(0) != system.value {
        return Err(format!(
            "value of {name} PriorityClass must be {}",
            system.value
        ));
    }
    if class.at("globalDefault").is_true() {
        return Err(format!(
            "globalDefault of {name} PriorityClass must be false"
        ));
    }
    Ok(())
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::integer(
        "Value",
        "value represents the integer value of this priority class. This is the actual priority that pods \
         receive when they have the name of this class in their pod spec.",
    ),
    Column {
        name: "Global-Default",
        kind: "boolean",
        format: "",
        description: "globalDefault specifies whether this PriorityClass should be considered as the default priority for \
         pods that do not have any priority class. Only one PriorityClass can be marked as `globalDefault`. \
         However, if more than one PriorityClasses exists with their `globalDefault` field set to true, the \
         smallest value of such global default PriorityClasses will be used as the default priority.",
        priority: 0,
    },
    AGE,
    Column::string(
        "PreemptionPolicy",
        "preemptionPolicy is the Policy for preempting pods with lower priority. One of Never, \
         PreemptLowerPriority. Defaults to PreemptLowerPriority if unset.",
    ),
];
