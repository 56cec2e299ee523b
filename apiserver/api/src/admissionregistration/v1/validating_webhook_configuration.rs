//! ValidatingWebhookConfiguration: services that may refuse a write.

use coracle_clock::Timestamp;
use serde_json::Value;

use super::webhook::{default_webhooks, webhooks};
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, Storage, age};
use crate::{FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of validating webhook configurations.
pub static RESOURCE: Resource = Resource {
    group: super::GROUP,
    version: "v1",
    kind: "ValidatingWebhookConfiguration",
    plural: "validatingwebhookconfigurations",
    singular: "validatingwebhookconfiguration",
    short_names: &[],
    categories: &["api-extensions"],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: true,
    create_on_update: false,
    unconditional_update: false,
    storage: Storage::Own,
    deprecation: None,
    strategy: &ValidatingWebhookConfiguration,
};

/// ValidatingWebhookConfiguration: services that may refuse a write.
pub struct ValidatingWebhookConfiguration;

impl Strategy for ValidatingWebhookConfiguration {
    fn default(&self, object: &mut Object) {
        default_webhooks(object, |_| ());
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        webhooks(new, false, errors);
    }

    fn empty_is_change(&self) -> bool {
        true
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            object.at("webhooks").len().into(),
            age(object, now),
        ]
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::integer(
        "Webhooks",
        "Webhooks indicates the number of webhooks registered in this configuration",
    ),
    AGE,
];
