//! The conditions of a pod, with the reasons and words of upstream's pkg/kubelet/status/generate.go.

use coracle_clock::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::ResizeRefusal;
use super::parts::{Role, parts};

/// Why a condition does not hold: reason and message.
type Why = (&'static str, String);

/// What the conditions are made from.
pub(super) struct Facts<'a> {
    pub(super) pod: &'a Pod,
    pub(super) spec: &'a PodSpec,
    /// What the pod came to, though its last containers may still be ending.
    pub(super) verdict: Option<&'static str>,
    pub(super) sandbox_is_ready: bool,
    /// Of init containers, sidecars and main containers.
    pub(super) statuses: &'a [ContainerStatus],
    pub(super) now: Timestamp,
    /// Its containers are being ended to start over.
    pub(super) restarts_all: bool,
    /// Why the pod cannot have the resources that it asks for.
    pub(super) resize_refusal: Option<&'a ResizeRefusal>,
    /// It is being given them; in words, what went wrong.
    pub(super) resize_progress: Option<String>,
    /// Why the node ended it to save itself.
    pub(super) disruption: Option<String>,
}

/// Conditions that are there only while they hold.
const TRANSIENT: &[&str] = &["PodResizePending", "PodResizeInProgress"];

/// All conditions: the kubelet's own, then those of others as they are.
pub(super) fn conditions(facts: &Facts<'_>, old: Vec<PodCondition>) -> Vec<PodCondition> {
    let mut conditions = Conditions {
        old,
        new: Vec::new(),
        now: facts.now,
        generation: facts.pod.metadata.generation,
    };
    let sandbox = facts.sandbox_is_ready;
    conditions.set("PodReadyToStartContainers", sandbox, None);
    let (initialized, why) = facts.initialized();
    conditions.set("Initialized", initialized, why);
    let containers_ready = facts.containers_ready();
    let ready = containers_ready
        .clone()
        .or_else(|| facts.gates(&conditions.old));
    conditions.set("Ready", ready.is_none(), ready);
    let is_ready = containers_ready.is_none();
    conditions.set("ContainersReady", is_ready, containers_ready);
    conditions.set("PodScheduled", true, None);
    if parts(facts.spec).any(|part| part.may_restart_all()) {
        let why = match facts.verdict {
            Some("Succeeded") => Some(("PodCompleted", String::new())),
            Some(_) => Some(("PodFailed", String::new())),
            None => facts.restarts_all.then(|| {
                let message = "container exited with restart policy rule";
                ("RestartAllContainersStarted", message.to_owned())
            }),
        };
        conditions.set("AllContainersRestarting", facts.restarts_all, why);
    }
    if let Some(refusal) = facts.resize_refusal {
        let why = match refusal {
            ResizeRefusal::Deferred(message) => ("Deferred", message.clone()),
            ResizeRefusal::Infeasible(message) => ("Infeasible", message.clone()),
        };
        conditions.set("PodResizePending", true, Some(why));
    }
    if let Some(message) = &facts.disruption {
        let why = ("TerminationByKubelet", message.clone());
        conditions.set("DisruptionTarget", true, Some(why));
    }
    if let Some(problem) = &facts.resize_progress {
        let why = (!problem.is_empty()).then(|| ("Error", problem.clone()));
        conditions.set("PodResizeInProgress", true, why);
    }
    conditions.finish()
}

impl Facts<'_> {
    fn status(&self, name: &str) -> Option<&ContainerStatus> {
        self.statuses.iter().find(|status| status.name == name)
    }

    /// Whether all init containers are done and all sidecars up, or were before.
    fn initialized(&self) -> (bool, Option<Why>) {
        if self.verdict == Some("Succeeded") {
            return (true, Some(("PodCompleted", String::new())));
        }
        let main = parts(self.spec).filter(|part| part.role == Role::Main);
        let has_run = |status: &ContainerStatus| {
            let state = status.state.as_ref();
            state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
        };
        let mut main = main.filter_map(|part| self.status(part.name()));
        if main.any(has_run) {
            return (true, None);
        }
        let incomplete: Vec<String> = parts(self.spec)
            .filter(|part| {
                let status = self.status(part.name());
                match part.role {
                    Role::Init => !status.is_some_and(|status| status.ready),
                    Role::Sidecar => status.is_none_or(|status| status.started != Some(true)),
                    Role::Main | Role::Debug => false,
                }
            })
            .map(|part| part.name().to_owned())
            .collect();
        if incomplete.is_empty() {
            return (true, None);
        }
        let names = incomplete.join(" ");
        let message = format!("containers with incomplete status: [{names}]");
        (false, Some(("ContainersNotInitialized", message)))
    }

    /// Why the pod's containers, sidecars among them, are not ready.
    fn containers_ready(&self) -> Option<Why> {
        match self.verdict {
            Some("Succeeded") => return Some(("PodCompleted", String::new())),
            Some(_) => return Some(("PodFailed", String::new())),
            None => {}
        }
        let unready: Vec<String> = parts(self.spec)
            .filter(|part| matches!(part.role, Role::Sidecar | Role::Main))
            .filter(|part| !self.status(part.name()).is_some_and(|status| status.ready))
            .map(|part| part.name().to_owned())
            .collect();
        if unready.is_empty() {
            return None;
        }
        let names = unready.join(" ");
        let message = format!("containers with unready status: [{names}]");
        Some(("ContainersNotReady", message))
    }

    /// Why the pod's readiness gates are shut.
    fn gates(&self, conditions: &[PodCondition]) -> Option<Why> {
        let shut = self.spec.readiness_gates.iter().flatten();
        let shut: Vec<String> = shut
            .filter_map(|gate| {
                let kind = &gate.condition_type;
                match conditions.iter().find(|condition| condition.type_ == *kind) {
                    None => Some(format!(
                        "corresponding condition of pod readiness gate {kind:?} does not exist."
                    )),
                    Some(condition) if condition.status != "True" => Some(format!(
                        "the status of pod readiness gate {kind:?} is not \"True\", but {}",
                        condition.status
                    )),
                    Some(_) => None,
                }
            })
            .collect();
        (!shut.is_empty()).then(|| ("ReadinessGatesNotReady", shut.join(", ")))
    }
}

/// Collects conditions; the time of the last change is kept while the status stays.
struct Conditions {
    old: Vec<PodCondition>,
    new: Vec<PodCondition>,
    now: Timestamp,
    generation: Option<i64>,
}

impl Conditions {
    fn set(&mut self, kind: &str, holds: bool, why: Option<Why>) {
        let status = if holds { "True" } else { "False" };
        let old = self
            .old
            .iter()
            .position(|c| c.type_ == kind)
            .map(|index| self.old.remove(index));
        let since = old
            .as_ref()
            .filter(|c| c.status == status)
            .and_then(|c| c.last_transition_time.clone());
        let (reason, message) = why.unzip();
        self.new.push(PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            last_transition_time: Some(since.unwrap_or(time(self.now))),
            reason: reason.map(str::to_owned),
            message: message.filter(|message| !message.is_empty()),
            observed_generation: self.generation,
            ..PodCondition::default()
        });
    }

    /// Conditions of other writers come last, in the order of their names so that it is stable.
    fn finish(mut self) -> Vec<PodCondition> {
        self.old
            .retain(|condition| !TRANSIENT.contains(&condition.type_.as_str()));
        self.old.sort_by(|a, b| a.type_.cmp(&b.type_));
        self.new.append(&mut self.old);
        self.new
    }
}

/// Times in the API are whole seconds; a finer one would never equal what was read back.
pub(super) fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}
