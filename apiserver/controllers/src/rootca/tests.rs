use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::reconcile::{Change, World, reconcile};

fn world(map: Option<ConfigMap>) -> World {
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some("shop".into()),
            ..Default::default()
        },
        ..Default::default()
    };
    World {
        namespace: Some(Arc::new(namespace)),
        map: map.map(Arc::new),
        authority: "PEM".into(),
    }
}

fn created() -> ConfigMap {
    match reconcile(&world(None)) {
        Some(Change::Create(map)) => map,
        other => panic!("a ConfigMap was to be made: {other:?}"),
    }
}

#[test]
fn a_namespace_gets_the_authority_once() {
    let map = created();
    assert_eq!(map.metadata.namespace.as_deref(), Some("shop"));
    assert_eq!(map.metadata.name.as_deref(), Some("kube-root-ca.crt"));
    assert_eq!(
        map.data.as_ref().map(|data| data["ca.crt"].as_str()),
        Some("PEM")
    );
    assert_eq!(reconcile(&world(Some(map))), None);
}

#[test]
fn what_somebody_changed_is_put_back() {
    let mut changed = created();
    let data = changed.data.as_mut().expect("data");
    data.insert("ca.crt".into(), "another".into());
    data.insert("more".into(), "x".into());
    let labels = [("team".to_owned(), "a".to_owned())];
    changed.metadata.labels = Some(labels.into());
    let Some(Change::Replace(restored)) = reconcile(&world(Some(changed))) else {
        panic!("it was to be put back");
    };
    assert_eq!(restored.data, created().data);
    assert!(restored.metadata.labels.is_some(), "what is not ours stays");
    assert_eq!(reconcile(&world(Some(restored))), None);
}

#[test]
fn a_namespace_that_goes_gets_nothing() {
    let mut going = world(None);
    let mut namespace = Namespace::clone(going.namespace.as_ref().expect("one"));
    namespace.metadata.deletion_timestamp = Some(Time(crate::fixtures::now()));
    going.namespace = Some(Arc::new(namespace));
    assert_eq!(reconcile(&going), None);
    going.namespace = None;
    assert_eq!(reconcile(&going), None);
}
