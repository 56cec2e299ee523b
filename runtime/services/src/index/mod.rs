//! All Services of the cluster, ready to be asked at every connect.
//!
//! [`Tables`] are what is asked; they change one Service at a time. The objects that they are
//! made of are kept beside them under a lock of their own, so that building the entry of a large
//! Service holds up nobody who asks.

mod entry;
mod host_ports;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use coracle_client::{Change, ObjectKey};
use coracle_network::{Protocol, ServiceFlows, ServiceTraffic};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::access::{ACCESS_LOG_ANNOTATION, AccessLog};
pub(crate) use entry::{Front, Here, Port, ServiceEntry, entry};

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that says where a node is.
const ZONE: &str = "topology.kubernetes.io/zone";

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

/// All who claim one address or port, by key. The server keeps two from claiming the same; should
/// it happen all the same, the first key has it, whatever came first.
#[derive(Debug, Default, PartialEq)]
struct Claims(Vec<Found>);

impl Claims {
    fn first(&self) -> Option<&Found> {
        self.0.first()
    }

    fn add(&mut self, found: Found) {
        let order = |other: &Found| (other.service.entry.key.clone(), other.port);
        let at = self.0.partition_point(|other| order(other) < order(&found));
        self.0.insert(at, found);
    }
}

impl Tables {
    /// Puts `entry` in, in place of the one of the same key. Tells whether exposures changed.
    fn put(&mut self, entry: ServiceEntry) -> bool {
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
                self.ports.entry(at).or_default().add(found.clone());
            }
            for exposure in exposures_of(&new.entry, port) {
                self.exposures
                    .entry(exposure)
                    .or_default()
                    .add(found.clone());
            }
        }
        for address in cluster_ips(&new.entry) {
            let found = Found {
                service: new.clone(),
                port: 0,
            };
            self.addresses.entry(*address).or_default().add(found);
        }
        let old = before.as_ref().map(|old| old.entry.as_ref());
        self.move_endpoints(&new.entry.key, old, Some(&new.entry));
        let changed = exposures(old) != exposures(Some(&new.entry));
        self.services.insert(new.entry.key.clone(), new);
        changed
    }

    /// Takes a Service out. Tells whether it was exposed.
    fn take(&mut self, key: &ObjectKey) -> bool {
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

    fn has_host_ports(&self, pod: &ObjectKey) -> bool {
        self.host_ports.values().any(|pods| pods.contains_key(pod))
    }

    /// Takes the ports of the host over that a pod wants. Tells whether exposures changed.
    fn put_host_ports(&mut self, pod: &ObjectKey, wanted: Vec<(Exposure, SocketAddr)>) -> bool {
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

    /// All places outside at which Services and pods are reached, with whose each is.
    pub(crate) fn exposures(&self) -> BTreeMap<Exposure, ObjectKey> {
        let holder = |claims: &Claims| Some(claims.first()?.service.entry.key.clone());
        let services = self
            .exposures
            .iter()
            .filter_map(|(exposure, claims)| Some((*exposure, holder(claims)?)));
        let pods = self.host_ports.iter();
        let pods =
            pods.filter_map(|(exposure, pods)| Some((*exposure, pods.keys().next()?.clone())));
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

/// The tables, kept up to date by the informers of the two kinds.
pub(crate) struct Index {
    objects: Mutex<Objects>,
    tables: RwLock<Tables>,
    /// Counts changes of exposures.
    exposed: watch::Sender<u64>,
    /// Who is told of connections.
    log: Option<AccessLog>,
}

#[derive(Default)]
struct Objects {
    here: Here,
    services: HashMap<ObjectKey, Arc<Service>>,
    /// By Service, then by the slice's name.
    slices: HashMap<ObjectKey, BTreeMap<String, Arc<EndpointSlice>>>,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            objects: Mutex::default(),
            tables: RwLock::default(),
            exposed: watch::channel(0).0,
            log: None,
        }
    }
}

impl Index {
    /// Asks the tables. `question` must be short: changes wait for it.
    pub(crate) fn ask<T>(&self, question: impl FnOnce(&Tables) -> T) -> T {
        question(&self.tables.read())
    }

    /// An index for the node of that name.
    pub(crate) fn of_node(name: &str) -> Self {
        let index = Self::default();
        name.clone_into(&mut index.objects.lock().here.node);
        index
    }

    /// The same, whose Services tell `log` of their connections.
    pub(crate) fn telling(self, log: AccessLog) -> Self {
        Self {
            log: Some(log),
            ..self
        }
    }

    /// Wakes up when places outside come, go or change hands.
    pub(crate) fn follow_exposures(&self) -> watch::Receiver<u64> {
        self.exposed.subscribe()
    }

    /// Takes a change of a namespace over.
    pub(crate) fn namespace_changed(&self, change: &Change<Namespace>) {
        let name = change.object().metadata.name.clone().unwrap_or_default();
        let mut tables = self.tables.write();
        if change.is_deleted() {
            tables.namespaces.remove(&name);
        } else {
            tables.namespaces.insert(name);
        }
    }

    /// Takes a change of a node over: if it is this one and has moved, what is near is another.
    pub(crate) fn node_changed(&self, change: &Change<Node>) {
        let node = change.object();
        let mut objects = self.objects.lock();
        if node.metadata.name.as_deref() != Some(objects.here.node.as_str()) {
            return;
        }
        let labels = node.metadata.labels.as_ref();
        let zone = labels.and_then(|labels| labels.get(ZONE)).cloned();
        if objects.here.zone == zone {
            return;
        }
        objects.here.zone = zone;
        let keys: Vec<_> = objects.services.keys().cloned().collect();
        for key in keys {
            self.rebuild(&objects, &key);
        }
    }

    /// Takes a change of a pod over: the ports of the host that it wants, if it runs here.
    pub(crate) fn pod_changed(&self, change: &Change<Pod>) {
        let pod = change.object();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let is_here = node == Some(self.objects.lock().here.node.as_str());
        let wanted = match is_here && !change.is_deleted() {
            true => host_ports::host_ports(pod),
            false => Vec::new(),
        };
        let key = ObjectKey::of(pod.as_ref());
        if wanted.is_empty() && !self.tables.read().has_host_ports(&key) {
            return; // as of most pods
        }
        if self.tables.write().put_host_ports(&key, wanted) {
            self.exposed.send_modify(|count| *count += 1);
        }
    }

    /// Takes a change of a Service over; whoever asks next sees it.
    pub(crate) fn service_changed(&self, change: &Change<Service>) {
        let key = ObjectKey::of(change.object().as_ref());
        let mut objects = self.objects.lock();
        if change.is_deleted() {
            objects.services.remove(&key);
        } else {
            objects
                .services
                .insert(key.clone(), change.object().clone());
        }
        self.rebuild(&objects, &key);
    }

    /// Takes a change of a slice over; whoever asks next sees it.
    pub(crate) fn slice_changed(&self, change: &Change<EndpointSlice>) {
        let slice = change.object();
        let name = slice.metadata.name.clone().unwrap_or_default();
        let mut objects = self.objects.lock();
        // A slice may change hands.
        let old = change.old().and_then(|old| service_of(old));
        if let Some(service) = old
            && (Some(&service) != service_of(slice).as_ref())
        {
            objects.remove_slice(&service, &name);
            self.rebuild(&objects, &service);
        }
        let Some(service) = service_of(slice) else {
            return;
        };
        if change.is_deleted() {
            objects.remove_slice(&service, &name);
        } else {
            let slices = objects.slices.entry(service.clone()).or_default();
            slices.insert(name, slice.clone());
        }
        self.rebuild(&objects, &service);
    }

    /// Brings the tables to what the objects of one Service say.
    fn rebuild(&self, objects: &Objects, key: &ObjectKey) {
        let changed = match objects.services.get(key) {
            Some(service) => {
                let slices = objects.slices.get(key);
                let slices = slices.iter().flat_map(|all| all.values());
                let entry = entry(service, slices.map(Arc::as_ref), &objects.here);
                let mut tables = self.tables.write();
                let changed = tables.put(entry);
                if let (Some(log), Some(indexed)) = (&self.log, tables.service(key)) {
                    let annotations = service.metadata.annotations.as_ref();
                    let wanted = annotations.and_then(|all| all.get(ACCESS_LOG_ANNOTATION));
                    let told = log.of_service(key, wanted.map(String::as_str));
                    indexed.flows.set_log(told);
                }
                changed
            }
            None => self.tables.write().take(key),
        };
        if changed {
            self.exposed.send_modify(|count| *count += 1);
        }
    }
}

impl Objects {
    fn remove_slice(&mut self, service: &ObjectKey, name: &str) {
        if let Some(slices) = self.slices.get_mut(service) {
            slices.remove(name);
            if slices.is_empty() {
                self.slices.remove(service);
            }
        }
    }
}

/// The Service that a slice belongs to.
fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    let namespace = slice.metadata.namespace.clone().unwrap_or_default();
    Some(ObjectKey::new(namespace, name.as_str()))
}
