//! Validation of volumes, of their mounts, and of references to fields of the pod.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::disks;
use crate::core::v1::persistent_volume_claim;
use crate::field_errors::ErrorType;
use crate::quantity::Quantity;
use crate::validation::{names, numbers};
use crate::{At, FieldErrors};

/// The volumes of a pod that mounts may name: whether each is a claim (which may be a block device).
pub struct Volumes<'a>(HashMap<&'a str, bool>);

/// Reports what is wrong with the volumes, and collects those that can be mounted.
pub fn all<'a>(volumes: &At<'a>, errors: &mut FieldErrors) -> Volumes<'a> {
    let (mut taken, mut known) = (HashSet::new(), HashMap::new());
    for volume in volumes.items() {
        let before = errors.len();
        source(&volume, errors);
        let name = volume.key("name");
        if name.str().is_empty() {
            errors.required(&name, "");
        } else {
            errors.text(&name, names::dns1123_label);
            if !taken.insert(name.str()) {
                errors.duplicate(&name);
            }
        }
        if errors.len() == before {
            let claim =
                volume.key("persistentVolumeClaim").exists() || volume.key("ephemeral").exists();
            known.insert(name.str(), claim);
        }
    }
    Volumes(known)
}

/// A volume has exactly one source.
fn source(volume: &At<'_>, errors: &mut FieldErrors) {
    let Some(fields) = volume.value().and_then(Value::as_object) else {
        return errors.required(volume, "must specify a volume type");
    };
    let mut found = 0;
    for field in fields.keys().filter(|field| *field != "name") {
        let at = volume.key(field);
        if !at.exists() {
            continue;
        }
        found += 1;
        if found > 1 {
            errors.forbidden(&at, "may not specify more than 1 volume type");
            continue;
        }
        one_source(field, &at, errors);
    }
    if found == 0 {
        errors.required(volume, "must specify a volume type");
    }
}

/// Reports what is wrong with the source of a volume, of the type that the field names.
fn one_source(field: &str, at: &At<'_>, errors: &mut FieldErrors) {
    match field {
        "emptyDir" => empty_dir(at, errors),
        "hostPath" => host_path(at, errors),
        "secret" => {
            required_name(&at.key("secretName"), errors);
            files(at, errors);
        }
        "configMap" => {
            required_name(&at.key("name"), errors);
            files(at, errors);
        }
        "downwardAPI" => {
            numbers::file_mode(&at.key("defaultMode"), errors);
            for item in at.key("items").items() {
                downward_file(&item, at, errors);
            }
        }
        "projected" => projected(at, errors),
        "persistentVolumeClaim" => required_name(&at.key("claimName"), errors),
        "ephemeral" => {
            let template = at.key("volumeClaimTemplate");
            if template.exists() {
                persistent_volume_claim::claim_spec(&template.key("spec"), errors);
            } else {
                errors.required(&template, "");
            }
        }
        "image" => {
            required_name(&at.key("reference"), errors);
            errors.one_of(&at.key("pullPolicy"), &["Always", "IfNotPresent", "Never"]);
        }
        "csi" => {
            disks::csi_driver(&at.key("driver"), errors);
            let secret = at.key("nodePublishSecretRef");
            let name = secret.key("name");
            if secret.exists() && name.str().is_empty() {
                errors.required(&name, "");
            } else if secret.exists() {
                // Where upstream reports it.
                let place = At::maybe(name.value(), format!("{}.name", at.path()));
                errors.text(&place, names::dns1123_subdomain);
            }
        }
        _ => disks::source(field, at, errors),
    }
}

pub(super) fn required_name(at: &At<'_>, errors: &mut FieldErrors) {
    if at.str().is_empty() {
        errors.required(at, "");
    }
}

fn empty_dir(at: &At<'_>, errors: &mut FieldErrors) {
    let limit = at.key("sizeLimit");
    let negative = limit
        .as_str()
        .and_then(|text| text.parse::<Quantity>().ok());
    if negative.is_some_and(|quantity| quantity.is_negative()) {
        errors.forbidden(&limit, "SizeLimit field must be a valid resource quantity");
    }
}

pub(crate) fn host_path(at: &At<'_>, errors: &mut FieldErrors) {
    const TYPES: &[&str] = &[
        "",
        "BlockDevice",
        "CharDevice",
        "Directory",
        "DirectoryOrCreate",
        "File",
        "FileOrCreate",
        "Socket",
    ];
    let path = at.key("path");
    if path.str().is_empty() {
        return errors.required(&path, "");
    }
    no_backsteps(&path, errors);
    if at.key("type").exists() {
        errors.one_of(&at.key("type"), TYPES);
    }
}

pub(super) fn no_backsteps(path: &At<'_>, errors: &mut FieldErrors) {
    if path.str().split('/').any(|part| part == "..") {
        errors.invalid(path, "must not contain '..'");
    }
}

/// A path below a mount: relative, and never upwards.
fn local_path(path: &At<'_>, errors: &mut FieldErrors) {
    if path.str().starts_with('/') {
        errors.invalid(path, "must be a relative path");
    }
    no_backsteps(path, errors);
}

/// As [`local_path`], but nothing may begin with `..` either: such names belong to the writer.
fn local_file(path: &At<'_>, errors: &mut FieldErrors) {
    local_path(path, errors);
    if path.str().starts_with("..") && !path.str().starts_with("../") {
        errors.invalid(path, "must not start with '..'");
    }
}

/// The files of a Secret or ConfigMap: modes, and which keys go to which paths.
fn files(at: &At<'_>, errors: &mut FieldErrors) {
    numbers::file_mode(&at.key("defaultMode"), errors);
    for item in at.key("items").items() {
        key_to_path(&item, errors);
    }
}

fn key_to_path(item: &At<'_>, errors: &mut FieldErrors) {
    required_name(&item.key("key"), errors);
    let path = item.key("path");
    required_name(&path, errors);
    local_file(&path, errors);
    numbers::file_mode(&item.key("mode"), errors);
}

/// A file of the downward API; upstream's paths skip the item's place in the list.
fn downward_file(item: &At<'_>, list: &At<'_>, errors: &mut FieldErrors) {
    const FIELDS: &[&str] = &[
        "metadata.annotations",
        "metadata.labels",
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
    ];
    let place = |field: &str| {
        let path = format!("{}.{field}", list.path());
        let value = item.key(field).value();
        At::maybe(value, path)
    };
    let path = place("path");
    required_name(&path, errors);
    local_file(&path, errors);
    match (
        item.key("fieldRef").exists(),
        item.key("resourceFieldRef").exists(),
    ) {
        (true, both) => {
            field_ref(&place("fieldRef"), FIELDS, errors);
            if both {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(
                    ErrorType::Invalid,
                    list.path(),
                    Some(Value::from("resource")),
                    detail,
                );
            }
        }
        (false, true) => resource_field_ref(&place("resourceFieldRef"), true, errors),
        (false, false) => errors.required(list, "one of fieldRef and resourceFieldRef is required"),
    }
    numbers::file_mode(&place("mode"), errors);
}

fn projected(at: &At<'_>, errors: &mut FieldErrors) {
    numbers::file_mode(&at.key("defaultMode"), errors);
    let mut paths = HashSet::new();
    for source in at.key("sources").items() {
        let Some(fields) = source.value().and_then(Value::as_object) else {
            continue;
        };
        let mut found = 0;
        for field in fields.keys() {
            let projection = source.key(field);
            if !projection.exists() {
                continue;
            }
            found += 1;
            if found > 1 {
                errors.forbidden(
                    &projection,
                    "may not specify more than 1 volume type per source",
                );
                continue;
            }
            match field.as_str() {
                "secret" | "configMap" => {
                    required_name(&projection.key("name"), errors);
                    for item in projection.key("items").items() {
                        key_to_path(&item, errors);
                        unique_path(&item.key("path"), &projection, &mut paths, errors);
                    }
                }
                "downwardAPI" => {
                    for item in projection.key("items").items() {
                        downward_file(&item, &projection, errors);
                        unique_path(&item.key("path"), &projection, &mut paths, errors);
                    }
                }
                "serviceAccountToken" => {
                    let seconds = projection.key("expirationSeconds");
                    if seconds.as_i64().is_some_and(|seconds| seconds < 600) {
                        errors.invalid(&seconds, "may not specify a duration less than 10 minutes");
                    }
                    if seconds.as_i64().is_some_and(|seconds| seconds > 1 << 32) {
                        errors.invalid(
                            &seconds,
                            "may not specify a duration larger than 2^32 seconds",
                        );
                    }
                    required_name(&projection.key("path"), errors);
                }
                _ => {}
            }
        }
    }
}

fn unique_path<'a>(
    path: &At<'a>,
    list: &At<'_>,
    taken: &mut HashSet<&'a str>,
    errors: &mut FieldErrors,
) {
    if !path.str().is_empty() && !taken.insert(path.str()) {
        let shown = Some(Value::from(path.str()));
        errors.push(
            ErrorType::Invalid,
            list.path(),
            shown,
            "conflicting duplicate paths",
        );
    }
}

/// Reports a reference to a field of the pod that can't be had.
pub fn field_ref(at: &At<'_>, supported: &[&str], errors: &mut FieldErrors) {
    if at.key("apiVersion").str().is_empty() {
        return errors.required(&at.key("apiVersion"), "");
    }
    let path = at.key("fieldPath");
    let text = path.str();
    if text.is_empty() {
        return errors.required(&path, "");
    }
    if let Some((field, key)) = text
        .strip_suffix(']')
        .and_then(|text| text.split_once("['"))
    {
        let key = key.strip_suffix('\'').unwrap_or(key);
        return match field {
            "metadata.annotations" => {
                errors.text(&path, |_| names::qualified_name(&key.to_lowercase()))
            }
            "metadata.labels" => errors.text(&path, |_| names::qualified_name(key)),
            _ => errors.invalid(&path, "does not support subscript"),
        };
    }
    if !KNOWN_FIELDS.contains(&text) {
        let detail = format!("error converting fieldPath: field label not supported: {text}");
        errors.invalid(&path, detail);
    } else if !supported.contains(&text) {
        errors.not_supported(&path, supported);
    }
}

/// The fields of Pods that have labels, whether or not they may be named here.
const KNOWN_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
    "status.nominatedNodeName",
];

/// Reports a reference to a container's resource that can't be had. In a volume, which belongs to no
/// container, the container must be named.
pub fn resource_field_ref(at: &At<'_>, in_volume: bool, errors: &mut FieldErrors) {
    const NAMES: &[&str] = &[
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    let (container, resource) = (at.key("containerName"), at.key("resource"));
    if in_volume && container.str().is_empty() {
        return errors.required(&container, "");
    }
    let huge_pages = |text: &str| {
        text.starts_with("limits.hugepages-") || text.starts_with("requests.hugepages-")
    };
    if resource.str().is_empty() {
        return errors.required(&resource, "");
    }
    if !NAMES.contains(&resource.str()) && !huge_pages(resource.str()) {
        return errors.not_supported(&resource, NAMES);
    }
    let divisor = at.key("divisor");
    let supported: &[&str] = match resource.str() {
        "limits.cpu" | "requests.cpu" => &["1m", "1"],
        _ => &[
            "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
        ],
    };
    if divisor.exists() && divisor.str() != "0" && !supported.contains(&divisor.str()) {
        let all = supported.join(", ");
        let detail = match resource.str() {
            "limits.cpu" | "requests.cpu" => {
                "only divisor's values 1m and 1 are supported with the cpu resource".to_owned()
            }
            name => {
                let kind = match name {
                    "limits.memory" | "requests.memory" => "memory",
                    name if huge_pages(name) => "hugepages",
                    _ => "local ephemeral storage",
                };
                format!("only divisor's values {all} are supported with the {kind} resource")
            }
        };
        // Upstream shows the resource, not the divisor.
        errors.invalid_as(&divisor, resource.str().into(), detail);
    }
}

/// Reports mounts of volumes that are not there, and two mounts of one path.
pub fn mounts(container: &At<'_>, volumes: &Volumes<'_>, errors: &mut FieldErrors) {
    let mounts = container.key("volumeMounts");
    let devices = container.key("volumeDevices");
    let is_device = |field: &str, text: &str| {
        devices
            .items()
            .any(|device| device.key(field).str() == text)
    };
    let mut paths = HashSet::new();
    for mount in mounts.items() {
        // Upstream reports some fields of a mount as if they were the list's.
        let of_list = |field: &str| {
            let place = format!("{}.{field}", mounts.path());
            At::maybe(mount.key(field).value(), place)
        };
        let name = mount.key("name");
        required_name(&name, errors);
        if !volumes.0.contains_key(name.str()) {
            errors.not_found(&name);
        }
        let path = mount.key("mountPath");
        required_name(&path, errors);
        if !paths.insert(path.str()) {
            errors.push(
                ErrorType::Invalid,
                path.path(),
                Some(Value::from(path.str())),
                "must be unique",
            );
        }
        if is_device("name", name.str()) {
            errors.invalid(&name, "must not already exist in volumeDevices");
        }
        if is_device("devicePath", path.str()) {
            let detail = "must not already exist as a path in volumeDevices";
            errors.invalid(&path, detail);
        }
        let (sub_path, sub_path_expr) = (mount.key("subPath"), mount.key("subPathExpr"));
        if !sub_path.str().is_empty() {
            local_path(&of_list("subPath"), errors);
        }
        if !sub_path_expr.str().is_empty() {
            if !sub_path.str().is_empty() {
                errors.invalid(
                    &sub_path_expr,
                    "subPathExpr and subPath are mutually exclusive",
                );
            }
            local_path(&of_list("subPathExpr"), errors);
        }
        let propagation = of_list("mountPropagation");
        match propagation.str() {
            _ if !propagation.exists() => {}
            "Bidirectional" if container.at("securityContext.privileged").is_true() => {}
            "Bidirectional" => errors.forbidden(
                &propagation,
                "Bidirectional mount propagation is available only to privileged containers",
            ),
            "HostToContainer" | "None" => {}
            _ => errors.not_supported(&propagation, &["Bidirectional", "HostToContainer", "None"]),
        }
        read_only(&mount, &of_list("recursiveReadOnly"), errors);
    }
}

/// Only what is read only is so all the way down, and nothing that is mounted on it later comes through.
fn read_only(mount: &At<'_>, recursive: &At<'_>, errors: &mut FieldErrors) {
    match recursive.str() {
        _ if !recursive.exists() => {}
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !mount.key("readOnly").is_true() {
                errors.forbidden(recursive, "may only be specified when readOnly is true");
            }
            if !["", "None"].contains(&mount.key("mountPropagation").str()) {
                let detail = "may only be specified when mountPropagation is None or not specified";
                errors.forbidden(recursive, detail);
            }
        }
        _ => errors.not_supported(recursive, &["Disabled", "Enabled", "IfPossible"]),
    }
}

/// Reports devices whose volume is not there or is no claim, and paths that are mounted too.
pub fn devices(container: &At<'_>, volumes: &Volumes<'_>, errors: &mut FieldErrors) {
    let (mut names_taken, mut paths) = (HashSet::new(), HashSet::new());
    let mounts = container.key("volumeMounts");
    for device in container.key("volumeDevices").items() {
        let (name, path) = (device.key("name"), device.key("devicePath"));
        required_name(&name, errors);
        if !names_taken.insert(name.str()) {
            errors.invalid(&name, "must be unique");
        }
        match volumes.0.get(name.str()) {
            Some(true) => {}
            Some(false) => {
                errors.invalid(&name, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode");
            }
            None => errors.not_found(&name),
        }
        required_name(&path, errors);
        if paths.contains(path.str()) {
            errors.invalid(&path, "must be unique");
        }
        if path.str().split('/').any(|part| part == "..") {
            errors.invalid(&path, "can not contain backsteps ('..')");
        } else {
            paths.insert(path.str());
        }
        let is_mount = |field: &str, text: &str| {
            let mut mounts = mounts.items();
            mounts.any(|mount| mount.key(field).str() == text)
        };
        if is_mount("name", name.str()) {
            errors.invalid(&name, "must not already exist in volumeMounts");
        }
        if is_mount("mountPath", path.str()) {
            let detail = "must not already exist as a path in volumeMounts";
            errors.invalid(&path, detail);
        }
    }
}
