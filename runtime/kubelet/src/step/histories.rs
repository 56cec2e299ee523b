//! Whatever happens to a pod, in whatever order: what always holds.

use std::time::Duration;

use coracle_cri::{ImageError, ImageRef};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::ending::OVERDUE;
use super::*;

/// Something that may happen next; the number chooses among what is possible.
#[derive(Clone, Debug)]
enum Happening {
    /// A pending action is carried out.
    Done(u8),
    /// A pending action fails, if it can.
    Fails(u8),
    /// A container that was started runs.
    Runs(u8),
    /// A container ends by itself with this code.
    Ends(u8, i32),
    /// A startup or readiness probe passes.
    Passes(u8),
    /// A probe gives a container up.
    GivesUp(u8),
    /// Time passes.
    Waits(u16),
    /// The user deletes the pod with this grace.
    Deleted(u8),
    /// The user adds a container to debug with.
    Debugged,
    /// The user gives a container other resources; the node has them, or has not.
    Resized(u8, u8, bool),
    /// The node gives the pod up.
    Evicted,
    /// The node is killed and starts again.
    NodeRestarts,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        16 => any::<u8>().prop_map(Happening::Done),
        4 => any::<u8>().prop_map(Happening::Fails),
        12 => any::<u8>().prop_map(Happening::Runs),
        6 => (any::<u8>(), 0..3i32).prop_map(|(which, code)| Happening::Ends(which, code)),
        6 => any::<u8>().prop_map(Happening::Passes),
        2 => any::<u8>().prop_map(Happening::GivesUp),
        8 => (0..400u16).prop_map(Happening::Waits),
        2 => (0..40u8).prop_map(Happening::Deleted),
        2 => Just(Happening::Debugged),
        4 => any::<(u8, u8, bool)>().prop_map(|(which, cpu, fits)| Happening::Resized(which, cpu, fits)),
        1 => Just(Happening::Evicted),
        2 => Just(Happening::NodeRestarts),
    ]
}

/// What a container of a generated pod has.
#[derive(Clone, Debug)]
struct Shape {
    policy: Option<&'static str>,
    rule: Option<&'static str>,
    post_start: bool,
    pre_stop: bool,
    startup: bool,
}

fn shape() -> impl Strategy<Value = Shape> {
    let policies = vec![None, None, Some("Always"), Some("OnFailure"), Some("Never")];
    let policy = prop::sample::select(policies);
    let flags = any::<(bool, bool, bool)>();
    let rules = vec![None, None, Some("Restart"), Some("RestartAllContainers")];
    let rule = prop::sample::select(rules);
    (policy, rule, flags).prop_map(|(policy, rule, (post_start, pre_stop, startup))| Shape {
        policy,
        rule: rule.filter(|_| policy.is_some()),
        post_start,
        pre_stop,
        startup,
    })
}

fn container(name: String, shape: &Shape, init: bool) -> Value {
    let hook = |there: bool| there.then(|| json!({"sleep": {"seconds": 1}}));
    let mut container = json!({"name": name, "restartPolicy": shape.policy});
    // What runs to its end has neither hooks nor probes.
    if !init || shape.policy == Some("Always") {
        let (start, stop) = (hook(shape.post_start), hook(shape.pre_stop));
        container["lifecycle"] = json!({"postStart": start, "preStop": stop});
        container["startupProbe"] = json!(shape.startup.then(|| json!({"tcpSocket": {"port": 1}})));
    }
    if shape.pre_stop && !init {
        container["resizePolicy"] =
            json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
    }
    if let Some(action) = shape.rule {
        let codes = json!({"operator": "In", "values": [2]});
        container["restartPolicyRules"] = json!([{"action": action, "exitCodes": codes}]);
    }
    container
}

fn pods() -> impl Strategy<Value = Pod> {
    let policy = prop::sample::select(vec!["Always", "OnFailure", "Never"]);
    let init = prop::collection::vec(shape(), 0..4);
    let main = prop::collection::vec(shape(), 1..4);
    let deadline = prop::option::weighted(0.3, 1..900i64);
    (policy, init, main, deadline).prop_map(|(policy, init, main, deadline)| {
        let list = |kind: &str, shapes: &[Shape]| -> Vec<Value> {
            let shapes = shapes.iter().enumerate();
            shapes
                .map(|(index, shape)| container(format!("{kind}-{index}"), shape, kind == "init"))
                .collect()
        };
        let pod = json!({
            "metadata": {"uid": "u"},
            "spec": {
                "restartPolicy": policy, "activeDeadlineSeconds": deadline,
                "initContainers": list("init", &init), "containers": list("main", &main),
            },
        });
        serde_json::from_value(pod).expect("a pod")
    })
}

/// A pod, what was begun for it, and what was seen of it.
struct World {
    pod: Pod,
    observed: Observed,
    begun: Vec<Action>,
    now: Timestamp,
    forgotten: bool,
    /// Highest restart count seen of each container, in the order of their names.
    counts: Vec<(String, u32)>,
    /// The latest phase.
    phase: String,
}

impl World {
    fn new(pod: Pod) -> Self {
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

    fn spec(&self) -> &PodSpec {
        self.pod.spec.as_ref().expect("a spec")
    }

    /// Asks, marks what is begun as the worker does, and checks what must hold.
    fn look(&mut self) -> Option<Timestamp> {
        let step = step(&self.pod, &self.observed, self.now);
        if step.ending {
            self.observed.ending_since.get_or_insert(self.now);
        }
        for action in step.actions {
            self.begin(&action);
            assert!(!self.begun.contains(&action), "{action:?} is begun twice");
            if action != Action::Forget {
                self.begun.push(action);
            }
        }
        self.report();
        step.wake_at
    }

    fn begin(&mut self, action: &Action) {
        let now = self.now;
        match action {
            Action::RunSandbox => self.observed.sandbox = SandboxState::Starting,
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
                let record = self.observed.container_mut(container);
                assert!(
                    matches!(record.run, Run::Never | Run::Exited(_)),
                    "two runs at once"
                );
                record.starting(*restart_count);
                let part = super::part(&self.pod, container).expect("known");
                self.observed.container_mut(container).allocated = resize::wanted(&part);
            }
            Action::Resize { container } => {
                assert_eq!(self.observed.resize_refusal, None, "it was refused");
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
            let is_debug = super::part(&self.pod, name).expect("known").role == Role::Debug;
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
        let role = super::part(&self.pod, name).expect("known").role;
        let given_up = self.observed.container(name).probes.gave_up.is_some()
            || self.observed.container(name).post_start == Hook::Failed;
        let Some(since) = self.observed.ending_since.filter(|_| !given_up) else {
            return;
        };
        let own = self.pod.metadata.deletion_grace_period_seconds;
        let own = own.map_or_else(|| own_grace(self.spec()), super::seconds);
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

    fn report(&mut self) {
        let status = status(&self.pod, &self.observed, "10.240.0.1", self.now);
        let phase = status.phase.clone().expect("a phase");
        let is_over = matches!(phase.as_str(), "Succeeded" | "Failed");
        if matches!(self.phase.as_str(), "Succeeded" | "Failed") {
            assert_eq!(phase, self.phase, "a pod that was over is not");
        } else if is_over {
            assert!(!self.observed.is_anything_running(), "it is over, and runs");
        }
        self.phase = phase;
        for (name, record) in &self.observed.containers {
            match self.counts.iter_mut().find(|(known, _)| known == name) {
                Some((_, count)) => {
                    assert!(record.restart_count >= *count, "{name} counts backwards");
                    *count = record.restart_count;
                }
                None => self.counts.push((name.clone(), record.restart_count)),
            }
        }
        self.pod.status = Some(status);
    }

    fn happens(&mut self, happening: &Happening) {
        match happening {
            Happening::Done(which) => self.carry_out(*which, true),
            Happening::Fails(which) => self.carry_out(*which, false),
            Happening::Runs(which) => {
                let now = self.now;
                if let Some(name) = self.pick(*which, |run| *run == Run::Starting) {
                    self.observed.container_mut(&name).started(now, true);
                    self.begun.retain(|a| !matches!(a, Action::StartContainer { container, .. } if *container == name));
                }
            }
            Happening::Ends(which, code) => {
                if let Some(name) = self.pick(*which, |run| matches!(run, Run::Running { .. })) {
                    self.exit(&name, *code);
                }
            }
            Happening::Passes(which) => {
                if let Some(name) = self.pick(*which, |run| matches!(run, Run::Running { .. })) {
                    let probes = &mut self.observed.container_mut(&name).probes;
                    probes.ready = probes.started;
                    probes.started = true;
                }
            }
            Happening::GivesUp(which) => {
                if let Some(name) = self.pick(*which, |run| matches!(run, Run::Running { .. })) {
                    self.observed.container_mut(&name).probes.gave_up = Some("liveness");
                }
            }
            Happening::Waits(seconds) => self.now += Duration::from_secs(u64::from(*seconds)),
            Happening::Deleted(grace) => {
                let meta = &mut self.pod.metadata;
                let ends_at = self.now + Duration::from_secs(u64::from(*grace));
                // A second deletion can only bring the end nearer.
                if meta
                    .deletion_timestamp
                    .as_ref()
                    .is_none_or(|at| ends_at < at.0)
                {
                    meta.deletion_timestamp = Some(Time(ends_at));
                    meta.deletion_grace_period_seconds = Some(i64::from(*grace));
                }
            }
            Happening::Debugged => {
                let spec = self.pod.spec.as_mut().expect("a spec");
                let debug = spec.ephemeral_containers.get_or_insert_default();
                let name = format!("debug-{}", debug.len());
                let added = json!({"name": name, "image": "a"});
                debug.push(serde_json::from_value(added).expect("a container"));
            }
            Happening::Resized(which, cpu, fits) => {
                let spec = self.pod.spec.as_mut().expect("a spec");
                let index = usize::from(*which) % spec.containers.len();
                let requests = json!({"requests": {"cpu": format!("{cpu}m")}});
                let resources = serde_json::from_value(requests).expect("resources");
                spec.containers[index].resources = Some(resources);
                self.observed.resize_refusal =
                    (!fits).then(|| ResizeRefusal::Deferred("no".into()));
            }
            Happening::Evicted => {
                let (reason, message) = ("Evicted".to_owned(), "no room".to_owned());
                self.observed.failure = Some(Failure { reason, message });
            }
            Happening::NodeRestarts => {
                let failure = self.observed.failure.clone();
                self.observed = Observed::recover(&self.pod, self.now);
                // Whoever gave it up gives it up again.
                self.observed.failure = failure;
                self.begun.clear();
                self.forgotten = false;
            }
        }
    }

    fn carry_out(&mut self, which: u8, succeeds: bool) {
        if self.begun.is_empty() {
            return;
        }
        let index = usize::from(which) % self.begun.len();
        let retry_at = self.now + Duration::from_secs(2);
        let action = self.begun[index].clone();
        match action.clone() {
            Action::RunSandbox => {
                let failed = SandboxState::Failed {
                    message: "no".into(),
                    retry_at,
                };
                self.observed.sandbox = if succeeds {
                    SandboxState::Ready
                } else {
                    failed
                };
            }
            Action::EnsureImage { container } => {
                let now = self.now;
                let image = ImageRef {
                    image: "a".into(),
                    digest: "sha256:0".into(),
                    size: 1,
                };
                let record = self.observed.container_mut(&container);
                if succeeds {
                    record.image = ImageState::Ready(image);
                } else {
                    record.image_failed(&ImageError::Pull("no".into()), now);
                }
            }
            // It is announced by `Runs`.
            Action::StartContainer { .. } if succeeds => return,
            Action::StartContainer {
                container,
                restart_count,
            } if restart_count.is_multiple_of(2) => {
                let now = self.now;
                let record = self.observed.container_mut(&container);
                record.not_started(restart_count);
                record.blocked(CONFIG_ERROR, "no".into(), now);
                // Nothing has run, so the count may be the one before again.
                self.counts.retain(|(name, _)| *name != container);
            }
            Action::StartContainer { container, .. } => self.exit(&container, 128),
            Action::Resize { container } => {
                let wanted = resize::wanted(&super::part(&self.pod, &container).expect("known"));
                let record = self.observed.container_mut(&container);
                if succeeds {
                    record.allocated = wanted;
                    record.resize = Resizing::Idle;
                } else {
                    let message = "no".into();
                    record.resize = Resizing::Failed { message, retry_at };
                }
            }
            Action::PostStart { container } => {
                let record = self.observed.container_mut(&container);
                // Not if another run has begun meanwhile.
                if record.post_start == Hook::Running {
                    record.post_start = if succeeds { Hook::Passed } else { Hook::Failed };
                }
            }
            Action::PreStop { container, .. } => {
                let record = self.observed.container_mut(&container);
                if record.pre_stop == Hook::Running {
                    record.pre_stop = if succeeds { Hook::Passed } else { Hook::Failed };
                }
            }
            // It takes longer than it may.
            Action::StopContainer { .. } if !succeeds => return,
            Action::StopContainer { container, .. } => self.exit(&container, 143),
            Action::StopSandbox => {
                // Whatever still runs ends with its sandbox.
                let running: Vec<String> = self.observed.containers.keys().cloned().collect();
                for name in running {
                    if self.observed.container(&name).run.is_active() {
                        self.exit(&name, 137);
                    }
                }
                self.observed.sandbox = SandboxState::Absent;
                self.begun.retain(|action| *action != Action::StopSandbox);
                return;
            }
            Action::StartOver | Action::Forget => {}
        }
        // An end may have taken others with it.
        self.begun.retain(|other| *other != action);
    }

    /// Ends a run, if it is still there. Whoever was about it finds it ended.
    fn exit(&mut self, name: &str, exit_code: i32) {
        if !self.observed.container(name).run.is_active() {
            return;
        }
        let exit = Exit {
            exit_code,
            reason: "Error".into(),
            message: String::new(),
            started_at: self.now,
            finished_at: self.now,
        };
        self.observed.container_mut(name).exited(exit);
        self.begun.retain(|action| {
            !matches!(action, Action::StopContainer { container, .. } | Action::PostStart { container }
                | Action::PreStop { container, .. } | Action::Resize { container } | Action::StartContainer { container, .. } if container == name)
        });
    }

    fn pick(&self, which: u8, matches: impl Fn(&Run) -> bool) -> Option<String> {
        let all: Vec<&String> = self
            .observed
            .containers
            .iter()
            .filter(|(_, r)| matches(&r.run))
            .map(|(name, _)| name)
            .collect();
        (!all.is_empty()).then(|| all[usize::from(which) % all.len()].clone())
    }

    /// What runs to its end, and does.
    fn finishing(&self) -> Option<String> {
        parts(self.spec())
            .find(|part| {
                let runs = matches!(
                    self.observed.container(part.name()).run,
                    Run::Running { .. }
                );
                part.role == Role::Init && runs
            })
            .map(|part| part.name().to_owned())
    }

    /// A container whose startup probe has not passed.
    fn starting_up(&self) -> Option<String> {
        parts(self.spec())
            .find(|part| {
                let record = self.observed.container(part.name());
                let runs = matches!(record.run, Run::Running { .. });
                part.container.startup_probe.is_some() && runs && !record.probes.started
            })
            .map(|part| part.name().to_owned())
    }

    /// Everything succeeds from now on, and guests run for ever: the pod has to come to rest.
    fn settle(&mut self) {
        for _ in 0..400 {
            let wake_at = self.look();
            if self.forgotten {
                return;
            }
            if let Some(name) = self.pick(0, |run| *run == Run::Starting) {
                self.happens(&Happening::Runs(0));
                assert_ne!(self.observed.container(&name).run, Run::Starting);
            } else if !self.begun.is_empty() {
                self.carry_out(0, true);
            } else if let Some(name) = self.finishing() {
                self.exit(&name, 0);
            } else if let Some(name) = self.starting_up() {
                self.observed.container_mut(&name).probes.started = true;
            } else if let Some(wake_at) = wake_at {
                assert!(wake_at > self.now, "it wakes again and again");
                self.now = wake_at;
            } else {
                return;
            }
        }
        panic!("the pod does not come to rest: {:?}", self.observed);
    }

    fn is_at_rest(&self) -> bool {
        if self.pod.metadata.deletion_timestamp.is_some() {
            return self.forgotten;
        }
        match self.phase.as_str() {
            "Running" => self.observed.is_anything_running(),
            "Succeeded" | "Failed" => self.observed.sandbox == SandboxState::Absent,
            _ => false,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_pod_is_never_stuck_and_runs_nothing_twice(
        pod in pods(),
        history in prop::collection::vec(happening(), 0..80),
    ) {
        let mut world = World::new(pod);
        for happening in &history {
            world.look();
            if world.forgotten {
                return Ok(());
            }
            world.happens(happening);
        }
        world.settle();
        prop_assert!(world.is_at_rest(), "{:?} {:?}", world.pod.status, world.observed);
    }
}
