//! ConfigMap: data that Pods read; may be frozen by `immutable`.

use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, Storage};
use crate::{Resource, Strategy};

/// What the pipeline knows of configmaps.
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
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
    strategy: &ConfigMap,
};

/// ConfigMap: data that Pods read; may be frozen by `immutable`.
pub struct ConfigMap;

impl Strategy for ConfigMap {}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "Data",
        "Data contains the configuration data. Each key must consist of alphanumeric characters, '-', '_' or \
         '.'. Values with non-UTF-8 byte sequences must use the BinaryData field. The keys stored in Data \
         must not overlap with the keys in the BinaryData field, this is enforced during validation process.",
    ),
    AGE,
];
