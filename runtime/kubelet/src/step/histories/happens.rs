//! What happens to a pod, as the runtime, the users and the node would have it.

use std::sync::Arc;
use std::time::Duration;

use coracle_cri::{ImageError, ImageRef};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::generate::Happening;
use super::world::World;
use crate::step::*;

impl World {
    pub(super) fn happens(&mut self, happening: &Happening) {
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
            Happening::OtherImage(which, image) => {
                let spec = self.pod.spec.as_mut().expect("a spec");
                let init = spec.init_containers.iter_mut().flatten();
                let mut all: Vec<_> = init.chain(&mut spec.containers).collect();
                let index = usize::from(*which) % all.len();
                let image = Some(format!("image-{image}"));
                let name = all[index].name.clone();
                if std::mem::replace(&mut all[index].image, image.clone()) != image {
                    let role = part(&self.pod, &name).expect("known").role;
                    if let Some(record) = self.observed.containers.get_mut(&name) {
                        record.image_changed(role);
                    }
                }
            }
            Happening::ResizedWhole(cpu, fits) => {
                self.ask(*fits);
                let spec = self.pod.spec.as_mut().expect("a spec");
                let limits = json!({"limits": {"cpu": format!("{cpu}m")}});
                spec.resources = Some(serde_json::from_value(limits).expect("resources"));
            }
            Happening::Resized(which, cpu, fits) => {
                self.ask(*fits);
                let spec = self.pod.spec.as_mut().expect("a spec");
                let index = usize::from(*which) % spec.containers.len();
                let requests = json!({"requests": {"cpu": format!("{cpu}m")}});
                let resources = serde_json::from_value(requests).expect("resources");
                spec.containers[index].resources = Some(resources);
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

    /// Notes whether the node has what the pod is about to ask for.
    fn ask(&mut self, fits: bool) {
        if fits {
            self.observed.granted = None;
        } else {
            let before = || Arc::new(self.pod.clone());
            self.observed.granted.get_or_insert_with(before);
        }
        self.observed.resize_refusal = (!fits).then(|| ResizeRefusal::Deferred("no".into()));
    }

    pub(super) fn carry_out(&mut self, which: u8, succeeds: bool) {
        if self.begun.is_empty() {
            return;
        }
        let index = usize::from(which) % self.begun.len();
        let retry_at = self.now + Duration::from_secs(2);
        let action = self.begun[index].clone();
        match action.clone() {
            Action::ResizePod => {
                self.observed.whole = if succeeds {
                    Whole {
                        allocated: whole::wanted(&whole::granted(&self.pod, &self.observed)),
                        resize: Resizing::Idle,
                    }
                } else {
                    let message = "no".into();
                    Whole {
                        resize: Resizing::Failed { message, retry_at },
                        ..self.observed.whole.clone()
                    }
                };
            }
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
                let wanted = part(&self.pod, &container).expect("known").container;
                let image = ImageRef {
                    image: wanted.image.clone().expect("an image"),
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
            }
            Action::StartContainer { container, .. } => self.exit(&container, 128),
            Action::Resize { container } => {
                let granted = whole::granted(&self.pod, &self.observed);
                let record = self.observed.container_mut(&container);
                if succeeds {
                    resize::note_given(record, &granted, &container);
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
    pub(super) fn exit(&mut self, name: &str, exit_code: i32) {
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

    pub(super) fn pick(&self, which: u8, matches: impl Fn(&Run) -> bool) -> Option<String> {
        let all: Vec<&String> = self
            .observed
            .containers
            .iter()
            .filter(|(_, r)| matches(&r.run))
            .map(|(name, _)| name)
            .collect();
        (!all.is_empty()).then(|| all[usize::from(which) % all.len()].clone())
    }
}
