//! All Services of the cluster, ready to be asked at every connect.
//!
//! [`Tables`] are what is asked; they change one Service at a time. The objects that they are
//! made of are kept beside them under a lock of their own, so that building the entry of a large
//! Service holds up nobody who asks.

mod entry;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use coracle_client::{Change, ObjectKey};
use coracle_network::Protocol;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

pub(crate) use entry::{Front, Port, ServiceEntry, entry};

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Services by everything that a connection or a lookup may name.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Tables {
    services: HashMap<ObjectKey, Indexed>,
    /// By cluster address and port.
    ports: HashMap<(SocketAddr, Protocol), Claims>,
    /// By cluster address alone.
    addresses: HashMap<IpAddr, Claims>,
    /// By port of the node.
    node_ports: HashMap<(u16, Protocol), Claims>,
}

/// An entry with what outlives its rebuilding.
#[derive(Clone, Debug)]
pub(crate) struct Indexed {
    pub(crate) entry: Arc<ServiceEntry>,
    /// Counts picks, so that endpoints take turns.
    turn: Arc<AtomicUsize>,
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
    /// Puts `entry` in, in place of the one of the same key. Tells whether node ports changed.
    fn put(&mut self, entry: ServiceEntry) -> bool {
        let before = self.services.get(&entry.key).cloned();
        let turn = before
            .as_ref()
            .map_or_else(Arc::default, |old| old.turn.clone());
        let new = Indexed {
            entry: Arc::new(entry),
            turn,
        };
        self.take(&new.entry.key);
        for (port, found) in claims(&new) {
            for address in cluster_ips(&new.entry) {
                let at = (SocketAddr::new(*address, port.port), port.protocol);
                self.ports.entry(at).or_default().add(found.clone());
            }
            if let Some(number) = port.node_port {
                let at = (number, port.protocol);
                self.node_ports.entry(at).or_default().add(found.clone());
            }
        }
        for address in cluster_ips(&new.entry) {
            let found = Found {
                service: new.clone(),
                port: 0,
            };
            self.addresses.entry(*address).or_default().add(found);
        }
        let changed = node_ports_of(before.as_ref()) != node_ports_of(Some(&new));
        self.services.insert(new.entry.key.clone(), new);
        changed
    }

    /// Takes a Service out. Tells whether it had node ports.
    fn take(&mut self, key: &ObjectKey) -> bool {
        let Some(old) = self.services.remove(key) else {
            return false;
        };
        for (port, _) in claims(&old) {
            for address in cluster_ips(&old.entry) {
                let at = (SocketAddr::new(*address, port.port), port.protocol);
                withdraw(&mut self.ports, &at, key);
            }
            if let Some(number) = port.node_port {
                withdraw(&mut self.node_ports, &(number, port.protocol), key);
            }
        }
        for address in cluster_ips(&old.entry) {
            withdraw(&mut self.addresses, address, key);
        }
        !node_ports_of(Some(&old)).is_empty()
    }

    /// The Service of that key.
    pub(crate) fn service(&self, key: &ObjectKey) -> Option<&Indexed> {
        self.services.get(key)
    }

    /// Who serves a port of a cluster address.
    pub(crate) fn at(&self, address: SocketAddr, protocol: Protocol) -> Option<&Found> {
        self.ports.get(&(address, protocol))?.first()
    }

    /// Whether a Service has the address, whatever its ports.
    pub(crate) fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.contains_key(&address)
    }

    /// Who serves a port of the node.
    pub(crate) fn at_node_port(&self, port: u16, protocol: Protocol) -> Option<&Found> {
        self.node_ports.get(&(port, protocol))?.first()
    }

    /// The TCP ports of the node, with the Service of each.
    pub(crate) fn tcp_node_ports(&self) -> BTreeMap<u16, ObjectKey> {
        self.node_ports
            .iter()
            .filter(|((_, protocol), _)| *protocol == Protocol::Tcp)
            .filter_map(|((port, _), claims)| {
                Some((*port, claims.first()?.service.entry.key.clone()))
            })
            .collect()
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

fn node_ports_of(service: Option<&Indexed>) -> Vec<(u16, Protocol)> {
    let ports = service.iter().flat_map(|service| &service.entry.ports);
    ports
        .filter_map(|port| Some((port.node_port?, port.protocol)))
        .collect()
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
    /// Counts changes of node ports.
    node_ports: watch::Sender<u64>,
}

#[derive(Default)]
struct Objects {
    services: HashMap<ObjectKey, Arc<Service>>,
    /// By Service, then by the slice's name.
    slices: HashMap<ObjectKey, BTreeMap<String, Arc<EndpointSlice>>>,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            objects: Mutex::default(),
            tables: RwLock::default(),
            node_ports: watch::channel(0).0,
        }
    }
}

impl Index {
    /// Asks the tables. `question` must be short: changes wait for it.
    pub(crate) fn ask<T>(&self, question: impl FnOnce(&Tables) -> T) -> T {
        question(&self.tables.read())
    }

    /// Wakes up when node ports come, go or change hands.
    pub(crate) fn follow_node_ports(&self) -> watch::Receiver<u64> {
        self.node_ports.subscribe()
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
                let entry = entry(service, slices.map(Arc::as_ref));
                self.tables.write().put(entry)
            }
            None => self.tables.write().take(key),
        };
        if changed {
            self.node_ports.send_modify(|count| *count += 1);
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
