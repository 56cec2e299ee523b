//! What the Endpoints of a Service should say.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_client::is_terminating;
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::endpointslice::reconcile::target_of;
use crate::pods;

pub(crate) const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
pub(crate) const MANAGER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// The most addresses of one object; readers that need more read EndpointSlices.
const LIMIT: usize = 1000;

/// All that a round may know.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) service: Option<Arc<Service>>,
    /// The Pods that the selector picks.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// The object of the Service's name, whoever made it.
    pub(crate) endpoints: Option<Arc<Endpoints>>,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    Create(Box<Endpoints>),
    Update {
        old: Arc<Endpoints>,
        new: Box<Endpoints>,
    },
    Delete(Arc<Endpoints>),
}

/// The ports that a subset's addresses share.
type Ports = Vec<(String, String, i32, Option<String>)>;

/// Brings the Endpoints to what the Pods say.
pub(crate) fn reconcile(world: &World) -> Option<Change> {
    let existing = world.endpoints.clone();
    let Some(service) = world.service.as_deref() else {
        return existing
            .filter(|endpoints| is_ours(endpoints))
            .map(Change::Delete);
    };
    let spec = service.spec.clone().unwrap_or_default();
    let manual = spec.selector.is_none_or(|selector| selector.is_empty());
    if manual || spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let (subsets, truncated) = subsets(service, &world.pods);
    let labels = labels(service);
    let subsets = Some(subsets).filter(|subsets| !subsets.is_empty());
    match existing {
        None => {
            let mut new = Endpoints {
                metadata: ObjectMeta {
                    name: service.metadata.name.clone(),
                    namespace: service.metadata.namespace.clone(),
                    labels: Some(labels),
                    ..Default::default()
                },
                subsets,
            };
            note_truncation(&mut new, truncated);
            Some(Change::Create(Box::new(new)))
        }
        Some(old) => {
            let mut new = old.as_ref().clone();
            new.metadata.labels = Some(labels);
            new.subsets = subsets.or_else(|| old.subsets.clone().filter(Vec::is_empty));
            note_truncation(&mut new, truncated);
            (new != *old).then(|| Change::Update {
                old,
                new: Box::new(new),
            })
        }
    }
}

fn is_ours(endpoints: &Endpoints) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(MANAGED_BY))
        .is_some_and(|manager| manager == MANAGER)
}

fn note_truncation(endpoints: &mut Endpoints, truncated: bool) {
    if truncated {
        let annotations = endpoints.metadata.annotations.get_or_insert_default();
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else if let Some(annotations) = endpoints.metadata.annotations.as_mut() {
        annotations.remove(OVER_CAPACITY);
    }
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if pods::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

/// Addresses that share their ports share a subset; whether some had to be left out.
fn subsets(service: &Service, all: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let publish = service
        .spec
        .as_ref()
        .and_then(|spec| spec.publish_not_ready_addresses)
        .unwrap_or(false);
    let mut groups: BTreeMap<Ports, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    let usable =
        |pod: &&Arc<Pod>| !pods::is_finished(pod) && (publish || !is_terminating(pod.as_ref()));
    // Endpoints have one family alone: the Service's first (`podToEndpointAddressForService`).
    let families = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ip_families.as_ref());
    let family = families.and_then(|all| all.first());
    let family = family.map_or("IPv4", String::as_str);
    let mut count = 0;
    let mut truncated = false;
    // The ready ones first: if some have to be left out, it is those that serve nobody.
    let (ready, rest): (Vec<_>, Vec<_>) = all
        .iter()
        .filter(usable)
        .partition(|pod| pods::is_ready(pod));
    for pod in ready.into_iter().chain(rest) {
        let Some(ip) = pods::address(pod, family) else {
            continue;
        };
        let ports = ports(service, pod);
        if ports.is_empty() && !pods::is_headless(service) {
            continue;
        }
        if count == LIMIT {
            truncated = true;
            break;
        }
        count += 1;
        let address = EndpointAddress {
            ip,
            hostname: pods::published_hostname(pod, service),
            node_name: pods::node_name(pod).map(str::to_owned),
            target_ref: Some(target_of(pod)),
        };
        let group = groups.entry(ports).or_default();
        if publish || pods::is_ready(pod) {
            group.0.push(address)
        } else {
            group.1.push(address)
        }
    }
    let subset = |(ports, (mut ready, mut not_ready)): (
        Ports,
        (Vec<EndpointAddress>, Vec<EndpointAddress>),
    )| {
        ready.sort_by(order);
        not_ready.sort_by(order);
        EndpointSubset {
            addresses: Some(ready).filter(|addresses| !addresses.is_empty()),
            not_ready_addresses: Some(not_ready).filter(|addresses| !addresses.is_empty()),
            ports: Some(ports.into_iter().map(port).collect::<Vec<_>>())
                .filter(|ports| !ports.is_empty()),
        }
    };
    (groups.into_iter().map(subset).collect(), truncated)
}

fn order(one: &EndpointAddress, two: &EndpointAddress) -> std::cmp::Ordering {
    let key = |address: &EndpointAddress| {
        let uid = address
            .target_ref
            .as_ref()
            .and_then(|target| target.uid.clone());
        (address.ip.clone(), uid)
    };
    key(one).cmp(&key(two))
}

fn ports(service: &Service, pod: &Pod) -> Ports {
    let ports = service
        .spec
        .iter()
        .flat_map(|spec| spec.ports.iter().flatten());
    let mut ports: Ports = ports
        .filter_map(|port| {
            let number = pods::target_port(pod, port)?;
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            Some((
                port.name.clone().unwrap_or_default(),
                protocol,
                number,
                port.app_protocol.clone(),
            ))
        })
        .collect();
    ports.sort();
    ports
}

fn port(
    (name, protocol, port, app_protocol): (String, String, i32, Option<String>),
) -> EndpointPort {
    let name = Some(name).filter(|name| !name.is_empty());
    EndpointPort {
        name,
        port,
        protocol: Some(protocol),
        app_protocol,
    }
}
