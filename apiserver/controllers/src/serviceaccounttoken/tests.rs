use std::sync::Arc;

use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use serde_json::{Value, json};

use super::reconcile::{Change, World, reconcile};
use crate::{ClusterTrust, Published};

fn trust() -> ClusterTrust {
    ClusterTrust {
        published: Published::fixed("PEM"),
        sign: Arc::new(|account: &ServiceAccount, secret: &str| {
            let uid = account.metadata.uid.as_deref().unwrap_or_default();
            Ok(format!("token of {uid} in {secret}"))
        }),
    }
}

fn secret(changes: Value) -> Secret {
    let mut secret = json!({
        "type": "kubernetes.io/service-account-token",
        "metadata": {
            "name": "robot-token", "namespace": "shop",
            "annotations": {"kubernetes.io/service-account.name": "robot"},
        },
    });
    for (key, value) in changes.as_object().expect("an object") {
        secret["metadata"]["annotations"][key] = value.clone();
    }
    serde_json::from_value(secret).expect("a Secret")
}

fn account(uid: &str) -> Option<Arc<ServiceAccount>> {
    let account = json!({"metadata": {"name": "robot", "namespace": "shop", "uid": uid}});
    Some(Arc::new(
        serde_json::from_value(account).expect("an account"),
    ))
}

fn change(secret: Secret, account: Option<Arc<ServiceAccount>>) -> Option<Change> {
    let secret = Arc::new(secret);
    reconcile(&World { secret, account }, &trust()).expect("signed")
}

#[test]
fn a_secret_is_filled_once() {
    let Some(Change::Replace(filled)) = change(secret(json!({})), account("u1")) else {
        panic!("it was to be filled");
    };
    let data = filled.data.as_ref().expect("data");
    let text = |key: &str| String::from_utf8(data[key].0.clone()).expect("text");
    assert_eq!(text("token"), "token of u1 in robot-token");
    assert_eq!(
        (text("ca.crt"), text("namespace")),
        ("PEM".into(), "shop".into())
    );
    let annotations = filled.metadata.annotations.as_ref().expect("annotations");
    assert_eq!(annotations["kubernetes.io/service-account.uid"], "u1");
    assert_eq!(change(*filled, account("u1")), None);
}

#[test]
fn a_secret_goes_with_its_account() {
    let of = json!({"kubernetes.io/service-account.uid": "u1"});
    for account in [None, account("u2")] {
        let gone = change(secret(of.clone()), account);
        assert!(matches!(gone, Some(Change::Delete(_))), "{gone:?}");
    }
}

#[test]
fn a_secret_that_names_nobody_is_let_alone() {
    let nobody = secret(json!({"kubernetes.io/service-account.name": ""}));
    assert_eq!(change(nobody, None), None);
}

#[test]
fn a_key_that_is_missing_is_told() {
    let trust = ClusterTrust {
        sign: Arc::new(|_, _| Err("no key".to_owned())),
        ..trust()
    };
    let world = World {
        secret: Arc::new(secret(json!({}))),
        account: account("u1"),
    };
    assert_eq!(reconcile(&world, &trust), Err("no key".to_owned()));
}
