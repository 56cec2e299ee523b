//! The component: one index, what answers from it, and its place in the fabric.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coracle_client::{Context, ObjectKey};
use coracle_dns::{LookupError, Server, Servers, UpstreamConfig};
use coracle_network::{Fabric, NetError, Protocol, ResolveError, TcpStream};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::sync::watch;

use crate::access::AccessLog;
use crate::balancers;
use crate::exposed::{Door, Doors, Exposed, OpenDoors};
use crate::index::{Exposure, Found, Front, Index, Indexed, Transport};
use crate::metrics;
use crate::names::{Caches, ClusterZone, Names, ZoneConfig, attach};
use crate::router::{CANDIDATES, Router};
use crate::shown;
use crate::upstream::{HostResolver, Upstream};

/// How long a dial of a Service may take, whatever the number of its endpoints.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// How many ports of the host may be open if nothing else is said.
const HOST_PORTS: usize = 4096;

/// What Services need to know at their start.
#[derive(Clone, Debug)]
pub struct ServicesConfig {
    /// The name of this node.
    pub node: String,
    /// The domain of the cluster's names, such as `cluster.local`.
    pub cluster_domain: String,
    /// The addresses of the cluster's DNS Service.
    pub cluster_dns: Vec<IpAddr>,
    /// The addresses of the cluster, whose names nobody else is asked for.
    pub ranges: Vec<IpNet>,
    /// Where names are asked that are not the cluster's.
    pub upstreams: UpstreamConfig,
    /// The host's addresses on which node ports are opened; none opens no node port.
    pub node_port_addresses: Vec<IpAddr>,
    /// The host's addresses that Services of type LoadBalancer get; none leaves them without.
    pub load_balancer_addresses: Vec<IpAddr>,
    /// How many ports of the host may be open at once: node ports, host ports, those of load balancers and external addresses.
    pub host_ports: usize,
    /// Who is told of every connection to a Service when it has ended.
    pub access_log: Option<AccessLog>,
}

impl ServicesConfig {
    /// Names below `cluster_domain`, a DNS Service at 10.96.0.10, the host's name servers, and node
    /// ports and load balancers on 127.0.0.1.
    pub fn new(node: impl Into<String>, cluster_domain: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            cluster_domain: cluster_domain.into(),
            cluster_dns: vec![Ipv4Addr::new(10, 96, 0, 10).into()],
            ranges: Vec::new(),
            upstreams: UpstreamConfig {
                servers: Servers::File(PathBuf::from("/etc/resolv.conf")),
                stub_domains: Vec::new(),
            },
            node_port_addresses: vec![Ipv4Addr::LOCALHOST.into()],
            load_balancer_addresses: vec![Ipv4Addr::LOCALHOST.into()],
            host_ports: HOST_PORTS,
            access_log: None,
        }
    }
}

/// Why a Service could not be dialled.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// There is none of that name.
    #[error("service {0} was not found")]
    NoService(ObjectKey),
    /// It has no TCP port of that name or number.
    #[error("service {service} has no TCP port {port:?}")]
    NoPort {
        /// The Service.
        service: ObjectKey,
        /// What was asked for.
        port: String,
    },
    /// None of its endpoints is ready.
    #[error("service {0} has no ready endpoints")]
    NoEndpoints(ObjectKey),
    /// No endpoint answered in time.
    #[error("connecting to service {0} timed out")]
    TimedOut(ObjectKey),
    /// No endpoint took the connection; the cause is the last one's.
    #[error("no endpoint of service {service} took the connection")]
    Connect {
        /// The Service.
        service: ObjectKey,
        /// What the last endpoint that was tried said.
        #[source]
        source: NetError,
    },
    /// It stands for a name that leads nowhere.
    #[error("service {service} stands for {name}, which has no address: {source}")]
    Name {
        /// The Service.
        service: ObjectKey,
        /// The name.
        name: String,
        /// What was found.
        source: ResolveError,
    },
}

/// The port of whoever has the name that a Service of type ExternalName stands for; as ingress-nginx finds it.
fn external_port(service: Option<&Service>, wanted: &str) -> Option<u16> {
    let spec = service.and_then(|service| service.spec.as_ref());
    let ports = spec.and_then(|spec| spec.ports.as_ref());
    let named = ports
        .into_iter()
        .flatten()
        .find(|port| port.name.as_deref() == Some(wanted) || port.port.to_string() == wanted);
    let number = match named {
        Some(port) => match &port.target_port {
            Some(IntOrString::Int(target)) if *target != 0 => *target,
            _ => port.port,
        },
        None => wanted.parse().ok()?,
    };
    u16::try_from(number).ok().filter(|port| *port != 0)
}

/// A port of the host at which a Service or a pod is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenPort {
    /// Where it is.
    pub address: SocketAddr,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Whose it is: `service/NAME` or `pod/NAME`.
    pub owner: String,
    /// The owner's namespace.
    pub namespace: String,
}

impl OpenPort {
    fn new(door: &Door, (exposure, owner): &(Exposure, ObjectKey)) -> Self {
        let kind = match exposure {
            Exposure::HostPort(..) => "pod",
            Exposure::NodePort(..) | Exposure::Outer(..) | Exposure::Health(_) => "service",
        };
        Self {
            address: door.address,
            protocol: match door.transport {
                Transport::Tcp => Protocol::Tcp,
                Transport::Udp => Protocol::Udp,
            },
            owner: format!("{kind}/{}", owner.name),
            namespace: owner.namespace.clone(),
        }
    }
}

/// The node's Services; cheap to clone.
#[derive(Clone)]
pub struct Services {
    index: Arc<Index>,
    router: Arc<Router>,
    fabric: Arc<Fabric>,
    context: Context,
    hosts: Arc<[IpAddr]>,
    host_ports: usize,
    pool: Arc<[IpAddr]>,
    dns: Arc<Server>,
    /// Who is asked when no name server is known.
    system: Arc<HostResolver>,
    pub(crate) doors: OpenDoors,
}

impl Services {
    /// Starts to follow Services and EndpointSlices, and answers the fabric from now on. Must be
    /// called within a tokio runtime: it runs the two kinds' informers, if nobody had asked for
    /// them before.
    ///
    /// Until the caches are filled, lookups of the cluster's names wait for them.
    pub fn start(config: ServicesConfig, context: Context, fabric: Arc<Fabric>) -> Self {
        let index = Index::of_node(&config.node);
        let index = Arc::new(match config.access_log {
            Some(log) => index.telling(log),
            None => index,
        });
        let (services, slices) = (
            context.informer::<Service>(),
            context.informer::<EndpointSlice>(),
        );
        let (namespaces, nodes) = (context.informer::<Namespace>(), context.informer::<Node>());
        let pods = context.informer::<Pod>();
        let (clock, node) = (context.clock().clone(), fabric.node_addresses().collect());
        let router = Arc::new(Router::new(index.clone(), clock.clone(), node));
        let zone = ClusterZone {
            index: index.clone(),
            caches: Caches {
                services: services.lister(),
                slices: slices.lister(),
                namespaces: namespaces.lister(),
            },
            config: ZoneConfig {
                domain: config.cluster_domain.trim_matches('.').to_ascii_lowercase(),
                servers: config.cluster_dns.clone(),
                ranges: config.ranges,
            },
        };
        let dns = Arc::new(Server::new(Arc::new(zone), config.upstreams, clock.clone()));
        let names = Names::new(dns.clone(), config.cluster_dns, clock, HostResolver::new());
        let changed = index.clone();
        services.subscribe(move |change| changed.service_changed(change));
        let changed = index.clone();
        slices.subscribe(move |change| changed.slice_changed(change));
        let changed = index.clone();
        namespaces.subscribe(move |change| changed.namespace_changed(change));
        let changed = index.clone();
        nodes.subscribe(move |change| changed.node_changed(change));
        let changed = index.clone();
        pods.subscribe(move |change| changed.pod_changed(change));
        attach(&fabric, dns.clone());
        fabric.set_router(router.clone());
        fabric.set_resolver(Arc::new(names));
        Self {
            index,
            router,
            fabric,
            context,
            hosts: config.node_port_addresses.into(),
            host_ports: config.host_ports,
            pool: config.load_balancer_addresses.into(),
            dns,
            system: Arc::new(HostResolver::new()),
            doors: OpenDoors::new(watch::channel(Doors::default()).0),
        }
    }

    /// What answers DNS: for listeners of the host and of the pod network.
    pub fn dns(&self) -> &Arc<Server> {
        &self.dns
    }

    /// What went through Services, in Prometheus' text format. A Service that goes takes its figures along.
    pub fn metrics(&self) -> String {
        metrics::render(self.index.ask(|tables| tables.traffic()))
    }

    /// The Services, of one namespace or of all, with what went through them: by namespace and name, in the shape that
    /// `docs/net.md` describes.
    pub fn shown(&self, namespace: Option<&str>) -> Vec<serde_json::Value> {
        let mut all = self.index.ask(|tables| tables.all(namespace));
        all.sort_by(|one, other| one.entry.key.cmp(&other.entry.key));
        let shown = |service: &Indexed| shown::service(&service.entry, &service.flows.traffic());
        all.iter().map(shown).collect()
    }

    /// Serves clients outside until the context's stop signal. Connections that pods have taken
    /// live on after it.
    pub async fn run(&self) {
        let exposed = Exposed {
            index: self.index.clone(),
            router: self.router.clone(),
            fabric: self.fabric.clone(),
            context: self.context.clone(),
            hosts: self.hosts.clone(),
            doors: self.doors.clone(),
            limit: self.host_ports,
        };
        let balancers = balancers::run(&self.context, self.pool.clone(), self.doors.clone());
        tokio::join!(exposed.run(), balancers);
    }

    /// Where the host reaches the Service's first TCP node port; `None` if it has none, or while
    /// its listener is not open.
    pub fn node_port_address(&self, namespace: &str, name: &str) -> Option<SocketAddr> {
        let key = ObjectKey::new(namespace, name);
        let port = self.index.ask(|tables| {
            let ports = &tables.service(&key)?.entry.ports;
            let mut tcp = ports.iter().filter(|port| port.protocol == Protocol::Tcp);
            tcp.find_map(|port| port.node_port)
        })?;
        let doors = self.doors.borrow();
        let mut open = doors.open.keys();
        let is_it = |door: &&Door| door.transport == Transport::Tcp && door.address.port() == port;
        open.find(is_it).map(|door| door.address)
    }

    /// Tells of the ports of the host that are open, at once and whenever further ones are, or one is another's; never ends.
    pub async fn tell_of_ports(&self, mut told: impl FnMut(Vec<OpenPort>)) {
        let mut doors = self.doors.subscribe();
        let mut known: BTreeMap<Door, (Exposure, ObjectKey)> = BTreeMap::new();
        loop {
            let open = doors.borrow_and_update().open.clone();
            let news = open
                .iter()
                .filter(|(door, held)| known.get(door) != Some(held));
            let news: Vec<_> = news.map(|(door, held)| OpenPort::new(door, held)).collect();
            known = open;
            if !news.is_empty() {
                told(news);
            }
            if doors.changed().await.is_err() {
                return; // the sender is in self
            }
        }
    }

    /// The endpoints for a connection from `client` to a TCP port of a Service, in the order to be tried; at least one.
    /// `port` is the port's name or number; empty means the only one.
    pub fn endpoints(
        &self,
        client: IpAddr,
        service: &ObjectKey,
        port: &str,
    ) -> Result<Vec<SocketAddr>, DialError> {
        let found = self.find(service, port)?;
        let endpoints = found.port().endpoints.any();
        match self.router.candidates(client, &found, endpoints) {
            none if none.is_empty() => Err(DialError::NoEndpoints(service.clone())),
            some => Ok(some),
        }
    }

    /// The same for whoever speaks to a Service on behalf of clients outside, such as an Ingress: a Service of type
    /// ExternalName stands for the addresses of its name, which is looked up as the node would. `port` is then the name
    /// or number of one of its ports, whose target port counts, or any number.
    pub async fn backends(
        &self,
        client: IpAddr,
        service: &ObjectKey,
        port: &str,
    ) -> Result<Vec<SocketAddr>, DialError> {
        let front = self
            .index
            .ask(|tables| Some(tables.service(service)?.entry.front.clone()));
        let Some(Front::ExternalName(name)) = front else {
            return self.endpoints(client, service, port);
        };
        let object = self.context.lister::<Service>().get(service);
        let Some(number) = external_port(object.as_deref(), port) else {
            return Err(DialError::NoPort {
                service: service.clone(),
                port: port.to_owned(),
            });
        };
        let addresses = self.addresses(&name).await;
        let mut addresses = addresses.map_err(|source| DialError::Name {
            service: service.clone(),
            name,
            source,
        })?;
        addresses.truncate(CANDIDATES);
        let at = |address| SocketAddr::new(address, number);
        Ok(addresses.into_iter().map(at).collect())
    }

    /// The addresses of a name, as the node knows it.
    async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        match self.dns.addresses(name).await {
            Ok(addresses) => Ok(addresses),
            Err(LookupError::NotFound) => Err(ResolveError::NotFound(name.to_owned())),
            Err(LookupError::Again) => Err(ResolveError::Again(name.to_owned())),
            Err(LookupError::Failed) => Err(ResolveError::Failed(name.to_owned())),
            Err(LookupError::NoServers(name)) => self.system.lookup(&name).await,
        }
    }

    /// Connects from the node to one endpoint that [`endpoints`](Self::endpoints) gave for a Service, which counts it.
    pub async fn dial_endpoint(
        &self,
        service: &ObjectKey,
        endpoint: SocketAddr,
    ) -> Result<TcpStream, NetError> {
        let flows = self
            .index
            .ask(|tables| Some(tables.service(service)?.flows.clone()));
        self.fabric.dial_for(endpoint, flows).await
    }

    /// Connects from the node to an endpoint of a Service, as the API server's proxy does. `port`
    /// is the name or the number of one of its TCP ports; empty means the only one.
    pub async fn dial(
        &self,
        namespace: &str,
        name: &str,
        port: &str,
    ) -> Result<TcpStream, DialError> {
        let service = ObjectKey::new(namespace, name);
        let found = self.find(&service, port)?;
        let endpoints = found.port().endpoints.any();
        let candidates = self
            .router
            .candidates(self.fabric.node_address(), &found, endpoints);
        let mut last = None;
        let tries = async {
            for endpoint in candidates {
                let flows = Some(found.service.flows.clone());
                match self.fabric.dial_for(endpoint, flows).await {
                    Ok(stream) => return Some(stream),
                    Err(error) => last = Some(error),
                }
            }
            None
        };
        // One endpoint that never answers ends on the fabric's own time-out; many must not add up.
        if let Ok(Some(stream)) = tokio::time::timeout(DIAL_TIMEOUT, tries).await {
            return Ok(stream);
        }
        Err(match last {
            Some(source) => DialError::Connect { service, source },
            None if endpoints.is_empty() => DialError::NoEndpoints(service),
            None => DialError::TimedOut(service),
        })
    }

    fn find(&self, service: &ObjectKey, port: &str) -> Result<Found, DialError> {
        self.index.ask(|tables| {
            let Some(indexed) = tables.service(service) else {
                return Err(DialError::NoService(service.clone()));
            };
            indexed.tcp_port(port).ok_or_else(|| DialError::NoPort {
                service: service.clone(),
                port: port.to_owned(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::service;

    #[test]
    fn the_port_behind_an_external_name_is_found_as_controllers_find_it() {
        let spec = json!({
            "type": "ExternalName", "externalName": "example.com",
            "ports": [
                {"name": "http", "port": 80, "targetPort": 8080},
                {"name": "plain", "port": 81},
            ],
        });
        let named = service("elsewhere", spec);
        let port = |wanted: &str| external_port(Some(&named), wanted);
        assert_eq!(port("http"), Some(8080));
        assert_eq!(port("80"), Some(8080));
        assert_eq!(port("plain"), Some(81));
        assert_eq!(port("9000"), Some(9000));
        assert_eq!(port("other"), None);
        assert_eq!(port("0"), None);
        assert_eq!(port("70000"), None);
        assert_eq!(external_port(None, "80"), Some(80));
    }
}
