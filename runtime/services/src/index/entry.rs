//! What one Service means to whoever connects to it: a pure function of its objects.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use coracle_client::ObjectKey;
use coracle_network::Protocol;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// Upstream's default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_SECONDS: i32 = 10_800;

/// One Service with its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceEntry {
    pub(crate) key: ObjectKey,
    pub(crate) front: Front,
    /// In the order of the manifest.
    pub(crate) ports: Vec<Port>,
    /// Addresses of the ready endpoints, sorted.
    pub(crate) addresses: Vec<IpAddr>,
    /// Ready endpoints that have a name of their own below the Service's name, in lower case.
    pub(crate) hostnames: BTreeMap<String, Vec<IpAddr>>,
    /// The same the other way around; the first name counts.
    pub(crate) names: BTreeMap<IpAddr, String>,
    /// Addresses beside its own: `externalIPs`, and those of its load balancer.
    pub(crate) outer: Vec<IpAddr>,
    /// Those of its load balancer alone.
    pub(crate) balanced: Vec<IpAddr>,
    /// Whom its load balancer lets in; everybody, if it names none.
    pub(crate) sources: Vec<IpNet>,
    /// Where load balancers elsewhere ask whether this node has endpoints.
    pub(crate) health_port: Option<u16>,
    /// How many ready ones it has; one with an address of each family counts once.
    pub(crate) local_ready: usize,
    /// How long a client stays with its endpoint; `None` without session affinity.
    pub(crate) affinity: Option<Duration>,
}

impl ServiceEntry {
    /// Whether `client` may come by the outer address `at`. `loadBalancerSourceRanges` count at the load balancer's addresses
    /// alone, and among themselves those of the address' family (`proxy/serviceport.go`).
    pub(crate) fn lets_in(&self, at: IpAddr, client: IpAddr) -> bool {
        if self.sources.is_empty() || !self.balanced.contains(&at) {
            return true;
        }
        let of_family = |range: &&IpNet| range.addr().is_ipv4() == at.is_ipv4();
        let mut ranges = self.sources.iter().filter(of_family).peekable();
        ranges.peek().is_none() || ranges.any(|range| range.contains(&client.to_canonical()))
    }
}

/// What the Service's name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    /// Its own addresses, behind which the endpoints are.
    ClusterIps(Vec<IpAddr>),
    /// The endpoints themselves.
    Headless,
    /// Another name.
    ExternalName(String),
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) node_port: Option<u16>,
    /// Where the node itself, and pods that come by a node port or an outer address, are led.
    pub(crate) endpoints: Endpoints,
    /// Where a cluster address leads: to this node's alone if `internalTrafficPolicy` says so.
    pub(crate) internal: Endpoints,
    /// Where clients outside are led: to this node's alone if `externalTrafficPolicy` says so.
    pub(crate) external: Endpoints,
}

/// Where this node is, for policies and hints that ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Here {
    /// The node's name.
    pub(crate) node: String,
    /// Its label `topology.kubernetes.io/zone`.
    pub(crate) zone: Option<String>,
}

/// Where connections may go, sorted, by address family. Shared, so that a pick copies no list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoints {
    v4: Arc<[SocketAddr]>,
    v6: Arc<[SocketAddr]>,
}

impl Endpoints {
    /// Of the given endpoints, each once.
    fn new(mut all: Vec<SocketAddr>) -> Self {
        all.sort_unstable();
        all.dedup();
        // IPv4 sorts before IPv6.
        let v6 = all.split_off(all.partition_point(SocketAddr::is_ipv4));
        Self {
            v4: all.into(),
            v6: v6.into(),
        }
    }

    /// Those of the family of `address`.
    pub(crate) fn of_family(&self, address: IpAddr) -> &[SocketAddr] {
        if address.is_ipv4() {
            &self.v4
        } else {
            &self.v6
        }
    }

    /// Those of the family of `address`, else those of the other.
    pub(crate) fn preferring(&self, address: IpAddr) -> &[SocketAddr] {
        match self.of_family(address) {
            [] => self.any(),
            some => some,
        }
    }

    /// Those of both families.
    pub(crate) fn all(&self) -> impl Iterator<Item = SocketAddr> {
        self.v4.iter().chain(&*self.v6).copied()
    }

    /// Those of one family, for who does not care which.
    pub(crate) fn any(&self) -> &[SocketAddr] {
        if self.v4.is_empty() {
            &self.v6
        } else {
            &self.v4
        }
    }
}

/// What `service` means, given all EndpointSlices that carry its name.
///
/// Ports of slices are matched by name and protocol. A port without any ready endpoint is served
/// by those that are ending but still serve, as upstream's proxy does (KEP-1669). Hints narrow the
/// choice down to the node or its zone only if all ready endpoints have them and some fit
/// (`topologyModeFromHints` in `pkg/proxy/topology.go`).
pub(crate) fn entry<'a>(
    service: &Service,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    here: &Here,
) -> ServiceEntry {
    let none = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&none);
    let publish_all = spec.publish_not_ready_addresses == Some(true);
    let wanted: Vec<&ServicePort> = spec.ports.iter().flatten().collect();
    let mut backends: Vec<Candidates> = wanted.iter().map(|_| Candidates::default()).collect();
    let mut addresses = Vec::new();
    let mut local: [BTreeSet<IpAddr>; 2] = Default::default();
    let mut hostnames: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();

    for slice in slices {
        if !matches!(slice.address_type.as_str(), "IPv4" | "IPv6") {
            continue; // FQDN slices are nobody's endpoints, as upstream
        }
        // Which of the Service's ports this slice serves, and where.
        let ports: Vec<(usize, u16)> = wanted
            .iter()
            .enumerate()
            .filter_map(|(index, port)| Some((index, target(port, slice)?)))
            .collect();
        for endpoint in slice.endpoints.iter().flatten() {
            let Some(address) = address_of(endpoint) else {
                continue;
            };
            let readiness = if publish_all {
                Readiness::Ready
            } else {
                readiness(endpoint)
            };
            if readiness == Readiness::Ready {
                addresses.push(address);
                if let Some(hostname) = endpoint.hostname.as_deref().filter(|name| !name.is_empty())
                {
                    hostnames
                        .entry(hostname.to_ascii_lowercase())
                        .or_default()
                        .push(address);
                }
            }
            let place = Place::of(endpoint, here);
            if readiness == Readiness::Ready && place.local {
                local[usize::from(address.is_ipv6())].insert(address);
            }
            for (index, port) in &ports {
                backends[*index].add(readiness, place, SocketAddr::new(address, *port));
            }
        }
    }

    addresses.sort_unstable();
    addresses.dedup();
    for all in hostnames.values_mut() {
        all.sort_unstable();
        all.dedup();
    }
    let mut names = BTreeMap::new();
    for (name, all) in &hostnames {
        for address in all {
            names.entry(*address).or_insert_with(|| name.clone());
        }
    }
    let policies = Policies {
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
    };
    let ports = wanted
        .into_iter()
        .zip(backends)
        .filter_map(|(port, candidates)| port_of(port, candidates, policies))
        .collect();
    ServiceEntry {
        key: ObjectKey::of(service),
        front: front_of(spec),
        ports,
        addresses,
        hostnames,
        names,
        outer: outer_of(service, spec),
        balanced: balanced_of(service, spec),
        sources: sources_of(spec),
        health_port: health_port_of(spec).filter(|_| policies.external_local),
        local_ready: local.iter().map(BTreeSet::len).max().unwrap_or_default(),
        affinity: affinity_of(spec),
    }
}

/// Which endpoints of this node alone are wanted.
#[derive(Clone, Copy)]
struct Policies {
    internal_local: bool,
    external_local: bool,
}

/// How near an endpoint is.
#[derive(Clone, Copy)]
struct Place {
    /// It runs on this node.
    local: bool,
    /// Whether its hints name this node; `None` without such hints.
    for_node: Option<bool>,
    /// Whether its hints name this node's zone; `None` without such hints.
    for_zone: Option<bool>,
}

impl Place {
    fn of(endpoint: &Endpoint, here: &Here) -> Self {
        let hints = endpoint.hints.as_ref();
        let nodes = hints.and_then(|hints| hints.for_nodes.as_ref());
        let zones = hints.and_then(|hints| hints.for_zones.as_ref());
        Self {
            local: endpoint.node_name.as_deref() == Some(here.node.as_str()),
            for_node: nodes
                .filter(|all| !all.is_empty())
                .map(|all| all.iter().any(|node| node.name == here.node)),
            for_zone: zones.filter(|all| !all.is_empty()).map(|all| {
                all.iter()
                    .any(|zone| Some(&zone.name) == here.zone.as_ref())
            }),
        }
    }
}

/// The endpoints of one port, while they are gathered.
#[derive(Default)]
struct Candidates {
    ready: Vec<(SocketAddr, Place)>,
    ending: Vec<(SocketAddr, Place)>,
}

impl Candidates {
    fn add(&mut self, readiness: Readiness, place: Place, endpoint: SocketAddr) {
        match readiness {
            Readiness::Ready => self.ready.push((endpoint, place)),
            Readiness::Ending => self.ending.push((endpoint, place)),
            Readiness::Not => {}
        }
    }

    /// Those of the whole cluster, as far as hints say that they are for this node.
    fn of_cluster(&self) -> Endpoints {
        let hinted = |hint: fn(&Place) -> Option<bool>| {
            let mut hints = self.ready.iter().map(|(_, place)| hint(place));
            let all = self.ready.iter().all(|(_, place)| hint(place).is_some());
            all && hints.any(|hint| hint == Some(true))
        };
        let fits: fn(&Place) -> bool = if hinted(|place| place.for_node) {
            |place| place.for_node == Some(true)
        } else if hinted(|place| place.for_zone) {
            |place| place.for_zone == Some(true)
        } else {
            |_| true
        };
        match self.ready.is_empty() {
            true => chosen(&self.ending, |_| true),
            false => chosen(&self.ready, fits),
        }
    }

    /// Those of this node.
    fn of_node(&self) -> Endpoints {
        let local = |place: &Place| place.local;
        match self.ready.iter().any(|(_, place)| place.local) {
            true => chosen(&self.ready, local),
            false => chosen(&self.ending, local),
        }
    }
}

fn chosen(all: &[(SocketAddr, Place)], fits: impl Fn(&Place) -> bool) -> Endpoints {
    let fitting = all.iter().filter(|(_, place)| fits(place));
    Endpoints::new(fitting.map(|(address, _)| *address).collect())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Readiness {
    Ready,
    /// Terminating, but still serving: better than nothing.
    Ending,
    Not,
}

/// An unknown condition counts as ready (`EndpointConditions`).
fn readiness(endpoint: &Endpoint) -> Readiness {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    if ready {
        Readiness::Ready
    } else if conditions.terminating == Some(true) && conditions.serving.unwrap_or(ready) {
        Readiness::Ending
    } else {
        Readiness::Not
    }
}

/// The first address is the only one that counts, as upstream.
fn address_of(endpoint: &Endpoint) -> Option<IpAddr> {
    endpoint.addresses.first()?.parse().ok()
}

/// The port of the slice's endpoints that serves `port`.
fn target(port: &ServicePort, slice: &EndpointSlice) -> Option<u16> {
    let name = port.name.as_deref().unwrap_or_default();
    let wanted = protocol_of(port.protocol.as_deref())?;
    let found = slice.ports.iter().flatten().find(|candidate| {
        candidate.name.as_deref().unwrap_or_default() == name
            && protocol_of(candidate.protocol.as_deref()) == Some(wanted)
    })?;
    u16::try_from(found.port?).ok().filter(|port| *port != 0)
}

/// SCTP is not spoken here.
fn protocol_of(name: Option<&str>) -> Option<Protocol> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    }
}

fn port_of(port: &ServicePort, candidates: Candidates, policies: Policies) -> Option<Port> {
    let endpoints = candidates.of_cluster();
    let local = match policies.internal_local || policies.external_local {
        true => candidates.of_node(),
        false => endpoints.clone(),
    };
    let choose = |only_local| match only_local {
        true => local.clone(),
        false => endpoints.clone(),
    };
    Some(Port {
        name: port.name.clone().unwrap_or_default(),
        port: u16::try_from(port.port).ok()?,
        protocol: protocol_of(port.protocol.as_deref())?,
        node_port: port
            .node_port
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port != 0),
        internal: choose(policies.internal_local),
        external: choose(policies.external_local),
        endpoints,
    })
}

fn front_of(spec: &ServiceSpec) -> Front {
    if spec.type_.as_deref() == Some("ExternalName") {
        let name = spec.external_name.clone().unwrap_or_default();
        return Front::ExternalName(name.trim_end_matches('.').to_ascii_lowercase());
    }
    let mut all: Vec<IpAddr> = spec
        .cluster_ips
        .iter()
        .flatten()
        .chain(&spec.cluster_ip)
        .filter_map(|address| address.parse().ok())
        .collect();
    let mut seen = Vec::new();
    all.retain(|address| {
        !seen.contains(address) && {
            seen.push(*address);
            true
        }
    });
    if spec.cluster_ip.as_deref() == Some("None") {
        Front::Headless
    } else {
        Front::ClusterIps(all)
    }
}

/// A load balancer's address of mode `Proxy` is reached only by way of what has it (KEP-1860).
fn outer_of(service: &Service, spec: &ServiceSpec) -> Vec<IpAddr> {
    let external = spec.external_ips.iter().flatten();
    let mut all = balanced_of(service, spec);
    all.extend(external.filter_map(|address| address.parse::<IpAddr>().ok()));
    all.sort_unstable();
    all.dedup();
    all
}

fn health_port_of(spec: &ServiceSpec) -> Option<u16> {
    let port = spec.health_check_node_port?;
    let is_balanced = spec.type_.as_deref() == Some("LoadBalancer");
    u16::try_from(port)
        .ok()
        .filter(|port| is_balanced && *port > 0)
}

/// What cannot be read lets nobody in.
fn sources_of(spec: &ServiceSpec) -> Vec<IpNet> {
    let ranges = spec.load_balancer_source_ranges.iter().flatten();
    let nobody = IpNet::from(IpAddr::from([0, 0, 0, 0]));
    ranges
        .map(|range| range.trim().parse().unwrap_or(nobody))
        .collect()
}

fn balanced_of(service: &Service, spec: &ServiceSpec) -> Vec<IpAddr> {
    let status = service.status.as_ref();
    let ingress = status
        .and_then(|status| status.load_balancer.as_ref())
        .and_then(|balancer| balancer.ingress.as_ref())
        .filter(|_| spec.type_.as_deref() == Some("LoadBalancer"));
    let balanced = ingress
        .into_iter()
        .flatten()
        .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|ingress| ingress.ip.as_deref());
    balanced
        .filter_map(|address| address.parse().ok())
        .collect()
}

fn affinity_of(spec: &ServiceSpec) -> Option<Duration> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let configured = spec
        .session_affinity_config
        .as_ref()
        .and_then(|config| config.client_ip.as_ref())
        .and_then(|client| client.timeout_seconds);
    let seconds = configured.unwrap_or(AFFINITY_SECONDS).max(0);
    Some(Duration::from_secs(seconds.unsigned_abs().into()))
}
