//! StatefulSet: Pods with names and volumes of their own, made and replaced in order.

use coracle_clock::Timestamp;
use serde_json::{Map, Value, json};

use super::{amount, at_most_all, number_or_percentage, template_defaults};
use crate::core::v1::persistent_volume_claim as claim;
use crate::core::v1::pod_spec::{template, validation, warnings};
use crate::field_errors::ErrorType;
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, SCALE, STATUS, Storage, age};
use crate::object::{default_text, default_value, each_object};
use crate::schema::internal_form;
use crate::validation::{names, numbers, selectors};
use crate::{At, FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of statefulsets.
pub static RESOURCE: Resource = Resource {
    group: "apps",
    version: "v1",
    kind: "StatefulSet",
    plural: "statefulsets",
    singular: "statefulset",
    short_names: &["sts"],
    categories: &["all"],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[SCALE, STATUS],
    columns: COLUMNS,
    name_rule: NameRule::Label,
    generation: true,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &StatefulSet,
};

/// The fields of the spec that an update may change.
const MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

/// StatefulSet: Pods with names and volumes of their own, made and replaced in order.
pub struct StatefulSet;

impl Strategy for StatefulSet {
    fn default(&self, object: &mut Object) {
        let spec = object.map_mut("spec");
        default_text(spec, "podManagementPolicy", "OrderedReady");
        default_value(spec, "updateStrategy", || json!({}));
        if let Some(strategy) = spec
            .get_mut("updateStrategy")
            .and_then(Value::as_object_mut)
        {
            default_text(strategy, "type", "RollingUpdate");
            if strategy["type"] == "RollingUpdate" {
                default_value(strategy, "rollingUpdate", || json!({}));
                if let Some(rolling) = strategy
                    .get_mut("rollingUpdate")
                    .and_then(Value::as_object_mut)
                {
                    default_value(rolling, "partition", || json!(0));
                }
            }
        }
        default_value(spec, "persistentVolumeClaimRetentionPolicy", || json!({}));
        if let Some(policy) = spec
            .get_mut("persistentVolumeClaimRetentionPolicy")
            .and_then(Value::as_object_mut)
        {
            default_text(policy, "whenDeleted", "Retain");
            default_text(policy, "whenScaled", "Retain");
        }
        default_value(spec, "replicas", || json!(1));
        default_value(spec, "revisionHistoryLimit", || json!(10));
        each_object(spec, "volumeClaimTemplates", claim_template_defaults);
        template_defaults(object);
        object.set_default("status.replicas", 0);
        object.set_default("status.availableReplicas", 0);
    }

    fn prepare_for_create(&self, new: &mut Object) {
        new.set("status", json!({"replicas": 0, "availableReplicas": 0}));
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let spec = new.at("spec");
        stateful_set_spec(&spec, errors);
        // A wrong one from before may stay.
        let service = spec.key("serviceName");
        if !service.str().is_empty() {
            errors.text(&service, names::dns1123_label);
        }
        for template in spec.key("volumeClaimTemplates").items() {
            claim::claim_spec(&template.key("spec"), errors);
        }
    }

    fn validate_replacement(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        stateful_set_spec(&new.at("spec"), errors);
        if fixed(new) != fixed(old) {
            errors.forbidden(
                &new.at("spec"),
                "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                 'minReadySeconds' are forbidden",
            );
        }
    }

    fn validate_status_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        let status = new.at("status");
        let parts = [
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
        ];
        numbers::non_negative(&status.key("replicas"), errors);
        for field in parts
            .into_iter()
            .chain(["observedGeneration", "collisionCount"])
        {
            numbers::non_negative(&status.key(field), errors);
        }
        let count = |field: &str| status.key(field).as_i64().unwrap_or(0);
        for field in parts {
            if count(field) > count("replicas") {
                let detail = "cannot be greater than status.replicas";
                numbers::number_invalid(&status.key(field), detail, errors);
            }
        }
        if count("availableReplicas") > count("readyReplicas") {
            let detail = "cannot be greater than status.readyReplicas";
            numbers::number_invalid(&status.key("availableReplicas"), detail, errors);
        }
        template::collisions(new, old, errors);
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        if !template::changed(new, old) {
            return Vec::new();
        }
        let spec = new.at("spec");
        let mut found = warnings::template(&spec.key("template"));
        for template in spec.key("volumeClaimTemplates").items() {
            // Upstream writes this path's last part in upper case.
            let at = At::maybe(
                template.key("spec").value(),
                format!("{}.Spec", template.path()),
            );
            found.extend(claim::spec_warnings(&at));
        }
        if spec
            .key("revisionHistoryLimit")
            .as_i64()
            .is_some_and(|limit| limit < 0)
        {
            found.push(
                "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is \
                 recommended"
                    .to_owned(),
            );
        }
        found
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
            age(object, now),
            containers.into(),
            images.into(),
        ]
    }
}

/// A claim's own defaults, and its type, which upstream always shows here.
fn claim_template_defaults(template: &mut Map<String, Value>) {
    let mut typed = Map::new();
    typed.insert("kind".to_owned(), "PersistentVolumeClaim".into());
    typed.insert("apiVersion".to_owned(), "v1".into());
    for (field, value) in std::mem::take(template) {
        typed.entry(field).or_insert(value);
    }
    *template = typed;
    claim::defaults(template);
}

/// The part of the spec that stays as it was made.
fn fixed(object: &Object) -> Map<String, Value> {
    let spec = object.at("spec");
    let mut spec = spec
        .value()
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    for field in MUTABLE {
        spec.shift_remove(field);
    }
    spec.retain(|_, value| !matches!(value, Value::Null) && *value != json!([]));
    spec
}

fn stateful_set_spec(spec: &At<'_>, errors: &mut FieldErrors) {
    let management = spec.key("podManagementPolicy");
    match management.str() {
        "" => errors.required(&management, ""),
        "OrderedReady" | "Parallel" => {}
        _ => errors.invalid(&management, "must be 'OrderedReady' or 'Parallel'"),
    }
    update_strategy(&spec.key("updateStrategy"), errors);
    let retention = spec.key("persistentVolumeClaimRetentionPolicy");
    if retention.exists() {
        for field in ["whenDeleted", "whenScaled"] {
            errors.one_of(&retention.key(field), &["Retain", "Delete"]);
        }
    }
    for field in ["replicas", "minReadySeconds"] {
        numbers::non_negative(&spec.key(field), errors);
    }
    numbers::non_negative(&spec.at("ordinals.start"), errors);
    let selector = spec.key("selector");
    if selector.exists() {
        selectors::label_selector(&selector, errors);
        if selectors::is_empty(&selector) {
            errors.invalid(&selector, "empty selector is invalid for statefulset");
        }
    } else {
        errors.required(&selector, "");
    }
    let pods = spec.key("template");
    if selectors::is_valid(&selector) {
        pod_template(spec, &selector, &pods, errors);
    } else {
        errors.invalid(&selector, "");
    }
    template::always_running(&pods, "StatefulSet", errors);
}

/// Validates the template with the volumes that the claims will be.
fn pod_template(spec: &At<'_>, selector: &At<'_>, pods: &At<'_>, errors: &mut FieldErrors) {
    let labels = pods.at("metadata.labels");
    let selects_all = selector.exists() && selectors::is_empty(selector);
    if !selects_all && !selectors::matches(selector, &labels) {
        errors.invalid(&labels, "`selector` does not match template `labels`");
    }
    let claims: Vec<&str> = spec
        .key("volumeClaimTemplates")
        .items()
        .map(|template| template.at("metadata.name").str())
        .collect();
    let mut volumes: Vec<Value> = claims
        .iter()
        .map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}))
        .collect();
    let others = pods.at("spec.volumes");
    volumes.extend(
        others
            .items()
            .filter(|volume| !claims.contains(&volume.key("name").str()))
            .filter_map(|volume| volume.value().cloned()),
    );
    let mut completed = pods.value().cloned().unwrap_or_else(|| json!({}));
    if !claims.is_empty() && completed["spec"].is_object() {
        completed["spec"]["volumes"] = volumes.into();
    }
    validation::template(&At::root(&completed, pods.path()), errors);
}

fn update_strategy(strategy: &At<'_>, errors: &mut FieldErrors) {
    let rolling = strategy.key("rollingUpdate");
    match strategy.key("type").str() {
        "" => errors.required(strategy, ""),
        "OnDelete" if rolling.exists() => errors.push(
            ErrorType::Invalid,
            rolling.path(),
            Some(internal_form(
                "io.k8s.api.apps.v1.RollingUpdateStatefulSetStrategy",
                rolling.value(),
            )),
            "only allowed for updateStrategy 'RollingUpdate'",
        ),
        "OnDelete" => {}
        "RollingUpdate" => {
            numbers::non_negative(&rolling.key("partition"), errors);
            let unavailable = rolling.key("maxUnavailable");
            if unavailable.exists() {
                number_or_percentage(&unavailable, errors);
                if amount(&unavailable) == 0 {
                    errors.invalid(&unavailable, "cannot be 0");
                }
                at_most_all(&unavailable, errors);
            }
        }
        _ => errors.push(
            ErrorType::Invalid,
            strategy.path(),
            Some(internal_form(
                "io.k8s.api.apps.v1.StatefulSetUpdateStrategy",
                strategy.value(),
            )),
            "must be 'RollingUpdate' or 'OnDelete'",
        ),
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string("Ready", "Number of the pod with ready state"),
    AGE,
    Column::wide("Containers", "Names of each container in the template."),
    Column::wide(
        "Images",
        "Images referenced by each container in the template.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn stateful_set(spec: Value) -> Object {
        let labels = json!({"app": "x"});
        let mount = json!({"name": "data", "mountPath": "/data"});
        let mut object = Object::from_value(json!({
            "metadata": {"name": "x"},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "a", "image": "a:1", "volumeMounts": [mount]}]},
                },
                "volumeClaimTemplates": [{
                    "metadata": {"name": "data"},
                    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
                }],
            },
        }))
        .expect("an object");
        if let Value::Object(more) = spec {
            object.map_mut("spec").extend(more);
        }
        StatefulSet.default(&mut object);
        object
    }

    fn findings(object: &Object) -> Vec<String> {
        let mut errors = FieldErrors::default();
        StatefulSet.validate(object, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn claims_are_volumes_of_the_pods() {
        assert_eq!(findings(&stateful_set(json!({}))), Vec::<String>::new());
        assert_eq!(
            findings(&stateful_set(json!({"volumeClaimTemplates": []}))),
            ["spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\""]
        );
    }

    #[test]
    fn a_new_set_names_a_service_that_there_can_be() {
        let wrong = stateful_set(json!({"serviceName": "Not_A_Label"}));
        let found = findings(&wrong);
        assert_eq!(found.len(), 1);
        let expected =
            "spec.serviceName: Invalid value: \"Not_A_Label\": a lowercase RFC 1123 label";
        assert!(found[0].starts_with(expected), "{found:?}");
        let mut errors = FieldErrors::default();
        StatefulSet.validate_replacement(&wrong, &wrong, &mut errors);
        assert!(errors.is_empty(), "one from before may stay");
    }

    #[test]
    fn only_some_fields_may_change() {
        let old = stateful_set(json!({}));
        let check = |new: &Object| {
            let mut errors = FieldErrors::default();
            StatefulSet.validate_replacement(new, &old, &mut errors);
            errors.len()
        };
        assert_eq!(check(&stateful_set(json!({"replicas": 3}))), 0);
        assert_eq!(check(&stateful_set(json!({"serviceName": "other"}))), 1);
    }
}
