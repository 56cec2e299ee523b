//! Deployment: a number of equal Pods, replaced step by step when their template changes.

use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, SCALE, STATUS, Storage};
use crate::{Resource, Strategy};

/// What the pipeline knows of deployments.
pub static RESOURCE: Resource = Resource {
    group: "apps",
    version: "v1",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[SCALE, STATUS],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: true,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    strategy: &Deployment,
};

/// Deployment: a number of equal Pods, replaced step by step when their template changes.
pub struct Deployment;

impl Strategy for Deployment {}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string("Ready", "Number of the pod with ready state"),
    Column::string(
        "Up-to-date",
        "Total number of non-terminating pods targeted by this deployment that have the desired template \
         spec.",
    ),
    Column::string(
        "Available",
        "Total number of available non-terminating pods (ready for at least minReadySeconds) targeted by this \
         deployment.",
    ),
    AGE,
    Column::wide("Containers", "Names of each container in the template."),
    Column::wide(
        "Images",
        "Images referenced by each container in the template.",
    ),
    Column::wide(
        "Selector",
        "Label selector for pods. Existing ReplicaSets whose pods are selected by this will be the ones \
         affected by this deployment. It must match the pod template's labels.",
    ),
];
