//! Version v1 of the group, and what its kinds share: a selector and a template of Pods.

use crate::core::v1::pod_spec::{defaults, validation};
use crate::validation::selectors;
use crate::{At, FieldErrors, Object};

pub mod deployment;
pub mod replica_set;

/// Fills in the spec of the template.
fn template_defaults(object: &mut Object) {
    defaults::pod_spec(object.map_mut("spec.template.spec"));
}

/// Reports what is wrong with the selector, with the template, and between them.
fn selector_and_template(spec: &At<'_>, errors: &mut FieldErrors) {
    let (selector, template) = (spec.key("selector"), spec.key("template"));
    let before = errors.len();
    if selector.exists() {
        selectors::label_selector(&selector, errors);
        if errors.len() > before {
            // A template can't be compared with a selector that makes no sense.
            return errors.invalid(&selector, "invalid label selector");
        }
        if selectors::is_empty(&selector) {
            errors.invalid(&selector, "empty selector is invalid for deployment");
        }
    } else {
        errors.required(&selector, "");
    }
    let labels = template.at("metadata.labels");
    let selects_all = selector.exists() && selectors::is_empty(&selector);
    if !selects_all && !selectors::matches(&selector, &labels) {
        errors.invalid(&labels, "`selector` does not match template `labels`");
    }
    validation::template(&template, errors);
    let policy = template.at("spec.restartPolicy");
    if policy.str() != "Always" {
        errors.not_supported(&policy, &["Always"]);
    }
    let deadline = template.at("spec.activeDeadlineSeconds");
    if deadline.exists() {
        errors.forbidden(
            &deadline,
            "activeDeadlineSeconds in ReplicaSet is not Supported",
        );
    }
}

/// Names and images of the template's containers, with commas between.
fn containers_and_images(object: &Object) -> (String, String) {
    let containers = object.at("spec.template.spec.containers");
    let list = |field: &str| {
        let texts: Vec<&str> = containers
            .items()
            .map(|container| container.key(field).str())
            .collect();
        texts.join(",")
    };
    (list("name"), list("image"))
}
