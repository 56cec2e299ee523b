use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;

use super::reconcile::{Change, World, reconcile};

fn world(map: Option<ConfigMap>, authority: &str) -> World {
    let data = [("client-ca-file".to_owned(), authority.to_owned())];
    World {
        map: map.map(Arc::new),
        authentication: BTreeMap::from(data),
    }
}

#[test]
fn what_the_server_believes_is_said_and_kept() {
    let Some(Change::Create(map)) = reconcile(&world(None, "one")) else {
        panic!("a ConfigMap was to be made");
    };
    assert_eq!(map.data, Some(world(None, "one").authentication));
    assert_eq!(reconcile(&world(Some(map.clone()), "one")), None);
    let Some(Change::Replace(map)) = reconcile(&world(Some(map), "two")) else {
        panic!("another authority was to be said");
    };
    assert_eq!(map.data, Some(world(None, "two").authentication));
    let emptied = ConfigMap { data: None, ..map };
    let put_back = reconcile(&world(Some(emptied), "two"));
    assert!(matches!(put_back, Some(Change::Replace(_))));
}

#[test]
fn a_server_that_believes_nobody_says_nothing() {
    let nobody = World {
        authentication: BTreeMap::new(),
        ..world(None, "")
    };
    assert_eq!(reconcile(&nobody), None);
}
