//! Secret: confidential data that Pods read; may be frozen by `immutable`.

use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, Storage};
use crate::{Resource, Strategy};

/// What the pipeline knows of secrets.
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    short_names: &[],
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
    strategy: &Secret,
};

/// Secret: confidential data that Pods read; may be frozen by `immutable`.
pub struct Secret;

impl Strategy for Secret {}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "Type",
        "Used to facilitate programmatic handling of secret data. More info: \
         https://kubernetes.io/docs/concepts/configuration/secret/#secret-types",
    ),
    Column::string(
        "Data",
        "Data contains the secret data. Each key must consist of alphanumeric characters, '-', '_' or '.'. \
         The serialized form of the secret data is a base64 encoded string, representing the arbitrary \
         (possibly non-string) data value here. Described in https://tools.ietf.org/html/rfc4648#section-4",
    ),
    AGE,
];
