//! Which fields a write can change at all: what the server puts back belongs to nobody who writes it.

use super::set::FieldSet;
use crate::Resource;

/// The fields that writes through one path to a kind can change.
#[derive(Clone, Debug)]
pub(super) enum Writable {
    /// All but these and what is below them.
    Outside(FieldSet),
    /// These and what is below them; a step `*` is any step.
    Within(&'static [&'static [&'static str]]),
}

impl Writable {
    /// For a resource (`""`) or one of its subresources: `GetResetFields` and `GetResetFieldsFilter` of upstream's
    /// strategies.
    pub(super) fn through(resource: &Resource, subresource: &str) -> Self {
        let fixed: &[&str] = match (resource.plural, subresource) {
            ("pods", "ephemeralcontainers") => {
                return Self::Within(&[&["spec", "ephemeralContainers"]]);
            }
            ("pods", "resize") => {
                return Self::Within(&[
                    &["spec", "containers", "*", "resources"],
                    &["spec", "containers", "*", "resizePolicy"],
                    &["spec", "initContainers", "*", "resources"],
                    &["spec", "initContainers", "*", "resizePolicy"],
                    &["spec", "resources"],
                ]);
            }
            ("certificatesigningrequests", "") => &["spec", "status"],
            ("certificatesigningrequests", "status") => &["spec", "status.conditions"],
            ("certificatesigningrequests", "approval") => &["spec", "status.certificate"],
            ("namespaces", "finalize") => &["status"],
            (_, "") if resource.subresource("status").is_some() => &["status"],
            ("deployments", "status") => &["spec", "metadata.labels"],
            ("pods", "status") => &[
                "spec",
                "metadata.deletionTimestamp",
                "metadata.ownerReferences",
            ],
            (
                "apiservices"
                | "customresourcedefinitions"
                | "flowschemas"
                | "prioritylevelconfigurations"
                | "resourceclaims"
                | "validatingadmissionpolicies"
                | "volumeattachments",
                "status",
            ) => &["spec", "metadata"],
            (_, "status") => &["spec"],
            _ => &[],
        };
        Self::Outside(FieldSet::of_fields(fixed.iter().copied()))
    }

    /// Those of `fields` that can be written.
    pub(super) fn of(&self, fields: &FieldSet) -> FieldSet {
        match self {
            Self::Outside(fixed) => fields.outside(fixed),
            Self::Within(places) => fields.within(places),
        }
    }
}
