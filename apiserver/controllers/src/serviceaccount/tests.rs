use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::reconcile::{World, reconcile};

fn namespace() -> Namespace {
    Namespace {
        metadata: ObjectMeta {
            name: Some("shop".into()),
            ..Default::default()
        },
        ..Default::default()
    }
}

#[test]
fn a_namespace_gets_its_account_once() {
    let mut world = World {
        namespace: Some(Arc::new(namespace())),
        account: None,
    };
    let account = reconcile(&world).expect("one is missing");
    assert_eq!(account.metadata.namespace.as_deref(), Some("shop"));
    assert_eq!(account.metadata.name.as_deref(), Some("default"));
    world.account = Some(Arc::new(account));
    assert_eq!(reconcile(&world), None);
}

#[test]
fn a_namespace_that_goes_gets_nothing() {
    let mut terminating = namespace();
    terminating.metadata.deletion_timestamp = Some(Time(crate::fixtures::now()));
    assert_eq!(
        reconcile(&World {
            namespace: Some(Arc::new(terminating)),
            account: None
        }),
        None
    );
    assert_eq!(
        reconcile(&World {
            namespace: None,
            account: None
        }),
        None
    );
}
