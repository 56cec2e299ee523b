use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::reconcile::{LIMIT, World, reconcile};
use crate::endpointslice::reconcile::Change;

fn endpoints(subsets: Value) -> Endpoints {
    let metadata = json!({
        "name": "db", "namespace": "default", "uid": "e", "labels": {"team": "a"},
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "note": "kept"},
    });
    serde_json::from_value(json!({"metadata": metadata, "subsets": subsets})).expect("endpoints")
}

fn world(subsets: Value) -> World {
    let service = json!({"metadata": {"name": "db", "namespace": "default"}, "spec": {"ports": [{"port": 80}]}});
    let service: Service = serde_json::from_value(service).expect("a service");
    World {
        endpoints: Arc::new(endpoints(subsets)),
        service: Some(Arc::new(service)),
        slices: Vec::new(),
    }
}

fn two_families() -> Value {
    json!([{
        "addresses": [{"ip": "192.0.2.2", "hostname": "db-0"}, {"ip": "2001:db8::1"}],
        "notReadyAddresses": [{"ip": "192.0.2.3"}],
        "ports": [{"name": "sql", "port": 5432}],
    }])
}

/// Plays the API server; tells how many writes it took.
fn settle(world: &mut World) -> usize {
    let changes = reconcile(world);
    let count = changes.len();
    for change in changes {
        match change {
            Change::Create(mut slice) => {
                slice.metadata.name = Some(format!("db-{}", world.slices.len()));
                world.slices.push(Arc::new(*slice));
            }
            Change::Update { old, new } => {
                let place = world.slices.iter().position(|slice| *slice == old);
                world.slices[place.expect("known")] = Arc::new(*new);
            }
            Change::Delete(old) => world.slices.retain(|slice| *slice != old),
        }
    }
    assert!(reconcile(world).is_empty(), "a settled world rests");
    count
}

/// `address ready` of a slice's endpoints.
fn shown(slice: &EndpointSlice) -> Vec<String> {
    let all = slice.endpoints.iter().flatten();
    let text = |endpoint: &k8s_openapi::api::discovery::v1::Endpoint| {
        let ready = endpoint
            .conditions
            .as_ref()
            .and_then(|conditions| conditions.ready);
        format!("{} {}", endpoint.addresses[0], ready == Some(true))
    };
    all.map(text).collect()
}

#[test]
fn every_family_has_a_slice_with_all_addresses() {
    let mut world = world(two_families());
    assert_eq!(settle(&mut world), 2);
    let [v4, v6] = world.slices.as_slice() else {
        panic!("{:?}", world.slices);
    };
    assert_eq!(shown(v4), ["192.0.2.2 true", "192.0.2.3 false"]);
    assert_eq!(shown(v6), ["2001:db8::1 true"]);
    let metadata = serde_json::to_value(&v4.metadata).expect("JSON");
    assert_eq!(
        metadata["labels"],
        json!({
            "team": "a", "kubernetes.io/service-name": "db",
            "endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io",
        })
    );
    assert_eq!(metadata["annotations"], json!({"note": "kept"}));
    assert_eq!(metadata["ownerReferences"][0]["kind"], "Endpoints");
    assert_eq!(
        v4.endpoints.as_ref().expect("two")[0].hostname.as_deref(),
        Some("db-0")
    );
}

#[test]
fn changes_are_followed_and_what_is_right_stays() {
    let mut world = world(two_families());
    settle(&mut world);
    let mut subsets = two_families();
    subsets[0]["notReadyAddresses"] = json!([]);
    world.endpoints = Arc::new(endpoints(subsets.clone()));
    assert_eq!(settle(&mut world), 1);
    subsets[0]["ports"][0]["port"] = json!(5433);
    world.endpoints = Arc::new(endpoints(subsets));
    assert_eq!(settle(&mut world), 4, "other ports are other slices");
    world.endpoints = Arc::new(endpoints(json!([])));
    assert_eq!(settle(&mut world), 2);
    assert!(world.slices.is_empty());
}

#[test]
fn what_is_not_by_hand_is_not_mirrored() {
    let settled = || {
        let mut world = world(two_families());
        settle(&mut world);
        world
    };
    let ends = |mut world: World| {
        settle(&mut world);
        world.slices.is_empty()
    };
    let mut selects = settled();
    let mut service = selects.service.as_deref().expect("one").clone();
    let labels = [("app".to_owned(), "db".to_owned())];
    service.spec.get_or_insert_default().selector = Some(labels.into());
    selects.service = Some(Arc::new(service));
    assert!(ends(selects));
    let mut alone = settled();
    alone.service = None;
    assert!(ends(alone));
    for (labels, annotations) in [
        (
            json!({"endpointslice.kubernetes.io/skip-mirror": "true"}),
            json!({}),
        ),
        (
            json!({}),
            json!({"control-plane.alpha.kubernetes.io/leader": "{}"}),
        ),
    ] {
        let mut skipped = settled();
        let mut object = skipped.endpoints.as_ref().clone();
        object.metadata.labels = serde_json::from_value(labels).expect("labels");
        object.metadata.annotations = serde_json::from_value(annotations).expect("annotations");
        skipped.endpoints = Arc::new(object);
        assert!(ends(skipped));
    }
}

#[test]
fn a_subset_is_mirrored_up_to_a_bound() {
    let addresses: Vec<_> = (0..LIMIT + 20)
        .map(|n| json!({"ip": format!("10.1.{}.{}", n / 250, n % 250 + 1)}))
        .collect();
    let mut world = world(json!([{"addresses": addresses, "ports": [{"port": 80}]}]));
    settle(&mut world);
    assert_eq!(shown(&world.slices[0]).len(), LIMIT);
}
