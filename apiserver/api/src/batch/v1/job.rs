//! Job: Pods that run until a number of them have succeeded.

use coracle_clock::Timestamp;
use serde_json::{Map, Value, json};

use crate::core::v1::pod_spec::defaults;
use crate::core::v1::pod_spec::template::{changed, containers_and_images, template_warnings};
use crate::kinds::{
    AGE, ALL_VERBS, Column, NAME, NameRule, STATUS, Storage, age, human_duration, selector_text,
};
use crate::object::{default_text, default_value};
use crate::{At, FieldErrors, Object, Resource, Strategy};

mod indexes;
mod policies;
mod status;
mod update;
mod validation;

pub(super) use validation::job_spec;

/// What the pipeline knows of jobs.
pub static RESOURCE: Resource = Resource {
    group: "batch",
    version: "v1",
    kind: "Job",
    plural: "jobs",
    singular: "job",
    short_names: &[],
    categories: &["all"],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[STATUS],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: true,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &Job,
};

/// The label of a Job's Pods that its selector asks for.
const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
/// The label of a Job's Pods with its name.
const JOB_NAME: &str = "batch.kubernetes.io/job-name";
/// The same labels from before they had a prefix.
const OLD_CONTROLLER_UID: &str = "controller-uid";
/// See [`OLD_CONTROLLER_UID`].
const OLD_JOB_NAME: &str = "job-name";

/// Job: Pods that run until a number of them have succeeded.
pub struct Job;

impl Strategy for Job {
    fn default(&self, object: &mut Object) {
        let spec = object.map_mut("spec");
        if !set(spec, "completions") && !set(spec, "parallelism") {
            spec.insert("completions".to_owned(), json!(1));
        }
        default_value(spec, "parallelism", || json!(1));
        let per_index = set(spec, "backoffLimitPerIndex");
        default_value(spec, "backoffLimit", || {
            json!(if per_index { i32::MAX } else { 6 })
        });
        default_text_value(spec, "completionMode", "NonIndexed");
        default_value(spec, "suspend", || json!(false));
        let policy = if set(spec, "podFailurePolicy") {
            "Failed"
        } else {
            "TerminatingOrFailed"
        };
        default_text_value(spec, "podReplacementPolicy", policy);
        default_value(spec, "manualSelector", || json!(false));
        policy_defaults(spec);
        defaults::pod_spec(object.map_mut("spec.template.spec"));
        labels_from_template(object);
    }

    fn prepare_for_create(&self, new: &mut Object) {
        if !new.at("spec.manualSelector").is_true() {
            // Labels that were taken from the template are the template's, and grow with it.
            let shared = new.at("metadata.labels").value()
                == new.at("spec.template.metadata.labels").value();
            generate_selector(new);
            if shared && new.at("metadata.labels").exists() {
                new.metadata_mut().shift_remove("labels");
                labels_from_template(new);
            }
        }
        new.set("status", json!({}));
    }

    fn read_back(&self) -> Option<fn(&mut Object) -> bool> {
        Some(|object| {
            let unlabelled = object.at("metadata.labels").is_empty();
            labels_from_template(object);
            unlabelled && !object.at("metadata.labels").is_empty()
        })
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        validation::job(new, true, errors);
    }

    fn validate_replacement(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        update::job(new, old, errors);
    }

    fn validate_status_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        status::update(new, old, errors);
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        let mut found = Vec::new();
        if changed(new, old) {
            found.extend(size_warning(&new.at("spec")));
        }
        let at = found.len();
        found.extend(template_warnings(new, old, "spec.template"));
        // The name comes first, before what is said of the spec.
        if found.len() > at && old.is_none() && found[at].starts_with("metadata.name") {
            let name = found.remove(at);
            found.insert(0, name);
        }
        found
    }

    fn selectable_fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        let succeeded = object.at("status.succeeded").as_i64().unwrap_or(0);
        vec![("status.successful", succeeded.to_string())]
    }

    fn unknown_field(&self, field: &str) -> String {
        format!("field label {field:?} not supported for Job")
    }

    fn orphans_by_default(&self) -> bool {
        true
    }

    fn deletion_warning(&self) -> Option<&'static str> {
        Some(
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove \
             them or set propagationPolicy=Orphan to suppress this warning",
        )
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let (containers, images) = containers_and_images(&object.at("spec.template.spec"));
        vec![
            object.name().into(),
            status_text(object).into(),
            completions_text(object).into(),
            duration_text(object, now).into(),
            age(object, now),
            containers.into(),
            images.into(),
            selector_text(&object.at("spec.selector")).into(),
        ]
    }
}

fn set(spec: &Map<String, Value>, field: &str) -> bool {
    spec.get(field).is_some_and(|value| !value.is_null())
}

/// For texts that Go holds by pointer: an empty one stays.
fn default_text_value(spec: &mut Map<String, Value>, field: &str, text: &str) {
    default_value(spec, field, || Value::from(text));
}

/// Fills in the conditions of a failure policy; a status that is not named is `True`.
pub(super) fn policy_defaults(spec: &mut Map<String, Value>) {
    let policy = spec
        .get_mut("podFailurePolicy")
        .and_then(Value::as_object_mut);
    if let Some(policy) = policy {
        crate::object::each_object(policy, "rules", |rule| {
            crate::object::each_object(rule, "onPodConditions", |pattern| {
                default_text(pattern, "status", "True");
            });
        });
    }
}

/// A Job without labels has those of its Pods.
fn labels_from_template(object: &mut Object) {
    if !object.at("metadata.labels").is_empty() {
        return;
    }
    let labels = object.at("spec.template.metadata.labels");
    if let Some(labels) = labels.value().filter(|_| !labels.is_empty()).cloned() {
        object.metadata_mut().insert("labels".to_owned(), labels);
    }
}

/// Labels the template with the Job's name and uid, and selects by the uid.
fn generate_selector(object: &mut Object) {
    let (name, uid) = (object.name().to_owned(), object.uid().to_owned());
    let labels = object.map_mut("spec.template.metadata.labels");
    for (label, value) in [
        (OLD_JOB_NAME, &name),
        (JOB_NAME, &name),
        (OLD_CONTROLLER_UID, &uid),
        (CONTROLLER_UID, &uid),
    ] {
        labels
            .entry(label)
            .or_insert_with(|| Value::from(value.as_str()));
    }
    // Maps are written sorted.
    let mut sorted: Vec<_> = std::mem::take(labels).into_iter().collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    labels.extend(sorted);
    object
        .map_mut("spec.selector.matchLabels")
        .entry(CONTROLLER_UID)
        .or_insert_with(|| Value::from(uid));
}

/// What is too large to be tracked well.
pub(super) fn size_warning(spec: &At<'_>) -> Option<String> {
    let number = |field: &str| spec.key(field).as_i64().unwrap_or(0);
    let large = spec.key("completionMode").str() == "Indexed"
        && number("completions") > 100_000
        && number("parallelism") > 10_000;
    large.then(|| {
        format!(
            "{}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
             Kubernetes might not be able to track completedIndexes when a big number of indexes fail",
            spec.path()
        )
    })
}

fn status_text(object: &Object) -> &'static str {
    let is = |kind: &str| status::condition(object, kind);
    if is("Complete") {
        "Complete"
    } else if is("Failed") {
        "Failed"
    } else if object.is_terminating() {
        "Terminating"
    } else if is("Suspended") {
        "Suspended"
    } else if is("FailureTarget") {
        "FailureTarget"
    } else if is("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions_text(object: &Object) -> String {
    let succeeded = object.at("status.succeeded").as_i64().unwrap_or(0);
    let spec = object.at("spec");
    match (
        spec.key("completions").as_i64(),
        spec.key("parallelism").as_i64().unwrap_or(0),
    ) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn duration_text(object: &Object, now: Timestamp) -> String {
    let time = |field: &str| {
        object
            .at("status")
            .key(field)
            .as_str()
            .and_then(|text| text.parse::<Timestamp>().ok())
    };
    let Some(start) = time("startTime") else {
        return String::new();
    };
    let end = time("completionTime").unwrap_or(now);
    human_duration(end.as_second() - start.as_second())
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string("Status", "Status of the job."),
    Column::string(
        "Completions",
        "The number of pods which reached phase Succeeded. The value increases monotonically for a given spec. \
         However, it may decrease in reaction to scale down of elastic indexed jobs.",
    ),
    Column::string("Duration", "Time required to complete the job."),
    AGE,
    Column::wide("Containers", "Names of each container in the template."),
    Column::wide(
        "Images",
        "Images referenced by each container in the template.",
    ),
    Column::wide(
        "Selector",
        "A label query over pods that should match the pod count. Normally, the system sets this field for you. \
         More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
    ),
];

#[cfg(test)]
mod tests;
