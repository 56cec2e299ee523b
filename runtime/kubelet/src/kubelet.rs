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

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};

use coracle_client::kube::Resource;
use coracle_client::{
    Context, EventKind, InvolvedObject, Kind, Lister, NamedObjects, ObjectKey, WorkQueue, supervise,
};
use coracle_clock::Timestamp;
use coracle_cri::{ContainerStatus, PodRuntime, RuntimeEvent};
use ipnet::IpNet;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, ResourceRequirements, Secret, Service,
};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;

use crate::actions::field_path;
use crate::admission::NodeFacts;
use crate::images::{ImageCollection, NodeImages, VolumeImages};
use crate::ipam::{self, Ipam};
use crate::state::{News, State};
use crate::statics::mirrored;
use crate::stats::{CountedFiles, ProbeCounts, Rates, ServicesShown};
use crate::step;
use crate::tokens::Tokens;
use crate::translate::PodDefaults;
use crate::turns::Turns;
use crate::volumes::{ChangedSources, Source};

/// Workers that sync pods at the same time: enough for their reports to share group commits.
const WORKERS: usize = 32;

/// What is fixed when a node starts.
#[derive(Clone, Debug)]
pub struct KubeletConfig {
    /// The node's name; also its host name.
    pub node: String,
    /// The addresses of the node's pods; the first is the node's own.
    pub pod_range: IpNet,
    /// Those of the other family, if pods have both. A pod has the same place in both ranges.
    pub second_pod_range: Option<IpNet>,
    /// Namespaces whose pods have the host's network if they ask for it by `hostNetwork`.
    pub host_network: Vec<String>,
    /// What pods share.
    pub defaults: PodDefaults,
    /// A folder that no hostPath volume may reach into: the cluster's own data.
    pub data_directory: PathBuf,
    /// What the node has for pods.
    pub capacity: Capacity,
    /// When images that no pod uses are removed.
    pub image_collection: ImageCollection,
    /// The version that the node reports for itself, such as `v1.36.2+coracle`.
    pub version: String,
}

impl KubeletConfig {
    /// The address of the node inside the pod network, of its first family.
    pub(crate) fn node_address(&self) -> IpAddr {
        Ipam::node_address(self.pod_range)
    }

    /// The addresses of the node inside the pod network: one, or one of each family.
    pub(crate) fn node_addresses(&self) -> Vec<IpAddr> {
        self.both(self.node_address())
    }

    /// All addresses of who has `address`.
    pub(crate) fn both(&self, address: IpAddr) -> Vec<IpAddr> {
        let second = self.second(address);
        [address].into_iter().chain(second).collect()
    }

    /// Whether `pod` has the host's network: it asks for it, and may.
    pub(crate) fn is_on_host(&self, pod: &Pod) -> bool {
        let asks = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
        asks && self.host_network.contains(&ObjectKey::of(pod).namespace)
    }

    /// The address of the other family of who has `address`.
    pub(crate) fn second(&self, address: IpAddr) -> Option<IpAddr> {
        ipam::second(self.pod_range, self.second_pod_range?, address)
    }

    /// The same as the downward API writes them, with commas between.
    pub(crate) fn both_as_text(&self, address: IpAddr) -> String {
        let all = self.both(address).into_iter();
        all.map(|address| address.to_string())
            .collect::<Vec<_>>()
            .join(",")
    }

    /// Where the volumes lie that were provisioned for claims: the one place in the data directory that
    /// PersistentVolumes may lead to.
    pub fn volumes_directory(&self) -> PathBuf {
        self.data_directory.join("volumes")
    }
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
    pub(crate) config_maps: NamedObjects<ConfigMap>,
    pub(crate) secrets: NamedObjects<Secret>,
    pub(crate) services: Lister<Service>,
    pub(crate) claims: Lister<PersistentVolumeClaim>,
    pub(crate) volumes: Lister<PersistentVolume>,
    pub(crate) queue: WorkQueue<ObjectKey>,
    pub(crate) state: Mutex<State>,
    pub(crate) tokens: Tokens,
    pub(crate) images: NodeImages,
    pub(crate) volume_images: VolumeImages,
    pub(crate) changed_sources: ChangedSources,
    pub(crate) turns: Turns,
    /// Told whenever something was written into `state`'s pods.
    pub(crate) changed: Notify,
    pub(crate) started_at: Timestamp,
    pub(crate) rates: Mutex<Rates>,
    pub(crate) probe_counts: Mutex<ProbeCounts>,
    pub(crate) counted_files: Mutex<CountedFiles>,
    pub(crate) services_shown: OnceLock<ServicesShown>,
    /// Told when the node's conditions are others.
    pub(crate) pressure_changed: Notify,
}

impl Kubelet {
    /// Takes over the pods that are bound to this node, and begins to keep them. Returns once the
    /// caches are filled.
    pub async fn start(config: KubeletConfig, ctx: Context, runtime: Arc<dyn PodRuntime>) -> Self {
        // Asked for before the queue, which waits until they are filled.
        let services = ctx.lister();
        let (claims, volumes) = (ctx.lister(), ctx.lister());
        let node = config.node.clone();
        let queue = ctx.watch::<Pod>().into_queue().await;
        let facts = NodeFacts {
            name: config.node.clone(),
            capacity: config.capacity,
            labels: crate::node::labels(&config),
        };
        let state = State::new(Ipam::new(config.pod_range, config.second_pod_range), facts);
        let kubelet = Self(Arc::new_cyclic(|kubelet| Inner {
            pods: ctx.lister(),
            config_maps: named(&ctx, kubelet, Source::ConfigMap),
            secrets: named(&ctx, kubelet, Source::Secret),
            services,
            claims,
            volumes,
            queue,
            state: Mutex::new(state),
            tokens: Tokens::default(),
            images: NodeImages::default(),
            volume_images: VolumeImages::default(),
            changed_sources: ChangedSources::default(),
            turns: Turns::default(),
            changed: Notify::new(),
            started_at: ctx.clock().now(),
            rates: Mutex::default(),
            probe_counts: Mutex::default(),
            counted_files: Mutex::default(),
            services_shown: OnceLock::new(),
            pressure_changed: Notify::new(),
            config,
            ctx,
            runtime,
        }));
        kubelet.recover();
        kubelet.watch_sources();
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
        let volumes = {
            let kubelet = self.clone();
            supervise("kubelet volumes", clock.clone(), stop.clone(), move || {
                kubelet.clone().keep_volumes()
            })
        };
        let images = {
            let kubelet = self.clone();
            supervise("kubelet images", clock.clone(), stop.clone(), move || {
                kubelet.clone().keep_images()
            })
        };
        let limits = {
            let kubelet = self.clone();
            supervise("kubelet limits", clock.clone(), stop.clone(), move || {
                kubelet.clone().keep_within_limits()
            })
        };
        let loops = futures::future::join_all(loops);
        tokio::join!(loops, events, node, volumes, images, limits);
    }

    /// The name of the node.
    pub fn node(&self) -> &str {
        &self.0.config.node
    }

    /// Addresses of pods that ran before this process are taken before any new pod gets one; files
    /// of pods that went away meanwhile are removed.
    fn recover(&self) {
        let now = self.0.ctx.clock().now();
        let mut state = self.0.state.lock();
        // Those that never ran are let in as they come round, when more is known of the node.
        let mut ours = self.0.pods.list();
        ours.retain(|pod| self.is_ours(pod));
        // The files of a static pod are under its own UID.
        let uid = |pod: &Arc<Pod>| {
            let own = mirrored(pod).unwrap_or(coracle_client::uid(pod.as_ref()));
            own.to_owned()
        };
        let kept: HashSet<String> = ours.iter().map(uid).collect();
        ours.retain(|pod| !is_new(pod) && mirrored(pod).is_none());
        for pod in ours {
            state.insert(pod, now);
        }
        // Listed now, while no new pod can have a folder yet.
        let strangers = strangers(&self.0.config.defaults.pods_directory, &kept);
        tokio::task::spawn_blocking(move || {
            strangers.iter().for_each(|folder| remove_folder(folder))
        });
    }

    /// What files are made of, and what pods wait for.
    fn watch_sources(&self) {
        let kubelet = Arc::downgrade(&self.0);
        self.0.ctx.informer::<Pod>().subscribe_while({
            let kubelet = kubelet.clone();
            move |change| {
                if change
                    .old()
                    .is_some_and(|old| shows_otherwise(old, change.object()))
                {
                    note(
                        &kubelet,
                        Source::Pod,
                        ObjectKey::of(change.object().as_ref()),
                    );
                }
                kubelet.strong_count() > 0
            }
        });
        self.0
            .ctx
            .informer::<PersistentVolumeClaim>()
            .subscribe_while(move |change| {
                let namespace = change.object().metadata.namespace.as_deref();
                retry(&kubelet, namespace.unwrap_or_default());
                kubelet.strong_count() > 0
            });
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
            let event = tokio::select! {
                event = events.recv() => event,
                () = self.0.ctx.stop().cancelled() => return,
            };
            match event {
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

    /// Takes over what the runtime says of a container, and looks at its pod again.
    pub(crate) fn apply(&self, status: &ContainerStatus) {
        let name = &status.id.name;
        let mut state = self.0.state.lock();
        let Some((entry, news)) = state.apply(status) else {
            return;
        };
        let (pod, key) = (entry.pod.clone(), entry.key.clone());
        drop(state);
        let object = || InvolvedObject::of(pod.as_ref()).at(&field_path(&pod, name));
        match news {
            News::Started => {
                let message = format!("Container started: {name}");
                self.0
                    .ctx
                    .recorder()
                    .event_for(object(), EventKind::Normal, "Started", message);
                // Probes wait for the postStart hook.
                let part = step::part(&pod, name);
                if part.is_none_or(|part| part.post_start().is_none()) {
                    let uid = coracle_client::uid(pod.as_ref());
                    self.begin_probing(&pod, uid, name, status.restart_count);
                }
            }
            News::BacksOff => {
                let uid = coracle_client::uid(pod.as_ref());
                let message = format!(
                    "Back-off restarting failed container {name} in pod {}_{}({uid})",
                    key.name, key.namespace
                );
                self.0
                    .ctx
                    .recorder()
                    .event_for(object(), EventKind::Warning, "BackOff", message);
            }
            News::Other => {}
        }
        self.0.changed.notify_waiters();
        self.0.queue.add(key);
    }
}

/// Whether volumes show a pod otherwise than before: by its labels and annotations, or by resources that it was given.
fn shows_otherwise(old: &Pod, new: &Pod) -> bool {
    fn resources(pod: &Pod) -> impl Iterator<Item = Option<&ResourceRequirements>> {
        let spec = pod.spec.as_ref();
        let of_pod = spec.and_then(|spec| spec.resources.as_ref());
        let init = spec.into_iter().flat_map(|spec| &spec.init_containers);
        let main = spec.into_iter().flat_map(|spec| &spec.containers);
        let containers = init.flatten().chain(main);
        std::iter::once(of_pod).chain(containers.map(|one| one.resources.as_ref()))
    }
    let (before, after) = (&old.metadata, &new.metadata);
    before.labels != after.labels
        || before.annotations != after.annotations
        || !resources(old).eq(resources(new))
}

/// Whether no kubelet has ever taken the pod up.
pub(crate) fn is_new(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    status.is_none_or(|status| status.start_time.is_none())
}

/// ConfigMaps or Secrets that pods name, read as the node; a changed one may be what a pod waits for, and what files of
/// volumes are made of.
fn named<K>(ctx: &Context, kubelet: &Weak<Inner>, source: Source) -> NamedObjects<K>
where
    K: Kind + Resource<Scope = NamespaceResourceScope>,
{
    let kubelet = kubelet.clone();
    NamedObjects::new(ctx.client().clone(), ctx.stop().clone(), move |key| {
        note(&kubelet, source, key.clone());
        retry(&kubelet, &key.namespace);
    })
}

/// Notes that files of volumes may be made of what has changed.
fn note(kubelet: &Weak<Inner>, source: Source, key: ObjectKey) {
    if let Some(kubelet) = kubelet.upgrade() {
        kubelet.changed_sources.note(source, key);
    }
}

/// Lets pods of `namespace` that wait for something that they name look for it now.
fn retry(kubelet: &Weak<Inner>, namespace: &str) {
    let Some(kubelet) = kubelet.upgrade() else {
        return;
    };
    let now = kubelet.ctx.clock().now();
    let mut state = kubelet.state.lock();
    let waiting = state
        .entries
        .values_mut()
        .filter(|entry| entry.key.namespace == namespace);
    for entry in waiting {
        if entry.observed.retry_sources(now) {
            kubelet.queue.add(entry.key.clone());
        }
    }
}

/// The folders of pods that are not `kept`.
fn strangers(pods_directory: &Path, kept: &HashSet<String>) -> Vec<PathBuf> {
    // There is no folder before the first pod.
    let Ok(folders) = std::fs::read_dir(pods_directory) else {
        return Vec::new();
    };
    let is_kept = |path: &Path| {
        path.file_name()
            .and_then(|uid| uid.to_str())
            .is_some_and(|uid| kept.contains(uid))
    };
    folders
        .flatten()
        .map(|folder| folder.path())
        .filter(|path| !is_kept(path))
        .collect()
}

/// Removes the files of a pod.
pub(crate) fn remove_folder(folder: &Path) {
    if let Err(error) = std::fs::remove_dir_all(folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %folder.display(), %error, "failed to remove a pod's files");
    }
}
