//! The loop: takes Pods without a node, and binds them.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use coracle_client::{
    Change, Context, EventKind, EventRecorder, Kind, Lister, ObjectKey, Outcome, Precondition,
    QueueConfig, WorkQueue, supervise, uid,
};
use futures::future::join_all;
use k8s_openapi::api::core::v1::{
    Binding, Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod, PodCondition,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use parking_lot::Mutex;
use serde_json::json;

use crate::cluster::{Cluster, is_finished, key_of, needs_place, node_name};
use crate::place::{Placement, place_with};
use crate::volumes::{self, Needs, SELECTED_NODE, Storage};

/// The component's name: it writes as the user `system:kube-scheduler`.
pub const NAME: &str = "kube-scheduler";

/// Events name it as upstream's do.
const SOURCE: &str = "default-scheduler";
/// How many bindings are written at once: enough to share group commits.
const BINDING_AT_ONCE: usize = 64;
/// A Pod that found no place is tried again after this, should every event have been missed.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// Runs the scheduler under its own identity, and again should it panic, until the context is
/// stopped.
pub async fn run_supervised(ctx: Context) {
    let own = ctx.for_component(NAME);
    supervise(NAME, ctx.clock().clone(), ctx.stop().clone(), move || {
        run(own.clone())
    })
    .await;
}

/// Runs the scheduler as the context's component until the context is stopped.
pub async fn run(ctx: Context) {
    let queue = WorkQueue::new(
        ctx.clock().clone(),
        ctx.stop().clone(),
        QueueConfig::default(),
    );
    let shared = Arc::new(Mutex::new(Shared::default()));
    let (pods, nodes) = (ctx.informer::<Pod>(), ctx.informer::<Node>());
    let stored = Stored {
        claims: ctx.lister(),
        volumes: ctx.lister(),
        classes: ctx.lister(),
        pods: pods.lister(),
    };
    let synced = async {
        nodes.lister().synced().await;
        pods.lister().synced().await;
        stored.claims.synced().await;
        stored.volumes.synced().await;
        stored.classes.synced().await;
    };
    tokio::select! {
        () = ctx.stop().cancelled() => return,
        () = synced => {}
    }

    // Nodes first, so that the first Pods find them. A new run has a new queue and a new cluster;
    // the old handlers end with the old queue.
    let (state, feed) = (shared.clone(), queue.downgrade());
    nodes.subscribe_while(move |change| {
        let Some(queue) = feed.upgrade() else {
            return false;
        };
        on_node(&state, &queue, change);
        true
    });
    let (state, feed) = (shared.clone(), queue.downgrade());
    pods.subscribe_while(move |change| {
        let Some(queue) = feed.upgrade() else {
            return false;
        };
        on_pod(&state, &queue, change);
        true
    });

    // A change of a claim, or of what it may become, is what Pods with claims wait for.
    wake_on::<PersistentVolumeClaim>(&ctx, &shared, &queue, |claim| Some(ObjectKey::of(claim)));
    wake_on::<PersistentVolume>(&ctx, &shared, &queue, volumes::claim_of);
    wake_on::<StorageClass>(&ctx, &shared, &queue, |_| None);

    let scheduler = Scheduler {
        stored,
        recorder: EventRecorder::new(
            ctx.objects().clone(),
            ctx.clock().clone(),
            ctx.stop().clone(),
            SOURCE,
            None,
        ),
        pods: pods.lister(),
        queue,
        shared,
        ctx,
    };
    join_all((0..BINDING_AT_ONCE).map(|_| scheduler.work())).await;
}

#[derive(Default)]
struct Shared {
    cluster: Cluster,
    /// Pods that found no place; whatever may make room brings them back.
    waiting: HashSet<ObjectKey>,
    /// Pods that wait for their claims, by claim.
    claiming: HashMap<ObjectKey, HashSet<ObjectKey>>,
}

impl Shared {
    /// Notes that the Pod waits for its claims.
    fn claim(&mut self, pod: &ObjectKey, claims: &[(ObjectKey, bool)]) {
        for (claim, _) in claims {
            let waiting = self.claiming.entry(claim.clone()).or_default();
            waiting.insert(pod.clone());
        }
    }

    /// Notes that it waits no more.
    fn claimed(&mut self, pod: &Pod) {
        let key = key_of(pod);
        for (claim, _) in volumes::claims_of(pod) {
            if let Entry::Occupied(mut waiting) = self.claiming.entry(claim) {
                waiting.get_mut().remove(&key);
                if waiting.get().is_empty() {
                    waiting.remove();
                }
            }
        }
    }

    /// Pods that wait for this claim, or for any.
    fn claimants(&mut self, claim: Option<ObjectKey>) -> Vec<ObjectKey> {
        match claim {
            Some(claim) => Vec::from_iter(self.claiming.remove(&claim).into_iter().flatten()),
            None => self.claiming.drain().flat_map(|(_, pods)| pods).collect(),
        }
    }

    fn wake(&mut self, queue: &WorkQueue<ObjectKey>) {
        self.waiting.drain().for_each(|key| queue.add(key));
    }
}

/// Lets Pods that wait for their claims look again whenever a `K` changes: those of one claim, if `claim`
/// knows which.
fn wake_on<K: Kind>(
    ctx: &Context,
    shared: &Arc<Mutex<Shared>>,
    queue: &WorkQueue<ObjectKey>,
    claim: fn(&K) -> Option<ObjectKey>,
) {
    let (state, feed) = (shared.clone(), queue.downgrade());
    ctx.informer::<K>().subscribe_while(move |change| {
        let Some(queue) = feed.upgrade() else {
            return false;
        };
        let pods = state.lock().claimants(claim(change.object()));
        pods.into_iter().for_each(|key| queue.add(key));
        true
    });
}

fn on_node(shared: &Mutex<Shared>, queue: &WorkQueue<ObjectKey>, change: &Change<Node>) {
    let mut shared = shared.lock();
    let node = change.object();
    if change.is_deleted() {
        return shared
            .cluster
            .remove_node(node.metadata.name.as_deref().unwrap_or_default());
    }
    // Heartbeats change nothing that a placement depends on.
    let facts = |node: &Node| {
        let allocatable = node
            .status
            .as_ref()
            .and_then(|status| status.allocatable.clone());
        (node.spec.clone(), node.metadata.labels.clone(), allocatable)
    };
    let same = change.old().is_some_and(|old| facts(old) == facts(node));
    shared.cluster.set_node(node);
    if !same {
        shared.wake(queue);
    }
}

fn on_pod(shared: &Mutex<Shared>, queue: &WorkQueue<ObjectKey>, change: &Change<Pod>) {
    let mut shared = shared.lock();
    let pod = change.object();
    if change.is_deleted() {
        shared.waiting.remove(&key_of(pod));
        shared.claimed(pod);
        if shared.cluster.remove_pod(uid(pod.as_ref())) {
            shared.wake(queue);
        }
        return;
    }
    if needs_place(pod) {
        // Our own condition is no reason to look again.
        if change
            .old()
            .is_none_or(|old| old.spec != pod.spec || old.metadata.uid != pod.metadata.uid)
        {
            queue.add(key_of(pod));
        }
        return;
    }
    shared.waiting.remove(&key_of(pod));
    shared.claimed(pod);
    if shared.cluster.set_pod(pod) {
        shared.wake(queue);
    }
}

/// Claims and what they become, from the shared caches.
struct Stored {
    claims: Lister<PersistentVolumeClaim>,
    volumes: Lister<PersistentVolume>,
    classes: Lister<StorageClass>,
    pods: Lister<Pod>,
}

impl Storage for Stored {
    fn claim(&self, key: &ObjectKey) -> Option<Arc<PersistentVolumeClaim>> {
        self.claims.get(key)
    }

    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        self.volumes.get(&ObjectKey::cluster(name))
    }

    fn volumes(&self) -> Vec<Arc<PersistentVolume>> {
        self.volumes.list()
    }

    fn class(&self, name: &str) -> Option<Arc<StorageClass>> {
        self.classes.get(&ObjectKey::cluster(name))
    }

    fn is_used(&self, key: &ObjectKey, by_other_than: &Pod) -> bool {
        let uses = |pod: &Arc<Pod>| {
            pod.metadata.uid != by_other_than.metadata.uid
                && node_name(pod).is_some()
                && !is_finished(pod)
                && volumes::claims_of(pod)
                    .iter()
                    .any(|(claim, _)| claim == key)
        };
        self.pods.in_namespace(&key.namespace).iter().any(uses)
    }
}

struct Scheduler {
    ctx: Context,
    stored: Stored,
    recorder: EventRecorder,
    pods: Lister<Pod>,
    queue: WorkQueue<ObjectKey>,
    shared: Arc<Mutex<Shared>>,
}

impl Scheduler {
    async fn work(&self) {
        while let Some(key) = self.queue.next().await {
            let outcome = self.schedule(&key).await;
            self.queue.finish(key, outcome);
        }
    }

    async fn schedule(&self, key: &ObjectKey) -> Outcome {
        let Some(pod) = self.pods.get(key).filter(|pod| needs_place(pod)) else {
            return Outcome::Done;
        };
        let claims = volumes::claims_of(&pod);
        if !claims.is_empty() {
            // Before it is looked at: a change from here on brings the Pod round again.
            self.shared.lock().claim(key, &claims);
        }
        let needs = volumes::needs(&pod, &self.stored);
        let waits = needs.as_ref().is_ok_and(|needs| !needs.waiting.is_empty());
        let placement = {
            let mut shared = self.shared.lock();
            shared.cluster.expire(self.ctx.clock().monotonic());
            if shared.cluster.is_placed(uid(pod.as_ref())) {
                return Outcome::Done; // its binding is on the way
            }
            let seed = self.ctx.clock().random_u64();
            let placement = place_with(&pod, &needs, &shared.cluster, seed);
            match &placement {
                // Its claims first; then it comes round again.
                Placement::Node(_) if waits => {}
                Placement::Node(node) => {
                    shared.claimed(&pod);
                    shared.cluster.assume(&pod, node);
                }
                _ => {
                    shared.waiting.insert(key.clone());
                }
            }
            placement
        };
        match placement {
            Placement::Node(node) if waits => self.select(needs.unwrap_or_default(), &node).await,
            Placement::Node(node) => self.bind(key, &pod, &node).await,
            Placement::Unschedulable { message } => {
                self.recorder.event(
                    pod.as_ref(),
                    EventKind::Warning,
                    "FailedScheduling",
                    message.clone(),
                );
                self.explain(key, &pod, "Unschedulable", &message).await
            }
            Placement::Gated => {
                let message = "Scheduling is blocked due to non-empty scheduling gates";
                self.explain(key, &pod, "SchedulingGated", message).await
            }
        }
    }

    /// Writes into the claims which node their volumes are for.
    async fn select(&self, needs: Needs, node: &str) -> Outcome {
        for claim in needs.waiting {
            let annotations = claim.metadata.annotations.as_ref();
            let selected = annotations.and_then(|all| all.get(SELECTED_NODE));
            if selected.is_some_and(|selected| selected == node) {
                continue;
            }
            let patch = json!({"metadata": {"annotations": {SELECTED_NODE: node}}});
            let written = self.ctx.objects().update(claim.as_ref(), &patch).await;
            if let Err(error) = written {
                tracing::debug!(%error, message = error.message(), "a claim was not written yet");
                return Outcome::Retry;
            }
        }
        Outcome::After(TRY_AGAIN)
    }

    async fn bind(&self, key: &ObjectKey, pod: &Pod, node: &str) -> Outcome {
        let binding = Binding {
            metadata: ObjectMeta {
                name: pod.metadata.name.clone(),
                namespace: pod.metadata.namespace.clone(),
                uid: pod.metadata.uid.clone(),
                ..Default::default()
            },
            target: ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                ..Default::default()
            },
        };
        match self
            .ctx
            .objects()
            .create_subresource::<Pod>(key, "binding", &binding)
            .await
        {
            Ok(_) => {
                self.shared
                    .lock()
                    .cluster
                    .bound(uid(pod), self.ctx.clock().monotonic());
                let message = format!("Successfully assigned {key} to {node}");
                self.recorder
                    .event(pod, EventKind::Normal, "Scheduled", message);
                Outcome::Done
            }
            Err(error) => {
                let mut shared = self.shared.lock();
                if shared.cluster.forget(uid(pod)) {
                    shared.wake(&self.queue);
                }
                // Gone, or bound by someone else: the event that says so is on its way.
                if error.is_not_found() || error.is_conflict() {
                    tracing::debug!(pod = %key, message = error.message(), "binding refused");
                    return Outcome::Done;
                }
                tracing::warn!(pod = %key, node, %error, message = error.message(), "will retry");
                Outcome::Retry
            }
        }
    }

    /// Says in the Pod's condition why it waits, unless it says so already.
    async fn explain(&self, key: &ObjectKey, pod: &Pod, reason: &str, message: &str) -> Outcome {
        let conditions = pod
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref());
        let known = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition.type_ == "PodScheduled");
        let said = known.is_some_and(|known| {
            known.status == "False"
                && known.reason.as_deref() == Some(reason)
                && known.message.as_deref() == Some(message)
        });
        if said {
            return Outcome::After(TRY_AGAIN);
        }
        let unchanged = known
            .filter(|known| known.status == "False")
            .and_then(|known| known.last_transition_time.clone());
        let condition = PodCondition {
            type_: "PodScheduled".to_owned(),
            status: "False".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: Some(unchanged.unwrap_or_else(|| Time(self.ctx.clock().now()))),
            ..Default::default()
        };
        let patch = json!({"status": {"conditions": [condition]}});
        let when = Precondition::uid_of(pod);
        match self
            .ctx
            .objects()
            .strategic_patch_status::<Pod>(key, &when, patch)
            .await
        {
            Ok(_) => Outcome::After(TRY_AGAIN),
            Err(error) if error.is_not_found() || error.is_conflict() => Outcome::After(TRY_AGAIN),
            Err(error) => {
                tracing::warn!(pod = %key, %error, message = error.message(), "will retry");
                Outcome::Retry
            }
        }
    }
}
