//! What the node, its pods and their containers use: `/stats/summary`, `/net` and the `/metrics` pages.
//!
//! ```text
//! PodRuntime::list_pod_sandbox_stats ─┐
//! state: names of the pods ───────────┼▶ NodeSample ─▶ summary · resource · cadvisor   (pure, each a page)
//! this process ───────────────────────┘
//! probes ─▶ ProbeCounts ─▶ prober_probe_total
//! ```
//!
//! The node is this process: what it uses is what its pods and the control plane use together, not
//! what else runs on the machine.

mod cadvisor;
mod network;
mod page;
mod probes;
mod process;
mod rates;
mod resource;
mod summary;
mod volumes;

pub(crate) use probes::{Outcome, ProbeCounts};
pub(crate) use rates::Rates;
pub(crate) use volumes::VolumeSample;
#[cfg(test)]
pub(crate) use volumes::measure as measure_volumes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_clock::Timestamp;
use coracle_cri::{ContainerDisk, ImageFs, PodSandboxStats, SandboxId};
use futures::StreamExt;
use http::{Response, StatusCode};

use crate::api::{self, Body};
use crate::kubelet::Kubelet;
use crate::sources::PodSources;
use network::PodNetwork;

/// The Services that this node's pods and programs reach, of one namespace or of all, each as it is shown in `/net`.
pub type ServicesShown = Arc<dyn Fn(Option<&str>) -> Vec<serde_json::Value> + Send + Sync>;

/// How often the files of a pod are counted again at most.
const COUNT_FILES: Duration = Duration::from_secs(60);

/// Everything that the pages show, as of one moment.
#[derive(Clone, Debug)]
pub(crate) struct NodeSample {
    pub(crate) node: String,
    pub(crate) at: Timestamp,
    /// When the kubelet started.
    pub(crate) started_at: Timestamp,
    /// Processor time of this process, if the system tells.
    pub(crate) cpu: Option<Duration>,
    /// Resident bytes of this process, if the system tells.
    pub(crate) memory: Option<u64>,
    pub(crate) cores: u64,
    pub(crate) memory_capacity: u64,
    /// The file system of the images, which the pods' files share.
    pub(crate) disk: Option<ImageFs>,
    /// Bytes of all images.
    pub(crate) images: u64,
    /// By namespace and name.
    pub(crate) pods: Vec<PodSample>,
}

/// A pod that has a sandbox.
#[derive(Clone, Debug)]
pub(crate) struct PodSample {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) stats: PodSandboxStats,
    /// The images of its containers, by their names.
    pub(crate) images: BTreeMap<String, String>,
    /// Counted a while ago; empty where nobody asked for it.
    pub(crate) files: Files,
}

/// What a pod keeps on disk.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    /// When it was counted.
    pub(crate) at: Timestamp,
    pub(crate) containers: Vec<ContainerDisk>,
    pub(crate) volumes: Vec<VolumeSample>,
}

/// Counted files of pods, by UID, and when they were counted (monotonic).
#[derive(Debug, Default)]
pub(crate) struct CountedFiles(BTreeMap<String, (Duration, Files)>);

impl Kubelet {
    /// Shows Services in `/net`, too, from now on. Whoever serves them says it once; what is said later is not heard.
    pub fn show_services(&self, shown: ServicesShown) {
        let _ = self.0.services_shown.set(shown);
    }

    /// Answers a path of figures; `None` for others. `query` is that of the request.
    pub(crate) fn figures(&self, path: &[&str], query: &str) -> Option<Response<Body>> {
        let (kubelet, is_brief) = (self.clone(), asks_for_brief(query));
        let json = "application/json";
        Some(match path {
            ["stats", "summary"] => later(json, async move {
                let sample = kubelet.sample(!is_brief).await;
                let rates = kubelet.0.rates.lock().observe(&sample);
                summary::page(&sample, &rates, is_brief).to_string()
            }),
            ["metrics"] => later(page::FORMAT, async move {
                page::own(&kubelet.sample(true).await, &kubelet.networks().await)
            }),
            ["net"] => {
                let asked = network::Asked::of(query);
                later(json, async move {
                    let networks = kubelet.networks().await;
                    let services = match (kubelet.0.services_shown.get(), asked.services()) {
                        (Some(shown), Some(namespace)) => shown(namespace),
                        _ => Vec::new(),
                    };
                    network::page(&kubelet.0.config.node, &networks, services, &asked).to_string()
                })
            }
            ["metrics", "resource"] => later(page::FORMAT, async move {
                resource::page(&kubelet.sample(false).await)
            }),
            ["metrics", "cadvisor"] => later(page::FORMAT, async move {
                cadvisor::page(&kubelet.sample(true).await)
            }),
            ["metrics", "probes"] => {
                later(
                    page::FORMAT,
                    async move { kubelet.0.probe_counts.lock().page() },
                )
            }
            _ => return None,
        })
    }

    async fn sample(&self, with_files: bool) -> NodeSample {
        let inner = &self.0;
        let stats = inner.runtime.list_pod_sandbox_stats().await;
        let at = inner.ctx.clock().now();
        let mut pods: Vec<PodSample> = {
            let state = inner.state.lock();
            let named = stats.into_iter().filter_map(|stats| {
                // A sandbox whose pod has just gone has no name any more.
                let entry = state.entries.get(&stats.id.0)?;
                let containers = entry.pod.spec.as_ref()?.containers.iter();
                let image = |container: &k8s_openapi::api::core::v1::Container| {
                    let image = container.image.clone().unwrap_or_default();
                    (container.name.clone(), image)
                };
                Some(PodSample {
                    namespace: entry.key.namespace.clone(),
                    name: entry.key.name.clone(),
                    uid: stats.id.0.clone(),
                    images: containers.map(image).collect(),
                    files: Files::none(at),
                    stats,
                })
            });
            named.collect()
        };
        pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        let (mut disk, mut images) = (None, 0);
        if with_files {
            for pod in &mut pods {
                pod.files = self.files(&pod.uid).await;
            }
            let known = |uid: &str| pods.iter().any(|pod| pod.uid == uid);
            inner.counted_files.lock().0.retain(|uid, _| known(uid));
            disk = inner.runtime.image_fs().await;
            let listed = inner.runtime.list_images().await;
            images = listed.iter().map(|image| image.size).sum();
        }
        NodeSample {
            node: inner.config.node.clone(),
            at,
            started_at: inner.started_at,
            cpu: process::cpu(),
            memory: process::memory(),
            cores: inner.config.capacity.cpu_millis / 1000,
            memory_capacity: inner.config.capacity.memory,
            disk,
            images,
            pods,
        }
    }

    /// The networks of the pods, by namespace and name.
    async fn networks(&self) -> Vec<PodNetwork> {
        let networks = self.0.runtime.list_pod_sandbox_networks().await;
        let state = self.0.state.lock();
        let named = networks.into_iter().filter_map(|network| {
            // A sandbox whose pod has just gone has no name any more.
            let key = &state.entries.get(&network.id.0)?.key;
            Some(PodNetwork {
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                network,
            })
        });
        let mut named: Vec<_> = named.collect();
        named.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        named
    }

    /// What a pod keeps on disk, counted anew once a minute.
    async fn files(&self, uid: &str) -> Files {
        let clock = self.0.ctx.clock();
        let now = clock.monotonic();
        let known = self.0.counted_files.lock().0.get(uid).cloned();
        if let Some((at, files)) = known
            && now.saturating_sub(at) < COUNT_FILES
        {
            return files;
        }
        let id = SandboxId(uid.to_owned());
        let files = Files {
            at: clock.now(),
            containers: self.0.runtime.disk_usage(&id).await,
            volumes: self.volumes(uid).await,
        };
        let counted = (now, files.clone());
        self.0
            .counted_files
            .lock()
            .0
            .insert(uid.to_owned(), counted);
        files
    }

    /// What a pod's volumes hold; walked off the async threads.
    async fn volumes(&self, uid: &str) -> Vec<VolumeSample> {
        let entry = self.0.state.lock().entries.get(uid).map(|e| e.pod.clone());
        let Some(pod) = entry else {
            return Vec::new();
        };
        let kubelet = self.clone();
        let walk = move || {
            let sources = PodSources::of(&kubelet, &pod);
            volumes::measure(&pod, &kubelet.0.config, &sources)
        };
        // A panic in there is a look that found nothing.
        tokio::task::spawn_blocking(walk).await.unwrap_or_default()
    }
}

impl Files {
    fn none(at: Timestamp) -> Self {
        Self {
            at,
            containers: Vec::new(),
            volumes: Vec::new(),
        }
    }
}

/// `only_cpu_and_memory`, as Go reads booleans.
fn asks_for_brief(query: &str) -> bool {
    query.split('&').any(|pair| {
        let value = pair.strip_prefix("only_cpu_and_memory=");
        matches!(value, Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
    })
}

/// A page that is made while it is being answered.
fn later(
    kind: &'static str,
    page: impl Future<Output = String> + Send + 'static,
) -> Response<Body> {
    let body = futures::stream::once(async move { Ok(page.await.into()) });
    let mut response = api::respond(StatusCode::OK, body.boxed());
    let kind = http::HeaderValue::from_static(kind);
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use coracle_cri::{
        ContainerId, ContainerStats, CpuUsage, DiskUsage, MemoryUsage, NetworkUsage,
    };

    /// A node with one pod of one container, ten seconds after its start.
    pub(crate) fn sample() -> NodeSample {
        let at: Timestamp = "2030-01-01T00:00:10Z".parse().expect("a time");
        let started_at: Timestamp = "2030-01-01T00:00:00Z".parse().expect("a time");
        let id = SandboxId("uid-1".to_owned());
        let container = ContainerStats {
            id: ContainerId {
                sandbox: id.clone(),
                name: "app".to_owned(),
            },
            restart_count: 2,
            started_at,
            cpu: CpuUsage {
                used: Duration::from_millis(1500),
                throttled_periods: 3,
                throttled: Duration::from_millis(250),
                limit_millis: Some(500),
            },
            memory: MemoryUsage {
                working_set: 3 << 20,
                peak: 4 << 20,
                limit: Some(16 << 20),
                exceeded: false,
            },
        };
        let files = |bytes, inodes| DiskUsage { bytes, inodes };
        let volume = |name: &str, claim: Option<&str>, is_ephemeral, used| VolumeSample {
            name: name.to_owned(),
            claim: claim.map(str::to_owned),
            is_ephemeral,
            used,
            inodes_used: 5,
            on: Some(volumes::FileSystem {
                capacity: 9000,
                available: 5000,
                inodes: 100,
                inodes_free: 60,
            }),
        };
        let pod = PodSample {
            namespace: "default".to_owned(),
            name: "web".to_owned(),
            uid: id.0.clone(),
            images: BTreeMap::from([("app".to_owned(), "app:1".to_owned())]),
            files: Files {
                at,
                containers: vec![ContainerDisk {
                    name: "app".to_owned(),
                    writable_layer: files(4096, 3),
                    logs: files(8192, 2),
                }],
                volumes: vec![
                    volume("cache", None, true, 1024),
                    volume("data", Some("disk"), false, 2048),
                ],
            },
            stats: PodSandboxStats {
                id,
                at,
                created_at: started_at,
                cpu: Duration::from_secs(2),
                cpu_limit_millis: Some(800),
                throttled_periods: 3,
                working_set: 5 << 20,
                memory_limit: None,
                network: NetworkUsage {
                    received_bytes: 1000,
                    sent_bytes: 2000,
                    dropped_datagrams: 1,
                    sockets: 4,
                },
                containers: vec![container],
            },
        };
        NodeSample {
            node: "node-a".to_owned(),
            at,
            started_at,
            cpu: Some(Duration::from_secs(8)),
            memory: Some(100 << 20),
            cores: 2,
            memory_capacity: 1 << 30,
            disk: Some(ImageFs {
                capacity: 1000,
                available: 400,
            }),
            images: 77,
            pods: vec![pod],
        }
    }

    #[test]
    fn booleans_are_read_as_go_reads_them() {
        assert!(asks_for_brief("a=b&only_cpu_and_memory=true"));
        assert!(!asks_for_brief("only_cpu_and_memory=yes"));
        assert!(!asks_for_brief(""));
    }
}
