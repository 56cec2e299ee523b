//! The kubelet of one node: its pods, and the loop that keeps them as the API says.
//!
//! ```text
//!  Pod cache ──keys──▶ WorkQueue ──▶ sync(key): step ─▶ actions ──spawned──▶ PodRuntime
//!                          ▲                     └─▶ status ──▶ API             │
//!                          └── results, runtime events, wake-ups ◀──────────────┘
//! ```
//!
//! A key is synced by one worker at a time. Actions run in tasks of their own, so that a slow image
//! or a long grace period never holds up another pod; what they find goes into the pod's
//! [`Observed`], and the key comes round again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coracle_client::{Context, EventKind, Lister, ObjectKey, WorkQueue, supervise};
use coracle_cri::{ContainerStatus, PodRuntime, RuntimeEvent};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use parking_lot::Mutex;
use tokio::sync::broadcast::error::RecvError;

use crate::ipam::Ipam;
use crate::step::Observed;
use crate::translate::PodDefaults;

/// Workers that sync pods at the same time.
const WORKERS: usize = 8;

/// What is fixed when a node starts.
#[derive(Clone, Debug)]
pub struct KubeletConfig {
    /// The node's name; also its host name.
    pub node: String,
    /// The addresses of the node's pods; the first is the node's own.
    pub pod_range: Ipv4Net,
    /// What pods share.
    pub defaults: PodDefaults,
    /// A folder that no hostPath volume may reach into: the cluster's own data.
    pub data_directory: PathBuf,
    /// What the node has for pods.
    pub capacity: Capacity,
    /// The version that the node reports for itself, such as `v1.36.2+coracle`.
    pub version: String,
}

/// What a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of disk for pods' files.
    pub ephemeral_storage: u64,
    /// Number of pods.
    pub pods: u32,
}

/// A running kubelet; cheap to clone.
#[derive(Clone)]
pub struct Kubelet(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) config: KubeletConfig,
    pub(crate) ctx: Context,
    pub(crate) runtime: Arc<dyn PodRuntime>,
    pub(crate) pods: Lister<Pod>,
    pub(crate) config_maps: Lister<ConfigMap>,
    pub(crate) secrets: Lister<Secret>,
    pub(crate) services: Lister<Service>,
    pub(crate) queue: WorkQueue<ObjectKey>,
    pub(crate) state: Mutex<State>,
}

/// The pods of the node, by UID: a pod may be wound down while its successor of the same name starts.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) entries: HashMap<String, Entry>,
    pub(crate) ipam: Ipam,
    /// The node is being stopped: nothing new is begun.
    pub(crate) draining: bool,
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
}

impl Kubelet {
    /// Takes over the pods that are bound to this node, and begins to keep them. Returns once the
    /// caches are filled.
    pub async fn start(config: KubeletConfig, ctx: Context, runtime: Arc<dyn PodRuntime>) -> Self {
        // Asked for before the queue, which waits until they are filled.
        let (config_maps, secrets, services) = (ctx.lister(), ctx.lister(), ctx.lister());
        let node = config.node.clone();
        let queue = ctx.watch::<Pod>().into_queue().await;
        let ipam = Ipam::new(config.pod_range);
        let state = State {
            entries: HashMap::new(),
            ipam,
            draining: false,
        };
        let kubelet = Self(Arc::new(Inner {
            pods: ctx.lister(),
            config_maps,
            secrets,
            services,
            queue,
            state: Mutex::new(state),
            config,
            ctx,
            runtime,
        }));
        kubelet.recover();
        tracing::info!(
            node,
            pods = kubelet.0.state.lock().entries.len(),
            "kubelet started"
        );
        kubelet
    }

    /// Keeps the pods until the context's stop signal.
    pub async fn run(&self) {
        let (clock, stop) = (self.0.ctx.clock().clone(), self.0.ctx.stop().clone());
        let loops = (0..WORKERS).map(|_| {
            let kubelet = self.clone();
            supervise("kubelet", clock.clone(), stop.clone(), move || {
                kubelet.clone().work()
            })
        });
        let events = {
            let kubelet = self.clone();
            supervise("kubelet events", clock.clone(), stop.clone(), move || {
                kubelet.clone().listen()
            })
        };
        let node = {
            let kubelet = self.clone();
            supervise("kubelet node", clock.clone(), stop.clone(), move || {
                crate::node::run(kubelet.clone())
            })
        };
        futures::future::join3(futures::future::join_all(loops), events, node).await;
    }

    /// The name of the node.
    pub fn node(&self) -> &str {
        &self.0.config.node
    }

    /// Ends every container, each within its pod's grace period but at the latest after `longest`,
    /// and reports how they ended. Pods stay: the next start brings them back.
    pub async fn drain(&self, longest: Duration) {
        let stops = self.begin_drain(longest);
        futures::future::join_all(stops).await;
        let keys: Vec<_> = self
            .0
            .state
            .lock()
            .entries
            .values()
            .map(|entry| entry.key.clone())
            .collect();
        for key in keys {
            // A status that cannot be written now is computed anew by the next start.
            if let Err(error) = self.report(&key).await {
                tracing::debug!(%key, %error, "last status was not written");
            }
        }
    }

    /// Addresses of pods that ran before this process are taken before any new pod gets one.
    fn recover(&self) {
        let now = self.0.ctx.clock().now();
        let mut state = self.0.state.lock();
        for pod in self.0.pods.list() {
            if self.is_ours(&pod) {
                state.insert(pod, now);
            }
        }
    }

    pub(crate) fn is_ours(&self, pod: &Pod) -> bool {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        node == Some(self.0.config.node.as_str())
    }

    async fn work(self) {
        while let Some(key) = self.0.queue.next().await {
            let outcome = self.sync(&key).await;
            self.0.queue.finish(key, outcome);
        }
    }

    /// Follows what the runtime says of its containers.
    async fn listen(self) {
        let mut events = self.0.runtime.subscribe();
        self.refresh().await;
        loop {
            match events.recv().await {
                Ok(RuntimeEvent::Container(status)) => self.apply(&status),
                Ok(RuntimeEvent::ImageProgress { .. }) => {}
                Err(RecvError::Lagged(_)) => self.refresh().await,
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Asks the runtime for everything, after news may have been missed.
    async fn refresh(&self) {
        for sandbox in self.0.runtime.list().await {
            sandbox
                .containers
                .iter()
                .for_each(|status| self.apply(status));
        }
    }

    pub(crate) fn apply(&self, status: &ContainerStatus) {
        let mut state = self.0.state.lock();
        let Some(entry) = state.entries.get_mut(&status.id.sandbox.0) else {
            return;
        };
        if entry.observed.apply(status) {
            let message = format!("Started container {}", status.id.name);
            self.0
                .ctx
                .recorder()
                .event(entry.pod.as_ref(), EventKind::Normal, "Started", message);
        }
        let key = entry.key.clone();
        drop(state);
        self.0.queue.add(key);
    }
}

impl State {
    /// Begins to keep a pod; one that ran before keeps its address.
    pub(crate) fn insert(&mut self, pod: Arc<Pod>, now: coracle_clock::Timestamp) -> &mut Entry {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let mut observed = Observed::recover(&pod, now);
        let is_over = crate::step::terminal_phase(&pod, &observed).is_some();
        // A pod that is over gave its address up; one whose address someone else has gets another.
        if let Some(address) = observed.address
            && !is_over
            && !self.ipam.reserve(address)
        {
            observed.address = None;
        }
        let key = ObjectKey::of(pod.as_ref());
        self.entries.entry(uid).or_insert_with(|| Entry {
            key,
            pod,
            observed,
            orphaned: false,
            forgetting: false,
        })
    }

    /// The UIDs of all pods, gone ones too, that have or had this name.
    pub(crate) fn of_key(&self, key: &ObjectKey) -> Vec<String> {
        let same = self.entries.iter().filter(|(_, entry)| entry.key == *key);
        same.map(|(uid, _)| uid.clone()).collect()
    }

    pub(crate) fn allocate(&mut self, uid: &str) -> Result<IpAddr, crate::ipam::Exhausted> {
        if let Some(address) = self
            .entries
            .get(uid)
            .and_then(|entry| entry.observed.address)
        {
            return Ok(address);
        }
        let address = self.ipam.allocate()?;
        if let Some(entry) = self.entries.get_mut(uid) {
            entry.observed.address = Some(address);
        }
        Ok(address)
    }
}
