//! All containers of a pod start over, in the same sandbox, when one ends as a rule says
//! (`RestartAllContainers`, KEP-5532).
//!
//! ```text
//!  a rule matches ─▶ every run is ended, without hooks or grace ─▶ StartOver: all are marked
//!                                                                      └─▶ init containers, … as at first
//! ```

use k8s_openapi::api::core::v1::PodSpec;

use super::parts::{Part, Role, parts};
use super::{Action, Observed, Run, Step, ending};

/// The container whose end has all others start over, while it has not come to that.
pub(super) fn trigger<'a>(spec: &'a PodSpec, observed: &Observed) -> Option<Part<'a>> {
    parts(spec).find(|part| {
        let record = observed.container(part.name());
        let is_over = record.again || record.outdated;
        matches!(&record.run, Run::Exited(exit) if !is_over && part.restarts_all(exit.exit_code))
    })
}

/// Whether the pod's containers are being ended to start over.
pub(super) fn is_under_way(spec: &PodSpec, observed: &Observed) -> bool {
    trigger(spec, observed).is_some()
}

/// Ends what runs, then marks everything to run again.
pub(super) fn start_over(spec: &PodSpec, observed: &Observed, step: &mut Step) {
    let of_pod = parts(spec).filter(|part| part.role != Role::Debug);
    let active: Vec<Part<'_>> = of_pod
        .filter(|part| observed.container(part.name()).run.is_active())
        .collect();
    if active.is_empty() {
        return step.actions.push(Action::StartOver);
    }
    for part in active {
        if matches!(observed.container(part.name()).run, Run::Running { .. }) {
            step.actions.push(Action::StopContainer {
                container: part.name().to_owned(),
                grace: ending::LEAST,
            });
        }
    }
}

impl Observed {
    /// Notes that every container of the pod is to run again, from the first on.
    pub fn start_over(&mut self, spec: &PodSpec) {
        for part in parts(spec).filter(|part| part.role != Role::Debug) {
            if let Some(record) = self.containers.get_mut(part.name()) {
                record.again = record.run != Run::Never;
            }
        }
    }
}
