use std::time::Duration;

use coracle_cri::{ImageError, ImageRef};
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;

fn start() -> Timestamp {
    Timestamp::from_second(1_893_456_000).expect("in range")
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn pod(policy: &str) -> Pod {
    let container = |name: &str| Container {
        name: name.into(),
        image: Some("a".into()),
        ..Container::default()
    };
    let mut pod = Pod::default();
    pod.metadata.name = Some("web".into());
    pod.metadata.namespace = Some("default".into());
    pod.metadata.uid = Some("u".into());
    pod.spec = Some(PodSpec {
        restart_policy: Some(policy.into()),
        containers: vec![container("app")],
        ..PodSpec::default()
    });
    pod
}

/// A pod and what is known of it, driven by hand.
struct World {
    pod: Pod,
    observed: Observed,
    now: Timestamp,
}

impl World {
    fn new(pod: Pod) -> Self {
        Self {
            pod,
            observed: Observed::default(),
            now: start(),
        }
    }

    fn running(policy: &str) -> Self {
        let mut world = Self::new(pod(policy));
        world.settle();
        world.observed.container_mut("app").started(world.now, true);
        world
    }

    fn step(&self) -> Step {
        step(&self.pod, &self.observed, self.now)
    }

    /// Carries out every action at once until nothing but time or a guest can change anything.
    fn settle(&mut self) {
        for _ in 0..20 {
            let Step {
                actions, ending, ..
            } = self.step();
            if ending {
                self.observed.ending_since.get_or_insert(self.now);
            }
            if actions.is_empty() || actions == [Action::Forget] {
                return;
            }
            actions
                .into_iter()
                .for_each(|action| self.carry_out(action));
        }
        panic!("the pod does not settle: {:?}", self.observed);
    }

    fn carry_out(&mut self, action: Action) {
        let image = ImageRef {
            image: "a".into(),
            digest: "sha256:0".into(),
            size: 1,
        };
        match action {
            Action::RunSandbox => {
                self.observed.sandbox = SandboxState::Ready;
                self.observed.whole.allocated = whole::wanted(&self.pod);
            }
            Action::ResizePod => self.observed.whole.allocated = whole::wanted(&self.pod),
            Action::EnsureImage { container } => {
                self.observed.container_mut(&container).image = ImageState::Ready(image);
            }
            Action::StartContainer {
                container,
                restart_count,
            } => {
                let record = self.observed.container_mut(&container);
                resize::note_given(record, &self.pod, &container);
                record.starting(restart_count);
            }
            Action::PostStart { container } => {
                self.observed.container_mut(&container).post_start = Hook::Passed;
            }
            Action::StartOver => {
                let spec = self.pod.spec.as_ref().expect("a spec");
                self.observed.start_over(spec);
            }
            Action::Resize { container } => {
                let record = self.observed.container_mut(&container);
                resize::note_given(record, &self.pod, &container);
            }
            Action::PreStop { container, .. } => {
                let record = self.observed.container_mut(&container);
                record.stopping(self.now);
                record.pre_stop = Hook::Passed;
            }
            Action::StopContainer { container, .. } => self.exit(&container, 143),
            Action::StopSandbox => self.observed.sandbox = SandboxState::Absent,
            Action::Forget => {}
        }
    }

    fn exit(&mut self, container: &str, exit_code: i32) {
        let exit = Exit {
            exit_code,
            reason: if exit_code == 0 { "Completed" } else { "Error" }.into(),
            message: String::new(),
            started_at: self.now,
            finished_at: self.now,
        };
        self.observed.container_mut(container).exited(exit);
    }

    fn phase(&mut self) -> String {
        let status = status(&self.pod, &self.observed, "10.240.0.1", self.now);
        self.pod.status = Some(status.clone());
        status.phase.expect("a phase")
    }

    fn waiting_reason(&mut self) -> Option<String> {
        self.phase();
        let statuses = self.pod.status.as_ref()?.container_statuses.as_ref()?;
        statuses[0].state.as_ref()?.waiting.as_ref()?.reason.clone()
    }

    fn condition(&self, kind: &str) -> String {
        let conditions = self
            .pod
            .status
            .as_ref()
            .and_then(|s| s.conditions.as_ref())
            .expect("reported");
        conditions
            .iter()
            .find(|c| c.type_ == kind)
            .expect("the condition")
            .status
            .clone()
    }
}

#[test]
fn a_pod_becomes_running_and_ready() {
    let mut world = World::new(pod("Always"));
    assert_eq!(world.phase(), "Pending");
    assert_eq!(world.waiting_reason().as_deref(), Some("ContainerCreating"));
    world.settle();
    world
        .observed
        .container_mut("app")
        .started(world.now, false);
    assert_eq!(
        (world.phase().as_str(), world.condition("Ready").as_str()),
        ("Running", "False")
    );
    world.observed.container_mut("app").started(world.now, true);
    assert_eq!(
        (world.phase().as_str(), world.condition("Ready").as_str()),
        ("Running", "True")
    );
    assert_eq!(world.step(), Step::default());
}

#[test]
fn restarts_wait_longer_each_time() {
    let mut world = World::running("Always");
    let mut waits = Vec::new();
    for _ in 0..4 {
        world.exit("app", 1);
        if let Some(wake) = world.step().wake_at {
            assert_eq!(world.waiting_reason().as_deref(), Some("CrashLoopBackOff"));
            waits.push(wake.as_second() - world.now.as_second());
            world.now = wake;
        }
        world.settle();
        world.observed.container_mut("app").started(world.now, true);
    }
    assert_eq!(waits, [10, 20, 40]);
    assert_eq!(world.observed.container("app").restart_count, 4);
    assert_eq!(world.phase(), "Running");
}

#[test]
fn policies_decide_what_an_exit_means() {
    for (policy, code, phase, is_over) in [
        ("Always", 0, "Running", false),
        ("OnFailure", 0, "Succeeded", true),
        ("OnFailure", 1, "Running", false),
        ("Never", 0, "Succeeded", true),
        ("Never", 7, "Failed", true),
    ] {
        let mut world = World::running(policy);
        world.exit("app", code);
        assert_eq!(world.phase(), phase, "{policy} {code}");
        world.settle();
        assert_eq!(
            world.observed.sandbox == SandboxState::Absent,
            is_over,
            "{policy} {code}"
        );
    }
}

#[test]
fn a_phase_that_is_over_stays_over() {
    let mut world = World::running("Never");
    world.exit("app", 0);
    assert_eq!(world.phase(), "Succeeded");
    world.observed = Observed::recover(&world.pod, world.now);
    assert_eq!(world.phase(), "Succeeded");
    assert!(
        !world
            .step()
            .actions
            .iter()
            .any(|a| matches!(a, Action::StartContainer { .. }))
    );
}

#[test]
fn init_containers_run_one_after_the_other_before_the_others() {
    let mut pod = pod("Always");
    let spec = pod.spec.as_mut().expect("a spec");
    let init = |name: &str| Container {
        name: name.into(),
        ..Container::default()
    };
    spec.init_containers = Some(vec![init("one"), init("two")]);
    let mut world = World::new(pod);
    world.settle();
    assert_eq!(world.observed.container("two").run, Run::Never);
    assert_eq!(world.waiting_reason().as_deref(), Some("PodInitializing"));
    for name in ["one", "two"] {
        world.observed.container_mut(name).started(world.now, true);
        world.exit(name, 0);
        world.settle();
    }
    assert_eq!(world.observed.container("app").run, Run::Starting);
    assert_eq!(
        (
            world.phase().as_str(),
            world.condition("Initialized").as_str()
        ),
        ("Pending", "True")
    );
}

#[test]
fn an_image_that_cannot_be_had_is_asked_for_again_later() {
    let mut world = World::new(pod("Always"));
    world.observed.sandbox = SandboxState::Ready;
    let refused = ImageError::Pull("no such file".into());
    let now = world.now;
    world
        .observed
        .container_mut("app")
        .image_failed(&refused, now);
    assert_eq!(world.waiting_reason().as_deref(), Some("ErrImagePull"));
    let wake = world.step().wake_at.expect("a moment");
    assert_eq!(wake, now + seconds(10));
    world.now = wake;
    assert_eq!(
        world.step().actions,
        [Action::EnsureImage {
            container: "app".into()
        }]
    );
    world
        .observed
        .container_mut("app")
        .image_failed(&refused, wake);
    assert_eq!(world.waiting_reason().as_deref(), Some("ImagePullBackOff"));
    assert_eq!(world.step().wake_at, Some(wake + seconds(20)));
}

#[test]
fn a_deleted_pod_is_stopped_within_its_grace_and_forgotten() {
    let mut world = World::running("Always");
    world.pod.metadata.deletion_timestamp = Some(Time(world.now + seconds(5)));
    world.pod.metadata.deletion_grace_period_seconds = Some(5);
    let stop = Action::StopContainer {
        container: "app".into(),
        grace: seconds(5),
    };
    assert_eq!(world.step().actions, [stop]);
    world.settle();
    assert_eq!(world.step().actions, [Action::Forget]);
    assert_eq!(world.phase(), "Failed");
}

#[test]
fn a_restarted_node_starts_what_ran_and_fails_what_never_restarts() {
    for (policy, phase) in [("Always", "Running"), ("Never", "Failed")] {
        let mut world = World::running(policy);
        world.observed.address = Some([10, 240, 0, 7].into());
        world.phase();
        world.observed = Observed::recover(&world.pod, world.now + seconds(3));
        world.now += seconds(3);
        assert_eq!(world.phase(), phase, "{policy}");
        let status = world.pod.status.clone().expect("reported");
        assert_eq!(status.pod_ip.as_deref(), Some("10.240.0.7"));
        assert_eq!(
            status.reason.as_deref(),
            (policy == "Never").then_some("NodeRestarted")
        );
        world.settle();
        let record = world.observed.container("app");
        assert_eq!(record.restart_count, u32::from(policy == "Always"));
        assert_eq!(
            record.run == Run::Starting,
            policy == "Always",
            "no back-off after a restart"
        );
    }
}

#[test]
fn init_containers_run_again_after_the_node_was_restarted() {
    let mut pod = pod("OnFailure");
    let spec = pod.spec.as_mut().expect("a spec");
    let init = |name: &str, policy: Option<&str>| Container {
        name: name.into(),
        restart_policy: policy.map(str::to_owned),
        ..Container::default()
    };
    spec.init_containers = Some(vec![init("setup", None), init("proxy", Some("Always"))]);
    let mut world = World::new(pod);
    let begin = |world: &mut World, name: &str| {
        world.settle();
        assert_eq!(world.observed.container(name).run, Run::Starting, "{name}");
        world.observed.container_mut(name).started(world.now, true);
    };
    begin(&mut world, "setup");
    world.exit("setup", 0);
    begin(&mut world, "proxy");
    begin(&mut world, "app");
    assert_eq!(world.phase(), "Running");

    world.observed = Observed::recover(&world.pod, world.now);
    assert_eq!(world.phase(), "Running");
    begin(&mut world, "setup");
    for waiting in ["proxy", "app"] {
        let run = &world.observed.container(waiting).run;
        assert!(
            matches!(run, Run::Exited(_)),
            "{waiting} waits for its turn"
        );
    }
    assert_eq!(
        (world.phase().as_str(), world.condition("Initialized")),
        ("Running", "True".into())
    );
    world.exit("setup", 0);
    begin(&mut world, "proxy");
    begin(&mut world, "app");
    for name in ["setup", "proxy", "app"] {
        assert_eq!(world.observed.container(name).restart_count, 1, "{name}");
    }
    // Within one life of the node it is done once.
    world.exit("app", 1);
    world.settle();
    assert_eq!(world.observed.container("app").restart_count, 2);
    assert_eq!(world.observed.container("setup").restart_count, 1);
}

#[test]
fn nothing_of_a_pod_that_is_over_runs_again_after_the_node_was_restarted() {
    let mut pod = pod("OnFailure");
    let spec = pod.spec.as_mut().expect("a spec");
    spec.init_containers = Some(vec![Container {
        name: "setup".into(),
        ..Container::default()
    }]);
    let mut world = World::new(pod);
    for name in ["setup", "app"] {
        world.settle();
        world.observed.container_mut(name).started(world.now, true);
        world.exit(name, 0);
    }
    world.phase();
    world.observed = Observed::recover(&world.pod, world.now);
    world.settle();
    assert_eq!(world.phase(), "Succeeded");
    assert_eq!(world.observed.container("setup").restart_count, 0);
}

#[test]
fn starting_over_survives_a_start_that_could_not_be_prepared() {
    let rules = serde_json::json!([{
        "action": "RestartAllContainers",
        "exitCodes": {"operator": "In", "values": [88]},
    }]);
    let mut start = pod("Never");
    let app = &mut start.spec.as_mut().expect("a spec").containers[0];
    app.restart_policy = Some("Never".into());
    app.restart_policy_rules = Some(serde_json::from_value(rules).expect("rules"));
    let mut world = World::new(start);
    world.settle();
    world.observed.container_mut("app").started(world.now, true);
    world.exit("app", 88);
    assert_eq!(world.step().actions, [Action::StartOver]);
    world.carry_out(Action::StartOver);
    let record = world.observed.container_mut("app");
    record.starting(1);
    record.not_started(1);
    record.blocked(CONFIG_ERROR, "no such Secret".into(), world.now);
    let actions = world.step().actions;
    assert!(
        !actions.contains(&Action::StartOver),
        "once is enough: {actions:?}"
    );
    assert_ne!(world.phase(), "Failed");
    let status = status(&world.pod, &world.observed, "10.240.0.1", world.now);
    let shown = status.container_statuses.expect("one")[0].state.clone();
    let waits = shown.and_then(|state| state.waiting).expect("it waits");
    assert_eq!(
        (waits.reason.as_deref(), waits.message.as_deref()),
        (Some(CONFIG_ERROR), Some("no such Secret")),
        "what is wrong is shown, not that it starts over"
    );
    world.now += seconds(3600);
    world.settle();
    let record = world.observed.container_mut("app");
    assert_eq!((&record.run, record.restart_count), (&Run::Starting, 1));
    record.started(world.now, true);
    assert!(!record.again);
    // The next time is another time.
    world.exit("app", 88);
    assert_eq!(world.step().actions, [Action::StartOver]);
}
