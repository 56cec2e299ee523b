//! PodTemplate: a description of Pods to be made.

use coracle_clock::Timestamp;
use serde_json::Value;

use super::pod_spec::{defaults, template, validation, warnings};
use crate::kinds::{ALL_VERBS, Column, NAME, NameRule, Storage, labels_text};
use crate::{FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of podtemplates.
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "PodTemplate",
    plural: "podtemplates",
    singular: "podtemplate",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: true,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &PodTemplate,
};

/// PodTemplate: a description of Pods to be made.
pub struct PodTemplate;

impl Strategy for PodTemplate {
    fn default(&self, object: &mut Object) {
        defaults::pod_spec(object.map_mut("template.spec"));
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        validation::template(&new.at("template"), errors);
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        if template::changed(new, old) {
            warnings::template(&new.at("template"))
        } else {
            Vec::new()
        }
    }

    fn cells(&self, object: &Object, _now: Timestamp) -> Vec<Value> {
        let (containers, images) = template::containers_and_images(&object.at("template.spec"));
        vec![
            object.name().into(),
            containers.into(),
            images.into(),
            labels_text(&object.at("template.metadata.labels")).into(),
        ]
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string("Containers", "Names of each container in the template."),
    Column::string(
        "Images",
        "Images referenced by each container in the template.",
    ),
    Column::string("Pod Labels", "The labels for the pod template."),
];
