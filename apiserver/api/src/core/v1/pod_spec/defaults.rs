//! Values that upstream fills into a pod's spec, in Pods and in templates of Pods.
//!
//! Follows `pkg/apis/core/v1/defaults.go`. Go can't tell an empty text or a zero from nothing in most
//! of these fields, so neither do the defaults.

use serde_json::{Map, Value, json};

use super::pod_level;
use crate::object::{default_int, default_text, default_value, each_object};
use crate::quantity::Quantity;

/// Fills in a pod's spec. What only Pods get, not templates, is in [`pod`].
pub fn pod_spec(spec: &mut Map<String, Value>) {
    default_text(spec, "dnsPolicy", "ClusterFirst");
    default_text(spec, "restartPolicy", "Always");
    default_text(spec, "schedulerName", "default-scheduler");
    default_value(spec, "securityContext", || json!({}));
    default_value(spec, "terminationGracePeriodSeconds", || json!(30));
    service_account(spec);
    each_object(spec, "volumes", volume);
    for list in CONTAINER_LISTS {
        each_object(spec, list, container);
    }
    if let Some(resources) = object(spec, "resources") {
        round_resources(resources);
    }
    if let Some(overhead) = object(spec, "overhead") {
        round_up(overhead);
    }
}

/// The fields of a pod's spec that list containers.
pub const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Fills in what Pods get and templates don't.
pub fn pod(spec: &mut Map<String, Value>) {
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["initContainers", "containers"] {
        each_object(spec, list, |container| {
            if let Some(resources) = object(container, "resources") {
                requests_from_limits(resources);
            }
            if host_network {
                each_object(container, "ports", |port| {
                    if let Some(number) = port.get("containerPort").cloned() {
                        default_int(port, "hostPort", number.as_i64().unwrap_or(0));
                    }
                });
            }
        });
    }
    pod_level::requests(spec);
    default_value(spec, "enableServiceLinks", || json!(true));
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are shown, the new one wins.
fn service_account(spec: &mut Map<String, Value>) {
    let given = |field: &str| {
        spec.get(field)
            .and_then(Value::as_str)
            .filter(|name| !name.is_empty())
    };
    let name = given("serviceAccountName")
        .or_else(|| given("serviceAccount"))
        .map(str::to_owned);
    if let Some(name) = name {
        spec.insert("serviceAccountName".to_owned(), Value::from(name.clone()));
        spec.insert("serviceAccount".to_owned(), Value::from(name));
    }
}

fn container(container: &mut Map<String, Value>) {
    let image = container
        .get("image")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let policy = pull_policy(image);
    default_value(container, "resources", || json!({}));
    default_text(container, "terminationMessagePath", "/dev/termination-log");
    default_text(container, "terminationMessagePolicy", "File");
    default_text(container, "imagePullPolicy", policy);
    each_object(container, "ports", |port| {
        default_text(port, "protocol", "TCP")
    });
    each_object(container, "env", |variable| {
        if let Some(source) = object(variable, "valueFrom") {
            field_source(source);
        }
    });
    for field in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(found) = object(container, field) {
            probe(found);
        }
    }
    if let Some(lifecycle) = object(container, "lifecycle") {
        for field in ["postStart", "preStop"] {
            if let Some(handler) = object(lifecycle, field) {
                http_get(handler);
            }
        }
    }
    if let Some(resources) = object(container, "resources") {
        round_resources(resources);
    }
}

/// `Always` for images without a tag or with the tag `latest`, else `IfNotPresent`.
pub fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = match image.split_once('@') {
        Some((name, _)) => (name, true),
        None => (image, false),
    };
    let (path, file) = name
        .rsplit_once('/')
        .map_or(("", name), |(path, file)| (path, file));
    let (file, tag) = file
        .split_once(':')
        .map_or((file, None), |(file, tag)| (file, Some(tag)));
    let repository = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
    };
    // The first part may be a host, with a port. What no registry could name has no tag.
    let mut parts = path.split('/');
    let host = parts.next().unwrap_or_default();
    let host_is_legal = path.is_empty()
        || (!host.is_empty() && !host.ends_with(':') && !host.contains(char::is_whitespace));
    if !repository(file) || !host_is_legal || !parts.all(repository) {
        return "IfNotPresent";
    }
    match tag {
        Some("latest") => "Always",
        None if !digest => "Always",
        _ => "IfNotPresent",
    }
}

fn probe(probe: &mut Map<String, Value>) {
    default_int(probe, "timeoutSeconds", 1);
    default_int(probe, "periodSeconds", 10);
    default_int(probe, "successThreshold", 1);
    default_int(probe, "failureThreshold", 3);
    http_get(probe);
    if let Some(grpc) = object(probe, "grpc") {
        default_value(grpc, "service", || json!(""));
    }
}

fn http_get(handler: &mut Map<String, Value>) {
    if let Some(get) = object(handler, "httpGet") {
        default_text(get, "path", "/");
        default_text(get, "scheme", "HTTP");
    }
}

fn volume(volume: &mut Map<String, Value>) {
    if !volume
        .iter()
        .any(|(key, value)| key != "name" && !value.is_null())
    {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = object(volume, source) {
            default_value(source, "defaultMode", || json!(0o644));
        }
    }
    if let Some(downward) = object(volume, "downwardAPI") {
        each_object(downward, "items", field_source);
    }
    if let Some(projected) = object(volume, "projected") {
        each_object(projected, "sources", |source| {
            if let Some(token) = object(source, "serviceAccountToken") {
                default_value(token, "expirationSeconds", || json!(3600));
            }
            if let Some(downward) = object(source, "downwardAPI") {
                each_object(downward, "items", field_source);
            }
        });
    }
    volume_source(volume);
    if let Some(claim) = object(volume, "ephemeral").and_then(|e| object(e, "volumeClaimTemplate"))
        && let Some(spec) = object(claim, "spec")
    {
        default_value(spec, "volumeMode", || json!("Filesystem"));
    }
    if let Some(image) = object(volume, "image") {
        let policy = pull_policy(
            image
                .get("reference")
                .and_then(Value::as_str)
                .unwrap_or_default(),
        );
        default_text(image, "pullPolicy", policy);
    }
}

/// Fills in the sources that are also those of PersistentVolumes.
pub fn volume_source(volume: &mut Map<String, Value>) {
    if let Some(path) = object(volume, "hostPath") {
        default_value(path, "type", || json!(""));
    }
    if let Some(iscsi) = object(volume, "iscsi") {
        default_text(iscsi, "iscsiInterface", "default");
    }
    if let Some(rbd) = object(volume, "rbd") {
        default_text(rbd, "pool", "rbd");
        default_text(rbd, "user", "admin");
        default_text(rbd, "keyring", "/etc/ceph/keyring");
    }
    if let Some(disk) = object(volume, "azureDisk") {
        default_value(disk, "cachingMode", || json!("ReadWrite"));
        default_value(disk, "kind", || json!("Shared"));
        default_value(disk, "fsType", || json!("ext4"));
        default_value(disk, "readOnly", || json!(false));
    }
    if let Some(scale_io) = object(volume, "scaleIO") {
        default_text(scale_io, "storageMode", "ThinProvisioned");
        default_text(scale_io, "fsType", "xfs");
    }
}

/// `fieldRef` and `resourceFieldRef`, of an environment variable or of a file of the downward API.
fn field_source(source: &mut Map<String, Value>) {
    if let Some(field) = object(source, "fieldRef") {
        default_text(field, "apiVersion", "v1");
    }
    if let Some(resource) = object(source, "resourceFieldRef") {
        default_value(resource, "divisor", || json!("0"));
    }
}

fn requests_from_limits(resources: &mut Map<String, Value>) {
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else {
        return;
    };
    if limits.is_empty() {
        return;
    }
    default_value(resources, "requests", || json!({}));
    if let Some(requests) = object(resources, "requests") {
        for (name, limit) in limits {
            requests.entry(name).or_insert(limit);
        }
    }
}

fn round_resources(resources: &mut Map<String, Value>) {
    for list in ["limits", "requests"] {
        if let Some(quantities) = object(resources, list) {
            round_up(quantities);
        }
    }
}

/// Nothing is divided finer than thousandths: `0.1m` becomes `1m`. Quantities that can't be read are
/// left to validation.
fn round_up(quantities: &mut Map<String, Value>) {
    for value in quantities.values_mut() {
        if let Some(quantity) = value
            .as_str()
            .and_then(|text| text.parse::<Quantity>().ok())
        {
            let canonical = quantity.to_string();
            let finer = canonical.ends_with(['n', 'u']);
            let rounded = if finer {
                Quantity::from_milli(quantity.milli_value()).to_string()
            } else {
                canonical
            };
            *value = Value::from(rounded);
        }
    }
}

fn object<'a>(
    parent: &'a mut Map<String, Value>,
    field: &str,
) -> Option<&'a mut Map<String, Value>> {
    parent.get_mut(field).and_then(Value::as_object_mut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaulted(spec: Value) -> Value {
        let Value::Object(mut spec) = spec else {
            panic!("a spec is an object")
        };
        pod_spec(&mut spec);
        pod(&mut spec);
        Value::Object(spec)
    }

    #[test]
    fn a_small_pod_gets_what_upstream_gives_it() {
        let spec = defaulted(json!({"containers": [{"name": "a", "image": "example.com/app:1"}]}));
        assert_eq!(
            spec,
            json!({
                "containers": [{
                    "name": "a", "image": "example.com/app:1", "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    "imagePullPolicy": "IfNotPresent",
                }],
                "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
                "securityContext": {}, "terminationGracePeriodSeconds": 30, "enableServiceLinks": true,
            })
        );
    }

    #[test]
    fn limits_become_requests_and_modes_are_filled_in() {
        let spec = defaulted(json!({
            "containers": [{"name": "a", "resources": {"limits": {"cpu": "0.1", "memory": "1024Mi"}}}],
            "volumes": [{"name": "e"}, {"name": "c", "configMap": {"name": "c"}}, {"name": "h", "hostPath": {"path": "/"}}],
        }));
        let requests = &spec["containers"][0]["resources"]["requests"];
        assert_eq!(requests, &json!({"cpu": "100m", "memory": "1Gi"}));
        assert_eq!(spec["volumes"][0], json!({"name": "e", "emptyDir": {}}));
        assert_eq!(spec["volumes"][1]["configMap"]["defaultMode"], json!(420));
        assert_eq!(spec["volumes"][2]["hostPath"]["type"], json!(""));
    }

    #[test]
    fn the_tag_decides_when_an_image_is_pulled() {
        for image in [
            "app",
            "app:latest",
            "example.com:5000/a/app",
            "example.com/app:latest@sha256:0",
        ] {
            assert_eq!(pull_policy(image), "Always", "{image}");
        }
        for image in [
            "app:1",
            "example.com:5000/app:1",
            "app@sha256:0",
            "file:///tmp/app.wasm",
            "UPPER",
            "",
        ] {
            assert_eq!(pull_policy(image), "IfNotPresent", "{image}");
        }
    }
}
