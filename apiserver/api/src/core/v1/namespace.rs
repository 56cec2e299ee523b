//! Namespace: a scope for names, deleted with everything in it.

use crate::kinds::{AGE, Column, FINALIZE, NAME, NameRule, STATUS, Storage};
use crate::{Resource, Strategy};

/// What the pipeline knows of namespaces.
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    categories: &[],
    namespaced: false,
    verbs: &[
        "create", "delete", "get", "list", "patch", "update", "watch",
    ],
    subresources: &[FINALIZE, STATUS],
    columns: COLUMNS,
    name_rule: NameRule::Label,
    generation: false,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    strategy: &Namespace,
};

/// Namespace: a scope for names, deleted with everything in it.
pub struct Namespace;

impl Strategy for Namespace {}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string("Status", "The status of the namespace"),
    AGE,
];
