//! ServiceAccount: an identity for the processes of Pods.

use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, Storage, TOKEN};
use crate::{Object, Resource, Strategy};

/// What the pipeline knows of serviceaccounts.
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[TOKEN],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: false,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &ServiceAccount,
};

/// ServiceAccount: an identity for the processes of Pods.
pub struct ServiceAccount;

impl Strategy for ServiceAccount {
    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        let has = |object: &Object| {
            let annotations = object.at("metadata.annotations");
            annotations.entry(MOUNTABLE_ANNOTATION).exists()
        };
        if old.is_some_and(has) || !has(new) {
            return Vec::new();
        }
        vec![format!(
            "metadata.annotations[{MOUNTABLE_ANNOTATION}]: deprecated in v1.32+; prefer separate namespaces to isolate \
             access to mounted secrets"
        )]
    }
}

const MOUNTABLE_ANNOTATION: &str = "kubernetes.io/enforce-mountable-secrets";

static COLUMNS: &[Column] = &[NAME, AGE];
