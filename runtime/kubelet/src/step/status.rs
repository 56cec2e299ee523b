//! What is reported of a pod, computed from the object and from what was observed.

use coracle_clock::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodIP, PodSpec, PodStatus,
};

use super::conditions::{Facts, conditions, time};
use super::parts::{Part, Role, parts};
use super::{
    ContainerRecord, Exit, Observed, Refusal, Run, SandboxState, Verdict, has_started, is_up, over,
    resize, verdict, whole,
};
use crate::images::image_id;

/// The whole status of `pod` on the node with address `host_ip`. Fields that others write (the
/// scheduler's condition, the QoS class) are kept; a terminal phase is never left again, and comes
/// only when nothing of the pod runs any more.
pub fn status(pod: &Pod, observed: &Observed, host_ip: &str, now: Timestamp) -> PodStatus {
    let old = pod.status.clone().unwrap_or_default();
    let Some(spec) = pod.spec.as_ref() else {
        return old;
    };
    let verdict = verdict(pod, observed, now);
    let is_untouched = observed.containers.is_empty() && observed.sandbox == SandboxState::Absent;
    let was_over = matches!(old.phase.as_deref(), Some("Succeeded" | "Failed"));
    if is_untouched && was_over {
        return old;
    }
    if is_untouched && let Some(failure) = &observed.failure {
        // It was never let in: there are no containers to speak of.
        return PodStatus {
            phase: Some("Failed".into()),
            reason: Some(failure.reason.clone()),
            message: Some(failure.message.clone()),
            start_time: old.start_time.or(Some(time(now))),
            observed_generation: pod.metadata.generation.or(old.observed_generation),
            ..old
        };
    }
    let view = View {
        pod,
        spec,
        observed,
        is_over: verdict.is_some(),
    };
    let of_role = |roles: &[Role]| -> Vec<ContainerStatus> {
        let parts = parts(spec).filter(|part| roles.contains(&part.role));
        parts.map(|part| view.container(&part)).collect()
    };
    let init = of_role(&[Role::Init, Role::Sidecar]);
    let main = of_role(&[Role::Main]);
    let debug = of_role(&[Role::Debug]);
    let is_deleted = pod.metadata.deletion_timestamp.is_some();
    let granted = whole::granted(pod, observed);
    let granted = granted.spec.as_ref().unwrap_or(spec);
    let facts = Facts {
        pod,
        spec,
        verdict: verdict.as_ref().map(|verdict| verdict.phase),
        sandbox_is_ready: observed.sandbox == SandboxState::Ready,
        statuses: &[init.as_slice(), main.as_slice()].concat(),
        now,
        restarts_all: over::is_under_way(spec, observed) && !is_deleted,
        resize_refusal: observed.resize_refusal.as_ref(),
        resize_progress: resize::progress(granted, observed),
        disruption: observed
            .failure
            .as_ref()
            .filter(|_| observed.disrupted)
            .map(|failure| failure.message.clone()),
    };
    let conditions = conditions(&facts, old.conditions.clone().unwrap_or_default());
    // Who waits for the end of a pod may take it that nothing of it runs any more.
    let shown = verdict.filter(|_| was_over || !observed.is_anything_running());
    let (phase, why) = match shown {
        Some(Verdict { phase, why }) => (phase, why),
        None => (view.phase(), None),
    };
    let (reason, message) = match why {
        Some(why) => (Some(why.reason), Some(why.message)),
        None => (old.reason.clone(), old.message.clone()),
    };
    let (resources, allocated) = whole::status(granted, observed);
    let address = observed.address.map(|address| address.to_string());
    let address = address.or(old.pod_ip.clone());
    PodStatus {
        phase: Some(phase.to_owned()),
        reason,
        message,
        conditions: Some(conditions),
        host_ip: Some(host_ip.to_owned()),
        host_ips: Some(vec![HostIP {
            ip: host_ip.to_owned(),
        }]),
        pod_ips: address.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip: address,
        start_time: old.start_time.clone().or(Some(time(now))),
        init_container_statuses: (!init.is_empty()).then_some(init),
        container_statuses: Some(main),
        ephemeral_container_statuses: (!debug.is_empty()).then_some(debug),
        observed_generation: pod.metadata.generation.or(old.observed_generation),
        resources: Some(resources),
        allocated_resources: (!allocated.is_empty()).then_some(allocated),
        ..old
    }
}

struct View<'a> {
    pod: &'a Pod,
    spec: &'a PodSpec,
    observed: &'a Observed,
    /// Nothing of the pod will run again.
    is_over: bool,
}

impl View<'_> {
    /// The phase of a pod that is not over, as upstream's `getPhase`: sidecars count as long as they
    /// start and run, and a container that has run and waits to run again counts as stopped.
    fn phase(&self) -> &'static str {
        let (mut pending, mut waiting, mut running, mut has_run) = (false, false, false, false);
        for part in parts(self.spec) {
            let record = self.observed.container(part.name());
            let is_new = record.last_exit.is_none() && !matches!(record.run, Run::Exited(_));
            let is_up = is_up(&part, record);
            match part.role {
                Role::Init => pending |= !record.is_done(),
                Role::Sidecar => {
                    let waits = !is_up && is_new;
                    pending |= waits || is_up && !has_started(&part, record);
                    running |= is_up;
                    waiting |= waits;
                }
                Role::Main => {
                    waiting |= !is_up && is_new;
                    running |= is_up;
                    has_run |= is_up || !is_new;
                }
                Role::Debug => {}
            }
        }
        if pending && !has_run || waiting || !running && !has_run {
            "Pending"
        } else {
            "Running"
        }
    }

    fn is_initialized(&self) -> bool {
        parts(self.spec).all(|part| {
            let record = self.observed.container(part.name());
            match part.role {
                Role::Init => record.is_done(),
                Role::Sidecar => has_started(&part, record),
                Role::Main | Role::Debug => true,
            }
        })
    }

    fn container(&self, part: &Part<'_>) -> ContainerStatus {
        let container = part.container.as_ref();
        let record = self.observed.container(part.name());
        let (state, last_exit) = self.state(part, record);
        let has_run = record.latest_run().is_some();
        let is_serving = matches!(record.run, Run::Running { serving: true, .. });
        let started = has_started(part, record);
        let ready = started && (container.readiness_probe.is_none() || record.probes.ready);
        let image = record.image_ref.as_ref();
        ContainerStatus {
            name: container.name.clone(),
            image: match image {
                Some(image) if has_run => image.image.clone(),
                _ => container.image.clone().unwrap_or_default(),
            },
            image_id: image
                .map(|i| image_id(&i.image, &i.digest))
                .unwrap_or_default(),
            container_id: record
                .latest_run()
                .map(|run| self.container_id(&container.name, run)),
            ready: match part.role {
                Role::Init => record.has_succeeded(),
                Role::Sidecar | Role::Main => ready && is_serving,
                Role::Debug => false,
            },
            started: (part.role != Role::Debug).then_some(started),
            restart_count: i32::try_from(record.latest_run().unwrap_or(0)).unwrap_or(i32::MAX),
            last_state: Some(ContainerState {
                terminated: last_exit
                    .map(|(exit, run)| self.terminated(exit, &container.name, run)),
                ..ContainerState::default()
            }),
            // Without them the API server would take the node for one that cannot change them, and the scheduler would
            // count what the pod asks for and cannot have.
            resources: has_run.then(|| record.allocated.clone()),
            allocated_resources: record.allocated.requests.clone().filter(|_| has_run),
            state: Some(state),
            ..ContainerStatus::default()
        }
    }

    /// The state to show, and the run that ended before it with its number.
    fn state<'r>(
        &self,
        part: &Part<'_>,
        record: &'r ContainerRecord,
    ) -> (ContainerState, Option<(&'r Exit, u32)>) {
        let container = part.container.as_ref();
        let waiting = |reason: &str, message: Option<String>| ContainerState {
            waiting: Some(ContainerStateWaiting {
                reason: Some(reason.to_owned()),
                message,
            }),
            ..ContainerState::default()
        };
        let creating = if part.role != Role::Main || self.is_initialized() {
            "ContainerCreating"
        } else {
            "PodInitializing"
        };
        let before = record
            .last_exit
            .as_ref()
            .map(|exit| (exit, record.restart_count.saturating_sub(1)));
        match &record.run {
            Run::Running { started_at, .. } | Run::Stopping { started_at }
                if is_up(part, record) =>
            {
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
            Run::Starting | Run::Running { .. } | Run::Stopping { .. } => {
                (waiting(creating, None), before)
            }
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
                let starts_over = record.again
                    || part.role != Role::Debug && over::is_under_way(self.spec, self.observed);
                let is_ending = self.is_over || self.pod.metadata.deletion_timestamp.is_some();
                if starts_over && !is_ending {
                    // What keeps the container from its next run says more than why it runs again.
                    return match self.image_problem(container, record) {
                        Some((reason, message)) => (waiting(&reason, Some(message)), latest),
                        None => (waiting("RestartingAllContainers", None), latest),
                    };
                }
                let will_restart =
                    !is_ending && (record.outdated || part.restarts(self.spec, exit.exit_code));
                if will_restart
                    && let Some((reason, message)) = self.image_problem(container, record)
                {
                    return (waiting(&reason, Some(message)), latest);
                }
                if let Some(start_at) = record.start_at
                    && will_restart
                {
                    let delay = (start_at.as_second() - exit.finished_at.as_second()).max(0);
                    let message = format!(
                        "back-off {} restarting failed container={} pod={}_{}({})",
                        coracle_api::duration::shown(delay.saturating_mul(1_000_000_000)),
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
