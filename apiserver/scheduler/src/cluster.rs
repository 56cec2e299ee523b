//! Who runs where, and who is about to.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use coracle_client::{ObjectKey, uid};
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::resources::{Amounts, HostPort, Request};

/// How long a placement counts after its binding was written, should its Pod never be seen.
const ASSUMED_FOR: Duration = Duration::from_secs(30);

/// The nodes with what is taken on each; kept up to date by events and by placements.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    nodes: BTreeMap<String, NodeState>,
    /// Every Pod that counts, by UID.
    pods: HashMap<String, Placed>,
    /// Bindings that were written, by until when their Pods have to show: the earliest first.
    bound: VecDeque<(Duration, String)>,
}

/// One node and what its Pods take. A node may be unknown while its Pods are not.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeState {
    pub(crate) node: Option<Node>,
    pub(crate) allocatable: Amounts,
    pub(crate) taken: Amounts,
    pub(crate) scored: (i64, i64),
    pub(crate) ports: Vec<HostPort>,
    pub(crate) pods: i64,
}

#[derive(Clone, Debug)]
struct Placed {
    node: String,
    request: Request,
    ports: Vec<HostPort>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Decided; its binding is being written.
    Assumed,
    /// Its binding was written; the cache has until then to show it.
    Bound { until: Duration },
    /// The cache shows it.
    Seen,
}

impl Cluster {
    /// A cluster of these nodes and Pods.
    pub fn of<'a>(
        nodes: impl IntoIterator<Item = &'a Node>,
        pods: impl IntoIterator<Item = &'a Pod>,
    ) -> Self {
        let mut cluster = Self::default();
        nodes.into_iter().for_each(|node| cluster.set_node(node));
        pods.into_iter().for_each(|pod| {
            cluster.set_pod(pod);
        });
        cluster
    }

    /// Takes in a new or changed node; whether Pods that found no place may now find one.
    pub fn set_node(&mut self, node: &Node) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let allocatable = node
            .status
            .as_ref()
            .and_then(|status| status.allocatable.as_ref());
        let state = self.nodes.entry(name).or_default();
        state.allocatable = allocatable.map(Amounts::of).unwrap_or_default();
        state.node = Some(node.clone());
    }

    /// Takes out a node; what its Pods take is kept until they go too.
    pub fn remove_node(&mut self, name: &str) {
        let Some(state) = self.nodes.get_mut(name) else {
            return;
        };
        state.node = None;
        if state.pods == 0 {
            self.nodes.remove(name);
        }
    }

    /// Takes in a new or changed Pod; answers whether it made room.
    pub fn set_pod(&mut self, pod: &Pod) -> bool {
        let Some(node) = node_name(pod) else {
            return false;
        };
        if is_finished(pod) {
            return self.remove_pod(uid(pod));
        }
        let placed = Placed {
            node: node.to_owned(),
            request: Request::of(pod),
            ports: HostPort::all_of(pod),
            state: State::Seen,
        };
        let before = self.take_out(uid(pod));
        let made_room = before
            .is_some_and(|before| before.node != placed.node || before.request != placed.request);
        self.put_in(uid(pod).to_owned(), placed);
        made_room
    }

    /// Takes out a Pod that is gone or finished; answers whether it made room.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        self.take_out(uid).is_some()
    }

    /// Counts a Pod that is about to be bound.
    pub fn assume(&mut self, pod: &Pod, node: &str) {
        let placed = Placed {
            node: node.to_owned(),
            request: Request::of(pod),
            ports: HostPort::all_of(pod),
            state: State::Assumed,
        };
        self.take_out(uid(pod));
        self.put_in(uid(pod).to_owned(), placed);
    }

    /// The binding of an assumed Pod was written at monotonic time `now`.
    pub fn bound(&mut self, uid: &str, now: Duration) {
        let placed = self.pods.get_mut(uid);
        if let Some(placed) = placed.filter(|placed| placed.state == State::Assumed) {
            let until = now + ASSUMED_FOR;
            placed.state = State::Bound { until };
            self.bound.push_back((until, uid.to_owned()));
        }
    }

    /// The binding of an assumed Pod failed; answers whether that made room.
    pub fn forget(&mut self, uid: &str) -> bool {
        let assumed = self
            .pods
            .get(uid)
            .is_some_and(|placed| placed.state == State::Assumed);
        assumed && self.take_out(uid).is_some()
    }

    /// Takes out Pods whose binding was written but which never showed.
    pub fn expire(&mut self, now: Duration) {
        while let Some((until, uid)) = self.bound.pop_front_if(|(until, _)| *until <= now) {
            let placed = self.pods.get(&uid);
            if placed.is_some_and(|placed| placed.state == State::Bound { until }) {
                self.take_out(&uid);
            }
        }
    }

    /// Whether the Pod has its place.
    pub fn is_placed(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// The known nodes in the order of their names.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&str, &Node, &NodeState)> {
        self.nodes
            .iter()
            .filter_map(|(name, state)| Some((name.as_str(), state.node.as_ref()?, state)))
    }

    fn put_in(&mut self, uid: String, placed: Placed) {
        let state = self.nodes.entry(placed.node.clone()).or_default();
        state.taken.add(&placed.request.amounts);
        state.scored.0 += placed.request.scored.0;
        state.scored.1 += placed.request.scored.1;
        state.ports.extend(placed.ports.iter().cloned());
        state.pods += 1;
        self.pods.insert(uid, placed);
    }

    fn take_out(&mut self, uid: &str) -> Option<Placed> {
        let placed = self.pods.remove(uid)?;
        let state = self.nodes.get_mut(&placed.node)?;
        state.taken.subtract(&placed.request.amounts);
        state.scored.0 -= placed.request.scored.0;
        state.scored.1 -= placed.request.scored.1;
        for port in &placed.ports {
            if let Some(index) = state.ports.iter().position(|taken| taken == port) {
                state.ports.swap_remove(index);
            }
        }
        state.pods -= 1;
        if state.pods == 0 && state.node.is_none() {
            self.nodes.remove(&placed.node);
        }
        Some(placed)
    }
}

/// The node that the Pod is bound to.
pub(crate) fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec
        .as_ref()?
        .node_name
        .as_deref()
        .filter(|name| !name.is_empty())
}

/// Whether the Pod's containers have ended for good.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the scheduler has to find a node for the Pod.
pub(crate) fn needs_place(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let scheduler = spec.and_then(|spec| spec.scheduler_name.as_deref());
    node_name(pod).is_none()
        && pod.metadata.deletion_timestamp.is_none()
        && !is_finished(pod)
        && matches!(scheduler, None | Some("" | "default-scheduler"))
}

/// The key under which the Pod waits.
pub(crate) fn key_of(pod: &Pod) -> ObjectKey {
    ObjectKey::of(pod)
}
