//! What is reported of a pod, computed from the object and from what was observed.

use coracle_clock::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::observed::NODE_RESTARTED;
use super::{ContainerRecord, Exit, Observed, Refusal, RestartPolicy, Run, SandboxState};

/// The whole status of `pod` on the node with address `host_ip`. Fields that others write (the
/// scheduler's condition, the QoS class) are kept; a terminal phase is never left again.
pub fn status(pod: &Pod, observed: &Observed, host_ip: &str, now: Timestamp) -> PodStatus {
    let old = pod.status.clone().unwrap_or_default();
    let Some(spec) = pod.spec.as_ref() else {
        return old;
    };
    let view = View {
        pod,
        spec,
        observed,
        policy: RestartPolicy::of(spec),
    };
    let phase = view.phase();
    let is_over = matches!(phase, "Succeeded" | "Failed");

    let init: Vec<_> = spec
        .init_containers
        .iter()
        .flatten()
        .map(|c| view.container(c, true))
        .collect();
    let main: Vec<_> = spec
        .containers
        .iter()
        .map(|c| view.container(c, false))
        .collect();
    let initialized = view.is_initialized();
    let unready: Vec<&str> = main
        .iter()
        .filter(|c| !c.ready)
        .map(|c| c.name.as_str())
        .collect();

    let mut conditions = Conditions {
        old: old.conditions.unwrap_or_default(),
        new: Vec::new(),
        now,
    };
    let sandbox_ready = matches!(observed.sandbox, SandboxState::Ready);
    conditions.set("PodReadyToStartContainers", sandbox_ready, None);
    let completed = || Some(("PodCompleted", String::new()));
    let uninitialized = || {
        let names = view.incomplete_init_containers().join(" ");
        Some((
            "ContainersNotInitialized",
            format!("containers with incomplete status: [{names}]"),
        ))
    };
    let not_ready = || match phase {
        "Succeeded" => completed(),
        "Failed" => Some(("PodFailed", String::new())),
        _ => Some((
            "ContainersNotReady",
            format!("containers with unready status: [{}]", unready.join(" ")),
        )),
    };
    let reason = if phase == "Succeeded" {
        completed()
    } else {
        None
    };
    conditions.set(
        "Initialized",
        initialized,
        if initialized { reason } else { uninitialized() },
    );
    let ready = unready.is_empty() && !is_over;
    conditions.set("Ready", ready, if ready { None } else { not_ready() });
    conditions.set(
        "ContainersReady",
        ready,
        if ready { None } else { not_ready() },
    );
    conditions.set("PodScheduled", true, None);

    let address = observed
        .address
        .map(|address| address.to_string())
        .or(old.pod_ip);
    let restarted =
        phase == "Failed" && view.policy == RestartPolicy::Never && observed.is_cut_off();
    PodStatus {
        phase: Some(phase.to_owned()),
        reason: if restarted {
            Some(NODE_RESTARTED.into())
        } else {
            old.reason
        },
        message: if restarted {
            Some("the node was restarted while the pod ran, and its restartPolicy is Never".into())
        } else {
            old.message
        },
        conditions: Some(conditions.finish()),
        host_ip: Some(host_ip.to_owned()),
        host_ips: Some(vec![HostIP {
            ip: host_ip.to_owned(),
        }]),
        pod_ips: address.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip: address,
        start_time: old.start_time.or(Some(time(now))),
        init_container_statuses: (!init.is_empty()).then_some(init),
        container_statuses: Some(main),
        observed_generation: pod.metadata.generation.or(old.observed_generation),
        ..old
    }
}

/// `Succeeded` or `Failed` once the pod is over: nothing of it will run again.
pub fn terminal_phase(pod: &Pod, observed: &Observed) -> Option<&'static str> {
    let spec = pod.spec.as_ref()?;
    let view = View {
        pod,
        spec,
        observed,
        policy: RestartPolicy::of(spec),
    };
    Some(view.phase()).filter(|phase| matches!(*phase, "Succeeded" | "Failed"))
}

struct View<'a> {
    pod: &'a Pod,
    spec: &'a PodSpec,
    observed: &'a Observed,
    policy: RestartPolicy,
}

impl View<'_> {
    /// As upstream's `getPhase`: a container that has run and waits to run again counts as stopped.
    fn phase(&self) -> &'static str {
        match self
            .pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
        {
            Some("Succeeded") => return "Succeeded",
            Some("Failed") => return "Failed",
            _ => {}
        }
        for container in self.spec.init_containers.iter().flatten() {
            match &self.observed.container(&container.name).run {
                Run::Exited(exit) if exit.exit_code == 0 => {}
                Run::Exited(_) if self.policy == RestartPolicy::Never => return "Failed",
                _ => return "Pending",
            }
        }
        let (mut waiting, mut running, mut stopped, mut failed) = (0, 0, 0, 0);
        for container in &self.spec.containers {
            let record = self.observed.container(&container.name);
            match (&record.run, &record.last_exit) {
                (Run::Running { .. } | Run::Stopping { .. }, _) => running += 1,
                (Run::Exited(exit), _) | (Run::Starting, Some(exit)) => {
                    stopped += 1;
                    failed += usize::from(exit.exit_code != 0);
                }
                (Run::Never | Run::Starting, _) => waiting += 1,
            }
        }
        let is_ending = self.pod.metadata.deletion_timestamp.is_some();
        if waiting > 0 {
            "Pending"
        } else if running > 0 || stopped == 0 || self.policy == RestartPolicy::Always && !is_ending
        {
            "Running"
        } else if failed == 0 {
            "Succeeded"
        } else if self.policy == RestartPolicy::OnFailure && !is_ending {
            "Running"
        } else {
            "Failed"
        }
    }

    fn is_initialized(&self) -> bool {
        self.incomplete_init_containers().is_empty()
    }

    fn incomplete_init_containers(&self) -> Vec<&str> {
        let is_done = |name: &str| matches!(&self.observed.container(name).run, Run::Exited(e) if e.exit_code == 0);
        let init = self.spec.init_containers.iter().flatten();
        init.map(|c| c.name.as_str())
            .filter(|name| !is_done(name))
            .collect()
    }

    fn container(&self, container: &Container, init: bool) -> ContainerStatus {
        let record = self.observed.container(&container.name);
        let (state, last_exit) = self.state(container, record, init);
        let is_running = state.running.is_some();
        let is_serving = matches!(record.run, Run::Running { serving: true, .. });
        let started = is_running && (container.startup_probe.is_none() || record.probes.started);
        let ready = started && (container.readiness_probe.is_none() || record.probes.ready);
        let succeeded = state.terminated.as_ref().is_some_and(|t| t.exit_code == 0);
        let image = record.image_ref.as_ref();
        ContainerStatus {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            image_id: image
                .map(|i| format!("{}@{}", i.image, i.digest))
                .unwrap_or_default(),
            container_id: (record.run != Run::Never)
                .then(|| self.container_id(&container.name, record.restart_count)),
            ready: if init { succeeded } else { ready && is_serving },
            started: Some(started),
            restart_count: i32::try_from(record.restart_count).unwrap_or(i32::MAX),
            last_state: Some(ContainerState {
                terminated: last_exit
                    .map(|(exit, run)| self.terminated(exit, &container.name, run)),
                ..ContainerState::default()
            }),
            state: Some(state),
            ..ContainerStatus::default()
        }
    }

    /// The state to show, and the run that ended before it with its number.
    fn state<'r>(
        &self,
        container: &Container,
        record: &'r ContainerRecord,
        init: bool,
    ) -> (ContainerState, Option<(&'r Exit, u32)>) {
        let waiting = |reason: &str, message: Option<String>| ContainerState {
            waiting: Some(ContainerStateWaiting {
                reason: Some(reason.to_owned()),
                message,
            }),
            ..ContainerState::default()
        };
        let creating = if init || self.is_initialized() {
            "ContainerCreating"
        } else {
            "PodInitializing"
        };
        let before = record
            .last_exit
            .as_ref()
            .map(|exit| (exit, record.restart_count.saturating_sub(1)));
        match &record.run {
            Run::Running { started_at, .. } | Run::Stopping { started_at } => {
                let running = ContainerStateRunning {
                    started_at: Some(time(*started_at)),
                };
                (
                    ContainerState {
                        running: Some(running),
                        ..ContainerState::default()
                    },
                    before,
                )
            }
            Run::Starting => (waiting(creating, None), before),
            Run::Never => match self.image_problem(container, record) {
                Some((reason, message)) => (waiting(&reason, Some(message)), None),
                None => match &self.observed.sandbox {
                    SandboxState::Failed { message, .. } => {
                        (waiting(creating, Some(message.clone())), None)
                    }
                    _ => (waiting(creating, None), None),
                },
            },
            Run::Exited(exit) => {
                let latest = Some((exit, record.restart_count));
                if let Some((reason, message)) = self.image_problem(container, record) {
                    return (waiting(&reason, Some(message)), latest);
                }
                if let Some(start_at) = record.start_at
                    && self.will_restart(exit, init)
                {
                    let delay = (start_at.as_second() - exit.finished_at.as_second()).max(0);
                    let message = format!(
                        "back-off {} restarting failed container={} pod={}_{}({})",
                        go_duration(delay),
                        container.name,
                        self.pod.metadata.name.as_deref().unwrap_or_default(),
                        self.pod.metadata.namespace.as_deref().unwrap_or_default(),
                        self.pod.metadata.uid.as_deref().unwrap_or_default(),
                    );
                    return (waiting("CrashLoopBackOff", Some(message)), latest);
                }
                let terminated = Some(self.terminated(exit, &container.name, record.restart_count));
                (
                    ContainerState {
                        terminated,
                        ..ContainerState::default()
                    },
                    before,
                )
            }
        }
    }

    fn will_restart(&self, exit: &Exit, init: bool) -> bool {
        let policy = if init {
            self.policy.of_init()
        } else {
            self.policy
        };
        policy.restarts(exit) && self.pod.metadata.deletion_timestamp.is_none()
    }

    /// Why the next run has no image: upstream shows the error once, then that it backs off.
    fn image_problem(
        &self,
        container: &Container,
        record: &ContainerRecord,
    ) -> Option<(String, String)> {
        let Refusal {
            reason,
            message,
            attempts,
        } = record.image.refusal()?;
        if reason == "ErrImagePull" && *attempts > 1 {
            let image = container.image.as_deref().unwrap_or_default();
            let message = format!("Back-off pulling image {image:?}: {reason}: {message}");
            return Some(("ImagePullBackOff".into(), message));
        }
        Some((reason.clone(), message.clone()))
    }

    /// Names the run, so that its log can be found.
    fn container_id(&self, name: &str, run: u32) -> String {
        let uid = self.pod.metadata.uid.as_deref().unwrap_or_default();
        format!("coracle://{uid}/{name}/{run}")
    }

    fn terminated(&self, exit: &Exit, name: &str, run: u32) -> ContainerStateTerminated {
        ContainerStateTerminated {
            container_id: Some(self.container_id(name, run)),
            exit_code: exit.exit_code,
            reason: (!exit.reason.is_empty()).then(|| exit.reason.clone()),
            message: (!exit.message.is_empty()).then(|| exit.message.clone()),
            started_at: Some(time(exit.started_at)),
            finished_at: Some(time(exit.finished_at)),
            signal: None,
        }
    }
}

/// Times in the API are whole seconds; a finer one would never equal what was read back.
fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// Seconds as Go prints a duration: `10s`, `1m20s`, `5m0s`.
fn go_duration(seconds: i64) -> String {
    if seconds < 60 {
        format!("{seconds}s")
    } else {
        format!("{}m{}s", seconds / 60, seconds % 60)
    }
}

/// Collects conditions; the time of the last change is kept while the status stays.
struct Conditions {
    old: Vec<PodCondition>,
    new: Vec<PodCondition>,
    now: Timestamp,
}

impl Conditions {
    fn set(&mut self, kind: &str, holds: bool, why: Option<(&str, String)>) {
        let status = if holds { "True" } else { "False" };
        let old = self
            .old
            .iter()
            .position(|c| c.type_ == kind)
            .map(|index| self.old.swap_remove(index));
        let since = old
            .as_ref()
            .filter(|c| c.status == status)
            .and_then(|c| c.last_transition_time.clone());
        let (reason, message) = match why {
            Some((reason, message)) => (
                Some(reason.to_owned()),
                Some(message).filter(|m| !m.is_empty()),
            ),
            None => (None, None),
        };
        self.new.push(PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            last_transition_time: Some(since.unwrap_or(time(self.now))),
            reason,
            message,
            ..PodCondition::default()
        });
    }

    /// Conditions of other writers come last, in the order of their names so that it is stable.
    fn finish(mut self) -> Vec<PodCondition> {
        self.old.sort_by(|a, b| a.type_.cmp(&b.type_));
        self.new.append(&mut self.old);
        self.new
    }
}
