//! Which EndpointSlices mirror an Endpoints object.
//!
//! The rules are those of `pkg/controller/endpointslicemirroring`: one slice for each set of ports and
//! address family, with at most [`LIMIT`] addresses of a subset.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use coracle_client::{is_terminating, uid};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::endpointslice::reconcile::{
    Change, Group, MANAGED_BY, SERVICE_NAME, group_of, ports_of,
};

pub(super) const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that say something of the Endpoints alone.
const NOT_COPIED: [&str; 2] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "endpoints.kubernetes.io/last-change-trigger-time",
];
/// The most addresses of one subset that are mirrored.
pub(super) const LIMIT: usize = 1000;

/// All that a round may know.
pub(super) struct World {
    pub(super) endpoints: Arc<Endpoints>,
    pub(super) service: Option<Arc<Service>>,
    /// This controller's slices of the Endpoints.
    pub(super) slices: Vec<Arc<EndpointSlice>>,
}

/// Brings the slices to what the Endpoints say.
pub(super) fn reconcile(world: &World) -> Vec<Change> {
    let mut existing = world.slices.clone();
    existing.retain(|slice| !is_terminating(slice.as_ref()));
    existing.sort_by(|one, two| one.metadata.name.cmp(&two.metadata.name));
    let mut changes = Vec::new();
    if is_mirrored(world) {
        for (group, all) in wanted(&world.endpoints) {
            let new = slice(&world.endpoints, &group, all);
            match existing.iter().position(|slice| group_of(slice) == group) {
                Some(index) => changes.extend(update(existing.remove(index), new)),
                None => changes.push(Change::Create(Box::new(new))),
            }
        }
    }
    changes.extend(existing.into_iter().map(Change::Delete));
    changes
}

/// Whether the Endpoints were written by hand, for a Service that asks for it by having no selector.
fn is_mirrored(world: &World) -> bool {
    let endpoints = world.endpoints.as_ref();
    let labels = endpoints.metadata.labels.as_ref();
    let skipped = labels
        .and_then(|labels| labels.get(SKIP))
        .is_some_and(|value| value == "true");
    let annotations = endpoints.metadata.annotations.as_ref();
    let elects = annotations.is_some_and(|annotations| annotations.contains_key(LEADER));
    let by_hand = world.service.as_ref().is_some_and(|service| {
        let selector = service
            .spec
            .as_ref()
            .and_then(|spec| spec.selector.as_ref());
        selector.is_none_or(BTreeMap::is_empty) && !is_terminating(service.as_ref())
    });
    by_hand && !skipped && !elects && !is_terminating(endpoints)
}

/// The endpoints of every group, in order.
fn wanted(endpoints: &Endpoints) -> BTreeMap<Group, Vec<Endpoint>> {
    let mut groups: BTreeMap<Group, BTreeMap<String, Endpoint>> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports = ports(subset);
        let ready = subset
            .addresses
            .iter()
            .flatten()
            .map(|address| (address, true));
        let others = subset
            .not_ready_addresses
            .iter()
            .flatten()
            .map(|address| (address, false));
        for (address, is_ready) in ready.chain(others).take(LIMIT) {
            let Ok(ip) = address.ip.parse::<IpAddr>() else {
                continue;
            };
            let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
            let group = groups
                .entry((family.to_owned(), ports.clone()))
                .or_default();
            group
                .entry(address.ip.clone())
                .or_insert_with(|| endpoint(address, is_ready));
        }
    }
    groups
        .into_iter()
        .map(|(group, all)| (group, all.into_values().collect()))
        .collect()
}

fn ports(subset: &EndpointSubset) -> Vec<(String, String, i32, Option<String>)> {
    let mut ports: Vec<_> = subset
        .ports
        .iter()
        .flatten()
        .map(|port| {
            (
                port.name.clone().unwrap_or_default(),
                port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port.port,
                port.app_protocol.clone(),
            )
        })
        .collect();
    ports.sort();
    ports
}

fn endpoint(address: &EndpointAddress, is_ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(is_ready),
            ..Default::default()
        }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Default::default()
    }
}

fn slice(endpoints: &Endpoints, group: &Group, all: Vec<Endpoint>) -> EndpointSlice {
    let name = endpoints.metadata.name.clone().unwrap_or_default();
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name.clone());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !NOT_COPIED.contains(&key.as_str()));
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Endpoints".to_owned(),
                uid: uid(endpoints).to_owned(),
                name,
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..Default::default()
        },
        address_type: group.0.clone(),
        endpoints: Some(all),
        ports: Some(ports_of(group)),
    }
}

/// A write, if the slice is not what it should be.
fn update(old: Arc<EndpointSlice>, wanted: EndpointSlice) -> Option<Change> {
    let mut new = old.as_ref().clone();
    new.endpoints = wanted.endpoints;
    new.metadata.labels = wanted.metadata.labels;
    new.metadata.annotations = wanted.metadata.annotations;
    new.metadata.owner_references = wanted.metadata.owner_references;
    (new != *old).then(|| Change::Update {
        old,
        new: Box::new(new),
    })
}
