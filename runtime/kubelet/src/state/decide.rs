//! One look at all pods of a name: what is to be done for them.

use std::sync::Arc;
use std::time::Duration;

use coracle_client::ObjectKey;
use coracle_clock::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{State, revision};
use crate::kubelet::is_new;
use crate::statics::{Mirror, mirrored};
use crate::step::resize::ResizeNews;
use crate::step::{self, Action, Failure, ResizeRefusal};

/// How often a pod asks again for resources that others have.
const ASK_AGAIN: Duration = Duration::from_secs(10);

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
    /// A pod as it was, and with the containers to debug with that it got.
    pub(crate) debugged: Option<(Arc<Pod>, Arc<Pod>)>,
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

impl State {
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
                Some(entry) if revision(&pod) >= revision(&entry.pod) => {
                    entry.replace(pod);
                }
                Some(_) => {}
                None if self.draining => {}
                None => {
                    let is_new = is_new(&pod);
                    let is_admitted = self.insert(pod.clone(), now);
                    decision.admitted = Some(pod).filter(|_| is_new && is_admitted);
                }
            }
        }
        for uid in self.entries.of_key(key).to_vec() {
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
            let before = entry.before_debugged.take();
            decision.debugged = before
                .map(|before| (before, entry.pod.clone()))
                .or(decision.debugged.take());
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
                    entry.stands_in_line();
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

    /// Takes a mirror for what it is, and answers any other pod.
    fn take_mirror(
        &mut self,
        key: &ObjectKey,
        live: Option<Arc<Pod>>,
        decision: &mut Decision,
    ) -> Option<Arc<Pod>> {
        let mirror = live.as_ref().filter(|pod| mirrored(pod).is_some());
        let mut is_shown = false;
        for uid in self.entries.of_key(key).to_vec() {
            let entry = self.entries.get_mut(&uid);
            let Some(shown) = entry.and_then(|entry| entry.mirror.as_mut()) else {
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
