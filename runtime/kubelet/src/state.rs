//! What the kubelet holds of its pods, and which addresses they have.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use coracle_client::ObjectKey;
use coracle_clock::Timestamp;
use coracle_cri::ContainerStatus;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::admission::{self, NodeFacts, Used};
use crate::eviction::Pressure;
use crate::ipam::{Exhausted, Ipam};
use crate::kubelet::is_new;
use crate::resources::Requests;
use crate::statics::{Mirror, mirrored};
use crate::step::resize::{Phase, ResizeNews};
use crate::step::{
    self, Action, Failure, Hook, Observed, ResizeRefusal, Resizing, Run, SandboxState,
};

/// How long a report waits for what was begun. A pod that starts within it is written once, as
/// running, rather than in every state on the way.
const HOLD: Duration = Duration::from_millis(25);

/// How often a pod asks again for resources that others have.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// The pods of the node, by UID: a pod may be wound down while its successor of the same name starts.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) entries: HashMap<String, Entry>,
    ipam: Ipam,
    /// Who has which address. A pod that is over gives its own up, and still shows it.
    addresses: HashMap<String, IpAddr>,
    /// The node is being stopped: nothing new is begun.
    pub(crate) draining: bool,
    /// What pods are measured against.
    pub(crate) node: NodeFacts,
    /// What those that count were promised.
    used: Used,
    /// Which static pods there are has been said.
    pub(crate) statics_are_known: bool,
    /// What the node is short of.
    pub(crate) pressure: Pressure,
}

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
    /// Since when something is on its way, by the monotonic clock.
    pub(crate) busy_since: Option<Duration>,
    /// What it was promised, while it counts.
    promised: Option<Requests>,
    /// The generation of the spec that was promised for, or for good refused.
    settled: Option<i64>,
    /// How a static pod is shown; None for a pod of the API.
    pub(crate) mirror: Option<Mirror>,
    /// Where the change of its resources is, as far as it was told.
    resize: Phase,
}

/// What one look at the pods of a name came to.
#[derive(Debug, Default)]
pub(crate) struct Decision {
    /// To be carried out, by the pod's UID; marked as begun.
    pub(crate) actions: Vec<(String, Action)>,
    /// When time alone changes the answer.
    pub(crate) wake_at: Option<Timestamp>,
    /// The status is soon another; report after this.
    pub(crate) hold: Option<Duration>,
    /// Pods that have just come to their end for a reason of their own.
    pub(crate) ended: Vec<(Arc<Pod>, Failure)>,
    /// A pod that was let in just now.
    pub(crate) admitted: Option<Arc<Pod>>,
    /// A static pod that is to be shown in the API.
    pub(crate) make_mirror: Option<Arc<Pod>>,
    /// A mirror that is to go.
    pub(crate) delete_mirror: Option<Arc<Pod>>,
    /// What is new about the resources of pods.
    pub(crate) resizes: Vec<(Arc<Pod>, ResizeNews)>,
}

impl Decision {
    /// Notes that time alone changes the answer at `at`; another pod of the name may want it earlier.
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }
}

/// What is new about a container.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// A run has begun.
    Started,
    /// A run has ended, and the next one waits for its back-off.
    BacksOff,
    /// Anything else, or nothing.
    Other,
}

impl State {
    /// No pods yet; addresses come from `ipam`.
    pub(crate) fn new(ipam: Ipam, node: NodeFacts) -> Self {
        let (entries, addresses) = (HashMap::new(), HashMap::new());
        Self {
            entries,
            ipam,
            addresses,
            draining: false,
            node,
            used: Used::default(),
            statics_are_known: false,
            pressure: Pressure::default(),
        }
    }

    /// Begins to keep a pod; one that ran before keeps its address unless somebody else has it. False
    /// for one that may not run here.
    pub(crate) fn insert(&mut self, pod: Arc<Pod>, now: Timestamp) -> bool {
        let uid = coracle_client::uid(pod.as_ref()).to_owned();
        if self.entries.contains_key(&uid) {
            return true;
        }
        let mut observed = Observed::recover(&pod, now);
        // A pod that is over gave its address up.
        let is_over = step::verdict(&pod, &observed, now).is_some();
        if let Some(address) = observed.address.filter(|_| !is_over) {
            if self.ipam.reserve(address) {
                self.addresses.insert(uid.clone(), address);
            } else {
                observed.address = None;
            }
        }
        let requests = Requests::of(&pod);
        // One that a kubelet has let in before is not asked again (`NotEvictPodOnKubeletRestart`).
        let is_new = is_new(&pod);
        if is_new && pod.metadata.deletion_timestamp.is_none() {
            let refused = admission::refusal(&pod, &requests, &self.used, &self.node);
            observed.failure = refused.or_else(|| self.pressure.refusal(&pod, now));
        }
        let is_admitted = observed.failure.is_none();
        let promised = Some(requests).filter(|_| is_admitted && !is_over);
        if let Some(requests) = &promised {
            self.used.add(requests);
        }
        let key = ObjectKey::of(pod.as_ref());
        let entry = Entry {
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
        };
        self.entries.insert(uid, entry);
        is_admitted
    }

    /// Begins to keep a static pod.
    pub(crate) fn insert_static(&mut self, pod: Arc<Pod>, now: Timestamp) {
        let uid = coracle_client::uid(pod.as_ref()).to_owned();
        self.insert(pod, now);
        if let Some(entry) = self.entries.get_mut(&uid) {
            entry.mirror = Some(Mirror {
                wanted: true,
                object: None,
            });
        }
    }

    /// Takes a mirror for what it is, and answers any other pod.
    fn take_mirror(
        &mut self,
        key: &ObjectKey,
        live: Option<Arc<Pod>>,
        decision: &mut Decision,
    ) -> Option<Arc<Pod>> {
        let mirror = live.as_ref().filter(|pod| mirrored(pod).is_some());
        let mut is_shown = false;
        for (uid, entry) in &mut self.entries {
            let Some(shown) = entry.mirror.as_mut().filter(|_| entry.key == *key) else {
                continue;
            };
            let own = mirror.filter(|pod| mirrored(pod) == Some(uid.as_str()));
            // One that somebody deletes goes at once, and is made again.
            let own = own.filter(|pod| pod.metadata.deletion_timestamp.is_none());
            is_shown |= own.is_some() && shown.wanted;
            // Our own write may be ahead of the cache.
            let newer = shown.object.take().filter(|known| {
                own.is_some_and(|own| {
                    known.metadata.uid == own.metadata.uid && revision(known) > revision(own)
                })
            });
            shown.object = newer.or(own.cloned());
        }
        let Some(mirror) = mirror else { return live };
        if !is_shown && self.statics_are_known {
            decision.delete_mirror = Some(mirror.clone());
        }
        None
    }

    /// Takes back what a pod was promised that does not count any more: the scheduler gives it to others
    /// as soon as it hears that the pod is over or gone.
    fn settle(&mut self, uid: &str, now: Timestamp) {
        let Some(entry) = self.entries.get_mut(uid) else {
            return;
        };
        let is_over = !entry.observed.is_anything_running()
            && step::verdict(&entry.pod, &entry.observed, now).is_some();
        if (is_over || entry.orphaned || entry.forgetting || entry.gone)
            && let Some(requests) = entry.promised.take()
        {
            self.used.subtract(&requests);
        }
    }

    /// The address of a pod: the one it has, or the next that is free.
    pub(crate) fn allocate(&mut self, uid: &str) -> Result<IpAddr, Exhausted> {
        if let Some(address) = self.addresses.get(uid) {
            return Ok(*address);
        }
        let address = self.ipam.allocate()?;
        self.addresses.insert(uid.to_owned(), address);
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.observed.address = Some(address);
        }
        Ok(address)
    }

    /// Gives back the address of a pod, once; the pod's status goes on to show it.
    pub(crate) fn release(&mut self, uid: &str) {
        if let Some(address) = self.addresses.remove(uid) {
            self.ipam.release(address);
        }
    }

    /// Drops all that is known of a pod.
    pub(crate) fn remove(&mut self, uid: &str) {
        self.release(uid);
        let entry = self.entries.remove(uid);
        if let Some(requests) = entry.and_then(|entry| entry.promised) {
            self.used.subtract(&requests);
        }
    }

    /// Drops a pod that has been wound down. A static pod that the node was given again meanwhile begins
    /// anew.
    pub(crate) fn remove_orphan(&mut self, uid: &str, now: Timestamp) {
        let again = self.entries.get(uid).filter(|entry| {
            let mirror = entry.mirror.as_ref();
            mirror.is_some_and(|mirror| mirror.wanted)
        });
        let again = again.map(|entry| {
            let mut pod = Pod::clone(&entry.pod);
            pod.metadata.deletion_timestamp = None;
            pod.metadata.deletion_grace_period_seconds = None;
            pod.status = None;
            Arc::new(pod)
        });
        self.remove(uid);
        if let Some(pod) = again {
            self.insert_static(pod, now);
        }
    }

    /// Takes over what the runtime says of a container.
    pub(crate) fn apply(&mut self, status: &ContainerStatus) -> Option<(&Entry, News)> {
        let entry = self.entries.get_mut(&status.id.sandbox.0)?;
        let was_running = !matches!(
            entry.observed.container(&status.id.name).run,
            Run::Exited(_)
        );
        let started = entry.observed.apply(status);
        let record = entry.observed.container(&status.id.name);
        let has_ended = was_running && matches!(record.run, Run::Exited(_));
        let news = match (started, has_ended && record.start_at.is_some()) {
            (true, _) => News::Started,
            (_, true) => News::BacksOff,
            _ => News::Other,
        };
        Some((entry, news))
    }

    /// The pod of that name that is in the API.
    pub(crate) fn live(&self, key: &ObjectKey) -> Option<&Entry> {
        self.entries
            .values()
            .find(|entry| entry.key == *key && !entry.orphaned)
    }

    /// The same, to change.
    pub(crate) fn live_mut(&mut self, key: &ObjectKey) -> Option<&mut Entry> {
        let mut all = self.entries.values_mut();
        all.find(|entry| entry.key == *key && !entry.orphaned)
    }

    /// Decides about all pods that have or had this name. `live` is the one in the cache; `now` and
    /// `monotonic` are the two clocks.
    pub(crate) fn decide(
        &mut self,
        key: &ObjectKey,
        live: Option<Arc<Pod>>,
        now: Timestamp,
        monotonic: Duration,
    ) -> Decision {
        let mut decision = Decision::default();
        let live = self.take_mirror(key, live, &mut decision);
        let live_uid = live
            .as_ref()
            .map(|pod| coracle_client::uid(pod.as_ref()).to_owned());
        if let Some(pod) = live {
            match self.entries.get_mut(coracle_client::uid(pod.as_ref())) {
                // Our own write may be ahead of the cache.
                Some(entry) if revision(&pod) >= revision(&entry.pod) => entry.pod = pod,
                Some(_) => {}
                None if self.draining => {}
                None => {
                    let is_new = is_new(&pod);
                    let is_admitted = self.insert(pod.clone(), now);
                    decision.admitted = Some(pod).filter(|_| is_new && is_admitted);
                }
            }
        }
        for uid in self.of_key(key) {
            let Some(entry) = self.entries.get_mut(&uid) else {
                continue;
            };
            let is_live = match &entry.mirror {
                Some(mirror) => mirror.wanted,
                None => live_uid.as_deref() == Some(uid.as_str()),
            };
            if entry.gone && !is_live {
                self.remove(&uid);
                continue;
            }
            if !is_live && !entry.orphaned {
                entry.orphaned = true;
                let grace = entry.mirror.as_ref().and(entry.pod.spec.as_ref());
                let grace = grace.map(step::own_grace).unwrap_or_default();
                entry.pod = Arc::new(wound_down(&entry.pod, grace, now));
            }
            if entry.gone || self.draining {
                continue;
            }
            if let Some(Mirror {
                wanted: true,
                object: None,
            }) = entry.mirror
                && !entry.orphaned
            {
                decision.make_mirror = Some(entry.pod.clone());
            }
            entry.reconsider(&mut self.used, &self.node);
            let phase = step::resize::phase(&entry.pod, &entry.observed);
            let told = std::mem::replace(&mut entry.resize, phase);
            for news in step::resize::news(&entry.pod, &told, &entry.resize) {
                decision.resizes.push((entry.pod.clone(), news));
            }
            let step = step::step(&entry.pod, &entry.observed, now);
            if matches!(
                entry.observed.resize_refusal,
                Some(ResizeRefusal::Deferred(_))
            ) {
                decision.wake(now + ASK_AGAIN);
            }
            step.wake_at.into_iter().for_each(|at| decision.wake(at));
            if step.ending && entry.observed.ending_since.is_none() {
                entry.observed.ending_since = Some(now);
                let verdict = step::verdict(&entry.pod, &entry.observed, now);
                let why = verdict.and_then(|verdict| verdict.why);
                decision
                    .ended
                    .extend(why.map(|why| (entry.pod.clone(), why)));
            }
            if step.actions.contains(&Action::StartOver) {
                // Nothing will come of it by itself.
                decision.wake(now);
            }
            for action in step.actions {
                let has_changed = action == Action::StartOver;
                if entry.begin(&action, now) && !has_changed {
                    decision.actions.push((uid.clone(), action));
                }
            }
            if is_live {
                decision.hold = entry.hold(monotonic);
            }
            self.settle(&uid, now);
        }
        decision
    }

    fn of_key(&self, key: &ObjectKey) -> Vec<String> {
        let same = self.entries.iter().filter(|(_, entry)| entry.key == *key);
        same.map(|(uid, _)| uid.clone()).collect()
    }
}

impl Entry {
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
    fn reconsider(&mut self, used: &mut Used, node: &NodeFacts) {
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

    fn hold(&mut self, monotonic: Duration) -> Option<Duration> {
        if !self.observed.is_on_its_way() {
            self.busy_since = None;
            return None;
        }
        let since = *self.busy_since.get_or_insert(monotonic);
        HOLD.checked_sub(monotonic.saturating_sub(since))
            .filter(|left| !left.is_zero())
    }
}

/// Which of two versions of one pod is newer. Our server counts with one number
/// (Kubernetes 1.35 made resource versions comparable); anything else counts as old.
pub(crate) fn revision(pod: &Pod) -> u64 {
    let version = pod.metadata.resource_version.as_deref();
    version
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

/// A pod that is gone is wound down as if it had been deleted with this grace.
fn wound_down(pod: &Pod, grace: Duration, now: Timestamp) -> Pod {
    let mut pod = pod.clone();
    pod.metadata.deletion_timestamp = Some(Time(now + grace));
    let seconds = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
    pod.metadata.deletion_grace_period_seconds = Some(seconds);
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_wish_to_be_woken_counts() {
        let at = |second| Timestamp::from_second(second).expect("in range");
        let mut decision = Decision::default();
        for (wish, earliest) in [(20, 20), (10, 10), (30, 10)] {
            decision.wake(at(wish));
            assert_eq!(decision.wake_at, Some(at(earliest)));
        }
    }
}
