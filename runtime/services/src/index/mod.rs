//! All Services of the cluster, ready to be asked at every connect.
//!
//! [`Tables`] are what is asked; they change one Service at a time. The objects that they are
//! made of are kept beside them under a lock of their own, so that building the entry of a large
//! Service holds up nobody who asks.

mod entry;
mod host_ports;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use coracle_client::{Change, ObjectKey};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::access::{ACCESS_LOG_ANNOTATION, AccessLog};
pub(crate) use entry::{Front, Here, Port, ServiceEntry, entry};
pub(crate) use tables::{Exposure, Found, Indexed, Tables, Transport};

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that says where a node is.
const ZONE: &str = "topology.kubernetes.io/zone";

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
        tables.set_namespace(name, !change.is_deleted());
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
