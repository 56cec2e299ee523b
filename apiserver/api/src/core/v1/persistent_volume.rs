//! PersistentVolume: storage of the cluster, which claims are bound to.

use coracle_clock::Timestamp;
use serde_json::{Map, Value, json};

use super::persistent_volume_claim::{
    CLASS_ANNOTATION, access_modes, attributes_class, class_of, modes_text, parsed,
    quantity_invalid, quantity_text, volume_mode,
};
use super::pod_spec::{defaults, disks, scheduling, volumes, warnings};
use crate::field_errors::ErrorType;
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, STATUS, Storage, age};
use crate::object::{default_text, default_value};
use crate::schema::{internal_form, show_empties};
use crate::validation::{diff, names};
use crate::{At, FieldErrors, Object, Resource, Strategy};

/// Annotation that a field has replaced.
const MOUNT_ANNOTATION: &str = "volume.beta.kubernetes.io/mount-options";

/// What the pipeline knows of persistentvolumes.
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "PersistentVolume",
    plural: "persistentvolumes",
    singular: "persistentvolume",
    short_names: &["pv"],
    categories: &[],
    namespaced: false,
    verbs: ALL_VERBS,
    subresources: &[STATUS],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: false,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &PersistentVolume,
};

/// The fields of the spec that say where a volume is, in the order in which upstream holds them, by its names.
const SOURCES: [(&str, &str); 22] = [
    ("gcePersistentDisk", "GCEPersistentDisk"),
    ("awsElasticBlockStore", "AWSElasticBlockStore"),
    ("hostPath", "HostPath"),
    ("glusterfs", "Glusterfs"),
    ("nfs", "NFS"),
    ("rbd", "RBD"),
    ("quobyte", "Quobyte"),
    ("iscsi", "ISCSI"),
    ("flexVolume", "FlexVolume"),
    ("cinder", "Cinder"),
    ("cephfs", "CephFS"),
    ("fc", "FC"),
    ("flocker", "Flocker"),
    ("azureFile", "AzureFile"),
    ("vsphereVolume", "VsphereVolume"),
    ("azureDisk", "AzureDisk"),
    ("photonPersistentDisk", "PhotonPersistentDisk"),
    ("portworxVolume", "PortworxVolume"),
    ("scaleIO", "ScaleIO"),
    ("local", "Local"),
    ("storageos", "StorageOS"),
    ("csi", "CSI"),
];

/// PersistentVolume: storage of the cluster, which claims are bound to.
pub struct PersistentVolume;

impl Strategy for PersistentVolume {
    fn default(&self, object: &mut Object) {
        let spec = object.map_mut("spec");
        default_text(spec, "persistentVolumeReclaimPolicy", "Retain");
        default_value(spec, "volumeMode", || json!("Filesystem"));
        defaults::volume_source(spec);
        if let Some(claim) = spec.get_mut("claimRef").and_then(Value::as_object_mut) {
            // A reference to a claim need not say that it is one.
            default_text(claim, "kind", "PersistentVolumeClaim");
        }
        default_text(object.map_mut("status"), "phase", "Pending");
    }

    fn prepare_for_create(&self, new: &mut Object) {
        let now = new.metadata("creationTimestamp").to_owned();
        let mut status = json!({"phase": "Pending"});
        if !now.is_empty() {
            status["lastPhaseTransitionTime"] = now.into();
        }
        new.set("status", status);
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        validate_spec(&new.at("spec"), false, errors);
    }

    fn validate_replacement(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        // Upstream looks at a new volume twice, and reports findings twice.
        self.validate(new, errors);
        self.validate(new, errors);
        self.validate_update(new, old, errors);
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        let (now, was) = (new.at("spec"), old.at("spec"));
        let (mut source, before) = (source_of(&now), source_of(&was));
        // A secret for growing may be named later.
        let secret = "ControllerExpandSecretRef";
        if before["CSI"].is_object() && before["CSI"][secret].is_null() && source["CSI"].is_object()
        {
            source["CSI"][secret] = Value::Null;
        }
        if source != before {
            show_empties(&mut source, "spec", new.empties());
            errors.forbidden(
                &At::maybe(None, "spec.persistentvolumesource"),
                format!(
                    "spec.persistentvolumesource is immutable after creation\n{}",
                    diff::values(&before, &source)
                ),
            );
        }
        let mode = At::maybe(now.key("volumeMode").value(), "volumeMode");
        errors.immutable(&mode, &was.key("volumeMode"));
        let (affinity, had) = (now.key("nodeAffinity"), was.key("nodeAffinity"));
        if had.exists() && affinity.value() != had.value() {
            errors.push(
                ErrorType::Invalid,
                "nodeAffinity",
                Some(internal_form(
                    "io.k8s.api.core.v1.VolumeNodeAffinity",
                    affinity.value(),
                )),
                "field is immutable, except for updating from beta label to GA",
            );
        }
        let (class, before) = (
            now.key("volumeAttributesClassName"),
            was.key("volumeAttributesClassName"),
        );
        if before.exists() && !class.exists() {
            errors.forbidden(&class, "update from non-nil value to nil is forbidden");
        }
    }

    fn prepare_for_status_update(&self, new: &mut Object, old: &Object) {
        // Whoever moves the volume to another phase says when; the time of the same phase stays.
        let time = old.at("status.lastPhaseTransitionTime").value().cloned();
        if new.at("status.phase").str() == old.at("status.phase").str()
            && let Some(time) = time
        {
            new.set_default("status.lastPhaseTransitionTime", time);
        }
    }

    fn warnings(&self, new: &Object, _old: Option<&Object>) -> Vec<String> {
        let mut found = Vec::new();
        let annotations = new.at("metadata.annotations");
        if annotations.entry(CLASS_ANNOTATION).exists() {
            found.push(format!(
                "metadata.annotations[{CLASS_ANNOTATION}]: deprecated since v1.8; use \"storageClassName\" attribute \
                 instead"
            ));
        }
        if annotations.entry(MOUNT_ANNOTATION).exists() {
            found.push(format!(
                "metadata.annotations[{MOUNT_ANNOTATION}]: deprecated since v1.31; use \"mountOptions\" attribute instead"
            ));
        }
        if new.at("spec.persistentVolumeReclaimPolicy").str() == "Recycle" {
            found.push(
                "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the \
                 recommended approach is to use dynamic provisioning."
                    .to_owned(),
            );
        }
        let terms = new.at("spec.nodeAffinity.required.nodeSelectorTerms");
        for term in terms.items() {
            warnings::node_term(&term, true, &mut found);
        }
        for (field, since) in [
            ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
            (
                "photonPersistentDisk",
                "deprecated in v1.11, non-functional in v1.16+",
            ),
            ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
            ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
            ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
            ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
        ] {
            if new.at("spec").key(field).exists() {
                found.push(format!("spec.{field}: {since}"));
            }
        }
        found
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let spec = object.at("spec");
        let claim = spec.key("claimRef");
        let phase = if object.is_terminating() {
            "Terminating"
        } else {
            object.at("status.phase").str()
        };
        let claim = if claim.exists() {
            format!(
                "{}/{}",
                claim.key("namespace").str(),
                claim.key("name").str()
            )
        } else {
            String::new()
        };
        let size = spec.key("capacity").entry("storage");
        vec![
            object.name().into(),
            if size.exists() {
                quantity_text(&size).into()
            } else {
                "0".into()
            },
            modes_text(&spec.key("accessModes")).into(),
            spec.key("persistentVolumeReclaimPolicy").str().into(),
            phase.into(),
            claim.into(),
            class_of(object).into(),
            attributes_class(&spec).into(),
            object.at("status.reason").str().into(),
            age(object, now),
            spec.key("volumeMode").as_str().unwrap_or("<unset>").into(),
        ]
    }
}

/// Reports what is wrong with the spec of a volume, or of one that a VolumeAttachment has inside.
pub fn validate_spec(spec: &At<'_>, inline: bool, errors: &mut FieldErrors) {
    let (modes, affinity) = (spec.key("accessModes"), spec.key("nodeAffinity"));
    if inline {
        for field in ["claimRef", "capacity"] {
            forbidden_inline(&spec.key(field), errors);
        }
        if !spec.key("csi").exists() {
            let detail = "has to be specified in the context of inline volumes";
            errors.required(&spec.key("csi"), detail);
        }
    }
    if modes.is_empty() {
        errors.required(&modes, "");
    }
    access_modes(&modes, errors);
    if !inline {
        capacity(&spec.key("capacity"), errors);
    }
    let policy = spec.key("persistentVolumeReclaimPolicy");
    match policy.str() {
        "" => {}
        "Retain" if inline => {}
        _ if inline => {
            let detail = "may only be Retain in the context of inline volumes";
            errors.forbidden(&policy, detail);
        }
        _ => errors.one_of(&policy, &["Delete", "Recycle", "Retain"]),
    }
    if inline {
        forbidden_inline(&affinity, errors);
    } else if affinity.exists() {
        let required = affinity.key("required");
        if required.exists() {
            scheduling::node_selector(&required, errors);
        } else {
            errors.required(&required, "must specify required node constraints");
        }
    }
    sources(spec, errors);
    let path = spec.at("hostPath.path");
    if policy.str() == "Recycle" && !path.is_empty() && path.str().trim_matches('/').is_empty() {
        errors.forbidden(&policy, "may not be 'recycle' for a hostPath mount of '/'");
    }
    let class = spec.key("storageClassName");
    if inline {
        forbidden_inline(&class, errors);
    } else if !class.str().is_empty() {
        errors.text(&class, names::dns1123_subdomain);
    }
    let mode = spec.key("volumeMode");
    if !inline {
        volume_mode(&mode, errors);
    } else if mode.exists() && mode.str() != "Filesystem" {
        let detail =
            "may not specify volumeMode other than Filesystem in the context of inline volumes";
        errors.forbidden(&mode, detail);
    }
    attributes(spec, errors);
}

fn forbidden_inline(at: &At<'_>, errors: &mut FieldErrors) {
    if !at.is_empty() {
        errors.forbidden(at, "may not be specified in the context of inline volumes");
    }
}

fn capacity(at: &At<'_>, errors: &mut FieldErrors) {
    if at.is_empty() {
        errors.required(at, "");
    }
    let has_storage = at.entries().any(|(name, _)| name == "storage");
    if !has_storage || at.len() > 1 {
        errors.push(
            ErrorType::NotSupported,
            at.path(),
            Some(at.value().cloned().unwrap_or(Value::Null)),
            "supported values: \"storage\"",
        );
    }
    for (_, quantity) in at.entries() {
        let amount = parsed(&quantity);
        if amount.as_ref().is_some_and(|amount| amount.is_negative()) {
            quantity_invalid(&quantity, "must be a valid resource quantity", errors);
        }
        if amount.is_none_or(|amount| amount.is_negative() || amount.is_zero()) {
            quantity_invalid(&quantity, "must be greater than zero", errors);
        }
    }
}

/// A volume has exactly one source.
fn sources(spec: &At<'_>, errors: &mut FieldErrors) {
    let mut found = 0;
    for (field, _) in SOURCES {
        let at = spec.key(field);
        if !at.exists() {
            continue;
        }
        found += 1;
        if found > 1 {
            errors.forbidden(&at, "may not specify more than 1 volume type");
            continue;
        }
        match field {
            "hostPath" => volumes::host_path(&at, errors),
            "csi" => disks::persistent_csi(&at, errors),
            "gcePersistentDisk" => {
                // Upstream calls it by its old name here.
                let place = At::maybe(at.value(), format!("{}.persistentDisk", spec.path()));
                disks::source(field, &place, errors);
            }
            _ => disks::source(field, &at, errors),
        }
        // A volume belongs to no namespace in which its Secret could be.
        let secret = at.key("secretRef");
        let of_secret = secret.key("namespace");
        let has_secret = ["cinder", "storageos"].contains(&field) && secret.exists();
        if has_secret && of_secret.str().is_empty() {
            errors.required(&of_secret, "");
        }
        if field == "local" && !spec.key("nodeAffinity").exists() {
            errors.required(
                &spec.key("nodeAffinity"),
                "Local volume requires node affinity",
            );
        }
    }
    if found == 0 {
        errors.required(spec, "must specify a volume type");
    }
}

fn attributes(spec: &At<'_>, errors: &mut FieldErrors) {
    let class = spec.key("volumeAttributesClassName");
    if !class.exists() {
        return;
    }
    if class.str().is_empty() {
        errors.required(&class, "an empty string is disallowed");
    } else {
        errors.text(&class, names::dns1123_subdomain);
    }
    if !spec.key("csi").exists() {
        errors.required(
            &spec.key("csi"),
            "has to be specified when using volumeAttributesClassName",
        );
    }
}

/// Where the volume is, as upstream holds it.
fn source_of(spec: &At<'_>) -> Value {
    let form = internal_form("io.k8s.api.core.v1.PersistentVolumeSpec", spec.value());
    let mut source = Map::new();
    for (_, name) in SOURCES {
        let value = form.get(name).cloned().unwrap_or(Value::Null);
        source.insert(name.to_owned(), value);
    }
    Value::Object(source)
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "Capacity",
        "capacity is the description of the persistent volume's resources and capacity. More info: \
         https://kubernetes.io/docs/concepts/storage/persistent-volumes#capacity",
    ),
    Column::string(
        "Access Modes",
        "accessModes contains all ways the volume can be mounted. More info: \
         https://kubernetes.io/docs/concepts/storage/persistent-volumes#access-modes",
    ),
    Column::string(
        "Reclaim Policy",
        "persistentVolumeReclaimPolicy defines what happens to a persistent volume when released from its claim. \
         Valid options are Retain (default for manually created PersistentVolumes), Delete (default for dynamically \
         provisioned PersistentVolumes), and Recycle (deprecated). Recycle must be supported by the volume plugin \
         underlying this PersistentVolume. More info: \
         https://kubernetes.io/docs/concepts/storage/persistent-volumes#reclaiming",
    ),
    Column::string(
        "Status",
        "phase indicates if a volume is available, bound to a claim, or released by a claim. More info: \
         https://kubernetes.io/docs/concepts/storage/persistent-volumes#phase",
    ),
    Column::string(
        "Claim",
        "claimRef is part of a bi-directional binding between PersistentVolume and PersistentVolumeClaim. Expected to \
         be non-nil when bound. claim.VolumeName is the authoritative bind between PV and PVC. More info: \
         https://kubernetes.io/docs/concepts/storage/persistent-volumes#binding",
    ),
    Column::string("StorageClass", "StorageClass of the pv"),
    Column::string("VolumeAttributesClass", "VolumeAttributesClass of the pv"),
    Column::string(
        "Reason",
        "reason is a brief CamelCase string that describes any failure and is meant for machine parsing and tidy \
         display in the CLI.",
    ),
    AGE,
    Column::wide(
        "VolumeMode",
        "volumeMode defines if a volume is intended to be used with a formatted filesystem or to remain in raw block \
         state. Value of Filesystem is implied when not included in spec.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(more: Value) -> Object {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}});
        for (key, value) in more.as_object().expect("a map") {
            spec[key] = value.clone();
        }
        let object = json!({"metadata": {"name": "x"}, "spec": spec});
        let mut object = Object::from_value(object).expect("an object");
        PersistentVolume.default(&mut object);
        object
    }

    fn texts(check: impl FnOnce(&mut FieldErrors)) -> Vec<String> {
        let mut errors = FieldErrors::default();
        check(&mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_secret_of_a_disk_says_where_it_is() {
        let cinder = |secret: Value| json!({"cinder": {"volumeID": "v", "secretRef": secret}});
        let whole = volume(cinder(json!({"name": "s", "namespace": "n"})));
        assert!(texts(|errors| PersistentVolume.validate(&whole, errors)).is_empty());
        let half = volume(cinder(json!({"name": "s"})));
        assert_eq!(
            texts(|errors| PersistentVolume.validate(&half, errors)),
            ["spec.cinder.secretRef.namespace: Required value"]
        );
    }

    #[test]
    fn accepted_and_refused_side_by_side() {
        let nfs = json!({"nfs": {"server": "s", "path": "/data"}});
        assert!(texts(|errors| PersistentVolume.validate(&volume(nfs), errors)).is_empty());
        assert_eq!(
            texts(|errors| PersistentVolume.validate(&volume(json!({})), errors)),
            ["spec: Required value: must specify a volume type"]
        );
        let local = json!({"local": {"path": "/data"}});
        assert_eq!(
            texts(|errors| PersistentVolume.validate(&volume(local), errors)),
            ["spec.nodeAffinity: Required value: Local volume requires node affinity"]
        );
    }

    #[test]
    fn a_volume_stays_where_it_is() {
        let at = |path: &str| volume(json!({"nfs": {"server": "s", "path": path}}));
        let found = texts(|errors| PersistentVolume.validate_update(&at("/b"), &at("/a"), errors));
        assert_eq!(found.len(), 1);
        assert!(
            found[0].contains("-  \"Path\": \"/a\",\n+  \"Path\": \"/b\","),
            "{}",
            found[0]
        );
    }
}
