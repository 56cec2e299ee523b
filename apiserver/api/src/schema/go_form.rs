//! Values as Go prints the structs that upstream validates.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{FieldSchema, SchemaKind, SchemaRef, zero};

/// `value` as upstream's findings show a struct: every field, under its Go name, with the zero of what is absent.
///
/// Upstream validates types of its own, which have no JSON names, while types of `apimachinery` (selectors, times)
/// keep theirs.
pub fn go_form(value: &Value, schema: &SchemaRef) -> Value {
    match (schema.kind(), value) {
        (SchemaKind::Struct, Value::Object(map)) if !has_json_names(schema) => {
            let mut fields = Map::new();
            for field in schema.fields().filter(|field| !is_type_meta(field)) {
                let below = field.schema();
                if field.name() == "metadata" {
                    // Embedded, with names of its own.
                    let given = map.get(field.name()).and_then(Value::as_object);
                    fields.extend(given.cloned().unwrap_or_default());
                    continue;
                }
                let form = match map.get(field.name()) {
                    Some(given) if !given.is_null() => go_form(given, &below),
                    _ if below.kind() == SchemaKind::Struct && field.is_value() => {
                        go_form(&Value::Object(Map::new()), &below)
                    }
                    _ if field.is_value() => zero(&below),
                    _ => Value::Null,
                };
                fields.insert(field_name(schema, field.name()), form);
            }
            match schema.definition_name() {
                Some("io.k8s.api.core.v1.PodSpec") => pod_spec(fields),
                Some("io.k8s.api.core.v1.Volume") => volume(fields),
                Some("io.k8s.api.core.v1.PodSecurityContext") => reorder(fields, SECURITY_CONTEXT),
                _ => Value::Object(fields),
            }
        }
        (SchemaKind::List, Value::Array(items)) => match schema.elem() {
            Some(elem) => items.iter().map(|item| go_form(item, &elem)).collect(),
            None => value.clone(),
        },
        (SchemaKind::Map, Value::Object(map)) => match schema.elem() {
            Some(elem) => {
                // Go writes maps sorted.
                let entries: BTreeMap<&String, &Value> = map.iter().collect();
                let entries = entries
                    .into_iter()
                    .map(|(key, value)| (key.clone(), go_form(value, &elem)));
                Value::Object(entries.collect())
            }
            None => value.clone(),
        },
        _ => value.clone(),
    }
}

/// The value of a definition such as `io.k8s.api.batch.v1.PodFailurePolicy` in that form; `null` when there is none.
pub fn internal_form(definition: &str, value: Option<&Value>) -> Value {
    match (SchemaRef::builtin(definition), value) {
        (Some(schema), Some(value)) => go_form(value, &schema),
        (_, value) => value.cloned().unwrap_or(Value::Null),
    }
}

/// Puts the empty lists and maps of `empties` into `value`, the value or Go form of what stands at `place`.
pub fn show_empties(value: &mut Value, place: &str, empties: &[(String, Value)]) {
    for (path, given) in empties {
        let Some(below) = path.strip_prefix(place) else {
            continue;
        };
        let mut found = Some(&mut *value);
        for step in below.split(['.', '[']).filter(|step| !step.is_empty()) {
            found = match (found, step.strip_suffix(']')) {
                (Some(Value::Array(items)), Some(index)) => {
                    let index: Option<usize> = index.parse().ok();
                    index.and_then(|index| items.get_mut(index))
                }
                (Some(Value::Object(map)), None) => match map.contains_key(step) {
                    true => map.get_mut(step),
                    false => map.get_mut(&go_name(step)),
                },
                _ => None,
            };
        }
        if let Some(absent) = found.filter(|found| found.is_null()) {
            *absent = given.clone();
        }
    }
}

/// Whether this is the `kind` or `apiVersion` of a whole object, which no protobuf message has.
fn is_type_meta(field: &FieldSchema) -> bool {
    matches!(field.name(), "kind" | "apiVersion") && field.numbers().is_empty()
}

fn has_json_names(schema: &SchemaRef) -> bool {
    schema
        .definition_name()
        .is_some_and(|name| name.starts_with("io.k8s.apimachinery."))
}

/// The Go name of a field of that definition.
fn field_name(schema: &SchemaRef, field: &str) -> String {
    let definition = schema.definition_name().unwrap_or_default();
    let definition = definition.rsplit('.').next().unwrap_or_default();
    let named = ITS_OWN
        .iter()
        .find(|(of, name, _)| *name == field && definition == *of);
    named.map_or_else(|| go_name(field), |(_, _, go)| (*go).to_owned())
}

/// Fields whose Go name is not that of JSON: the definition, the field, its name in Go.
const ITS_OWN: &[(&str, &str, &str)] = &[
    ("AzureDiskVolumeSource", "diskURI", "DataDiskURI"),
    ("DeviceAttribute", "bool", "BoolValue"),
    ("DeviceAttribute", "int", "IntValue"),
    ("DeviceAttribute", "string", "StringValue"),
    ("DeviceAttribute", "version", "VersionValue"),
    (
        "GlusterfsPersistentVolumeSource",
        "endpoints",
        "EndpointsName",
    ),
    ("GlusterfsVolumeSource", "endpoints", "EndpointsName"),
    (
        "ISCSIPersistentVolumeSource",
        "chapAuthDiscovery",
        "DiscoveryCHAPAuth",
    ),
    (
        "ISCSIPersistentVolumeSource",
        "chapAuthSession",
        "SessionCHAPAuth",
    ),
    (
        "ISCSIVolumeSource",
        "chapAuthDiscovery",
        "DiscoveryCHAPAuth",
    ),
    ("ISCSIVolumeSource", "chapAuthSession", "SessionCHAPAuth"),
    ("PhotonPersistentDiskVolumeSource", "pdID", "PdID"),
    ("RBDPersistentVolumeSource", "image", "RBDImage"),
    ("RBDPersistentVolumeSource", "monitors", "CephMonitors"),
    ("RBDPersistentVolumeSource", "pool", "RBDPool"),
    ("RBDPersistentVolumeSource", "user", "RadosUser"),
    ("RBDVolumeSource", "image", "RBDImage"),
    ("RBDVolumeSource", "monitors", "CephMonitors"),
    ("RBDVolumeSource", "pool", "RBDPool"),
    ("RBDVolumeSource", "user", "RadosUser"),
];

/// `apiGroups` is `APIGroups` in Go, `hostIPC` is `HostIPC`.
fn go_name(name: &str) -> String {
    const INITIALISMS: &[&str] = &[
        "api", "aws", "ca", "cel", "cidr", "csi", "dns", "fc", "fs", "gce", "gmsa", "grpc", "http",
        "id", "ip", "iqn", "iscsi", "nfs", "os", "pd", "rbd", "se", "ssl", "tcp", "tls", "tty",
        "ttl", "uid", "uri", "url",
    ];
    match name {
        "cidrs" => return "CIDRs".to_owned(),
        "cephfs" => return "CephFS".to_owned(),
        "storageos" => return "StorageOS".to_owned(),
        "wwids" => return "WWIDs".to_owned(),
        _ => {}
    }
    let word = name
        .find(|c: char| !c.is_ascii_lowercase())
        .unwrap_or(name.len());
    let (first, rest) = name.split_at(word);
    // A word that is all there is (`ip`) or that another one follows (`apiGroup`), not `apiserver`.
    if INITIALISMS.contains(&first) {
        return format!("{}{rest}", first.to_ascii_uppercase());
    }
    let mut letters = name.chars();
    match letters.next() {
        Some(letter) => letter.to_ascii_uppercase().to_string() + letters.as_str(),
        None => String::new(),
    }
}

/// The internal security context has some fields that the API has in the spec.
fn pod_spec(mut fields: Map<String, Value>) -> Value {
    fields.shift_remove("DeprecatedServiceAccount");
    fields.shift_remove("ServiceAccount");
    let mut context = Map::new();
    for field in [
        "HostNetwork",
        "HostPID",
        "HostIPC",
        "ShareProcessNamespace",
        "HostUsers",
    ] {
        context.insert(
            field.to_owned(),
            fields.shift_remove(field).unwrap_or(Value::Null),
        );
    }
    if let Some(Value::Object(given)) = fields.get_mut("SecurityContext") {
        context.extend(std::mem::take(given));
        *given = context;
    }
    reorder(fields, POD_SPEC)
}

/// One source of a volume has another place in the internal type.
fn volume(mut fields: Map<String, Value>) -> Value {
    let Some(quobyte) = fields.shift_remove("Quobyte") else {
        return Value::Object(fields);
    };
    let mut sorted = Map::new();
    for (name, value) in fields {
        let before = name == "RBD";
        sorted.insert(name, value);
        if before {
            sorted.insert("Quobyte".to_owned(), quobyte.clone());
        }
    }
    Value::Object(sorted)
}

/// The fields in that order; what it doesn't name comes last.
fn reorder(mut fields: Map<String, Value>, order: &[&str]) -> Value {
    let mut sorted = Map::new();
    for name in order {
        if let Some(value) = fields.shift_remove(*name) {
            sorted.insert((*name).to_owned(), value);
        }
    }
    sorted.extend(fields);
    Value::Object(sorted)
}

const SECURITY_CONTEXT: &[&str] = &[
    "SELinuxOptions",
    "WindowsOptions",
    "RunAsUser",
    "RunAsGroup",
    "RunAsNonRoot",
    "SupplementalGroups",
    "SupplementalGroupsPolicy",
    "FSGroup",
    "FSGroupChangePolicy",
    "Sysctls",
    "SeccompProfile",
    "AppArmorProfile",
    "SELinuxChangePolicy",
];

const POD_SPEC: &[&str] = &[
    "Volumes",
    "InitContainers",
    "Containers",
    "EphemeralContainers",
    "RestartPolicy",
    "TerminationGracePeriodSeconds",
    "ActiveDeadlineSeconds",
    "DNSPolicy",
    "NodeSelector",
    "ServiceAccountName",
    "AutomountServiceAccountToken",
    "NodeName",
    "SecurityContext",
    "ImagePullSecrets",
    "Hostname",
    "Subdomain",
    "SetHostnameAsFQDN",
    "Affinity",
    "SchedulerName",
    "Tolerations",
    "HostAliases",
    "PriorityClassName",
    "Priority",
    "PreemptionPolicy",
    "DNSConfig",
    "ReadinessGates",
    "RuntimeClassName",
    "Overhead",
    "EnableServiceLinks",
    "TopologySpreadConstraints",
    "OS",
    "SchedulingGates",
    "ResourceClaims",
    "Resources",
    "HostnameOverride",
    "SchedulingGroup",
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_field_shows_under_its_go_name() {
        let schema = SchemaRef::builtin("io.k8s.api.flowcontrol.v1.FlowSchemaSpec").expect("known");
        let spec = json!({
            "priorityLevelConfiguration": {"name": "x"},
            "rules": [{"subjects": [{"kind": "User", "user": {"name": "jane"}}], "resourceRules": [{"apiGroups": [""]}]}],
        });
        assert_eq!(
            go_form(&spec, &schema).to_string(),
            "{\"PriorityLevelConfiguration\":{\"Name\":\"x\"},\"MatchingPrecedence\":0,\"DistinguisherMethod\":null,\
             \"Rules\":[{\"Subjects\":[{\"Kind\":\"User\",\"User\":{\"Name\":\"jane\"},\"Group\":null,\
             \"ServiceAccount\":null}],\"ResourceRules\":[{\"Verbs\":null,\"APIGroups\":[\"\"],\"Resources\":null,\
             \"ClusterScope\":false,\"Namespaces\":null}],\"NonResourceRules\":null}]}"
        );
    }

    #[test]
    fn some_fields_have_a_go_name_of_their_own() {
        let source = json!({"targetPortal": "p", "chapAuthSession": true});
        let shown = internal_form("io.k8s.api.core.v1.ISCSIVolumeSource", Some(&source));
        assert_eq!(shown["SessionCHAPAuth"], json!(true));
        assert_eq!(shown["DiscoveryCHAPAuth"], json!(false));
        let shown = internal_form(
            "io.k8s.api.core.v1.RBDVolumeSource",
            Some(&json!({"image": "i", "monitors": ["m"]})),
        );
        assert_eq!(shown["RBDImage"], json!("i"));
        assert_eq!(shown["CephMonitors"], json!(["m"]));
    }

    #[test]
    fn the_security_context_has_what_the_spec_says_of_the_host() {
        let spec = json!({"hostNetwork": true, "securityContext": {}, "containers": []});
        let shown = internal_form("io.k8s.api.core.v1.PodSpec", Some(&spec));
        assert_eq!(shown["SecurityContext"]["HostNetwork"], json!(true));
        assert_eq!(shown["HostNetwork"], Value::Null);
    }
}
