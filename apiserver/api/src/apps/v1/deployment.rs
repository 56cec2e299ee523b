//! Deployment: a number of equal Pods, replaced step by step when their template changes.

use coracle_clock::Timestamp;
use serde_json::{Value, json};

use super::{
    amount, amount_invalid, at_most_all, number_or_percentage, selector_and_template,
    template_defaults,
};
use crate::core::v1::pod_spec::template;
use crate::kinds::{
    AGE, ALL_VERBS, Column, NAME, NameRule, SCALE, STATUS, Storage, age, selector_text,
};
use crate::object::{default_text, default_value};
use crate::validation::numbers;
use crate::{At, FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of deployments.
pub static RESOURCE: Resource = Resource {
    group: "apps",
    version: "v1",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[SCALE, STATUS],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: true,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &Deployment,
};

/// Deployment: a number of equal Pods, replaced step by step when their template changes.
pub struct Deployment;

impl Strategy for Deployment {
    fn status_metadata(&self) -> &'static [&'static str] {
        &["labels"]
    }

    fn default(&self, object: &mut Object) {
        let spec = object.map_mut("spec");
        default_value(spec, "replicas", || json!(1));
        default_value(spec, "strategy", || json!({}));
        if let Some(strategy) = spec.get_mut("strategy").and_then(Value::as_object_mut) {
            default_text(strategy, "type", "RollingUpdate");
            if strategy["type"] == "RollingUpdate" {
                default_value(strategy, "rollingUpdate", || json!({}));
                if let Some(rolling) = strategy
                    .get_mut("rollingUpdate")
                    .and_then(Value::as_object_mut)
                {
                    default_value(rolling, "maxUnavailable", || json!("25%"));
                    default_value(rolling, "maxSurge", || json!("25%"));
                }
            }
        }
        default_value(spec, "revisionHistoryLimit", || json!(10));
        default_value(spec, "progressDeadlineSeconds", || json!(600));
        template_defaults(object);
        object.set_default("status", json!({}));
    }

    fn prepare_for_create(&self, new: &mut Object) {
        new.set("status", json!({}));
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let spec = new.at("spec");
        numbers::non_negative(&spec.key("replicas"), errors);
        selector_and_template(&spec, errors);
        strategy(&spec.key("strategy"), errors);
        numbers::non_negative(&spec.key("minReadySeconds"), errors);
        numbers::non_negative(&spec.key("revisionHistoryLimit"), errors);
        let deadline = spec.key("progressDeadlineSeconds");
        if let Some(seconds) = deadline.as_i64() {
            numbers::non_negative(&deadline, errors);
            if seconds <= spec.key("minReadySeconds").as_i64().unwrap_or(0) {
                errors.invalid(&deadline, "must be greater than minReadySeconds");
            }
        }
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        errors.immutable(&new.at("spec.selector"), &old.at("spec.selector"));
    }

    fn validate_status_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        let now = new.at("status");
        for field in [
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "collisionCount",
        ] {
            numbers::non_negative(&now.key(field), errors);
        }
        let all = now.key("replicas").as_i64().unwrap_or(0);
        for field in ["updatedReplicas", "readyReplicas", "availableReplicas"] {
            not_more(
                &now.key(field),
                all,
                "cannot be greater than status.replicas",
                errors,
            );
        }
        let ready = now.key("readyReplicas").as_i64().unwrap_or(0);
        not_more(
            &now.key("availableReplicas"),
            ready,
            "cannot be greater than readyReplicas",
            errors,
        );
        template::collisions(new, old, errors);
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        template::template_warnings(new, old, "spec.template")
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let number = |path: &str| object.at(path).as_i64().unwrap_or(0);
        let (containers, images) =
            template::containers_and_images(&object.at("spec.template.spec"));
        vec![
            object.name().into(),
            format!(
                "{}/{}",
                number("status.readyReplicas"),
                number("spec.replicas")
            )
            .into(),
            number("status.updatedReplicas").into(),
            number("status.availableReplicas").into(),
            age(object, now),
            containers.into(),
            images.into(),
            selector_text(&object.at("spec.selector")).into(),
        ]
    }
}

fn not_more(at: &At<'_>, most: i64, detail: &str, errors: &mut FieldErrors) {
    if at.as_i64().unwrap_or(0) > most {
        numbers::number_invalid(at, detail, errors);
    }
}

fn strategy(strategy: &At<'_>, errors: &mut FieldErrors) {
    let rolling = strategy.key("rollingUpdate");
    match strategy.key("type").str() {
        "Recreate" if rolling.exists() => {
            errors.forbidden(
                &rolling,
                "may not be specified when strategy `type` is 'Recreate'",
            );
        }
        "Recreate" => {}
        "RollingUpdate" if !rolling.exists() => {
            errors.required(&rolling, "this should be defaulted and never be nil");
        }
        "RollingUpdate" => rolling_update(&rolling, errors),
        _ => errors.not_supported(&strategy.key("type"), &["Recreate", "RollingUpdate"]),
    }
}

/// Pods above and below the number asked for; both zero would stand still for ever.
fn rolling_update(rolling: &At<'_>, errors: &mut FieldErrors) {
    let (unavailable, surge) = (rolling.key("maxUnavailable"), rolling.key("maxSurge"));
    number_or_percentage(&unavailable, errors);
    number_or_percentage(&surge, errors);
    if amount(&unavailable) == 0 && amount(&surge) == 0 {
        amount_invalid(&unavailable, "may not be 0 when `maxSurge` is 0", errors);
    }
    at_most_all(&unavailable, errors);
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string("Ready", "Number of the pod with ready state"),
    Column::string(
        "Up-to-date",
        "Total number of non-terminating pods targeted by this deployment that have the desired template \
         spec.",
    ),
    Column::string(
        "Available",
        "Total number of available non-terminating pods (ready for at least minReadySeconds) targeted by this \
         deployment.",
    ),
    AGE,
    Column::wide("Containers", "Names of each container in the template."),
    Column::wide(
        "Images",
        "Images referenced by each container in the template.",
    ),
    Column::wide(
        "Selector",
        "Label selector for pods. Existing ReplicaSets whose pods are selected by this will be the ones \
         affected by this deployment. It must match the pod template's labels.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(spec: Value) -> Object {
        let labels = json!({"app": "x"});
        let mut object = Object::from_value(json!({
            "metadata": {"name": "x"},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "a:1"}]}},
            },
        }))
        .expect("an object");
        if let Value::Object(more) = spec {
            object.map_mut("spec").extend(more);
        }
        Deployment.default(&mut object);
        object
    }

    fn findings(object: &Object) -> Vec<String> {
        let mut errors = FieldErrors::default();
        Deployment.validate(object, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_small_deployment_is_filled_in_and_accepted() {
        let object = deployment(json!({}));
        assert_eq!(findings(&object), Vec::<String>::new());
        assert_eq!(
            object.at("spec.strategy").value(),
            Some(
                &json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
            )
        );
    }

    #[test]
    fn an_update_that_could_never_move_is_refused() {
        let rolling =
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}});
        assert_eq!(
            findings(&deployment(json!({"strategy": rolling}))),
            [
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"
            ]
        );
    }

    #[test]
    fn the_selector_must_match_the_template_and_never_changes() {
        let other = deployment(json!({"selector": {"matchLabels": {"app": "y"}}}));
        assert_eq!(
            findings(&other),
            [
                "spec.template.metadata.labels: Invalid value: {\"app\":\"x\"}: `selector` does not match template `labels`"
            ]
        );
        let mut errors = FieldErrors::default();
        Deployment.validate_update(&other, &deployment(json!({})), &mut errors);
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"y\"}}: field is immutable"]
        );
    }
}
