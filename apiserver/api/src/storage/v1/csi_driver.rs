//! CSIDriver: what a storage driver can do.

use std::collections::HashSet;

use coracle_clock::Timestamp;
use serde_json::{Value, json};

use crate::field_errors::ErrorType;
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, Storage, age};
use crate::object::default_value;
use crate::{At, FieldErrors, Object, Resource, Strategy};

/// What the pipeline knows of CSI drivers.
pub static RESOURCE: Resource = Resource {
    group: "storage.k8s.io",
    version: "v1",
    kind: "CSIDriver",
    plural: "csidrivers",
    singular: "csidriver",
    short_names: &[],
    categories: &[],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: false,
    create_on_update: false,
    unconditional_update: false,
    storage: Storage::Own,
    deprecation: None,
    strategy: &CSIDriver,
};

/// CSIDriver: what a storage driver can do.
pub struct CSIDriver;

impl Strategy for CSIDriver {
    fn default(&self, object: &mut Object) {
        let spec = object.map_mut("spec");
        let defaults = [
            ("attachRequired", json!(true)),
            ("podInfoOnMount", json!(false)),
            ("storageCapacity", json!(false)),
            ("fsGroupPolicy", json!("ReadWriteOnceWithFSType")),
            ("requiresRepublish", json!(false)),
            ("seLinuxMount", json!(false)),
        ];
        for (field, value) in defaults {
            default_value(spec, field, || value);
        }
        let modes = spec.get("volumeLifecycleModes").and_then(Value::as_array);
        if modes.is_none_or(Vec::is_empty) {
            spec.insert("volumeLifecycleModes".to_owned(), json!(["Persistent"]));
        }
    }

    fn prepare_for_update(&self, new: &mut Object, old: &Object) {
        // Only what may change counts.
        let counted = [
            "tokenRequests",
            "requiresRepublish",
            "seLinuxMount",
            "nodeAllocatableUpdatePeriodSeconds",
        ];
        let changed = counted.iter().any(|field| {
            let (now, before) = (new.at("spec").key(field), old.at("spec").key(field));
            now.value() != before.value()
                && !(now.is_empty() && before.is_empty() && *field == "tokenRequests")
        });
        if changed {
            let generation = old.at("metadata.generation").as_i64().unwrap_or(0) + 1;
            new.metadata_mut()
                .insert("generation".to_owned(), generation.into());
        }
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let spec = new.at("spec");
        let policy = spec.key("fsGroupPolicy");
        if policy.exists() {
            errors.one_of(&policy, &["File", "None", "ReadWriteOnceWithFSType"]);
        }
        token_requests(&spec.key("tokenRequests"), errors);
        let modes = spec.key("volumeLifecycleModes");
        for mode in modes.items() {
            if !["Persistent", "Ephemeral"].contains(&mode.str()) {
                // Upstream names the list, not the item.
                let shown = Some(Value::from(mode.str()));
                let detail = "supported values: \"Persistent\", \"Ephemeral\"";
                errors.push(ErrorType::NotSupported, modes.path(), shown, detail);
            }
        }
        let period = spec.key("nodeAllocatableUpdatePeriodSeconds");
        if period.as_i64().is_some_and(|seconds| seconds < 10) {
            errors.invalid(&period, "must be greater than or equal to 10 seconds");
        }
        let (in_secrets, tokens) = (
            spec.key("serviceAccountTokenInSecrets"),
            spec.key("tokenRequests"),
        );
        if in_secrets.exists() && tokens.is_empty() {
            errors.invalid(
                &in_secrets,
                "serviceAccountTokenInSecrets cannot be set when tokenRequests is empty",
            );
        }
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        let (now, before) = (new.at("spec.attachRequired"), old.at("spec.attachRequired"));
        if now.value() != before.value() {
            // The name is upstream's slip.
            let shown = now.value().cloned();
            let detail = "field is immutable";
            errors.push(ErrorType::Invalid, "spec.attachedRequired", shown, detail);
        }
        errors.unchanged(new, old, &["spec.volumeLifecycleModes"]);
    }

    fn warnings(&self, new: &Object, old: Option<&Object>) -> Vec<String> {
        let spec = new.at("spec");
        let had_tokens = old.is_some_and(|old| !old.at("spec.tokenRequests").is_empty());
        let unset = !spec.key("serviceAccountTokenInSecrets").exists();
        let warning = "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to \
                       prevent possible logging of tokens in volume attributes";
        (unset && !had_tokens && !spec.key("tokenRequests").is_empty())
            .then(|| warning.to_owned())
            .into_iter()
            .collect()
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let spec = object.at("spec");
        let flag = |field: &str| spec.key(field).is_true();
        let list = |texts: Vec<&str>| texts.join(",");
        let modes = spec.key("volumeLifecycleModes");
        let modes = list(
            modes
                .items()
                .map(|mode| mode.value().and_then(Value::as_str).unwrap_or(""))
                .collect(),
        );
        let requests = spec.key("tokenRequests");
        let mut audiences = Vec::new();
        for request in requests.items() {
            audiences.push(request.key("audience").str().to_owned());
        }
        let or = |text: String, other: &str| {
            if text.is_empty() {
                other.to_owned()
            } else {
                text
            }
        };
        vec![
            object.name().into(),
            flag("attachRequired").into(),
            flag("podInfoOnMount").into(),
            flag("storageCapacity").into(),
            or(audiences.join(","), "<unset>").into(),
            flag("requiresRepublish").into(),
            or(modes, "<none>").into(),
            age(object, now),
        ]
    }
}

/// Reports audiences that are asked for twice, and tokens that live too short or too long.
fn token_requests(at: &At<'_>, errors: &mut FieldErrors) {
    let mut audiences = HashSet::new();
    for request in at.items() {
        let audience = request.key("audience");
        if !audiences.insert(audience.str().to_owned()) {
            let shown = Some(Value::from(audience.str()));
            errors.push(ErrorType::Duplicate, audience.path(), shown, "");
            continue;
        }
        let seconds = request.key("expirationSeconds");
        if seconds.as_i64().is_some_and(|seconds| seconds < 600) {
            errors.invalid(&seconds, "may not specify a duration less than 10 minutes");
        }
        if seconds.as_i64().is_some_and(|seconds| seconds > 1 << 32) {
            let detail = "may not specify a duration larger than 2^32 seconds";
            errors.invalid(&seconds, detail);
        }
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column {
        name: "AttachRequired",
        kind: "boolean",
        format: "",
        description: "attachRequired indicates this CSI volume driver requires an attach operation (because it implements \
         the CSI ControllerPublishVolume() method), and that the Kubernetes attach detach controller should \
         call the attach volume interface which checks the volumeattachment status and waits until the volume \
         is attached before proceeding to mounting. The CSI external-attacher coordinates with CSI volume \
         driver and updates the volumeattachment status when the attach operation is complete. If the value is \
         specified to false, the attach operation will be skipped. Otherwise the attach operation will be \
         called.\n\nThis field is immutable.",
        priority: 0,
    },
    Column {
        name: "PodInfoOnMount",
        kind: "boolean",
        format: "",
        description: "podInfoOnMount indicates this CSI volume driver requires additional pod information (like podName, \
         podUID, etc.) during mount operations, if set to true. If set to false, pod information will not be \
         passed on mount. Default is false.\n\nThe CSI driver specifies podInfoOnMount as part of driver \
         deployment. If true, Kubelet will pass pod information as VolumeContext in the CSI NodePublishVolume() \
         calls. The CSI driver is responsible for parsing and validating the information passed in as \
         VolumeContext.\n\nThe following VolumeContext will be passed if podInfoOnMount is set to true. This \
         list might grow, but the prefix will be used. \"csi.storage.k8s.io/pod.name\": pod.Name \
         \"csi.storage.k8s.io/pod.namespace\": pod.Namespace \"csi.storage.k8s.io/pod.uid\": string(pod.UID) \
         \"csi.storage.k8s.io/ephemeral\": \"true\" if the volume is an ephemeral inline \
         volume\n                                defined by a CSIVolumeSource, otherwise \
         \"false\"\n\n\"csi.storage.k8s.io/ephemeral\" is a new feature in Kubernetes 1.16. It is only required \
         for drivers which support both the \"Persistent\" and \"Ephemeral\" VolumeLifecycleMode. Other drivers \
         can leave pod info disabled and/or ignore this field. As Kubernetes 1.15 doesn't support this field, \
         drivers can only support one mode when deployed on such a cluster and the deployment determines which \
         mode that is, for example via a command line parameter of the driver.\n\nThis field was immutable in \
         Kubernetes < 1.29 and now is mutable.",
        priority: 0,
    },
    Column {
        name: "StorageCapacity",
        kind: "boolean",
        format: "",
        description: "storageCapacity indicates that the CSI volume driver wants pod scheduling to consider the storage \
         capacity that the driver deployment will report by creating CSIStorageCapacity objects with capacity \
         information, if set to true.\n\nThe check can be enabled immediately when deploying a driver. In that \
         case, provisioning new volumes with late binding will pause until the driver deployment has published \
         some suitable CSIStorageCapacity object.\n\nAlternatively, the driver can be deployed with the field \
         unset or false and it can be flipped later when storage capacity information has been \
         published.\n\nThis field was immutable in Kubernetes <= 1.22 and now is mutable.",
        priority: 0,
    },
    Column::string(
        "TokenRequests",
        "tokenRequests indicates the CSI driver needs pods' service account tokens it is mounting volume for to \
         do necessary authentication. Kubelet will pass the tokens in VolumeContext in the CSI \
         NodePublishVolume calls. The CSI driver should parse and validate the following VolumeContext: \
         \"csi.storage.k8s.io/serviceAccount.tokens\": {\n  \"<audience>\": {\n    \"token\": \
         <token>,\n    \"expirationTimestamp\": <expiration timestamp in RFC3339>,\n  },\n  ...\n}\n\nNote: \
         Audience in each TokenRequest should be different and at most one token is empty string. To receive a \
         new token after expiry, RequiresRepublish can be used to trigger NodePublishVolume periodically.",
    ),
    Column {
        name: "RequiresRepublish",
        kind: "boolean",
        format: "",
        description: "requiresRepublish indicates the CSI driver wants `NodePublishVolume` being periodically called to \
         reflect any possible change in the mounted volume. This field defaults to false.\n\nNote: After a \
         successful initial NodePublishVolume call, subsequent calls to NodePublishVolume should only update \
         the contents of the volume. New mount points will not be seen by a running container.",
        priority: 0,
    },
    Column::string(
        "Modes",
        "volumeLifecycleModes defines what kind of volumes this CSI volume driver supports. The default if the \
         list is empty is \"Persistent\", which is the usage defined by the CSI specification and implemented \
         in Kubernetes via the usual PV/PVC mechanism.\n\nThe other mode is \"Ephemeral\". In this mode, \
         volumes are defined inline inside the pod spec with CSIVolumeSource and their lifecycle is tied to the \
         lifecycle of that pod. A driver has to be aware of this because it is only going to get a \
         NodePublishVolume call for such a volume.\n\nFor more information about implementing this mode, see \
         https://kubernetes-csi.github.io/docs/ephemeral-local-volumes.html A driver can support one or more of \
         these modes and more modes may be added in the future.\n\nThis field is beta. This field is immutable.",
    ),
    AGE,
];
