//! Lease: a heartbeat or a claim of leadership.

use coracle_clock::Timestamp;
use serde_json::Value;

use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, Storage, age};
use crate::validation::numbers;
use crate::{FieldErrors, Object, Resource, Strategy};

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
    deprecation: None,
    strategy: &Lease,
};

/// Lease: a heartbeat or a claim of leadership.
pub struct Lease;

impl Strategy for Lease {
    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let (duration, transitions) = (
            new.at("spec.leaseDurationSeconds"),
            new.at("spec.leaseTransitions"),
        );
        if duration.as_i64().is_some_and(|seconds| seconds <= 0) {
            errors.invalid(&duration, "must be greater than 0");
        }
        numbers::non_negative(&transitions, errors);
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            object.at("spec.holderIdentity").str().into(),
            age(object, now),
        ]
    }
}

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
