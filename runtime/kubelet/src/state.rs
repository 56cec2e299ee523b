//! What the kubelet holds of its pods, and which addresses they have.
//!
//! One look at them is in [`decide`], one of them in [`entry`], all of them, by UID and name, in [`entries`].

mod decide;
mod entries;
mod entry;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use coracle_client::ObjectKey;
use coracle_clock::Timestamp;
use coracle_cri::ContainerStatus;
use k8s_openapi::api::core::v1::Pod;

use crate::admission::{self, NodeFacts, Used};
use crate::eviction::Pressure;
use crate::ipam::{Exhausted, Ipam};
use crate::kubelet::is_new;
use crate::resources::Requests;
use crate::statics::Mirror;
use crate::step::{self, Observed, Run};

pub(crate) use entries::Entries;
pub(crate) use entry::Entry;

/// The pods of the node, by UID: a pod may be wound down while its successor of the same name starts.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) entries: Entries,
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
        Self {
            entries: Entries::default(),
            ipam,
            addresses: HashMap::new(),
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
        let granted = step::whole::recovered(&pod);
        let requests = Requests::of(granted.as_ref().unwrap_or(&pod));
        observed.granted = granted.map(Arc::new);
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
        let entry = Entry::new(key, pod, observed, promised);
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
        self.entries.live(key)
    }

    /// The same, to change.
    pub(crate) fn live_mut(&mut self, key: &ObjectKey) -> Option<&mut Entry> {
        self.entries.live_mut(key)
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
