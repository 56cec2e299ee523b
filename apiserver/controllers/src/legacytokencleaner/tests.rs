use std::sync::Arc;

use coracle_clock::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::reconcile::{Change, World, is_due, reconcile, secrets_of};

const NOW: &str = "2026-11-28T12:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// A Secret of 2020 that its account lists, with these labels.
fn world(labels: Value) -> World {
    let secret = json!({
        "type": "kubernetes.io/service-account-token",
        "metadata": {
            "name": "robot-token", "namespace": "shop", "creationTimestamp": "2020-01-01T00:00:00Z",
            "annotations": {
                "kubernetes.io/service-account.name": "robot", "kubernetes.io/service-account.uid": "u1",
            },
            "labels": labels,
        },
    });
    let account = json!({
        "metadata": {"name": "robot", "namespace": "shop", "uid": "u1"}, "secrets": [{"name": "robot-token"}],
    });
    World {
        secret: Arc::new(serde_json::from_value(secret).expect("a Secret")),
        account: Some(Arc::new(
            serde_json::from_value(account).expect("an account"),
        )),
        is_mounted: false,
        now: at(NOW),
    }
}

fn used(day: &str) -> Value {
    json!({"kubernetes.io/legacy-token-last-used": day})
}

#[test]
fn uses_have_to_be_written_down_for_a_year_and_a_day() {
    for (since, due) in [
        ("2025-11-27T00:00:00Z", true),
        ("2025-11-28T00:00:00Z", false),
        ("2026-11-28T00:00:00Z", false),
    ] {
        assert_eq!(is_due(Some(at(since)), at(NOW)), due, "{since}");
    }
    assert!(!is_due(None, at(NOW)));
}

#[test]
fn a_token_is_marked_and_a_year_later_deleted() {
    let mark = Some(Change::Mark("2026-11-28".to_owned()));
    let marked = |day: &str| json!({"kubernetes.io/legacy-token-invalid-since": day});
    for (labels, expected) in [
        (json!({}), mark.clone()),
        (used("2025-11-27"), mark.clone()),
        (used("2025-11-28"), None),
        (used("2026-11-28"), None),
        // Nobody can say when that was.
        (used("long ago"), None),
        (marked("long ago"), mark.clone()),
        (marked(""), mark),
        (marked("2026-11-28"), None),
        (marked("2025-11-28"), None),
        (marked("2025-11-27"), Some(Change::Delete)),
    ] {
        assert_eq!(reconcile(&world(labels.clone())), expected, "{labels}");
    }
}

#[test]
fn a_use_saves_a_marked_token() {
    let mut labels = used("2026-06-01");
    labels["kubernetes.io/legacy-token-invalid-since"] = "2024-01-01".into();
    assert_eq!(reconcile(&world(labels)), None);
}

#[test]
fn what_somebody_made_or_uses_stays() {
    let change = |change: &dyn Fn(&mut World)| {
        let mut world = world(json!({}));
        change(&mut world);
        reconcile(&world)
    };
    let secret = |edit: fn(&mut k8s_openapi::api::core::v1::Secret)| {
        change(&move |world| edit(Arc::make_mut(&mut world.secret)))
    };
    let account = |edit: fn(&mut k8s_openapi::api::core::v1::ServiceAccount)| {
        change(&move |world| edit(Arc::make_mut(world.account.as_mut().expect("one"))))
    };
    assert_eq!(change(&|world| world.is_mounted = true), None);
    assert_eq!(change(&|world| world.account = None), None);
    assert_eq!(account(|account| account.secrets = None), None);
    assert_eq!(
        account(|account| account.metadata.uid = Some("u2".into())),
        None
    );
    assert_eq!(secret(|secret| secret.type_ = Some("Opaque".into())), None);
    let young = secret(|secret| {
        let made = "2026-01-01T00:00:00Z".parse().expect("a time");
        secret.metadata.creation_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(made));
    });
    assert_eq!(young, None);
    let going = secret(|secret| {
        secret.metadata.deletion_timestamp = secret.metadata.creation_timestamp.clone();
    });
    assert_eq!(going, None);
    assert!(change(&|_| {}).is_some(), "the others differ in one thing");
}

#[test]
fn pods_name_secrets_in_many_places() {
    let variable = |name: &str| json!({"name": "V", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}});
    let source = |name: &str| json!({"secretRef": {"name": name}});
    let pod: Pod = serde_json::from_value(json!({"spec": {
        "imagePullSecrets": [{"name": "a"}],
        "initContainers": [{"name": "i", "env": [variable("b")]}],
        "containers": [{"name": "c", "envFrom": [source("c")]}],
        "ephemeralContainers": [{"name": "e", "env": [variable("d")]}],
        "volumes": [
            {"name": "v", "secret": {"secretName": "e"}},
            {"name": "p", "projected": {"sources": [{"secret": {"name": "f"}}, {"configMap": {"name": "no"}}]}},
            {"name": "x", "azureFile": {"secretName": "g", "shareName": "s"}},
            {"name": "y", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "h"}}},
            {"name": "z", "emptyDir": {}},
        ],
    }}))
    .expect("a pod");
    assert_eq!(secrets_of(&pod), ["a", "b", "c", "d", "e", "f", "g", "h"]);
    assert!(secrets_of(&Pod::default()).is_empty());
}
