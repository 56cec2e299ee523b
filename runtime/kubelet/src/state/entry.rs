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
    /// Since when something is on its way that has had its turn, by the monotonic clock.
    pub(crate) busy_since: Option<Duration>,
    /// What it was promised, while it counts.
    pub(super) promised: Option<Requests>,
    /// The generation of the spec that was promised for, or for good refused.
    pub(super) settled: Option<i64>,
    /// How a static pod is shown; None for a pod of the API.
    pub(crate) mirror: Option<Mirror>,
    /// Where the change of its resources is, as far as it was told.
    pub(super) resize: Phase,
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
            busy_since: None,
            promised,
            settled: None,
            mirror: None,
            resize: Phase::None,
        }
    }

    /// Marks an action as begun. False when it has been begun already.
    pub(crate) fn begin(&mut self, action: &Action, now: Timestamp) -> bool {
        match action {
            Action::RunSandbox => self.observed.sandbox = SandboxState::Starting,
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
                let wanted =
                    step::part(&self.pod, container).map(|part| step::resize::wanted(&part));
                // What a refused change asks for is not for a new run either.
                let is_refused = self.observed.resize_refusal.is_some();
                let record = self.observed.container_mut(container);
                let had = Some(&record.allocated)
                    .filter(|_| is_refused && record.run != Run::Never)
                    .cloned();
                record.allocated = had.or(wanted).unwrap_or_default();
                record.starting(*restart_count);
            }
            Action::Resize { container } => {
                self.observed.container_mut(container).resize = Resizing::Begun;
            }
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
        let promised = if keeps { promised } else { asked };
        used.add(&promised);
        self.promised = Some(promised);
        let is_deferred = matches!(
            self.observed.resize_refusal,
            Some(ResizeRefusal::Deferred(_))
        );
        self.settled = generation.filter(|_| !is_deferred);
    }

    /// Notes that what was begun has its turn.
    pub(crate) fn has_turn(&mut self, monotonic: Duration) {
        self.busy_since.get_or_insert(monotonic);
    }

    /// How much longer a report waits, if something is on its way.
    pub(super) fn hold(&mut self, monotonic: Duration) -> Option<Duration> {
        if !self.observed.is_on_its_way() {
            self.busy_since = None;
            return None;
        }
        let Some(since) = self.busy_since else {
            return Some(HOLD_IN_LINE);
        };
        HOLD.checked_sub(monotonic.saturating_sub(since))
            .filter(|left| !left.is_zero())
    }
}
