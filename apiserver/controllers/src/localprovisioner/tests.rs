use std::sync::Arc;

use serde_json::{Value, json};

use super::PROVISIONER;
use super::reconcile::{Change, ClaimWorld, VolumeWorld, claim, volume, volume_name};

fn wanted(annotations: Value) -> Value {
    json!({
        "metadata": {"name": "data", "namespace": "shop", "uid": "c", "annotations": annotations},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": "standard",
        },
        "status": {"phase": "Pending"},
    })
}

fn ours() -> Value {
    json!({"volume.kubernetes.io/storage-provisioner": PROVISIONER})
}

fn decided(object: Value, mode: &str, made: Option<Value>) -> Vec<Change> {
    let class = json!({
        "metadata": {"name": "standard"}, "provisioner": PROVISIONER,
        "reclaimPolicy": "Retain", "volumeBindingMode": mode,
    });
    let read = |value: Value| Arc::new(serde_json::from_value(value).expect("a claim"));
    claim(&ClaimWorld {
        claim: read(object),
        class: Some(Arc::new(serde_json::from_value(class).expect("a class"))),
        volume: made.map(|pv| Arc::new(serde_json::from_value(pv).expect("a volume"))),
        node: "node-a".to_owned(),
        path: "/data/volumes/pvc-c".to_owned(),
    })
}

/// The volume that was made, and the reasons that were told.
fn made(changes: &[Change]) -> (Option<Value>, Vec<&'static str>) {
    let volume = changes.iter().find_map(|change| match change {
        Change::Create(volume) => Some(serde_json::to_value(volume).expect("JSON")),
        _ => None,
    });
    let told = changes.iter().filter_map(|change| match change {
        Change::Tell(_, reason, _) => Some(*reason),
        _ => None,
    });
    (volume, told.collect())
}

#[test]
fn a_claim_of_ours_gets_a_folder_of_the_node() {
    let changes = decided(wanted(ours()), "Immediate", None);
    let (volume, told) = made(&changes);
    assert_eq!(told, ["Provisioning", "ProvisioningSucceeded"]);
    let volume = volume.expect("made");
    assert_eq!(volume["metadata"]["name"], "pvc-c");
    let spec = &volume["spec"];
    assert_eq!(spec["claimRef"]["uid"], "c");
    assert_eq!(spec["capacity"]["storage"], "1Gi");
    assert_eq!(spec["hostPath"]["path"], "/data/volumes/pvc-c");
    assert_eq!(spec["persistentVolumeReclaimPolicy"], "Retain");
    let terms = &spec["nodeAffinity"]["required"]["nodeSelectorTerms"];
    assert_eq!(terms[0]["matchExpressions"][0]["values"], json!(["node-a"]));
    assert_eq!(decided(wanted(ours()), "Immediate", Some(volume)), []);
}

#[test]
fn claims_that_are_not_ours_yet_are_left_alone() {
    let on = |node: &str| {
        let mut annotations = ours();
        annotations["volume.kubernetes.io/selected-node"] = json!(node);
        wanted(annotations)
    };
    let others = json!({"volume.kubernetes.io/storage-provisioner": "example.com/disk"});
    let mut going = wanted(ours());
    going["metadata"]["deletionTimestamp"] = json!("2030-01-01T00:00:00Z");
    for (object, mode) in [
        (wanted(others), "Immediate"),
        (wanted(json!({})), "Immediate"),
        (wanted(ours()), "WaitForFirstConsumer"),
        (on("node-b"), "WaitForFirstConsumer"),
        (going, "Immediate"),
    ] {
        assert_eq!(decided(object.clone(), mode, None), [], "{object}");
    }
    let (volume, _) = made(&decided(on("node-a"), "WaitForFirstConsumer", None));
    assert!(volume.is_some());
}

#[test]
fn what_a_folder_cannot_be_is_refused() {
    for (field, value, words) in [
        (
            "volumeMode",
            json!("Block"),
            "block volumes are not supported",
        ),
        (
            "selector",
            json!({"matchLabels": {"a": "b"}}),
            "claim Selector is not supported",
        ),
        (
            "dataSource",
            json!({"kind": "VolumeSnapshot", "name": "s"}),
            "data sources",
        ),
    ] {
        let mut object = wanted(ours());
        object["spec"][field] = value;
        let changes = decided(object, "Immediate", None);
        let [Change::Tell(_, "ProvisioningFailed", message)] = changes.as_slice() else {
            panic!("{changes:?}");
        };
        assert!(message.starts_with("failed to provision volume with StorageClass \"standard\": "));
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn a_volume_grows_with_its_claim() {
    let mut object = wanted(ours());
    object["spec"]["volumeName"] = json!("pvc-c");
    object["status"]["phase"] = json!("Bound");
    let volume = made(&decided(wanted(ours()), "Immediate", None)).0;
    assert_eq!(decided(object.clone(), "Immediate", volume.clone()), []);
    object["spec"]["resources"]["requests"]["storage"] = json!("2Gi");
    let changes = decided(object, "Immediate", volume);
    let patch = json!({"spec": {"capacity": {"storage": "2Gi"}}});
    assert_eq!(changes.first(), Some(&Change::Volume(patch)));
}

#[test]
fn a_released_volume_goes_with_its_folder_if_it_may() {
    let base = made(&decided(wanted(ours()), "Immediate", None))
        .0
        .expect("made");
    let let_go = || Change::Volume(json!({"metadata": {"finalizers": []}}));
    let cases = [
        ("Delete", "Bound", false, vec![]),
        (
            "Delete",
            "Released",
            false,
            vec![Change::Remove, Change::Delete],
        ),
        ("Delete", "Bound", true, vec![]),
        ("Delete", "Released", true, vec![Change::Remove, let_go()]),
        ("Delete", "Available", true, vec![Change::Remove, let_go()]),
        ("Retain", "Released", false, vec![]),
        ("Retain", "Released", true, vec![let_go()]),
    ];
    let decide = |object: Value| {
        volume(&VolumeWorld {
            volume: Arc::new(serde_json::from_value(object).expect("a volume")),
            path: "/data/volumes/pvc-c".to_owned(),
        })
    };
    for (policy, phase, going, expected) in cases {
        let mut object = base.clone();
        object["spec"]["persistentVolumeReclaimPolicy"] = json!(policy);
        object["status"] = json!({"phase": phase});
        if going {
            object["metadata"]["deletionTimestamp"] = json!("2030-01-01T00:00:00Z");
        }
        assert_eq!(decide(object), expected, "{policy} {phase} {going}");
    }
    let mut elsewhere = base;
    elsewhere["spec"]["persistentVolumeReclaimPolicy"] = json!("Delete");
    elsewhere["status"] = json!({"phase": "Released"});
    elsewhere["spec"]["hostPath"]["path"] = json!("/home");
    let changes = decide(elsewhere);
    assert!(matches!(
        changes.as_slice(),
        [Change::Tell(_, "VolumeFailedDelete", _)]
    ));
}

#[test]
fn a_volume_is_named_by_its_claim() {
    let object = serde_json::from_value(wanted(ours())).expect("a claim");
    assert_eq!(volume_name(&object), "pvc-c");
}
