//! Which EndpointSlices a Service should have.
//!
//! Endpoints whose ports resolve to the same numbers share slices; a slice that is right stays
//! untouched, so that a Pod's change rewrites one slice and not all of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_client::{is_terminating, uid};
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::pods;

pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub(crate) const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// The most endpoints of one slice.
pub(super) const LIMIT: usize = 100;

/// All that a round may know.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) service: Arc<Service>,
    /// The Pods that the selector picks.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// This controller's slices of the Service.
    pub(crate) slices: Vec<Arc<EndpointSlice>>,
    /// The zone of each node that has one.
    pub(crate) zones: BTreeMap<String, String>,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// The server draws the name.
    Create(Box<EndpointSlice>),
    Update {
        old: Arc<EndpointSlice>,
        new: Box<EndpointSlice>,
    },
    Delete(Arc<EndpointSlice>),
}

/// What tells slices apart: the address family and the ports, in order.
pub(crate) type Group = (String, Vec<(String, String, i32, Option<String>)>);

/// Brings the slices to what the Pods say.
pub(crate) fn reconcile(world: &World) -> Vec<Change> {
    let service = world.service.as_ref();
    let spec = service.spec.clone().unwrap_or_default();
    let manual = spec.selector.is_none_or(|selector| selector.is_empty());
    if manual || spec.type_.as_deref() == Some("ExternalName") || is_terminating(service) {
        return Vec::new(); // somebody else's business; the garbage collector follows the owner
    }
    let mut wanted = endpoints(world);
    // Without any endpoint an empty slice says so, which is not the same as saying nothing.
    let families = families(service);
    for family in families {
        if !wanted
            .keys()
            .any(|(address_type, _)| *address_type == family)
        {
            wanted.insert((family, Vec::new()), BTreeMap::new());
        }
    }

    let mut existing = world.slices.clone();
    existing.sort_by(|one, two| one.metadata.name.cmp(&two.metadata.name));
    existing.retain(|slice| !is_terminating(slice.as_ref()));
    let mut changes = Vec::new();
    for (group, endpoints) in wanted {
        let (matching, rest) = existing
            .into_iter()
            .partition(|slice| group_of(slice) == group);
        existing = rest;
        fill(service, &group, endpoints, matching, &mut changes);
    }
    changes.extend(existing.into_iter().map(Change::Delete));
    changes
}

/// Spreads one group's endpoints over its slices.
fn fill(
    service: &Service,
    group: &Group,
    mut missing: BTreeMap<String, Endpoint>,
    slices: Vec<Arc<EndpointSlice>>,
    changes: &mut Vec<Change>,
) {
    // What is in the right place stays there, brought up to date.
    let mut filled: Vec<(Option<Arc<EndpointSlice>>, Vec<Endpoint>)> = Vec::new();
    for slice in slices {
        let mut kept = Vec::new();
        for known in slice.endpoints.iter().flatten() {
            if let Some(endpoint) = missing.remove(&identity(known)) {
                kept.push(endpoint);
            }
        }
        filled.push((Some(slice), kept));
    }
    // The rest goes where there is room, then into new slices.
    let mut missing = missing.into_values();
    for (_, kept) in &mut filled {
        kept.extend(missing.by_ref().take(LIMIT.saturating_sub(kept.len())));
    }
    loop {
        let next: Vec<_> = missing.by_ref().take(LIMIT).collect();
        if next.is_empty() && !filled.is_empty() {
            break;
        }
        filled.push((None, next));
    }

    let used = filled
        .iter()
        .filter(|(_, endpoints)| !endpoints.is_empty())
        .count();
    let mut kept_empty = used > 0;
    for (slice, endpoints) in filled {
        if endpoints.is_empty() {
            match (slice, std::mem::replace(&mut kept_empty, true)) {
                (Some(surplus), true) => {
                    changes.push(Change::Delete(surplus));
                    continue;
                }
                (slice, _) => write(service, group, slice, endpoints, changes),
            }
        } else {
            write(service, group, slice, endpoints, changes);
        }
    }
}

fn write(
    service: &Service,
    group: &Group,
    slice: Option<Arc<EndpointSlice>>,
    endpoints: Vec<Endpoint>,
    changes: &mut Vec<Change>,
) {
    match slice {
        None => changes.push(Change::Create(Box::new(new_slice(
            service, group, endpoints,
        )))),
        Some(old) => {
            let mut new = old.as_ref().clone();
            let labels = new.metadata.labels.get_or_insert_default();
            *labels = own_labels(service);
            // An absent list and an empty one mean the same; only a difference is worth a write.
            if new.endpoints.as_deref().unwrap_or_default() != endpoints {
                new.endpoints = Some(endpoints);
            }
            if new != *old {
                changes.push(Change::Update {
                    old,
                    new: Box::new(new),
                });
            }
        }
    }
}

/// The ports of a slice of `group`.
pub(crate) fn ports_of((_, ports): &Group) -> Vec<EndpointPort> {
    let port = |(name, protocol, number, app_protocol): &(String, String, i32, Option<String>)| {
        EndpointPort {
            name: Some(name.clone()),
            protocol: Some(protocol.clone()),
            port: Some(*number),
            app_protocol: app_protocol.clone(),
        }
    };
    ports.iter().map(port).collect()
}

fn new_slice(service: &Service, group: &Group, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let name = service.metadata.name.clone().unwrap_or_default();
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: service.metadata.namespace.clone(),
            labels: Some(own_labels(service)),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Service".to_owned(),
                name,
                uid: uid(service).to_owned(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..Default::default()
        },
        address_type: group.0.clone(),
        endpoints: Some(endpoints),
        ports: Some(ports_of(group)),
    }
}

/// The Service's labels, and those by which slices are found.
fn own_labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if pods::is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(
        SERVICE_NAME.to_owned(),
        service.metadata.name.clone().unwrap_or_default(),
    );
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

/// The address families that the Service serves.
fn families(service: &Service) -> Vec<String> {
    let families = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ip_families.clone())
        .unwrap_or_default();
    if families.is_empty() {
        vec!["IPv4".to_owned()]
    } else {
        families
    }
}

/// Every endpoint there should be, by group and identity.
fn endpoints(world: &World) -> BTreeMap<Group, BTreeMap<String, Endpoint>> {
    let service = world.service.as_ref();
    let families = families(service);
    let mut groups: BTreeMap<Group, BTreeMap<String, Endpoint>> = BTreeMap::new();
    for pod in world.pods.iter().filter(|pod| !pods::is_finished(pod)) {
        let ports = ports(service, pod);
        // A Service with ports that this Pod has none of cannot be reached there.
        let headless = pods::is_headless(service);
        if ports.is_empty() && !headless {
            continue;
        }
        for family in &families {
            if let Some(address) = pods::address(pod, family) {
                let endpoint = endpoint(service, pod, address, &world.zones);
                let group = groups.entry((family.clone(), ports.clone())).or_default();
                group.insert(identity(&endpoint), endpoint);
            }
        }
    }
    groups
}

fn ports(service: &Service, pod: &Pod) -> Vec<(String, String, i32, Option<String>)> {
    let ports = service
        .spec
        .iter()
        .flat_map(|spec| spec.ports.iter().flatten());
    let mut ports: Vec<_> = ports
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

/// The group that a slice is of.
pub(crate) fn group_of(slice: &EndpointSlice) -> Group {
    let mut ports: Vec<_> = slice
        .ports
        .iter()
        .flatten()
        .map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            (
                port.name.clone().unwrap_or_default(),
                protocol,
                port.port.unwrap_or(0),
                port.app_protocol.clone(),
            )
        })
        .collect();
    ports.sort();
    (slice.address_type.clone(), ports)
}

fn endpoint(
    service: &Service,
    pod: &Pod,
    address: String,
    zones: &BTreeMap<String, String>,
) -> Endpoint {
    let publish = service
        .spec
        .as_ref()
        .and_then(|spec| spec.publish_not_ready_addresses)
        .unwrap_or(false);
    let (serving, terminating) = (pods::is_ready(pod), is_terminating(pod));
    let node = pods::node_name(pod).map(str::to_owned);
    let zone = node.as_ref().and_then(|node| zones.get(node)).cloned();
    Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(publish || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: pods::published_hostname(pod, service),
        hints: hints(service, node.as_deref(), zone.as_deref()),
        node_name: node,
        zone,
        target_ref: Some(target_of(pod)),
        ..Default::default()
    }
}

/// For whom an endpoint is, as `trafficDistribution` says (KEP-4444, KEP-3015).
fn hints(service: &Service, node: Option<&str>, zone: Option<&str>) -> Option<EndpointHints> {
    let spec = service.spec.as_ref()?;
    let by_node = match spec.traffic_distribution.as_deref()? {
        "PreferClose" | "PreferSameZone" => false,
        "PreferSameNode" => true,
        _ => return None,
    };
    let named = |name: Option<&str>| name.map(str::to_owned);
    let for_zones = named(zone).map(|name| vec![ForZone { name }]);
    let for_nodes = named(node)
        .filter(|_| by_node)
        .map(|name| vec![ForNode { name }]);
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints {
        for_nodes,
        for_zones,
    })
}

/// A reference to the Pod behind an endpoint.
pub(crate) fn target_of(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..Default::default()
    }
}

/// What makes two endpoints the same one, however its conditions change.
fn identity(endpoint: &Endpoint) -> String {
    let uid = endpoint
        .target_ref
        .as_ref()
        .and_then(|target| target.uid.as_deref())
        .unwrap_or_default();
    format!("{}/{uid}", endpoint.addresses.join(","))
}
