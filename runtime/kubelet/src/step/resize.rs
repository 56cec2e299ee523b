//! The resources of a run that is up, as its spec changes.
//!
//! ```text
//! None ─ the spec asks for others ─┬▶ InProgress ─ all runs have theirs ─▶ None   (ResizeStarted, ResizeCompleted)
//!                                  │      └ the runtime would not: ResizeError
//!                                  └▶ Pending ─ there is room ─▶ InProgress       (ResizeDeferred, ResizeInfeasible)
//! ```

use coracle_client::EventKind;
use k8s_openapi::api::core::v1::{Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Map, Value, json};

use super::parts::{Part, Role, part, parts};
use super::{ContainerRecord, Observed, ResizeRefusal, Resizing, Run, whole};
use crate::resources::cpu_weight;

/// What may change while a run is up.
const RESIZABLE: &[&str] = &["cpu", "memory"];

/// What the spec says that the container may use.
fn wanted(part: &Part<'_>) -> ResourceRequirements {
    part.container.resources.clone().unwrap_or_default()
}

/// Notes that the run of a container of the granted `pod` has what is said there.
pub(crate) fn note_given(record: &mut ContainerRecord, pod: &Pod, container: &str) {
    let (Some(spec), Some(part)) = (pod.spec.as_ref(), part(pod, container)) else {
        return;
    };
    record.allocated = wanted(&part);
    record.of_pod = whole::wanted(pod);
    record.cpu_weight = cpu_weight(spec, &part.container);
}

/// Whether a run that is up has other resources than its spec says, or has its share of other resources of the pod as a whole
/// or beside others of its siblings.
pub(super) fn is_wanted(spec: &PodSpec, part: &Part<'_>, record: &ContainerRecord) -> bool {
    let is_up = matches!(record.run, Run::Running { .. });
    part.role != Role::Debug
        && is_up
        && (part.container.resources.as_ref().unwrap_or(&NONE) != &record.allocated
            || spec.resources.as_ref().unwrap_or(&NONE) != &record.of_pod
            || spec.resources.is_some() && cpu_weight(spec, &part.container) != record.cpu_weight)
}

static NONE: ResourceRequirements = ResourceRequirements {
    claims: None,
    limits: None,
    requests: None,
};

/// Whether one of the changes is one that the container has to be started again for. Where it has no limit of its own, that
/// of the pod as a whole is its limit.
pub(crate) fn needs_restart(spec: &PodSpec, part: &Part<'_>, record: &ContainerRecord) -> bool {
    let is_up = matches!(record.run, Run::Running { .. } | Run::Stopping { .. });
    if !is_up || !matches!(part.role, Role::Main | Role::Sidecar) {
        return false;
    }
    let wanted = part.container.resources.as_ref().unwrap_or(&NONE);
    let has = &record.allocated;
    let (wanted_of_pod, had_of_pod) = (spec.resources.as_ref().unwrap_or(&NONE), &record.of_pod);
    let policies = part.container.resize_policy.iter().flatten();
    let mut restarting = policies.filter(|policy| policy.restart_policy == "RestartContainer");
    restarting.any(|policy| {
        let name = policy.resource_name.as_str();
        let own = limit(wanted, name);
        RESIZABLE.contains(&name)
            && (own != limit(has, name)
                || request(wanted, name) != request(has, name)
                || own.is_none() && limit(wanted_of_pod, name) != limit(had_of_pod, name))
    })
}

fn limit<'a>(resources: &'a ResourceRequirements, name: &str) -> Option<&'a Quantity> {
    resources.limits.as_ref()?.get(name)
}

fn request<'a>(resources: &'a ResourceRequirements, name: &str) -> Option<&'a Quantity> {
    resources.requests.as_ref()?.get(name)
}

/// Whether the resources of a granted pod or of any run are not yet what they are to be, and what went wrong (nothing, if
/// nothing did).
pub(super) fn progress(spec: &PodSpec, observed: &Observed) -> Option<String> {
    let mut found: Option<String> = None;
    let mut note = |resize: &Resizing| {
        let words = found.get_or_insert_default();
        if let (true, Resizing::Failed { message, .. }) = (words.is_empty(), resize) {
            words.clone_from(message);
        }
    };
    if whole::is_wanted(spec, observed) {
        note(&observed.whole.resize);
    }
    for part in parts(spec) {
        let record = observed.container(part.name());
        if is_wanted(spec, &part, record) || needs_restart(spec, &part, record) {
            note(&record.resize);
        }
    }
    found
}

/// Where the change of a pod's resources is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing is to be changed.
    #[default]
    None,
    /// The spec of this generation asks for what the pod cannot have.
    Pending(ResizeRefusal, i64),
    /// What the spec of this generation asks for is being given to its runs; in words, what went wrong.
    InProgress(String, i64),
}

/// The phase of a pod.
pub(crate) fn phase(pod: &Pod, observed: &Observed) -> Phase {
    let generation = pod.metadata.generation.unwrap_or(0);
    if let Some(refusal) = &observed.resize_refusal {
        return Phase::Pending(refusal.clone(), generation);
    }
    let progress = pod.spec.as_ref().and_then(|spec| progress(spec, observed));
    progress.map_or(Phase::None, |problem| {
        Phase::InProgress(problem, generation)
    })
}

/// An Event about a change of resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResizeNews {
    pub(crate) kind: EventKind,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// What is to be told when a pod goes from one phase to another. Words and form of the messages:
/// `pkg/kubelet/events/resize.go` of `k8s.io/kubernetes`.
pub(crate) fn news(pod: &Pod, before: &Phase, now: &Phase) -> Vec<ResizeNews> {
    if before == now {
        return Vec::new();
    }
    let tell = |kind, reason, what: &str, generation, problem: &str| ResizeNews {
        kind,
        reason,
        message: format!("Pod resize {what}: {}", asked(pod, generation, problem)),
    };
    let mut news = Vec::new();
    match now {
        Phase::Pending(ResizeRefusal::Deferred(why), generation) => {
            let warning = EventKind::Warning;
            news.push(tell(
                warning,
                "ResizeDeferred",
                "Deferred",
                *generation,
                why,
            ));
        }
        Phase::Pending(ResizeRefusal::Infeasible(why), generation) => {
            let warning = EventKind::Warning;
            news.push(tell(
                warning,
                "ResizeInfeasible",
                "Infeasible",
                *generation,
                why,
            ));
        }
        Phase::InProgress(problem, generation) => {
            let has_begun =
                matches!(before, Phase::InProgress(_, earlier) if earlier == generation);
            if !has_begun {
                let normal = EventKind::Normal;
                news.push(tell(normal, "ResizeStarted", "started", *generation, ""));
            }
            if !problem.is_empty() {
                let warning = EventKind::Warning;
                news.push(tell(warning, "ResizeError", "error", *generation, problem));
            }
        }
        Phase::None => {
            if let Phase::InProgress(_, generation) = before {
                let normal = EventKind::Normal;
                news.push(tell(
                    normal,
                    "ResizeCompleted",
                    "completed",
                    *generation,
                    "",
                ));
            }
        }
    }
    news
}

/// What the spec asks for, as one line of JSON in upstream's order; the pod as a whole, which upstream leaves out, first.
fn asked(pod: &Pod, generation: i64, problem: &str) -> String {
    let mut summary = Map::new();
    let spec = pod.spec.as_ref();
    if let Some(whole) = spec.and_then(|spec| spec.resources.as_ref()) {
        summary.insert("resources".to_owned(), json!(whole));
    }
    let init = spec.and_then(|spec| spec.init_containers.as_deref());
    let main = spec.map(|spec| spec.containers.as_slice());
    for (list, containers) in [("initContainers", init), ("containers", main)] {
        let containers = containers.unwrap_or_default().iter();
        let containers: Vec<Value> = containers
            .map(|container| {
                let resources = container.resources.as_ref().unwrap_or(&NONE);
                json!({"name": container.name, "resources": resources})
            })
            .collect();
        if !containers.is_empty() {
            summary.insert(list.to_owned(), containers.into());
        }
    }
    summary.insert("generation".to_owned(), generation.into());
    if !problem.is_empty() {
        summary.insert("error".to_owned(), problem.into());
    }
    Value::Object(summary).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_of_a_change_is_told_once() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [
            {"name": "app", "resources": {"limits": {"cpu": "1"}}},
        ]}}))
        .expect("a pod");
        let progress = |problem: &str, generation| Phase::InProgress(problem.into(), generation);
        let deferred = || Phase::Pending(ResizeRefusal::Deferred("no room".into()), 2);
        for (before, now, reasons) in [
            (Phase::None, progress("", 2), vec!["ResizeStarted"]),
            (progress("", 2), progress("", 2), vec![]),
            (progress("", 2), progress("", 3), vec!["ResizeStarted"]),
            (progress("", 2), progress("no", 2), vec!["ResizeError"]),
            (progress("no", 2), progress("", 2), vec![]),
            (progress("", 2), Phase::None, vec!["ResizeCompleted"]),
            (Phase::None, deferred(), vec!["ResizeDeferred"]),
            (deferred(), progress("", 2), vec!["ResizeStarted"]),
            (deferred(), Phase::None, vec![]),
        ] {
            let told = news(&pod, &before, &now);
            let told: Vec<&str> = told.iter().map(|news| news.reason).collect();
            assert_eq!(told, reasons, "{before:?} {now:?}");
        }
        let told = news(&pod, &Phase::None, &deferred());
        assert_eq!(
            told[0].message,
            r#"Pod resize Deferred: {"containers":[{"name":"app","resources":{"limits":{"cpu":"1"}}}],"generation":2,"error":"no room"}"#
        );
    }
}
