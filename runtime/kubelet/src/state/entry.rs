//! One pod of the node, and what becomes of it when an action is begun.

use std::sync::Arc;
use std::time::Duration;

use coracle_client::ObjectKey;
use coracle_clock::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::admission::{self, NodeFacts, Used};
use crate::resources::Requests;
use crate::statics::Mirror;
use crate::step::resize::Phase;
use crate::step::whole::{self, Whole};
use crate::step::{self, Action, Hook, Observed, ResizeRefusal, Resizing, Run, SandboxState};

/// How long a report waits for what was begun. A pod that starts within it is written once, as
/// running, rather than in every state on the way.
const HOLD: Duration = Duration::from_millis(100);
/// The same while what was begun waits for its turn: where a thousand pods start, most have nothing to tell yet.
const HOLD_IN_LINE: Duration = Duration::from_secs(1);

/// One pod of the node.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: ObjectKey,
    /// The newest version seen, from the cache or as the answer to our own write.
    pub(crate) pod: Arc<Pod>,
    pub(crate) observed: Observed,
    /// The object is gone from the API.
    pub(crate) orphaned: bool,
    /// The pod's files and address are being given up.
    pub(crate) forgetting: bool,
    /// Nothing of the pod is left here; it stays known until the cache has seen it go.
    pub(crate) gone: bool,
    /// How many actions were begun that wait for their turn.
    in_line: usize,
    /// Since when something is on its way whose turn was the last to come, by the monotonic clock.
    busy_since: Option<Duration>,
    /// What it was promised, while it counts.
    pub(super) promised: Option<Requests>,
    /// The generation of the spec that was promised for, or for good refused.
    pub(super) settled: Option<i64>,
    /// How a static pod is shown; None for a pod of the API.
    pub(crate) mirror: Option<Mirror>,
    /// Where the change of its resources is, as far as it was told.
    pub(super) resize: Phase,
    /// The pod as it was before it got containers to debug with, until what those ask for in vain is told.
    pub(super) before_debugged: Option<Arc<Pod>>,
}

impl Entry {
    /// A pod of the API that nothing was begun for yet.
    pub(super) fn new(
        key: ObjectKey,
        pod: Arc<Pod>,
        observed: Observed,
        promised: Option<Requests>,
    ) -> Self {
        Self {
            key,
            pod,
            observed,
            orphaned: false,
            forgetting: false,
            gone: false,
            in_line: 0,
            busy_since: None,
            promised,
            settled: None,
            mirror: None,
            resize: Phase::None,
            before_debugged: None,
        }
    }

    /// Marks an action as begun. False when it has been begun already.
    pub(crate) fn begin(&mut self, action: &Action, now: Timestamp) -> bool {
        match action {
            Action::RunSandbox => {
                self.observed.sandbox = SandboxState::Starting;
                let allocated = whole::wanted(&whole::granted(&self.pod, &self.observed));
                self.observed.whole = Whole {
                    allocated,
                    resize: Resizing::Idle,
                };
            }
            Action::StopSandbox => self.observed.sandbox = SandboxState::Stopping,
            Action::StartOver => {
                if let Some(spec) = self.pod.spec.as_ref() {
                    self.observed.start_over(spec);
                }
            }
            Action::EnsureImage { container } => {
                self.observed.container_mut(container).image.pulling();
            }
            Action::StartContainer {
                container,
                restart_count,
            } => {
                // What a refused change asks for is not for a new run either.
                let granted = whole::granted(&self.pod, &self.observed);
                let record = self.observed.container_mut(container);
                step::resize::note_given(record, &granted, container);
                record.starting(*restart_count);
            }
            Action::Resize { container } => {
                self.observed.container_mut(container).resize = Resizing::Begun;
            }
            Action::ResizePod => self.observed.whole.resize = Resizing::Begun,
            Action::PostStart { container } => {
                self.observed.container_mut(container).post_start = Hook::Running;
            }
            Action::PreStop { container, .. } => {
                let record = self.observed.container_mut(container);
                record.pre_stop = Hook::Running;
                record.stopping(now);
            }
            Action::StopContainer { container, .. } => {
                let record = self.observed.container_mut(container);
                let Run::Running { started_at, .. } = record.run else {
                    return false;
                };
                record.stopping(now);
                record.run = Run::Stopping { started_at };
            }
            Action::Forget => return !std::mem::replace(&mut self.forgetting, true),
        }
        true
    }

    /// Takes over a newer version of the pod.
    pub(crate) fn replace(&mut self, pod: Arc<Pod>) {
        let is_changed = self.pod.metadata.generation != pod.metadata.generation;
        let before = std::mem::replace(&mut self.pod, pod);
        if !is_changed {
            return;
        }
        if debug_containers(&self.pod) > debug_containers(&before) {
            self.before_debugged.get_or_insert_with(|| before.clone());
        }
        for part in self.pod.spec.iter().flat_map(step::parts) {
            let had = step::part(&before, part.name());
            if had.is_some_and(|had| had.container.image != part.container.image)
                && let Some(record) = self.observed.containers.get_mut(part.name())
            {
                record.image_changed(part.role);
            }
        }
        if self.promised.is_some() {
            // Until it is known whether it can have what it asks for.
            self.observed.granted.get_or_insert(before);
        }
    }

    /// Promises a pod that asks for other resources what it asks for, or notes why it cannot have them.
    pub(super) fn reconsider(&mut self, used: &mut Used, node: &NodeFacts) {
        let generation = self.pod.metadata.generation;
        let Some(promised) = self.promised.filter(|_| self.settled != generation) else {
            return;
        };
        let asked = Requests::of(&self.pod);
        used.subtract(&promised);
        self.observed.resize_refusal = if asked == promised {
            None
        } else {
            admission::resize_refusal(&asked, used, &node.capacity)
        };
        let keeps = self.observed.resize_refusal.is_some();
        if !keeps {
            self.observed.granted = None;
            self.observed.forget_failed_resizes();
        }
        let promised = if keeps { promised } else { asked };
        used.add(&promised);
        self.promised = Some(promised);
        let is_deferred = matches!(
            self.observed.resize_refusal,
            Some(ResizeRefusal::Deferred(_))
        );
        self.settled = generation.filter(|_| !is_deferred);
    }

    /// Notes that what was begun waits for its turn.
    pub(super) fn stands_in_line(&mut self) {
        self.in_line += 1;
    }

    /// Notes that what was begun has its turn.
    pub(crate) fn has_turn(&mut self, monotonic: Duration) {
        self.in_line = self.in_line.saturating_sub(1);
        self.busy_since = Some(monotonic);
    }

    /// How much longer a report waits, if something is on its way.
    pub(super) fn hold(&mut self, monotonic: Duration) -> Option<Duration> {
        if !self.observed.is_on_its_way() {
            self.busy_since = None;
            return None;
        }
        if self.in_line > 0 {
            return Some(HOLD_IN_LINE);
        }
        let since = *self.busy_since.get_or_insert(monotonic);
        HOLD.checked_sub(monotonic.saturating_sub(since))
            .filter(|left| !left.is_zero())
    }
}

/// How many containers to debug with a pod has; they are only ever added.
fn debug_containers(pod: &Pod) -> usize {
    let spec = pod.spec.as_ref();
    let containers = spec.and_then(|spec| spec.ephemeral_containers.as_ref());
    containers.map_or(0, Vec::len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::Capacity;
    use serde_json::json;

    fn entry() -> Entry {
        let key = ObjectKey::new("default", "a");
        Entry::new(key, Arc::default(), Observed::default(), None)
    }

    #[test]
    fn what_went_wrong_with_one_change_is_not_told_of_the_next() {
        let pod = |generation: i64| {
            let containers = json!([{"name": "app"}]);
            let pod =
                json!({"metadata": {"generation": generation}, "spec": {"containers": containers}});
            Arc::new(serde_json::from_value::<Pod>(pod).expect("a pod"))
        };
        let failed = Resizing::Failed {
            message: "no".into(),
            retry_at: Timestamp::UNIX_EPOCH,
        };
        let mut entry = entry();
        entry.pod = pod(1);
        entry.promised = Some(Requests::default());
        entry.settled = Some(1);
        entry.observed.whole.resize = failed.clone();
        entry.observed.container_mut("app").resize = failed.clone();
        let node = NodeFacts {
            name: "a".into(),
            capacity: Capacity {
                cpu_millis: 1,
                memory: 1,
                ephemeral_storage: 1,
                pods: 1,
            },
            labels: Default::default(),
        };
        let mut used = Used::default();
        used.add(&Requests::default());
        entry.reconsider(&mut used, &node);
        assert_eq!(entry.observed.whole.resize, failed, "it is the same change");
        entry.replace(pod(2));
        entry.reconsider(&mut used, &node);
        assert_eq!(entry.observed.whole.resize, Resizing::Idle);
        assert_eq!(entry.observed.container("app").resize, Resizing::Idle);
        assert_eq!(entry.observed.granted, None);
    }

    #[test]
    fn a_report_waits_for_each_turn_and_a_while_after_it() {
        let at = |millis| Duration::from_millis(millis);
        let mut entry = entry();
        assert_eq!(entry.hold(at(0)), None, "nothing was begun");
        // The image is being pulled, and the sandbox waits for its turn.
        entry.observed.sandbox = SandboxState::Starting;
        entry.observed.container_mut("main").image.pulling();
        for _ in 0..2 {
            entry.stands_in_line();
        }
        entry.has_turn(at(1));
        assert_eq!(entry.hold(at(5_000)), Some(HOLD_IN_LINE));
        entry.has_turn(at(5_000));
        assert_eq!(entry.hold(at(5_010)), Some(HOLD - at(10)));
        // The sandbox is there, the pull goes on.
        entry.observed.sandbox = SandboxState::Ready;
        assert_eq!(entry.hold(at(5_099)), Some(at(1)));
        assert_eq!(entry.hold(at(5_100)), None, "it takes its time");
        entry.stands_in_line();
        entry.observed.container_mut("main").run = Run::Starting;
        assert_eq!(entry.hold(at(6_000)), Some(HOLD_IN_LINE));
        entry.has_turn(at(7_000));
        assert_eq!(entry.hold(at(7_001)), Some(HOLD - at(1)));
    }

    #[test]
    fn what_runs_is_reported_at_once() {
        let mut entry = entry();
        entry.stands_in_line();
        entry.has_turn(Duration::ZERO);
        entry.observed.sandbox = SandboxState::Ready;
        assert_eq!(entry.hold(Duration::from_millis(1)), None);
    }
}
