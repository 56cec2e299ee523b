//! The node of this process: its pod network, its wasm runtime and its data plane.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use coracle_client::ObjectClient;
use coracle_clock::Clock;
use coracle_cri::{PodRuntime, RuntimeEvent};
use coracle_dns::{HostListeners, Servers, UpstreamConfig};
use coracle_image::{ImageStore, Images, ImagesConfig, RegistrySource};
use coracle_ingress::IngressConfig;
use coracle_kubelet::{Capacity, Ipam, KubeletConfig, PodDefaults};
use coracle_network::{Fabric, FabricConfig, NetError};
use coracle_policy::{Denials, Guard, GuardConfig, NotKnown};
use coracle_sandbox::{SandboxConfig, TlsTrust, WasmRuntime};
use coracle_server::{ClusterDialer, Connection, DialError};
use coracle_services::{Services, ServicesConfig};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tokio::sync::broadcast;

use super::access::AccessLog;
use super::{image_folders, ingress};
use crate::cli::{Part, UpArgs};
use crate::cluster::{Cluster, NodeConfig};
use crate::data_dir::DataDir;

/// The domain of cluster names.
pub(super) const CLUSTER_DOMAIN: &str = "cluster.local";
/// The name of the node; always the same, so that pods find their node again on another network.
const NODE_NAME: &str = "coracle";
/// How the host looks names up.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Pods that a node takes unless it is told otherwise. Upstream's 110 are for processes of their own; here a pod at rest
/// costs little, and whoever scales to a thousand expects a thousand.
const MAX_PODS: u32 = 10_000;
/// Instances for requests of http pods and for `exec`, should every pod be a command.
const INSTANCES_BESIDE_PODS: u32 = 1_000;
/// Threads that carry connections of node ports and Ingresses, and answer DNS.
const DATA_PLANE_THREADS: usize = 2;

/// The addresses that follow from the flags.
pub(super) struct Network {
    /// All pods of the cluster.
    pub(super) cluster_range: Ipv4Net,
    /// Their IPv6 addresses, if they have both families.
    pub(super) cluster_range_v6: Option<Ipv6Net>,
    /// The pods of this node.
    pub(super) pod_range: Ipv4Net,
    /// Their IPv6 addresses.
    pub(super) pod_range_v6: Option<Ipv6Net>,
    /// Services.
    pub(super) service_range: Ipv4Net,
    /// Addresses of Services with both families; guests reach them if pods have both, too.
    pub(super) service_range_v6: Option<Ipv6Net>,
    /// How many pods this node takes.
    pub(super) max_pods: u32,
    /// This node inside the pod network.
    pub(super) node_address: Ipv4Addr,
    /// The Service `kubernetes`: the first of the Services' addresses.
    pub(super) kubernetes: IpAddr,
    /// The cluster's DNS server: the tenth.
    pub(super) dns: IpAddr,
}

impl Network {
    /// Checks the flags against each other.
    pub(super) fn of(args: &UpArgs) -> Result<Self> {
        let (services, services_v6) = match *args.service_cidr.as_slice() {
            [IpNet::V4(services)] => (services, None),
            [IpNet::V4(services), IpNet::V6(v6)] => (services, Some(v6.trunc())),
            _ => {
                bail!("--service-cidr takes an IPv4 range, or one and an IPv6 range after a comma")
            }
        };
        if services_v6.is_some_and(|range| !(64..=124).contains(&range.prefix_len())) {
            bail!("the IPv6 range of --service-cidr needs a prefix of 64 to 124 bits");
        }
        let (cluster, cluster_v6) = match *args.cluster_cidr.as_slice() {
            [IpNet::V4(cluster)] => (cluster, None),
            [IpNet::V4(cluster), IpNet::V6(v6)] => (cluster, Some(v6.trunc())),
            _ => {
                bail!("--cluster-cidr takes an IPv4 range, or one and an IPv6 range after a comma")
            }
        };
        let (cluster, services) = (cluster.trunc(), services.trunc());
        let Some(pod_range) = cluster
            .subnets(args.node_cidr_mask_size)
            .ok()
            .and_then(|mut s| s.next())
        else {
            bail!(
                "--node-cidr-mask-size {} does not fit into --cluster-cidr {cluster}: it lies between {} and 32",
                args.node_cidr_mask_size,
                cluster.prefix_len()
            );
        };
        if cluster.contains(&services.network()) || services.contains(&cluster.network()) {
            bail!(
                "--cluster-cidr {cluster} and --service-cidr {services} overlap: choose ranges that do not"
            );
        }
        if services.prefix_len() > 28 || pod_range.prefix_len() > 29 {
            bail!(
                "--service-cidr needs at least 16 addresses, and a node's share of --cluster-cidr at least 8"
            );
        }
        let pod_range_v6 = cluster_v6
            .map(|cluster| node_range_v6(cluster, args.node_cidr_mask_size_ipv6, pod_range))
            .transpose()?;
        if let (Some(cluster), Some(services)) = (cluster_v6, services_v6)
            && (cluster.contains(&services.network()) || services.contains(&cluster.network()))
        {
            bail!(
                "--cluster-cidr {cluster} and --service-cidr {services} overlap: choose ranges that do not"
            );
        }
        let addresses = addresses(pod_range);
        let max_pods = args.max_pods.unwrap_or(addresses.min(MAX_PODS));
        if max_pods > addresses {
            bail!(
                "--max-pods {max_pods} needs as many addresses, and a node's share of --cluster-cidr {cluster} has \
                 {addresses}: choose a --node-cidr-mask-size below {}",
                args.node_cidr_mask_size
            );
        }
        let service =
            |offset: u32| IpAddr::V4(Ipv4Addr::from(u32::from(services.network()) + offset));
        Ok(Self {
            cluster_range: cluster,
            cluster_range_v6: cluster_v6,
            pod_range,
            pod_range_v6,
            max_pods,
            service_range: services,
            service_range_v6: services_v6,
            node_address: Ipam::node_address(pod_range),
            kubernetes: service(1),
            dns: service(10),
        })
    }

    /// This node's IPv6 address inside the pod network: the first of its range.
    pub(super) fn node_address_v6(&self) -> Option<IpAddr> {
        let range = self.pod_range_v6?;
        let first = range.network().to_bits() + 1;
        Some(Ipv6Addr::from_bits(first).into())
    }

    /// The addresses of all pods and of all Services that guests reach.
    fn ranges(&self) -> (Vec<IpNet>, Vec<IpNet>) {
        let pods = self.cluster_range_v6.map(IpNet::V6);
        let services = self.service_range_v6.map(IpNet::V6);
        let both = |first: Ipv4Net, second: Option<IpNet>| {
            [IpNet::V4(first)].into_iter().chain(second).collect()
        };
        (
            both(self.cluster_range, pods),
            both(self.service_range, services),
        )
    }

    /// The names and addresses by which pods know the API server.
    pub(super) fn names_in_cluster(&self) -> Vec<String> {
        let service = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let mut names = service.map(str::to_owned).to_vec();
        names.push(format!("kubernetes.default.svc.{CLUSTER_DOMAIN}"));
        names.push(self.kubernetes.to_string());
        names.push(self.node_address.to_string());
        names
    }
}

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
        let mut config = FabricConfig::new(network.node_address.into());
        config.second_node_address = network.node_address_v6();
        (config.pod_ranges, config.service_ranges) = network.ranges();
        let fabric = Fabric::new(config, clock.clone());
        if !args.disable.contains(&Part::Services) {
            // Pods may start before the guard does.
            let node = fabric.node_addresses().chain([network.dns]).collect();
            fabric.set_policy(Arc::new(NotKnown { node }));
        }
        let images_folder = data.join("images");
        let store = ImageStore::open(&images_folder, clock.clone())
            .context("failed to open the image store")?;
        let registries = crate::image::registries(data.path(), args.registry_hosts.as_deref());
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
                pod_range: network.pod_range,
                pod_range_v6: network.pod_range_v6,
                host_network: args.allow_host_network.clone(),
                defaults: PodDefaults {
                    cluster_domain: CLUSTER_DOMAIN.to_owned(),
                    cluster_dns: network.dns,
                    resolv_conf: RESOLV_CONF.into(),
                    pods_directory: data.join("pods"),
                },
                data_directory: data.path().to_owned(),
                capacity: capacity(network.max_pods),
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
        config.cluster_dns = network.dns;
        let (pods, services) = network.ranges();
        config.ranges = [pods, services].concat();
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
            of_node: vec![network.dns],
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

/// This node's share of the pods' IPv6 addresses, in which every pod has the place that it has in `pod_range`.
fn node_range_v6(cluster: Ipv6Net, bits: u8, pod_range: Ipv4Net) -> Result<Ipv6Net> {
    let Some(range) = cluster.subnets(bits).ok().and_then(|mut all| all.next()) else {
        bail!(
            "--node-cidr-mask-size-ipv6 {bits} does not fit into --cluster-cidr {cluster}: it lies between {} and 128",
            cluster.prefix_len()
        );
    };
    if 128 - bits < 32 - pod_range.prefix_len() {
        bail!(
            "--node-cidr-mask-size-ipv6 {bits} leaves fewer addresses than the node's IPv4 range {pod_range}: choose {} or \
             less",
            128 - (32 - pod_range.prefix_len())
        );
    }
    Ok(range)
}

/// The addresses for pods in a node's range: three are the network's, the node's and the broadcast.
fn addresses(pod_range: Ipv4Net) -> u32 {
    let all = 1u64 << (32 - u32::from(pod_range.prefix_len()));
    u32::try_from(all.saturating_sub(3)).unwrap_or(u32::MAX)
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn network(flags: &[&str]) -> Result<Network> {
        let line = ["coracle", "up"].iter().chain(flags);
        let crate::cli::Command::Up(args) = crate::cli::Cli::try_parse_from(line)?.command else {
            unreachable!("the line says up")
        };
        Network::of(&args)
    }

    #[test]
    fn the_default_addresses_are_those_of_the_documentation() {
        let network = network(&[]).expect("valid");
        assert_eq!(network.pod_range.to_string(), "10.240.0.0/18");
        assert_eq!(network.node_address.to_string(), "10.240.0.1");
        assert_eq!(network.kubernetes.to_string(), "10.96.0.1");
        assert_eq!(network.dns.to_string(), "10.96.0.10");
        let names = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "10.96.0.1",
            "10.240.0.1",
        ];
        assert_eq!(network.names_in_cluster(), names);
    }

    #[test]
    fn pods_have_both_families_if_the_flags_say_so() {
        let only = network(&[]).expect("valid");
        assert_eq!((only.pod_range_v6, only.node_address_v6()), (None, None));
        let both = network(&["--cluster-cidr", "10.240.0.0/12,fd00:10:240::/48"]).expect("valid");
        let range = both.pod_range_v6.map(|range| range.to_string());
        assert_eq!(range.as_deref(), Some("fd00:10:240::/64"));
        assert_eq!(both.node_address_v6(), "fd00:10:240::1".parse().ok());
        let error = |flags: &[&str]| network(flags).err().expect("refused").to_string();
        assert!(error(&["--cluster-cidr", "fd00::/48"]).contains("an IPv4 range"));
        let small = ["--cluster-cidr", "10.240.0.0/12,fd00::/120"];
        assert!(error(&small).contains("between 120 and 128"));
        let few = [&small[..], &["--node-cidr-mask-size-ipv6", "120"]].concat();
        assert!(
            error(&few).contains("choose 114 or less"),
            "{}",
            error(&few)
        );
        let same = [
            "--cluster-cidr",
            "10.240.0.0/12,fd00::/64",
            "--service-cidr",
            "10.96.0.0/16,fd00::/108",
        ];
        assert!(error(&same).contains("overlap"));
    }

    #[test]
    fn a_node_takes_as_many_pods_as_it_is_told_or_has_addresses_for() {
        let pods = |flags: &[&str]| network(flags).map(|network| network.max_pods);
        assert_eq!(pods(&[]).expect("valid"), 10_000);
        assert_eq!(pods(&["--max-pods", "16381"]).expect("valid"), 16_381);
        assert_eq!(pods(&["--node-cidr-mask-size", "24"]).expect("valid"), 253);
        let error = pods(&["--max-pods", "20000"]).expect_err("too many");
        assert!(error.to_string().contains("has 16381"), "{error}");
        let more = ["--max-pods", "20000", "--node-cidr-mask-size", "17"];
        assert_eq!(pods(&more).expect("valid"), 20_000);
    }

    #[test]
    fn ranges_that_do_not_work_are_explained() {
        let error = |flags: &[&str]| network(flags).err().expect("refused").to_string();
        assert!(error(&["--node-cidr-mask-size", "8"]).contains("between 12 and 32"));
        assert!(error(&["--service-cidr", "10.240.0.0/16"]).contains("overlap"));
        assert!(error(&["--service-cidr", "10.96.0.0/30"]).contains("at least 16"));
        assert!(error(&["--service-cidr", "fd00::/112"]).contains("an IPv4 range"));
        assert!(error(&["--service-cidr", "10.96.0.0/16,fd00::/32"]).contains("64 to 124"));
    }
}
