//! What is asked at every connect and lookup: Services by address, port, name, and place outside.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use coracle_client::ObjectKey;
use coracle_network::{Protocol, ServiceFlows, ServiceTraffic};

use super::entry::{Front, Port, ServiceEntry};

/// A place outside the pod network at which a Service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Exposure {
    /// A port of the node, on whichever of its addresses.
    NodePort(u16, Transport),
    /// A port of an address of its own: of a load balancer, or an external one.
    Outer(SocketAddr, Transport),
    /// A port of the host that a pod asks for: on that address, or without one where node ports are.
    HostPort(Option<IpAddr>, u16, Transport),
    /// A port of the node at which a Service tells how many endpoints this has.
    Health(u16),
}

impl Exposure {
    /// The address of a Service's own that this is a port of.
    fn outer(self) -> Option<IpAddr> {
        match self {
            Self::Outer(address, _) => Some(address.ip()),
            Self::NodePort(..) | Self::HostPort(..) | Self::Health(_) => None,
        }
    }
}

/// [`Protocol`] with an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

impl From<Protocol> for Transport {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
        }
    }
}

/// Services by everything that a connection or a lookup may name.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Tables {
    services: HashMap<ObjectKey, Indexed>,
    /// By cluster address and port.
    ports: HashMap<(SocketAddr, Protocol), Claims>,
    /// By cluster address alone.
    addresses: HashMap<IpAddr, Claims>,
    /// By port of the node, or of an outer address.
    exposures: HashMap<Exposure, Claims>,
    /// By address of a ready endpoint.
    endpoints: HashMap<IpAddr, BTreeSet<ObjectKey>>,
    namespaces: HashSet<String>,
    /// By port of the host, whose pods want it, and where they serve it.
    host_ports: BTreeMap<Exposure, BTreeMap<ObjectKey, SocketAddr>>,
}

/// An entry with what outlives its rebuilding.
#[derive(Clone, Debug)]
pub(crate) struct Indexed {
    pub(crate) entry: Arc<ServiceEntry>,
    /// Counts picks, so that endpoints take turns.
    turn: Arc<AtomicUsize>,
    /// Counts connections.
    pub(crate) flows: Arc<ServiceFlows>,
}

impl Indexed {
    /// The number of the next pick.
    pub(crate) fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// The TCP port of that name or number; the only one if `wanted` is empty.
    pub(crate) fn tcp_port(&self, wanted: &str) -> Option<Found> {
        let is_tcp = |port: &&Port| port.protocol == Protocol::Tcp;
        let only = wanted.is_empty() && self.entry.ports.iter().filter(is_tcp).count() == 1;
        let number = wanted.parse().ok();
        let port = self.entry.ports.iter().position(|port| {
            is_tcp(&port) && (only || port.name == wanted || Some(port.port) == number)
        })?;
        Some(Found {
            service: self.clone(),
            port,
        })
    }
}

impl PartialEq for Indexed {
    fn eq(&self, other: &Self) -> bool {
        self.entry == other.entry
    }
}

/// A Service and the position of one of its ports.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    pub(crate) service: Indexed,
    port: usize,
}

impl Found {
    pub(crate) fn port(&self) -> &Port {
        &self.service.entry.ports[self.port]
    }
}

/// All who claim one address or port, in the order in which they would have it. The server keeps two from claiming the same
/// cluster address or node port; should it happen all the same, the first key has it, whatever came first. Anybody may claim an
/// external address: a load balancer that was given it comes before who only names it.
#[derive(Debug, Default, PartialEq)]
struct Claims(Vec<Found>);

impl Claims {
    fn first(&self) -> Option<&Found> {
        self.0.first()
    }

    /// Adds a claim: on an outer address, or on something else.
    fn add(&mut self, found: Found, outer: Option<IpAddr>) {
        let order = |other: &Found| {
            let entry = &other.service.entry;
            let was_given = outer.is_some_and(|outer| entry.balanced.contains(&outer));
            (!was_given, entry.key.clone(), other.port)
        };
        let at = self.0.partition_point(|other| order(other) < order(&found));
        self.0.insert(at, found);
    }

    /// Whose they are, each once.
    fn keys(&self) -> Vec<ObjectKey> {
        let mut keys = Vec::new();
        for found in &self.0 {
            let key = &found.service.entry.key;
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
        keys
    }
}

impl Tables {
    /// Puts `entry` in, in place of the one of the same key. Tells whether exposures changed.
    pub(super) fn put(&mut self, entry: ServiceEntry) -> bool {
        let before = self.services.get(&entry.key).cloned();
        let (turn, flows) = before.as_ref().map_or_else(Default::default, |old| {
            (old.turn.clone(), old.flows.clone())
        });
        let new = Indexed {
            entry: Arc::new(entry),
            turn,
            flows,
        };
        self.withdraw(&new.entry.key);
        for (port, found) in claims(&new) {
            for address in cluster_ips(&new.entry) {
                let at = (SocketAddr::new(*address, port.port), port.protocol);
                let claims = self.ports.entry(at).or_default();
                claims.add(found.clone(), None);
            }
            for exposure in exposures_of(&new.entry, port) {
                let claims = self.exposures.entry(exposure).or_default();
                claims.add(found.clone(), exposure.outer());
            }
        }
        for address in cluster_ips(&new.entry) {
            let found = Found {
                service: new.clone(),
                port: 0,
            };
            let claims = self.addresses.entry(*address).or_default();
            claims.add(found, None);
        }
        let old = before.as_ref().map(|old| old.entry.as_ref());
        self.move_endpoints(&new.entry.key, old, Some(&new.entry));
        // Who was given an address comes before who names it.
        let turns = old.is_some_and(|old| old.balanced != new.entry.balanced);
        let changed = turns || exposures(old) != exposures(Some(&new.entry));
        self.services.insert(new.entry.key.clone(), new);
        changed
    }

    /// Takes a Service out. Tells whether it was exposed.
    pub(super) fn take(&mut self, key: &ObjectKey) -> bool {
        self.withdraw(key);
        let Some(old) = self.services.remove(key) else {
            return false;
        };
        self.move_endpoints(key, Some(&old.entry), None);
        !exposures(Some(&old.entry)).is_empty()
    }

    /// Takes a Service's claims back.
    fn withdraw(&mut self, key: &ObjectKey) {
        let Some(old) = self.services.get(key).cloned() else {
            return;
        };
        for (port, _) in claims(&old) {
            for address in cluster_ips(&old.entry) {
                let at = (SocketAddr::new(*address, port.port), port.protocol);
                withdraw(&mut self.ports, &at, key);
            }
            for exposure in exposures_of(&old.entry, port) {
                withdraw(&mut self.exposures, &exposure, key);
            }
        }
        for address in cluster_ips(&old.entry) {
            withdraw(&mut self.addresses, address, key);
        }
    }

    /// Brings the table of endpoints from one entry to the next; what both have is not touched.
    fn move_endpoints(
        &mut self,
        key: &ObjectKey,
        old: Option<&ServiceEntry>,
        new: Option<&ServiceEntry>,
    ) {
        let sorted =
            |entry: Option<&ServiceEntry>| entry.map_or(Vec::new(), |e| e.addresses.clone());
        let (old, new) = (sorted(old), sorted(new));
        for gone in old.iter().filter(|ip| new.binary_search(ip).is_err()) {
            if let Some(services) = self.endpoints.get_mut(gone) {
                services.remove(key);
                if services.is_empty() {
                    self.endpoints.remove(gone);
                }
            }
        }
        for come in new.iter().filter(|ip| old.binary_search(ip).is_err()) {
            self.endpoints.entry(*come).or_default().insert(key.clone());
        }
    }

    /// What went through each Service.
    pub(crate) fn traffic(&self) -> Vec<(ObjectKey, ServiceTraffic)> {
        let services = self.services.iter();
        services
            .map(|(key, service)| (key.clone(), service.flows.traffic()))
            .collect()
    }

    /// The Services of one namespace, or of all, in no order.
    pub(crate) fn all(&self, namespace: Option<&str>) -> Vec<Indexed> {
        let services = self.services.iter();
        let wanted = services.filter(|(key, _)| namespace.is_none_or(|name| key.namespace == name));
        wanted.map(|(_, service)| service.clone()).collect()
    }

    /// The Service of that key.
    pub(crate) fn service(&self, key: &ObjectKey) -> Option<&Indexed> {
        self.services.get(key)
    }

    /// Who serves a port of a cluster address.
    pub(crate) fn at(&self, address: SocketAddr, protocol: Protocol) -> Option<&Found> {
        self.ports.get(&(address, protocol))?.first()
    }

    /// The Service that has a cluster address, whatever its ports.
    pub(crate) fn service_at(&self, address: IpAddr) -> Option<&Indexed> {
        Some(&self.addresses.get(&address)?.first()?.service)
    }

    /// The Services that have a ready endpoint at the address, in order of their keys.
    pub(crate) fn services_behind(&self, address: IpAddr) -> impl Iterator<Item = &Indexed> {
        let keys = self.endpoints.get(&address).into_iter().flatten();
        keys.filter_map(|key| self.services.get(key))
    }

    /// Takes a namespace in, or out.
    pub(super) fn set_namespace(&mut self, name: String, is_there: bool) {
        if is_there {
            self.namespaces.insert(name);
        } else {
            self.namespaces.remove(&name);
        }
    }

    /// Whether there is a namespace of that name.
    pub(crate) fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.contains(name)
    }

    /// Who serves a place outside.
    pub(crate) fn at_exposure(&self, exposure: &Exposure) -> Option<&Found> {
        self.exposures.get(exposure)?.first()
    }

    /// Which pod serves a port of the host: the first, should several want it.
    pub(crate) fn at_host_port(&self, exposure: &Exposure) -> Option<SocketAddr> {
        self.host_ports.get(exposure)?.values().next().copied()
    }

    pub(super) fn has_host_ports(&self, pod: &ObjectKey) -> bool {
        self.host_ports.values().any(|pods| pods.contains_key(pod))
    }

    /// Takes the ports of the host over that a pod wants. Tells whether exposures changed.
    pub(super) fn put_host_ports(
        &mut self,
        pod: &ObjectKey,
        wanted: Vec<(Exposure, SocketAddr)>,
    ) -> bool {
        let before: Vec<Exposure> = self.host_ports.keys().copied().collect();
        self.host_ports.retain(|_, pods| {
            pods.remove(pod);
            !pods.is_empty()
        });
        for (exposure, at) in wanted {
            let pods = self.host_ports.entry(exposure).or_default();
            pods.insert(pod.clone(), at);
        }
        !self.host_ports.keys().eq(before.iter())
    }

    /// All places outside at which Services and pods are reached, with who wants each: the first one has it.
    pub(crate) fn exposures(&self) -> BTreeMap<Exposure, Vec<ObjectKey>> {
        let services = self.exposures.iter();
        let services = services.map(|(exposure, claims)| (*exposure, claims.keys()));
        let pods = self.host_ports.iter();
        let pods = pods.map(|(exposure, pods)| (*exposure, pods.keys().cloned().collect()));
        services.chain(pods).collect()
    }
}

/// The ports of a Service with the claim that each stands for.
fn claims(service: &Indexed) -> impl Iterator<Item = (&Port, Found)> {
    service.entry.ports.iter().enumerate().map(|(index, port)| {
        let found = Found {
            service: service.clone(),
            port: index,
        };
        (port, found)
    })
}

fn cluster_ips(entry: &ServiceEntry) -> &[IpAddr] {
    match &entry.front {
        Front::ClusterIps(addresses) => addresses,
        Front::Headless | Front::ExternalName(_) => &[],
    }
}

/// Where one port of a Service is reached from outside.
fn exposures_of(entry: &ServiceEntry, port: &Port) -> impl Iterator<Item = Exposure> {
    let transport = Transport::from(port.protocol);
    let node = port
        .node_port
        .map(|port| Exposure::NodePort(port, transport));
    let number = port.port;
    let outer = entry.outer.iter();
    let outer = outer.map(move |ip| Exposure::Outer(SocketAddr::new(*ip, number), transport));
    // The Service's own, which goes by its first port.
    let is_first = entry.ports.first().is_some_and(|first| first == port);
    let health = entry.health_port.filter(|_| is_first).map(Exposure::Health);
    node.into_iter().chain(outer).chain(health)
}

fn exposures(entry: Option<&ServiceEntry>) -> Vec<Exposure> {
    let ports = |entry: &ServiceEntry| {
        let of = |port: &Port| exposures_of(entry, port).collect::<Vec<_>>();
        entry.ports.iter().flat_map(of).collect()
    };
    entry.map_or_else(Vec::new, ports)
}

fn withdraw<K: Hash + Eq>(table: &mut HashMap<K, Claims>, at: &K, service: &ObjectKey) {
    if let Some(claims) = table.get_mut(at) {
        claims.0.retain(|found| found.service.entry.key != *service);
        if claims.0.is_empty() {
            table.remove(at);
        }
    }
}
