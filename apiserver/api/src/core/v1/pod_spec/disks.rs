//! Volumes that come over a network or from a cloud, in pods and as PersistentVolumes.
//!
//! No node of ours mounts them; what they say must make sense all the same.

use serde_json::Value;

use super::volumes::{no_backsteps, required_name};
use crate::field_errors::ErrorType;
use crate::validation::{names, numbers};
use crate::{At, FieldErrors};

/// Reports what is wrong with a source of the type that the field names.
pub fn source(field: &str, at: &At<'_>, errors: &mut FieldErrors) {
    let required: &[&str] = match field {
        "gcePersistentDisk" => &["pdName"],
        "awsElasticBlockStore" | "cinder" | "portworxVolume" => &["volumeID"],
        "glusterfs" => &["endpoints", "path"],
        "azureFile" => &["secretName", "shareName"],
        "vsphereVolume" => &["volumePath"],
        "photonPersistentDisk" => &["pdID"],
        "azureDisk" => &["diskName", "diskURI"],
        "scaleIO" => &["gateway", "system", "volumeName"],
        "storageos" => &["volumeName"],
        "flexVolume" => &["driver"],
        _ => &[],
    };
    for name in required {
        required_name(&at.key(name), errors);
    }
    match field {
        "gcePersistentDisk" | "awsElasticBlockStore" => {
            numbers::within(&at.key("partition"), 0, 255, errors);
        }
        "nfs" => nfs(at, errors),
        "iscsi" => iscsi(at, errors),
        "flocker" => flocker(at, errors),
        "rbd" | "cephfs" => {
            if at.key("monitors").is_empty() {
                errors.required(&at.key("monitors"), "");
            }
            if field == "rbd" {
                required_name(&at.key("image"), errors);
            }
        }
        "quobyte" => quobyte(at, errors),
        "fc" => fibre_channel(at, errors),
        "azureDisk" => azure_disk(at, errors),
        "azureFile" if at.key("secretNamespace").exists() => {
            required_name(&at.key("secretNamespace"), errors);
        }
        "flexVolume" => flex(at, errors),
        "cinder" => secret(at, errors),
        "storageos" => storage_os(at, errors),
        "local" => {
            required_name(&at.key("path"), errors);
            no_backsteps(&at.key("path"), errors);
        }
        _ => {}
    }
}

fn nfs(at: &At<'_>, errors: &mut FieldErrors) {
    required_name(&at.key("server"), errors);
    let path = at.key("path");
    required_name(&path, errors);
    if !path.str().starts_with('/') {
        errors.push(
            ErrorType::Invalid,
            path.path(),
            Some(Value::from(path.str())),
            "must be an absolute path",
        );
    }
}

fn iscsi(at: &At<'_>, errors: &mut FieldErrors) {
    required_name(&at.key("targetPortal"), errors);
    let name = at.key("iqn");
    if name.str().is_empty() {
        errors.required(&name, "");
    } else if !["iqn", "eui", "naa"]
        .iter()
        .any(|form| name.str().starts_with(form))
    {
        errors.invalid(&name, "must be valid format starting with iqn, eui, or naa");
    }
    numbers::within(&at.key("lun"), 0, 255, errors);
}

fn flocker(at: &At<'_>, errors: &mut FieldErrors) {
    let (name, uuid) = (at.key("datasetName"), at.key("datasetUUID"));
    if name.str().is_empty() && uuid.str().is_empty() {
        errors.required(at, "one of datasetName and datasetUUID is required");
    }
    if !name.str().is_empty() && !uuid.str().is_empty() {
        errors.push(
            ErrorType::Invalid,
            at.path(),
            Some(Value::from("resource")),
            "datasetName and datasetUUID can not be specified simultaneously",
        );
    }
    if name.str().contains('/') {
        errors.invalid(&name, "must not contain '/'");
    }
}

fn quobyte(at: &At<'_>, errors: &mut FieldErrors) {
    let registry = at.key("registry");
    if registry.str().is_empty() {
        errors.required(
            &registry,
            "must be a host:port pair or multiple pairs separated by commas",
        );
    } else {
        let pairs = registry.str().split(',');
        if pairs.clone().any(|pair| !pair.contains(':')) {
            errors.invalid(
                &registry,
                "must be a host:port pair or multiple pairs separated by commas",
            );
        }
    }
    required_name(&at.key("volume"), errors);
}

fn fibre_channel(at: &At<'_>, errors: &mut FieldErrors) {
    let (names, ids) = (at.key("targetWWNs"), at.key("wwids"));
    match (names.is_empty(), ids.is_empty()) {
        (true, true) => errors.required(
            &names,
            "must specify either targetWWNs or wwids, but not both",
        ),
        (false, false) => errors.invalid(
            &names,
            "targetWWNs and wwids can not be specified simultaneously",
        ),
        (false, true) if !at.key("lun").exists() => {
            errors.required(&at.key("lun"), "lun is required if targetWWNs is specified");
        }
        (false, true) => numbers::within(&at.key("lun"), 0, 255, errors),
        _ => {}
    }
}

/// A Secret that is named, has a name.
fn secret(at: &At<'_>, errors: &mut FieldErrors) {
    let secret = at.key("secretRef");
    if secret.exists() {
        required_name(&secret.key("name"), errors);
    }
}

fn storage_os(at: &At<'_>, errors: &mut FieldErrors) {
    for field in ["volumeName", "volumeNamespace"] {
        if !at.key(field).str().is_empty() {
            errors.text(&at.key(field), names::dns1123_label);
        }
    }
    secret(at, errors);
}

/// What a driver is told has names of its own.
fn flex(at: &At<'_>, errors: &mut FieldErrors) {
    for (key, _) in at.key("options").entries() {
        let domain = key.split_once('/').map_or(key, |(domain, _)| domain);
        let domain = format!(".{}", domain.to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            let place = format!("{}.options[{key}]", at.path());
            let shown = Value::from(key);
            let option = At::maybe(Some(&shown), place);
            errors.invalid(&option, "kubernetes.io and k8s.io namespaces are reserved");
        }
    }
}

fn azure_disk(at: &At<'_>, errors: &mut FieldErrors) {
    let caching = at.key("cachingMode");
    if caching.exists() {
        errors.one_of(&caching, &["None", "ReadOnly", "ReadWrite"]);
    }
    let kind = at.key("kind");
    if kind.exists() {
        errors.one_of(&kind, &["Dedicated", "Managed", "Shared"]);
    }
    let place = at.key("diskURI");
    let (start, example) = match kind.str() {
        _ if !kind.exists() => return,
        "Managed" => (
            "/subscriptions/",
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
        ),
        _ => (
            "https://",
            "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd",
        ),
    };
    if !place.str().starts_with(start) {
        errors.not_supported(&place, &[example]);
    }
}

/// Reports what is wrong with a CSI volume that is a PersistentVolume.
pub fn persistent_csi(at: &At<'_>, errors: &mut FieldErrors) {
    csi_driver(&at.key("driver"), errors);
    required_name(&at.key("volumeHandle"), errors);
    for field in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        let secret = at.key(field);
        if secret.exists() {
            required_label(&secret.key("name"), names::dns1123_subdomain, errors);
            required_label(&secret.key("namespace"), names::dns1123_label, errors);
        }
    }
}

/// Reports a text that is no name of a CSI driver.
pub fn csi_driver(driver: &At<'_>, errors: &mut FieldErrors) {
    required_name(driver, errors);
    if driver.str().is_empty() {
        return;
    }
    if driver.str().len() > 63 {
        errors.too_long(driver, 63);
    }
    errors.text(driver, |name| {
        names::dns1123_subdomain(&name.to_lowercase())
    });
}

fn required_label(at: &At<'_>, rule: impl Fn(&str) -> Vec<String>, errors: &mut FieldErrors) {
    required_name(at, errors);
    if !at.str().is_empty() {
        errors.text(at, rule);
    }
}
