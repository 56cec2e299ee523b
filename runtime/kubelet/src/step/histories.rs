//! Whatever happens to a pod, in whatever order: what always holds.

use std::time::Duration;

use coracle_cri::{ImageError, ImageRef};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;

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
    /// A probe gives a container up.
    GivesUp(u8),
    /// Time passes.
    Waits(u16),
    /// The user deletes the pod with this grace.
    Deleted(u8),
    /// The node is killed and starts again.
    NodeRestarts,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => any::<u8>().prop_map(Happening::Done),
        2 => any::<u8>().prop_map(Happening::Fails),
        6 => any::<u8>().prop_map(Happening::Runs),
        3 => (any::<u8>(), 0..3i32).prop_map(|(which, code)| Happening::Ends(which, code)),
        1 => any::<u8>().prop_map(Happening::GivesUp),
        4 => (0..400u16).prop_map(Happening::Waits),
        1 => (0..40u8).prop_map(Happening::Deleted),
        1 => Just(Happening::NodeRestarts),
    ]
}

fn pod(policy: &str, init: usize, main: usize) -> Pod {
    let containers = |kind: &str, count: usize| -> Vec<Container> {
        let container = |index| Container {
            name: format!("{kind}-{index}"),
            ..Container::default()
        };
        (0..count).map(container).collect()
    };
    let mut pod = Pod::default();
    pod.metadata.uid = Some("u".into());
    pod.spec = Some(PodSpec {
        restart_policy: Some(policy.into()),
        init_containers: Some(containers("init", init)),
        containers: containers("main", main),
        ..PodSpec::default()
    });
    pod
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
    over: Option<String>,
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
            over: None,
        }
    }

    /// Asks, marks what is begun as the worker does, and checks what must hold.
    fn look(&mut self) -> Option<Timestamp> {
        let step = step(&self.pod, &self.observed, self.now);
        for action in step.actions {
            match &action {
                Action::RunSandbox => self.observed.sandbox = SandboxState::Starting,
                Action::StopSandbox => {
                    let grace = self.pod.metadata.deletion_grace_period_seconds;
                    assert!(
                        !self.observed.is_anything_running() || grace == Some(0),
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
                        self.pod.metadata.deletion_timestamp.is_none(),
                        "a deleted pod starts something"
                    );
                    assert_eq!(self.observed.sandbox, SandboxState::Ready, "no network yet");
                    let record = self.observed.container_mut(container);
                    assert!(
                        matches!(record.run, Run::Never | Run::Exited(_)),
                        "two runs at once"
                    );
                    record.starting(*restart_count);
                }
                Action::StopContainer { container, .. } => {
                    let record = self.observed.container_mut(container);
                    let Run::Running { started_at, .. } = record.run else {
                        panic!("nothing to stop")
                    };
                    record.run = Run::Stopping { started_at };
                }
                Action::Forget => {
                    assert!(!self.observed.is_anything_running(), "a container is lost");
                    self.forgotten = true;
                }
            }
            assert!(!self.begun.contains(&action), "{action:?} is begun twice");
            if action != Action::Forget {
                self.begun.push(action);
            }
        }
        self.report();
        step.wake_at
    }

    fn report(&mut self) {
        let status = status(&self.pod, &self.observed, "10.240.0.1", self.now);
        let phase = status.phase.clone().expect("a phase");
        if let Some(over) = &self.over {
            assert_eq!(&phase, over, "a pod that was over is not");
        } else if matches!(phase.as_str(), "Succeeded" | "Failed") {
            self.over = Some(phase);
        }
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
            Happening::GivesUp(which) => {
                if let Some(name) = self.pick(*which, |run| matches!(run, Run::Running { .. })) {
                    self.observed.container_mut(&name).probes.gave_up = Some("liveness");
                }
            }
            Happening::Waits(seconds) => self.now += Duration::from_secs(u64::from(*seconds)),
            Happening::Deleted(grace) => {
                self.pod
                    .metadata
                    .deletion_timestamp
                    .get_or_insert(Time(self.now));
                self.pod.metadata.deletion_grace_period_seconds = Some(i64::from(*grace));
            }
            Happening::NodeRestarts => {
                self.observed = Observed::recover(&self.pod, self.now);
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
        match self.begun[index].clone() {
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
            Action::StopContainer { container, .. } => self.exit(&container, 143),
            Action::StopSandbox => {
                // Whatever still runs ends with its sandbox.
                let running: Vec<String> = self.observed.containers.keys().cloned().collect();
                for name in running {
                    if matches!(self.observed.container(&name).run, Run::Stopping { .. }) {
                        self.exit(&name, 137);
                    }
                }
                self.observed.sandbox = SandboxState::Absent;
                self.begun.retain(|action| *action != Action::StopSandbox);
                return;
            }
            Action::Forget => {}
        }
        if index < self.begun.len() {
            self.begun.remove(index);
        }
    }

    /// Ends a run. Whoever was stopping it finds it ended.
    fn exit(&mut self, name: &str, exit_code: i32) {
        let exit = Exit {
            exit_code,
            reason: "Error".into(),
            message: String::new(),
            started_at: self.now,
            finished_at: self.now,
        };
        self.observed.container_mut(name).exited(exit);
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

    /// Everything succeeds from now on, and guests run for ever: the pod has to come to rest.
    fn settle(&mut self) {
        for _ in 0..200 {
            let wake_at = self.look();
            if self.forgotten {
                return;
            }
            if let Some(name) = self.pick(0, |run| *run == Run::Starting) {
                self.happens(&Happening::Runs(0));
                assert_ne!(self.observed.container(&name).run, Run::Starting);
            } else if !self.begun.is_empty() {
                self.carry_out(0, true);
            } else if let Some(name) = self
                .pick(0, |run| matches!(run, Run::Running { .. }))
                .filter(|n| n.starts_with("init"))
            {
                self.exit(&name, 0);
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
        let status = self.pod.status.as_ref().expect("reported");
        match status.phase.as_deref() {
            Some("Running") => self.observed.is_anything_running(),
            Some("Succeeded" | "Failed") => self.observed.sandbox == SandboxState::Absent,
            _ => false,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_pod_is_never_stuck_and_runs_nothing_twice(
        policy in prop::sample::select(vec!["Always", "OnFailure", "Never"]),
        init in 0..3usize,
        main in 1..4usize,
        history in prop::collection::vec(happening(), 0..60),
    ) {
        let mut world = World::new(pod(policy, init, main));
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
