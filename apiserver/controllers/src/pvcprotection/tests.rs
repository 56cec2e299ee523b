use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::{Value, json};

use super::reconcile::{FINALIZER, World, reconcile};

fn claim(going: bool, finalizers: Value) -> Arc<PersistentVolumeClaim> {
    named("data", going, finalizers)
}

fn named(name: &str, going: bool, finalizers: Value) -> Arc<PersistentVolumeClaim> {
    let since = going.then_some("2030-01-01T00:00:00Z");
    let claim = json!({"metadata": {
        "name": name, "namespace": "default", "finalizers": finalizers, "deletionTimestamp": since,
    }});
    Arc::new(serde_json::from_value(claim).expect("a claim"))
}

fn pod(name: &str, node: &str, volume: Value) -> Arc<Pod> {
    let pod = json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": node, "containers": [], "volumes": [volume]},
    });
    Arc::new(serde_json::from_value(pod).expect("a pod"))
}

fn finalizers(claim: Arc<PersistentVolumeClaim>, pods: Vec<Arc<Pod>>) -> Option<Value> {
    let patch = reconcile(&World { claim, pods })?;
    Some(patch["metadata"]["finalizers"].clone())
}

#[test]
fn a_claim_that_stays_is_protected() {
    assert_eq!(
        finalizers(claim(false, json!(["other"])), Vec::new()),
        Some(json!(["other", FINALIZER]))
    );
    assert_eq!(
        finalizers(claim(false, json!([FINALIZER])), Vec::new()),
        None
    );
}

#[test]
fn a_claim_that_goes_waits_for_its_pods() {
    let going = || claim(true, json!([FINALIZER, "other"]));
    let mounts = json!({"name": "v", "persistentVolumeClaim": {"claimName": "data"}});
    let own = json!({"name": "v", "ephemeral": {}});
    assert_eq!(
        finalizers(going(), vec![pod("p", "node", mounts.clone())]),
        None
    );
    let of_web = named("web-v", true, json!([FINALIZER]));
    assert_eq!(finalizers(of_web, vec![pod("web", "node", own)]), None);
    let harmless = vec![
        pod("p", "", mounts),
        pod("q", "node", json!({"name": "data", "emptyDir": {}})),
        pod(
            "r",
            "node",
            json!({"name": "v", "persistentVolumeClaim": {"claimName": "other"}}),
        ),
    ];
    assert_eq!(finalizers(going(), harmless), Some(json!(["other"])));
    assert_eq!(finalizers(claim(true, json!(["other"])), Vec::new()), None);
}
