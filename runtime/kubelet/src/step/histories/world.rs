//! One pod as the worker keeps it, and what must hold of it at every look.

use std::time::Duration;

use coracle_clock::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodSpec, PodStatus};

use crate::step::ending::OVERDUE;
use crate::step::*;

/// A pod, what was begun for it, and what was seen of it.
pub(super) struct World {
    pub(super) pod: Pod,
    pub(super) observed: Observed,
    pub(super) begun: Vec<Action>,
    pub(super) now: Timestamp,
    pub(super) forgotten: bool,
    /// The latest restart count told of each container.
    counts: Vec<(String, u32)>,
    /// The latest phase.
    pub(super) phase: String,
}

impl World {
    pub(super) fn new(pod: Pod) -> Self {
        let now = Timestamp::from_second(1_893_456_000).expect("in range");
        let observed = Observed::default();
        Self {
            pod,
            observed,
            begun: Vec::new(),
            now,
            forgotten: false,
            counts: Vec::new(),
            phase: "Pending".into(),
        }
    }

    pub(super) fn spec(&self) -> &PodSpec {
        self.pod.spec.as_ref().expect("a spec")
    }

    /// Asks, marks what is begun as the worker does, and checks what must hold.
    pub(super) fn look(&mut self) -> Option<Timestamp> {
        let step = step(&self.pod, &self.observed, self.now);
        if step.ending {
            self.observed.ending_since.get_or_insert(self.now);
        }
        let starts_over = step.actions.contains(&Action::StartOver);
        for action in step.actions {
            self.begin(&action);
            assert!(!self.begun.contains(&action), "{action:?} is begun twice");
            // As soon as it is begun, to start over is done.
            if !matches!(action, Action::Forget | Action::StartOver) {
                self.begun.push(action);
            }
        }
        self.report();
        // After each action the worker asks again, and this one takes no time.
        if starts_over {
            return self.look();
        }
        step.wake_at
    }

    fn begin(&mut self, action: &Action) {
        let now = self.now;
        match action {
            Action::RunSandbox => {
                self.observed.sandbox = SandboxState::Starting;
                self.observed.whole = Whole {
                    allocated: whole::wanted(&whole::granted(&self.pod, &self.observed)),
                    resize: Resizing::Idle,
                };
            }
            Action::ResizePod => {
                assert_ne!(
                    self.observed.whole.resize,
                    Resizing::Begun,
                    "it is begun twice"
                );
                self.observed.whole.resize = Resizing::Begun;
            }
            Action::StartOver => {
                let spec = self.pod.spec.as_ref().expect("a spec");
                let of_pod = parts(spec).filter(|part| part.role != Role::Debug);
                let active =
                    of_pod.filter(|part| self.observed.container(part.name()).run.is_active());
                assert_eq!(active.count(), 0, "a run would be forgotten");
                self.observed.start_over(spec);
            }
            Action::StopSandbox => {
                let grace = self.pod.metadata.deletion_grace_period_seconds;
                let since = self.observed.ending_since.expect("it is ending");
                assert!(
                    !self.observed.is_anything_running()
                        || grace == Some(0)
                        || now >= since + OVERDUE,
                    "guests lose their network"
                );
                self.observed.sandbox = SandboxState::Stopping;
            }
            Action::EnsureImage { container } => {
                self.observed.container_mut(container).image.pulling()
            }
            Action::StartContainer {
                container,
                restart_count,
            } => {
                assert!(
                    self.observed.ending_since.is_none(),
                    "a pod that is ending starts something"
                );
                assert_eq!(self.observed.sandbox, SandboxState::Ready, "no network yet");
                self.check_turn(container);
                self.check_run(container, *restart_count);
                let record = self.observed.container_mut(container);
                record.starting(*restart_count);
                let granted = whole::granted(&self.pod, &self.observed).into_owned();
                let record = self.observed.container_mut(container);
                resize::note_given(record, &granted, container);
            }
            Action::Resize { container } => {
                let record = self.observed.container_mut(container);
                assert_ne!(record.resize, Resizing::Begun, "it is begun twice");
                record.resize = Resizing::Begun;
            }
            Action::PostStart { container } => {
                let record = self.observed.container_mut(container);
                assert_eq!(record.post_start, Hook::Due, "a hook is called twice");
                record.post_start = Hook::Running;
            }
            Action::PreStop { container, grace } => {
                assert!(!grace.is_zero(), "a hook without time");
                let record = self.observed.container_mut(container);
                assert_eq!(record.pre_stop, Hook::Due, "a hook is called twice");
                record.pre_stop = Hook::Running;
                record.stopping(now);
            }
            Action::StopContainer { container, grace } => {
                self.check_order(container, *grace);
                let record = self.observed.container_mut(container);
                let Run::Running { started_at, .. } = record.run else {
                    panic!("nothing to stop")
                };
                record.stopping(now);
                record.run = Run::Stopping { started_at };
            }
            Action::Forget => {
                assert!(!self.observed.is_anything_running(), "a container is lost");
                self.forgotten = true;
            }
        }
    }

    /// Nothing starts before the init containers in front of it are done and the sidecars have been up.
    fn check_turn(&self, name: &str) {
        for part in parts(self.spec()) {
            if part.name() == name || part.role == Role::Main {
                return;
            }
            let record = self.observed.container(part.name());
            let is_debug = crate::step::part(&self.pod, name).expect("known").role == Role::Debug;
            match part.role {
                Role::Init => assert!(record.is_done() || is_debug, "{name} is too early"),
                Role::Sidecar => {
                    assert!(
                        record.run != Run::Never && !record.again || is_debug,
                        "{name} is too early"
                    )
                }
                Role::Main | Role::Debug => {}
            }
        }
    }

    /// Sidecars end after the main containers, the last one first, unless there is no time left.
    fn check_order(&self, name: &str, grace: Duration) {
        let role = crate::step::part(&self.pod, name).expect("known").role;
        let given_up = self.observed.container(name).probes.gave_up.is_some()
            || self.observed.container(name).post_start == Hook::Failed;
        let Some(since) = self.observed.ending_since.filter(|_| !given_up) else {
            return;
        };
        let own = self.pod.metadata.deletion_grace_period_seconds;
        let own = own.map_or_else(|| own_grace(self.spec()), seconds);
        let own = match &self.observed.failure {
            // An evicted pod has a second, whatever it asks for.
            Some(failure) if failure.reason == EVICTED => own.min(EVICTION_GRACE),
            _ => own,
        };
        if role != Role::Sidecar || grace.is_zero() || self.now >= since + own {
            return;
        }
        let mut later = parts(self.spec())
            .skip_while(|part| part.name() != name)
            .skip(1);
        assert!(
            !later.any(|part| matches!(part.role, Role::Sidecar | Role::Main)
                && self.observed.container(part.name()).run.is_active()),
            "{name} is stopped before those that may need it"
        );
    }

    /// A run begins only if the one before is over, may be followed by another, and has waited for it.
    fn check_run(&self, name: &str, restart_count: u32) {
        let part = part(&self.pod, name).expect("known");
        let record = self.observed.container(name);
        let waited = record.start_at.is_none_or(|start_at| start_at <= self.now);
        assert!(waited, "{name} does not wait for its back-off");
        match &record.run {
            Run::Never => assert_eq!(restart_count, 0, "{name} has not run yet"),
            Run::Exited(exit) => {
                assert_eq!(
                    restart_count,
                    record.restart_count + 1,
                    "{name} is miscounted"
                );
                assert!(part.role != Role::Debug, "{name} is started again");
                let is_due = record.again
                    || record.outdated
                    || part.restarts(self.spec(), exit.exit_code)
                    || part.role == Role::Init && record.stale;
                assert!(is_due, "{name} is over and starts again");
            }
            active => panic!("{name}: two runs at once, {active:?}"),
        }
    }

    fn report(&mut self) {
        let status = status(&self.pod, &self.observed, "10.240.0.1", self.now);
        self.check_phase(&status);
        self.check_containers(&status);
        self.pod.status = Some(status);
    }

    /// Pending, Running, over: never back.
    fn check_phase(&mut self, status: &PodStatus) {
        let phase = status.phase.clone().expect("a phase");
        match self.phase.as_str() {
            "Succeeded" | "Failed" => assert_eq!(phase, self.phase, "a pod that was over is not"),
            "Running" => assert_ne!(phase, "Pending", "a pod that ran has not begun"),
            _ => {}
        }
        if matches!(phase.as_str(), "Succeeded" | "Failed") {
            assert!(!self.observed.is_anything_running(), "it is over, and runs");
        }
        self.phase = phase;
    }

    /// Every container is told of, in a way that goes together, and counts forwards.
    fn check_containers(&mut self, status: &PodStatus) {
        let lists = [
            &status.init_container_statuses,
            &status.container_statuses,
            &status.ephemeral_container_statuses,
        ];
        let told: Vec<&ContainerStatus> = lists.into_iter().flatten().flatten().collect();
        // Nothing more is told of a pod that is over: one that was never let in has told of no container, and one to
        // debug with may have come later.
        let is_over = matches!(self.phase.as_str(), "Succeeded" | "Failed");
        let is_told = |part: &Part<'_>| told.iter().any(|told| told.name == part.name());
        let never_let_in = is_over && told.is_empty() && self.observed.failure.is_some();
        for part in parts(self.spec()) {
            let may_lack = never_let_in || is_over && part.role == Role::Debug;
            assert!(may_lack || is_told(&part), "{} is lost", part.name());
        }
        let mut all_ready = true;
        for told in told {
            let (name, count) = (
                &told.name,
                u32::try_from(told.restart_count).expect("a count"),
            );
            let state = told.state.as_ref().expect("a state");
            let states = [
                state.waiting.is_some(),
                state.running.is_some(),
                state.terminated.is_some(),
            ];
            let shown = states.into_iter().filter(|shown| *shown).count();
            assert_eq!(shown, 1, "{name} is in {shown} states");
            let role = part(&self.pod, name).expect("known").role;
            match role {
                Role::Init => assert!(
                    !told.ready || state.running.is_none(),
                    "{name} is done and runs"
                ),
                Role::Sidecar | Role::Main => {
                    assert!(
                        !told.ready || state.running.is_some(),
                        "{name} is ready and does not run"
                    );
                    all_ready &= told.ready;
                }
                Role::Debug => assert!(!told.ready, "{name} serves nobody"),
            }
            match self.counts.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => {
                    assert!(count >= *known, "{name} counts backwards");
                    *known = count;
                }
                None => self.counts.push((name.clone(), count)),
            }
        }
        let conditions = status.conditions.iter().flatten();
        let is_ready = conditions
            .filter(|condition| condition.type_ == "Ready")
            .any(|condition| condition.status == "True");
        assert!(
            !is_ready || all_ready,
            "the pod is ready, and its containers are not"
        );
    }
}
