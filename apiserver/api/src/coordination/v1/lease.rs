//! Lease: a heartbeat or a claim of leadership.

use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, Storage};
use crate::{Resource, Strategy};

/// What the pipeline knows of leases.
pub static RESOURCE: Resource = Resource {
    group: "coordination.k8s.io",
    version: "v1",
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: false,
    create_on_update: true,
    unconditional_update: false,
    storage: Storage::Own,
    strategy: &Lease,
};

/// Lease: a heartbeat or a claim of leadership.
pub struct Lease;

impl Strategy for Lease {}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "Holder",
        "holderIdentity contains the identity of the holder of a current lease. If Coordinated Leader \
         Election is used, the holder identity must be equal to the elected LeaseCandidate.metadata.name \
         field.",
    ),
    AGE,
];
