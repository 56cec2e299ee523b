use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;

use super::reconcile::{Change, LIMIT, World, reconcile};
use crate::fixtures::{pod, service};

fn world(service: Service, pods: Vec<Arc<Pod>>) -> World {
    World {
        service: Arc::new(service),
        pods,
        slices: vec![],
        zones: BTreeMap::new(),
    }
}

/// Plays the API server.
fn settle(world: &mut World) {
    let number = |slice: &Arc<EndpointSlice>| {
        slice
            .metadata
            .name
            .as_ref()?
            .strip_prefix("web-")?
            .parse()
            .ok()
    };
    let mut serial: usize = world.slices.iter().filter_map(number).max().unwrap_or(0);
    for change in reconcile(world) {
        match change {
            Change::Create(mut slice) => {
                serial += 1;
                slice.metadata.name = Some(format!("web-{serial:05}"));
                slice.metadata.uid = slice.metadata.name.clone();
                world.slices.push(Arc::new(*slice));
            }
            Change::Update { old, new } => {
                let index = world
                    .slices
                    .iter()
                    .position(|slice| slice.metadata.name == old.metadata.name);
                world.slices[index.expect("known")] = Arc::new(*new);
            }
            Change::Delete(old) => world
                .slices
                .retain(|slice| slice.metadata.name != old.metadata.name),
        }
    }
    assert_eq!(reconcile(world), vec![], "a settled world rests");
}

fn addresses(world: &World) -> Vec<String> {
    let endpoints = world
        .slices
        .iter()
        .flat_map(|slice| slice.endpoints.iter().flatten());
    let mut addresses: Vec<_> = endpoints
        .flat_map(|endpoint| endpoint.addresses.clone())
        .collect();
    addresses.sort();
    addresses
}

fn only(world: &World) -> &EndpointSlice {
    assert_eq!(world.slices.len(), 1);
    &world.slices[0]
}

#[test]
fn endpoints_say_where_and_how_a_pod_can_be_reached() {
    let pods = vec![
        pod("a").on("node").ready().ip("10.0.0.1").build(),
        pod("b").on("node").ip("10.0.0.2").build(),
        pod("c")
            .on("node")
            .ready()
            .terminating()
            .ip("10.0.0.3")
            .build(),
        pod("d")
            .on("node")
            .phase("Succeeded")
            .ip("10.0.0.4")
            .build(),
        pod("e").on("node").ready().build(),
    ];
    let mut world = world(service("web", IntOrString::Int(8080)), pods);
    settle(&mut world);
    let slice = only(&world);
    let conditions: Vec<_> = slice
        .endpoints
        .iter()
        .flatten()
        .map(|endpoint| {
            let conditions = endpoint.conditions.clone().expect("conditions");
            (conditions.ready, conditions.serving, conditions.terminating)
        })
        .collect();
    let yes = Some(true);
    let no = Some(false);
    assert_eq!(conditions, [(yes, yes, no), (no, no, no), (no, yes, yes)]);
    assert_eq!(
        slice.ports.as_ref().and_then(|ports| ports[0].port),
        Some(8080)
    );
    let labels = slice.metadata.labels.as_ref().expect("labels");
    assert_eq!(labels["kubernetes.io/service-name"], "web");
    assert_eq!(
        labels["endpointslice.kubernetes.io/managed-by"],
        "endpointslice-controller.k8s.io"
    );
}

#[test]
fn a_named_port_may_differ_from_pod_to_pod() {
    let pods = vec![
        pod("a").ready().ip("10.0.0.1").port("http", 8080).build(),
        pod("b").ready().ip("10.0.0.2").port("http", 9090).build(),
        pod("c").ready().ip("10.0.0.3").port("other", 1).build(),
    ];
    let mut world = world(service("web", IntOrString::String("http".into())), pods);
    settle(&mut world);
    let ports: BTreeSet<_> = world
        .slices
        .iter()
        .filter_map(|slice| slice.ports.as_ref()?[0].port)
        .collect();
    assert_eq!(ports, BTreeSet::from([8080, 9090]));
    assert_eq!(addresses(&world), ["10.0.0.1", "10.0.0.2"]);
}

#[test]
fn nobody_there_is_an_empty_slice() {
    let mut world = world(service("web", IntOrString::Int(80)), vec![]);
    settle(&mut world);
    assert_eq!(only(&world).endpoints, Some(vec![]));
    world.pods = vec![pod("a").ready().ip("10.0.0.1").build()];
    settle(&mut world);
    assert_eq!(addresses(&world), ["10.0.0.1"]);
    world.pods.clear();
    settle(&mut world);
    assert_eq!(addresses(&world), Vec::<String>::new());
    assert_eq!(world.slices.len(), 1);
}

#[test]
fn not_ready_addresses_are_published_on_request() {
    let mut headless = service("web", IntOrString::Int(80));
    let spec = headless.spec.as_mut().expect("spec");
    spec.publish_not_ready_addresses = Some(true);
    spec.cluster_ip = Some("None".into());
    spec.ports = None;
    let mut world = world(headless, vec![pod("a").ip("10.0.0.1").build()]);
    settle(&mut world);
    let slice = only(&world);
    let endpoint = &slice.endpoints.as_ref().expect("endpoints")[0];
    assert_eq!(
        endpoint
            .conditions
            .as_ref()
            .and_then(|conditions| conditions.ready),
        Some(true)
    );
    assert!(
        slice
            .metadata
            .labels
            .as_ref()
            .expect("labels")
            .contains_key("service.kubernetes.io/headless")
    );
}

#[test]
fn a_service_without_a_selector_is_left_alone() {
    let mut manual = service("web", IntOrString::Int(80));
    manual.spec.as_mut().expect("spec").selector = None;
    assert_eq!(
        reconcile(&world(
            manual,
            vec![pod("a").ready().ip("10.0.0.1").build()]
        )),
        vec![]
    );
}

#[test]
fn a_change_of_one_pod_rewrites_one_slice() {
    let ip = |n: usize| format!("10.0.{}.{}", n / 250, n % 250);
    let pods: Vec<_> = (0..250)
        .map(|n| pod(&format!("p{n}")).ready().ip(&ip(n)).build())
        .collect();
    let mut world = world(service("web", IntOrString::Int(80)), pods);
    settle(&mut world);
    assert_eq!(world.slices.len(), 3);
    world.pods[7] = pod("p7").ip(&ip(7)).build();
    let changes = reconcile(&world);
    assert!(
        matches!(changes.as_slice(), [Change::Update { .. }]),
        "{} changes",
        changes.len()
    );
}

proptest! {
    #[test]
    fn every_pod_is_in_exactly_one_slice(rounds in prop::collection::vec(prop::collection::btree_set(0..400usize, 0..300), 1..4)) {
        let mut world = world(service("web", IntOrString::Int(80)), vec![]);
        for round in rounds {
            let ip = |n: &usize| format!("10.0.{}.{}", n / 250, n % 250);
            world.pods = round.iter().map(|n| pod(&format!("p{n}")).ready().ip(&ip(n)).build()).collect();
            settle(&mut world);
            let mut expected: Vec<_> = round.iter().map(ip).collect();
            expected.sort();
            prop_assert_eq!(addresses(&world), expected);
            prop_assert!(world.slices.iter().all(|slice| slice.endpoints.as_ref().is_none_or(|e| e.len() <= LIMIT)));
        }
    }
}

#[test]
fn endpoints_say_where_they_are_and_for_whom_if_the_service_asks() {
    let place = |distribution: Option<&str>, zone: Option<&str>| {
        let mut service = service("web", IntOrString::Int(80));
        service.spec.get_or_insert_default().traffic_distribution = distribution.map(str::to_owned);
        let mut world = world(
            service,
            vec![pod("a").on("node").ready().ip("10.0.0.1").build()],
        );
        let placed = zone.map(|zone| ("node".to_owned(), zone.to_owned()));
        world.zones = placed.into_iter().collect();
        let changes = reconcile(&world);
        let [Change::Create(slice)] = changes.as_slice() else {
            panic!("{changes:?}");
        };
        let endpoint = slice
            .endpoints
            .iter()
            .flatten()
            .next()
            .expect("one")
            .clone();
        let hints = endpoint.hints.unwrap_or_default();
        let zones = hints
            .for_zones
            .unwrap_or_default()
            .into_iter()
            .map(|zone| zone.name);
        let nodes = hints
            .for_nodes
            .unwrap_or_default()
            .into_iter()
            .map(|node| node.name);
        (endpoint.zone, zones.collect::<Vec<_>>(), nodes.count())
    };
    let east = Some("east".to_owned());
    let near = vec!["east".to_owned()];
    let cases = [
        (None, None, (None, vec![], 0)),
        (None, Some("east"), (east.clone(), vec![], 0)),
        (
            Some("PreferClose"),
            Some("east"),
            (east.clone(), near.clone(), 0),
        ),
        (
            Some("PreferSameZone"),
            Some("east"),
            (east.clone(), near.clone(), 0),
        ),
        (Some("PreferSameZone"), None, (None, vec![], 0)),
        (Some("PreferSameNode"), Some("east"), (east, near, 1)),
        (Some("PreferSameNode"), None, (None, vec![], 1)),
    ];
    for (distribution, zone, expected) in cases {
        assert_eq!(
            place(distribution, zone),
            expected,
            "{distribution:?} {zone:?}"
        );
    }
}
