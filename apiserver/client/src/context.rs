//! What every component is given: shared caches, its own identity, the clock, the stop signal.

use std::sync::Arc;

use coracle_clock::Clock;
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::events::EventRecorder;
use crate::informer::{Change, Informer, SharedInformers};
use crate::key::{Kind, ObjectKey, controller_of};
use crate::lister::Lister;
use crate::objects::ObjectClient;
use crate::queue::{QueueConfig, WorkQueue};

/// Makes the client of a component from its name; the wiring turns the name into an identity (see
/// [`component_user`]).
pub type ClientFactory = Arc<dyn Fn(&str) -> Client + Send + Sync>;

/// The user and groups that a component's name stands for, in upstream's words.
///
/// `kube-scheduler` is `system:kube-scheduler`; `kubelet:NODE` is `system:node:NODE` in
/// `system:nodes`; `services:NODE` is `system:kube-proxy`; `reflector` (all shared reads) is
/// `system:kube-controller-manager`, as upstream's shared informers are; `ipallocator-repair-controller`
/// and others that upstream runs within its API server are `system:apiserver`; everything else is a service account of `kube-system`.
pub fn component_user(component: &str) -> (String, Vec<String>) {
    let authenticated = "system:authenticated".to_owned();
    match component.split_once(':') {
        Some(("kubelet", node)) => (
            format!("system:node:{node}"),
            vec!["system:nodes".to_owned(), authenticated],
        ),
        Some(("services", _)) => ("system:kube-proxy".to_owned(), vec![authenticated]),
        _ if component == "kube-scheduler" => {
            ("system:kube-scheduler".to_owned(), vec![authenticated])
        }
        // A part of the API server in upstream, which speaks to itself as an administrator.
        _ if matches!(
            component,
            "ipallocator-repair-controller"
                | "legacy-token-tracking-controller"
                | "cluster-authentication-trust-controller"
        ) =>
        {
            (
                "system:apiserver".to_owned(),
                vec!["system:masters".to_owned(), authenticated],
            )
        }
        // Upstream's shared informers, and the one controller that it runs without an account of its own.
        _ if matches!(component, "reflector" | "serviceaccount-token-controller") => (
            "system:kube-controller-manager".to_owned(),
            vec![authenticated],
        ),
        _ => (
            format!("system:serviceaccount:kube-system:{component}"),
            vec![
                "system:serviceaccounts".to_owned(),
                "system:serviceaccounts:kube-system".to_owned(),
                authenticated,
            ],
        ),
    }
}

/// A component's view of the cluster; cheap to clone.
#[derive(Clone)]
pub struct Context {
    informers: SharedInformers,
    clients: ClientFactory,
    clock: Clock,
    stop: CancellationToken,
    component: Arc<str>,
    objects: ObjectClient,
    recorder: EventRecorder,
}

impl Context {
    /// The context of the process: call [`Context::for_component`] for each component. Cancelling
    /// `stop` ends every informer, queue and recorder. Must be called within a tokio runtime.
    pub fn new(clients: ClientFactory, clock: Clock, stop: CancellationToken) -> Self {
        let informers = SharedInformers::new(clients("reflector"), stop.clone());
        Self::build(informers, clients, clock, stop, "coracle")
    }

    /// The same caches, clock and stop signal under another component's identity.
    pub fn for_component(&self, component: &str) -> Self {
        let (informers, clients) = (self.informers.clone(), self.clients.clone());
        Self::build(
            informers,
            clients,
            self.clock.clone(),
            self.stop.clone(),
            component,
        )
    }

    /// The same with its own stop signal, a child of this one's: cancelling it ends the component's
    /// queues, and leaves the shared caches alone.
    pub fn stoppable(&self) -> Self {
        Self {
            stop: self.stop.child_token(),
            ..self.clone()
        }
    }

    fn build(
        informers: SharedInformers,
        clients: ClientFactory,
        clock: Clock,
        stop: CancellationToken,
        component: &str,
    ) -> Self {
        let client = clients(component);
        // A user called kubelet:a writes Events whose source is "kubelet".
        let source = component.split(':').next().unwrap_or(component);
        let host = component.split_once(':').map(|(_, node)| node);
        let objects = ObjectClient::new(client);
        let recorder =
            EventRecorder::new(objects.clone(), clock.clone(), stop.clone(), source, host);
        Self {
            informers,
            clients,
            clock,
            stop,
            component: component.into(),
            objects,
            recorder,
        }
    }

    /// The component's name.
    pub fn component(&self) -> &str {
        &self.component
    }

    /// Reads and writes under the component's identity.
    pub fn objects(&self) -> &ObjectClient {
        &self.objects
    }

    /// The kube client under the component's identity.
    pub fn client(&self) -> &Client {
        self.objects.client()
    }

    /// Writes Events under the component's identity.
    pub fn recorder(&self) -> &EventRecorder {
        &self.recorder
    }

    /// The process's clock and randomness.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Cancelled when the component should end.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// The process's shared informers.
    pub fn informers(&self) -> &SharedInformers {
        &self.informers
    }

    /// The shared cache of `K`; starts its loop at first use.
    pub fn lister<K: Kind>(&self) -> Lister<K> {
        self.informers.lister()
    }

    /// The shared cache of those `K` that a field selector accepts; see [`SharedInformers::informer_of`].
    pub fn lister_of<K: Kind>(&self, field_selector: &str) -> Lister<K> {
        self.informers.informer_of(field_selector).lister()
    }

    /// The shared informer of `K`; starts its loop at first use.
    pub fn informer<K: Kind>(&self) -> Informer<K> {
        self.informers.informer()
    }

    /// Begins a work queue that holds the key of every `K` that changes.
    pub fn watch<K: Kind>(&self) -> QueueBuilder<K> {
        self.watch_of("")
    }

    /// Begins a work queue that holds the key of every `K` that a field selector accepts and that changes.
    pub fn watch_of<K: Kind>(&self, field_selector: &str) -> QueueBuilder<K> {
        let queue = WorkQueue::new(
            self.clock.clone(),
            self.stop.clone(),
            QueueConfig::default(),
        );
        let builder = QueueBuilder::<K> {
            context: self.clone(),
            queue,
            subscribe: Vec::new(),
            lister: self.lister_of(field_selector),
        };
        let all = builder.lister();
        builder.queue.refill_from(move || {
            all.list()
                .iter()
                .map(|object| ObjectKey::of(object.as_ref()))
                .collect()
        });
        builder.and_of::<K>(field_selector, |change| {
            vec![ObjectKey::of(change.object().as_ref())]
        })
    }
}

type Subscribe = Box<dyn FnOnce() + Send>;

/// Says which changes bring which keys into a work queue.
pub struct QueueBuilder<K> {
    context: Context,
    queue: WorkQueue<ObjectKey>,
    subscribe: Vec<Subscribe>,
    lister: Lister<K>,
}

impl<K: Kind> QueueBuilder<K> {
    /// A changed `C` brings in its controller, if that is a `K`; also the one it had before.
    #[must_use]
    pub fn and_owned<C: Kind>(self) -> Self {
        self.and::<C>(|change| {
            let mut keys = Vec::new();
            for object in change.old().into_iter().chain([change.object()]) {
                let Some(owner) = controller_of(object.as_ref()) else {
                    continue;
                };
                let group = owner
                    .api_version
                    .split_once('/')
                    .map_or("", |(group, _)| group);
                if owner.kind == K::kind(&()) && group == K::group(&()) {
                    keys.push(ObjectKey::new(
                        object.meta().namespace.clone().unwrap_or_default(),
                        owner.name.clone(),
                    ));
                }
            }
            keys
        })
    }

    /// A changed `C` brings in the keys that `keys` names.
    #[must_use]
    pub fn and<C: Kind>(
        self,
        keys: impl Fn(&Change<C>) -> Vec<ObjectKey> + Send + Sync + 'static,
    ) -> Self {
        self.and_of("", keys)
    }

    /// A changed `C` that a field selector accepts brings in the keys that `keys` names.
    #[must_use]
    pub fn and_of<C: Kind>(
        mut self,
        field_selector: &str,
        keys: impl Fn(&Change<C>) -> Vec<ObjectKey> + Send + Sync + 'static,
    ) -> Self {
        let informers = &self.context.informers;
        let (informer, queue) = (
            informers.informer_of::<C>(field_selector),
            self.queue.downgrade(),
        );
        self.subscribe.push(Box::new(move || {
            // A component that was started again has a new queue; the old one must not be fed.
            informer.subscribe_while(move |change| {
                let Some(queue) = queue.upgrade() else {
                    return false;
                };
                keys(change).into_iter().for_each(|key| queue.add(key));
                true
            });
        }));
        self
    }

    /// The cache of the queue's own kind.
    pub fn lister(&self) -> Lister<K> {
        self.lister.clone()
    }

    /// Waits until every cache of the process asked for so far is filled, then fills the queue.
    pub async fn into_queue(self) -> WorkQueue<ObjectKey> {
        tokio::select! {
            () = self.context.informers.synced() => {}
            // The queue says so itself at the first `next`.
            () = self.context.stop.cancelled() => {}
        }
        for subscribe in self.subscribe {
            subscribe();
        }
        self.queue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn component_names_stand_for_upstreams_users() {
        assert_eq!(component_user("kube-scheduler").0, "system:kube-scheduler");
        assert_eq!(component_user("kubelet:a").0, "system:node:a");
        assert_eq!(
            component_user("deployment-controller").0,
            "system:serviceaccount:kube-system:deployment-controller"
        );
    }
}
