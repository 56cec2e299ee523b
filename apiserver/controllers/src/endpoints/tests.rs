use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::reconcile::{Change, World, reconcile};
use crate::fixtures::{meta, pod, service};

fn world(service: Option<Service>, pods: Vec<Arc<Pod>>) -> World {
    World {
        service: service.map(Arc::new),
        pods,
        endpoints: None,
    }
}

fn settle(world: &mut World) -> Option<Arc<Endpoints>> {
    world.endpoints = match reconcile(world) {
        Some(Change::Create(new)) | Some(Change::Update { new, .. }) => Some(Arc::new(*new)),
        Some(Change::Delete(_)) => None,
        None => world.endpoints.clone(),
    };
    assert_eq!(reconcile(world), None, "a settled world rests");
    world.endpoints.clone()
}

#[test]
fn ready_and_unready_addresses_are_told_apart() {
    let pods = vec![
        pod("b").on("node").ready().ip("10.0.0.2").build(),
        pod("a").on("node").ready().ip("10.0.0.1").build(),
        pod("c").ip("10.0.0.3").build(),
        pod("d").ready().terminating().ip("10.0.0.4").build(),
    ];
    let mut world = world(Some(service("web", IntOrString::Int(8080))), pods);
    let endpoints = settle(&mut world).expect("endpoints");
    let subset = &endpoints.subsets.as_ref().expect("subsets")[0];
    let ips = |addresses: &Option<Vec<k8s_openapi::api::core::v1::EndpointAddress>>| {
        addresses
            .iter()
            .flatten()
            .map(|address| address.ip.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(ips(&subset.addresses), ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(ips(&subset.not_ready_addresses), ["10.0.0.3"]);
    assert_eq!(
        subset
            .ports
            .as_ref()
            .map(|ports| (ports[0].port, ports[0].name.clone())),
        Some((8080, None))
    );

    world.pods.clear();
    assert_eq!(settle(&mut world).expect("endpoints").subsets, None);
}

#[test]
fn they_go_with_their_service_unless_they_are_somebody_elses() {
    let mut world = world(Some(service("web", IntOrString::Int(80))), vec![]);
    settle(&mut world);
    world.service = None;
    assert_eq!(settle(&mut world), None);

    let manual = Endpoints {
        metadata: meta("web"),
        subsets: None,
    };
    world.endpoints = Some(Arc::new(manual));
    assert_eq!(reconcile(&world), None);
}

#[test]
fn a_service_without_a_selector_is_left_alone() {
    let mut manual = service("web", IntOrString::Int(80));
    manual.spec.as_mut().expect("spec").selector = None;
    let mut world = world(Some(manual), vec![]);
    world.endpoints = Some(Arc::new(Endpoints {
        metadata: meta("web"),
        subsets: None,
    }));
    assert_eq!(reconcile(&world), None);
}
