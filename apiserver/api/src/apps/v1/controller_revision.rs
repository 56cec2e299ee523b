//! ControllerRevision: an earlier state of a DaemonSet or StatefulSet, to return to.

use coracle_clock::Timestamp;
use serde_json::Value;

use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, Storage, age};
use crate::validation::numbers;
use crate::{FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of controllerrevisions.
pub static RESOURCE: Resource = Resource {
    group: "apps",
    version: "v1",
    kind: "ControllerRevision",
    plural: "controllerrevisions",
    singular: "controllerrevision",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: false,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &ControllerRevision,
};

/// ControllerRevision: an earlier state of a DaemonSet or StatefulSet, to return to.
pub struct ControllerRevision;

impl Strategy for ControllerRevision {
    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let data = new.at("data");
        match data.value() {
            None => errors.required(&data, "data is mandatory"),
            Some(Value::Object(_)) => {}
            Some(_) => errors.required(&data, "data must be a valid JSON object"),
        }
        numbers::non_negative(&new.at("revision"), errors);
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        errors.immutable(&new.at("data"), &old.at("data"));
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            controller(object).into(),
            object.at("revision").as_i64().unwrap_or(0).into(),
            age(object, now),
        ]
    }
}

/// The controller that owns the object, such as `statefulset.apps/web`; `<none>` without one.
fn controller(object: &Object) -> String {
    let owners = object.at("metadata.ownerReferences");
    let owner = owners
        .items()
        .find(|owner| owner.key("controller").is_true());
    let Some(owner) = owner else {
        return "<none>".to_owned();
    };
    let kind = owner.key("kind").str().to_lowercase();
    let name = owner.key("name").str();
    match owner.key("apiVersion").str().split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{name}"),
        None => format!("{kind}/{name}"),
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string("Controller", "Controller of the object"),
    Column::string(
        "Revision",
        "Revision indicates the revision of the state represented by Data.",
    ),
    AGE,
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn data_is_an_object() {
        let findings = |data: Value| {
            let object = Object::from_value(json!({"metadata": {"name": "x"}, "data": data}));
            let mut errors = FieldErrors::default();
            ControllerRevision.validate(&object.expect("an object"), &mut errors);
            errors.len()
        };
        assert_eq!(findings(json!({})), 0);
        for data in [json!(null), json!("text"), json!([1])] {
            assert_eq!(findings(data), 1);
        }
    }

    #[test]
    fn the_controller_is_named_with_its_group() {
        let owner = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": true});
        let object = Object::from_value(json!({"metadata": {"ownerReferences": [owner]}}));
        assert_eq!(
            controller(&object.expect("an object")),
            "statefulset.apps/web"
        );
    }
}
