//! The resources of a run that is up, as its spec changes.

use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};

use super::parts::{Part, Role, parts};
use super::{ContainerRecord, Observed, Resizing, Run};

/// What may change while a run is up.
const RESIZABLE: &[&str] = &["cpu", "memory"];

/// What the spec says that the container may use.
pub(crate) fn wanted(part: &Part<'_>) -> ResourceRequirements {
    part.container.resources.clone().unwrap_or_default()
}

/// Whether a run that is up has other resources than its spec says.
pub(super) fn is_wanted(part: &Part<'_>, record: &ContainerRecord) -> bool {
    let is_up = matches!(record.run, Run::Running { .. });
    let may = matches!(part.role, Role::Main | Role::Sidecar);
    may && is_up && part.container.resources.as_ref().unwrap_or(&NONE) != &record.allocated
}

static NONE: ResourceRequirements = ResourceRequirements {
    claims: None,
    limits: None,
    requests: None,
};

/// Whether one of the changes is one that the container has to be started again for.
pub(crate) fn needs_restart(part: &Part<'_>, record: &ContainerRecord) -> bool {
    let wanted = part.container.resources.as_ref().unwrap_or(&NONE);
    let has = &record.allocated;
    let value = |resources: &ResourceRequirements, name: &str| {
        let limit = resources.limits.as_ref().and_then(|map| map.get(name));
        let request = resources.requests.as_ref().and_then(|map| map.get(name));
        (limit.cloned(), request.cloned())
    };
    let policies = part.container.resize_policy.iter().flatten();
    let mut restarting = policies.filter(|policy| policy.restart_policy == "RestartContainer");
    restarting.any(|policy| {
        let name = policy.resource_name.as_str();
        RESIZABLE.contains(&name) && value(wanted, name) != value(has, name)
    })
}

/// Whether the resources of any run are not yet what they are to be, and what went wrong (nothing, if
/// nothing did).
pub(super) fn progress(spec: &PodSpec, observed: &Observed) -> Option<String> {
    if observed.resize_refusal.is_some() {
        return None;
    }
    let mut found: Option<String> = None;
    for part in parts(spec) {
        let record = observed.container(part.name());
        if !is_wanted(&part, record) {
            continue;
        }
        let words = found.get_or_insert_default();
        if let (true, Resizing::Failed { message, .. }) = (words.is_empty(), &record.resize) {
            words.clone_from(message);
        }
    }
    found
}
