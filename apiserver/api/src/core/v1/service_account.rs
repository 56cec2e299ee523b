//! ServiceAccount: an identity for the processes of Pods.

use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, Storage, TOKEN};
use crate::{Resource, Strategy};

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

impl Strategy for ServiceAccount {}

static COLUMNS: &[Column] = &[NAME, AGE];
