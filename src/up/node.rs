//! The node of this process: its pod network, its wasm runtime and its data plane.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use async_trait::async_trait;
use coracle_client::ObjectClient;
use coracle_clock::Clock;
use coracle_cri::{PodRuntime, RuntimeEvent};
use coracle_dns::{HostListeners, Servers, UpstreamConfig};
use coracle_image::{ImageStore, Images, ImagesConfig, RegistrySource};
use coracle_ingress::IngressConfig;
use coracle_kubelet::{Capacity, KubeletConfig, PodDefaults};
use coracle_network::{Fabric, FabricConfig, NetError};
use coracle_policy::{Denials, Guard, GuardConfig, NotKnown};
use coracle_sandbox::{SandboxConfig, TlsTrust, WasmRuntime};
use coracle_server::{ClusterDialer, Connection, DialError};
use coracle_services::{Services, ServicesConfig};
use tokio::sync::broadcast;

use super::access::AccessLog;
use super::network::{CLUSTER_DOMAIN, Network};
use super::{image_folders, ingress};
use crate::cli::{Part, UpArgs};
use crate::cluster::{Cluster, NodeConfig};
use crate::data_dir::DataDir;

/// The name of the node; always the same, so that pods find their node again on another network.
const NODE_NAME: &str = "coracle";
/// How the host looks names up.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Instances for requests of http pods and for `exec`, should every pod be a command.
const INSTANCES_BESIDE_PODS: u32 = 1_000;
/// Threads that carry connections of node ports and Ingresses, and answer DNS.
const DATA_PLANE_THREADS: usize = 2;

/// The node's runtime parts.
pub(super) struct Node {
    fabric: Arc<Fabric>,
    runtime: Arc<WasmRuntime>,
    /// Whom guests' `https` believes.
    trust: Arc<TlsTrust>,
    /// NodePorts, Ingress and DNS: away from the control plane's threads.
    data_plane: DataPlane,
}

/// Threads of their own. Dropped in the background, because a tokio runtime must not be waited for
/// where async code runs, and an error can drop the node anywhere.
struct DataPlane(Option<tokio::runtime::Runtime>);

impl DataPlane {
    fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(DATA_PLANE_THREADS)
            .thread_name("data")
            .enable_all()
            .build()
            .context("failed to start the data plane's threads")?;
        Ok(Self(Some(runtime)))
    }

    fn handle(&self) -> &tokio::runtime::Handle {
        self.0.as_ref().expect("there until it is dropped").handle()
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Node {
    pub(super) fn start(
        args: &UpArgs,
        data: &DataDir,
        network: &Network,
        clock: &Clock,
    ) -> Result<Self> {
        let mut config = FabricConfig::new(network.node_address());
        config.second_node_address = network.node_addresses.get(1).copied();
        config.pod_ranges = network.cluster_ranges.clone();
        config.service_ranges = network.service_ranges.clone();
        let fabric = Fabric::new(config, clock.clone());
        if !args.disable.contains(&Part::Services) {
            // Pods may start before the guard does.
            let dns = network.dns.iter().copied();
            let node = fabric.node_addresses().chain(dns).collect();
            fabric.set_policy(Arc::new(NotKnown { node }));
        }
        let images_folder = data.join("images");
        let store = ImageStore::open(&images_folder, clock.clone())
            .context("failed to open the image store")?;
        let mut registries = crate::image::registries(data.path(), args.registry_hosts.as_deref());
        registries.patience.progress = args.node_images.image_pull_progress_deadline;
        registries.patience.answer = args.node_images.image_pull_progress_deadline;
        let images = Images::new(ImagesConfig {
            store,
            source: Arc::new(RegistrySource::new(registries, clock.clone())),
            allowed_folders: image_folders(args)?,
            max_bytes: crate::image::MAX_IMAGE_BYTES,
        });
        let (pods, compiled) = (data.join("pods"), images_folder.join("compiled"));
        let mut sandbox = SandboxConfig::new(clock.clone(), fabric.clone(), images, pods, compiled);
        sandbox.memory_bytes = capacity(network.max_pods).memory;
        sandbox.max_instances = network.max_pods.saturating_add(INSTANCES_BESIDE_PODS);
        let trust = sandbox.trust.clone();
        let runtime = WasmRuntime::new(sandbox).context("failed to start the wasm runtime")?;
        Ok(Self {
            fabric,
            runtime: Arc::new(runtime),
            trust,
            data_plane: DataPlane::start()?,
        })
    }

    pub(super) fn config(&self, args: &UpArgs, data: &DataDir, network: &Network) -> NodeConfig {
        NodeConfig {
            kubelet: KubeletConfig {
                node: NODE_NAME.to_owned(),
                pod_range: network.pod_ranges[0],
                second_pod_range: network.pod_ranges.get(1).copied(),
                host_network: args.allow_host_network.clone(),
                defaults: PodDefaults {
                    cluster_domain: CLUSTER_DOMAIN.to_owned(),
                    cluster_dns: network.dns.clone(),
                    resolv_conf: RESOLV_CONF.into(),
                    pods_directory: data.join("pods"),
                },
                data_directory: data.path().to_owned(),
                capacity: capacity(network.max_pods),
                image_collection: args.node_images.collection(),
                version: coracle_server::KUBERNETES_VERSION.to_owned(),
            },
            runtime: self.runtime.clone(),
        }
    }

    pub(super) fn fabric(&self) -> &Arc<Fabric> {
        &self.fabric
    }

    pub(super) fn trust(&self) -> &Arc<TlsTrust> {
        &self.trust
    }

    /// The API server's way to pods, for `proxy`.
    pub(super) fn dialer(&self) -> Arc<dyn ClusterDialer> {
        Arc::new(FabricDialer(self.fabric.clone()))
    }

    /// What the runtime does from now on, for showing progress.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.runtime.subscribe()
    }

    /// Serves Ingresses on the data plane.
    pub(super) fn start_ingress(
        &self,
        cluster: &mut Cluster,
        services: Services,
        config: IngressConfig,
    ) {
        let objects = ObjectClient::new(cluster.admin());
        let context = cluster.context().for_component(ingress::COMPONENT);
        let stop = context.stop().clone();
        cluster.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = ingress::make_objects(objects) => {}
            }
        });
        let serving = coracle_ingress::run(config, context, services);
        let running = self.data_plane.handle().spawn(serving);
        cluster.spawn(async move {
            let _ = running.await;
        });
    }

    /// Starts cluster addresses, names, ports of the host and network policies on the data plane, and
    /// DNS on `listeners` of the host.
    pub(super) fn start_services(
        &self,
        args: &UpArgs,
        network: &Network,
        cluster: &mut Cluster,
        listeners: Option<HostListeners>,
        told: Told,
    ) -> Services {
        let _guard = self.data_plane.handle().enter();
        let context = cluster
            .context()
            .for_component(&format!("services:{NODE_NAME}"));
        let mut config = ServicesConfig::new(NODE_NAME, CLUSTER_DOMAIN);
        config.cluster_dns = network.dns.clone();
        config.ranges = [&network.cluster_ranges[..], &network.service_ranges].concat();
        let cluster_ranges = config.ranges.clone();
        config.upstreams = upstreams(args);
        config.load_balancer_addresses = args.load_balancer_addresses.0.clone();
        config.access_log = Some(told.log);
        let stop = context.stop().clone();
        let services = Services::start(config, context.clone(), self.fabric.clone());
        // After the names, which it answers for.
        let guard = GuardConfig {
            cluster_domain: CLUSTER_DOMAIN.to_owned(),
            cluster_ranges,
            of_node: network.dns.clone(),
            denials: told.denials,
        };
        Guard::start(guard, context, &self.fabric);
        if let Some(listeners) = listeners {
            let serving = listeners.serve(services.dns().clone());
            self.data_plane.handle().spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = serving => {}
                }
            });
        }
        let own = services.clone();
        let running = self
            .data_plane
            .handle()
            .spawn(async move { own.run().await });
        cluster.spawn(async move {
            let _ = running.await;
        });
        services
    }
}

/// Who is told of connections.
pub(super) struct Told {
    /// Counts those that policies forbid.
    pub(super) denials: Arc<Denials>,
    /// Has a line for each one to a Service.
    pub(super) log: AccessLog,
}

/// Who knows the names outside the cluster.
fn upstreams(args: &UpArgs) -> UpstreamConfig {
    let servers = match args.dns_upstream.as_slice() {
        [] => Servers::File(RESOLV_CONF.into()),
        servers => Servers::Fixed(servers.to_vec()),
    };
    let stubs = args.dns_stub_domain.iter();
    UpstreamConfig {
        servers,
        stub_domains: stubs
            .map(|stub| (stub.domain.clone(), stub.servers.clone()))
            .collect(),
    }
}

/// Reaches pods as the node does: from its own address in the pod network.
struct FabricDialer(Arc<Fabric>);

#[async_trait]
impl ClusterDialer for FabricDialer {
    async fn connect(
        &self,
        address: IpAddr,
        port: u16,
    ) -> std::result::Result<Box<dyn Connection>, DialError> {
        match self.0.dial(SocketAddr::new(address, port)).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => {
                let message = match error {
                    NetError::ConnectionRefused(_) => "connect: connection refused".to_owned(),
                    NetError::HostUnreachable(_) => "connect: no route to host".to_owned(),
                    NetError::TimedOut(_) => "i/o timeout".to_owned(),
                    other => other.to_string(),
                };
                Err(DialError::Refused {
                    address,
                    port,
                    message,
                })
            }
        }
    }
}

/// What this machine has, all of it.
fn capacity(pods: u32) -> Capacity {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    Capacity {
        cpu_millis: cores * 1000,
        memory: memory().unwrap_or(1 << 30),
        ephemeral_storage: 10 << 30,
        pods,
    }
}

/// `MemTotal` of Linux; elsewhere the caller's guess stands.
fn memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
