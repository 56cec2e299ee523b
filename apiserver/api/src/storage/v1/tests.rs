//! What is accepted and refused, side by side.

use serde_json::{Value, json};

use super::csi_driver::CSIDriver;
use super::csi_node::CSINode;
use super::storage_class::StorageClass;
use super::volume_attachment::VolumeAttachment;
use super::volume_attributes_class::VolumeAttributesClass;
use crate::{FieldErrors, Object, Strategy};

fn object(value: Value) -> Object {
    Object::from_value(value).expect("an object")
}

fn findings(kind: &dyn Strategy, value: Value) -> Vec<String> {
    let mut new = object(value);
    kind.default(&mut new);
    let mut errors = FieldErrors::default();
    kind.validate(&new, &mut errors);
    kind.validate_create(&new, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

fn changes(kind: &dyn Strategy, new: Value, old: Value) -> Vec<String> {
    let (mut new, mut old) = (object(new), object(old));
    kind.default(&mut new);
    kind.default(&mut old);
    let mut errors = FieldErrors::default();
    kind.validate_update(&new, &old, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn storage_classes() {
    let class = json!({"provisioner": "example.com/P", "parameters": {"a": "b"}});
    assert_eq!(findings(&StorageClass, class.clone()), Vec::<String>::new());
    let empty_term = json!({"provisioner": "p", "allowedTopologies": [{}]});
    let refused = [
        (json!({}), "provisioner: Required value"),
        (
            json!({"provisioner": "p", "parameters": {"": "x"}}),
            "parameters: Invalid value: \"\": field can not be empty.",
        ),
        (
            json!({"provisioner": "p", "reclaimPolicy": "Recycle"}),
            "reclaimPolicy: Unsupported value: \"Recycle\": supported values: \"Delete\", \"Retain\"",
        ),
        (
            empty_term,
            "allowedTopologies[0].matchLabelExpressions: Duplicate value: \"\"",
        ),
    ];
    for (value, why) in refused {
        assert_eq!(findings(&StorageClass, value), [why]);
    }
    assert_eq!(
        changes(
            &StorageClass,
            json!({"provisioner": "q", "reclaimPolicy": "Retain"}),
            class
        ),
        [
            "parameters: Forbidden: updates to parameters are forbidden.",
            "provisioner: Forbidden: updates to provisioner are forbidden.",
            "reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden.",
        ]
    );
}

#[test]
fn csi_drivers() {
    assert_eq!(findings(&CSIDriver, json!({})), Vec::<String>::new());
    let twice = json!({"spec": {"tokenRequests": [{"audience": "a"}, {"audience": "a"}]}});
    let short = json!({"spec": {"tokenRequests": [{"audience": "a", "expirationSeconds": 599}]}});
    let refused = [
        (
            twice,
            "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
        ),
        (
            short,
            "spec.tokenRequests[0].expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes",
        ),
        (
            json!({"spec": {"volumeLifecycleModes": ["Sometimes"]}}),
            "spec.volumeLifecycleModes: Unsupported value: \"Sometimes\": supported values: \"Persistent\", \"Ephemeral\"",
        ),
    ];
    for (value, why) in refused {
        assert_eq!(findings(&CSIDriver, value), [why]);
    }
    assert_eq!(
        changes(
            &CSIDriver,
            json!({"spec": {"attachRequired": false}}),
            json!({})
        ),
        ["spec.attachedRequired: Invalid value: false: field is immutable"]
    );
}

#[test]
fn csi_nodes() {
    let driver = |id: &str| json!({"spec": {"drivers": [{"name": "d.example.com", "nodeID": id}]}});
    assert_eq!(findings(&CSINode, driver("n")), Vec::<String>::new());
    assert_eq!(
        findings(&CSINode, driver("")),
        ["spec.drivers[0].nodeID: Required value"]
    );
    let limits = json!({"spec": {"drivers": [{"name": "d.example.com", "nodeID": "n", "allocatable": {"count": 1}}]}});
    assert_eq!(changes(&CSINode, limits, driver("n")), Vec::<String>::new());
    assert_eq!(changes(&CSINode, driver("m"), driver("n")).len(), 1);
}

#[test]
fn attachments_and_attributes() {
    let attachment = json!({"spec": {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "pv"}}});
    assert_eq!(
        findings(&VolumeAttachment, attachment.clone()),
        Vec::<String>::new()
    );
    let mut moved = attachment.clone();
    moved["spec"]["nodeName"] = "m".into();
    assert_eq!(
        changes(&VolumeAttachment, moved, attachment),
        [
            "spec: Invalid value: {\"Attacher\":\"a\",\"Source\":{\"PersistentVolumeName\":\"pv\",\
             \"InlineVolumeSpec\":null},\"NodeName\":\"m\"}: field is immutable"
        ]
    );
    assert_eq!(
        findings(&VolumeAttributesClass, json!({"driverName": "d"})),
        ["parameters: Required value: must contain at least one key/value pair"]
    );
}

#[test]
fn volumes_inside_attachments_are_csi_volumes_and_nothing_else() {
    let csi = json!({"driver": "d.example.com", "volumeHandle": "h"});
    let found = |inline: serde_json::Value| {
        let object = json!({
            "metadata": {"name": "x"},
            "spec": {"attacher": "d.example.com", "nodeName": "n", "source": {"inlineVolumeSpec": inline}},
        });
        let mut errors = crate::FieldErrors::default();
        let object = crate::Object::from_value(object).expect("an object");
        super::volume_attachment::RESOURCE
            .strategy
            .validate(&object, &mut errors);
        let place = "spec.source.inlineVolumeSpec.";
        errors
            .iter()
            .map(|error| error.to_string().replace(place, ""))
            .collect::<Vec<_>>()
    };
    let modes = json!(["ReadWriteOnce"]);
    assert!(found(json!({"accessModes": modes, "csi": csi})).is_empty());
    let context = "in the context of inline volumes";
    let all = found(json!({
        "accessModes": modes, "csi": csi, "claimRef": {"name": "c"}, "capacity": {"storage": "1Gi"},
        "persistentVolumeReclaimPolicy": "Delete", "storageClassName": "s", "volumeMode": "Block",
    }));
    let forbidden = |field: &str| format!("{field}: Forbidden: may not be specified {context}");
    let expected = [
        forbidden("claimRef"),
        forbidden("capacity"),
        format!("persistentVolumeReclaimPolicy: Forbidden: may only be Retain {context}"),
        forbidden("storageClassName"),
        format!(
            "volumeMode: Forbidden: may not specify volumeMode other than Filesystem {context}"
        ),
    ];
    assert_eq!(all, expected);
    let without = found(json!({"accessModes": modes}));
    assert_eq!(
        without[0],
        format!("csi: Required value: has to be specified {context}")
    );
}
