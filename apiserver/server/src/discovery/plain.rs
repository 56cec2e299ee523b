//! The documents that clients walk through one by one.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use coracle_api::kinds::{Storage, Subresource};
use coracle_api::{Registry, Resource};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::order;

/// `/`: the paths that are served.
pub(super) fn index(registry: &Registry) -> Value {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for group in group_names(registry) {
        paths.push(format!("/apis/{group}"));
        paths.extend(
            version_names(registry, group)
                .into_iter()
                .map(|version| format!("/apis/{group}/{version}")),
        );
    }
    paths.extend(
        [
            "/healthz",
            "/livez",
            "/metrics",
            "/metrics/slis",
            "/openapi/v2",
            "/openapi/v3",
            "/readyz",
            "/statusz",
            "/version",
        ]
        .map(str::to_owned),
    );
    paths.sort_unstable();
    json!({"paths": paths})
}

/// `/api`: the versions of the core group.
pub(super) fn versions(host: &str) -> Value {
    let address = json!({"clientCIDR": "0.0.0.0/0", "serverAddress": host});
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [address]})
}

/// `/apis`: the groups with their versions.
pub(super) fn groups(registry: &Registry) -> Value {
    let groups: Vec<Value> = group_names(registry)
        .into_iter()
        .map(|group| Value::Object(group_body(registry, group)))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`.
pub(super) fn group(registry: &Registry, group: &str) -> Option<Value> {
    group_names(registry).contains(&group).then(|| {
        let mut document = Map::new();
        document.insert("kind".to_owned(), "APIGroup".into());
        document.insert("apiVersion".to_owned(), "v1".into());
        document.extend(group_body(registry, group));
        Value::Object(document)
    })
}

/// `/api/v1` or `/apis/<group>/<version>`: the resources and their subresources, sorted by name.
pub(super) fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut entries: Vec<(String, Value)> = Vec::new();
    for resource in registry
        .iter()
        .filter(|r| r.group == group && r.version == version)
    {
        entries.push((resource.plural.to_owned(), resource_entry(resource)));
        for subresource in resource.subresources {
            let name = format!("{}/{}", resource.plural, subresource.name);
            entries.push((
                name.clone(),
                subresource_entry(resource, subresource, &name),
            ));
        }
    }
    if entries.is_empty() {
        return None;
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    let entries: Vec<Value> = entries.into_iter().map(|(_, entry)| entry).collect();
    let mut document = Map::new();
    document.insert("kind".to_owned(), "APIResourceList".into());
    if !group.is_empty() {
        document.insert("apiVersion".to_owned(), "v1".into());
    }
    document.insert(
        "groupVersion".to_owned(),
        group_version(group, version).into(),
    );
    document.insert("resources".to_owned(), entries.into());
    Some(Value::Object(document))
}

/// The named groups in the order of preference.
pub(super) fn group_names(registry: &Registry) -> Vec<&'static str> {
    let mut names: Vec<&str> = Vec::new();
    for resource in registry
        .iter()
        .filter(|resource| !resource.group.is_empty())
    {
        if !names.contains(&resource.group) {
            names.push(resource.group);
        }
    }
    order::groups(&mut names);
    names
}

/// The versions of a group, the preferred one first.
pub(super) fn version_names(registry: &Registry, group: &str) -> Vec<&'static str> {
    let mut names: Vec<&str> = Vec::new();
    for resource in registry.iter().filter(|resource| resource.group == group) {
        if !names.contains(&resource.version) {
            names.push(resource.version);
        }
    }
    order::versions(&mut names);
    names
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    }
}

fn group_body(registry: &Registry, group: &str) -> Map<String, Value> {
    let versions: Vec<Value> = version_names(registry, group)
        .into_iter()
        .map(|version| json!({"groupVersion": group_version(group, version), "version": version}))
        .collect();
    let mut body = Map::new();
    let preferred = versions.first().cloned().unwrap_or_default();
    body.insert("name".to_owned(), group.into());
    body.insert("versions".to_owned(), versions.into());
    body.insert("preferredVersion".to_owned(), preferred);
    body
}

fn resource_entry(resource: &Resource) -> Value {
    let mut entry = Map::new();
    entry.insert("name".to_owned(), resource.plural.into());
    entry.insert("singularName".to_owned(), resource.singular.into());
    entry.insert("namespaced".to_owned(), resource.namespaced.into());
    entry.insert("kind".to_owned(), resource.kind.into());
    entry.insert("verbs".to_owned(), json!(resource.verbs));
    if !resource.short_names.is_empty() {
        entry.insert("shortNames".to_owned(), json!(resource.short_names));
    }
    if !resource.categories.is_empty() {
        entry.insert("categories".to_owned(), json!(resource.categories));
    }
    // What nobody can write has no stored version.
    if resource.storage != Storage::None && resource.verbs.contains(&"create") {
        entry.insert(
            "storageVersionHash".to_owned(),
            storage_version_hash(resource).into(),
        );
    }
    Value::Object(entry)
}

fn subresource_entry(resource: &Resource, subresource: &Subresource, name: &str) -> Value {
    let mut entry = Map::new();
    entry.insert("name".to_owned(), name.into());
    entry.insert("singularName".to_owned(), "".into());
    entry.insert("namespaced".to_owned(), resource.namespaced.into());
    let (group, version, kind) = body_kind(resource, subresource);
    if !version.is_empty() {
        entry.insert("group".to_owned(), group.into());
        entry.insert("version".to_owned(), version.into());
    }
    entry.insert("kind".to_owned(), kind.into());
    entry.insert("verbs".to_owned(), json!(subresource.verbs));
    Value::Object(entry)
}

/// Group, version and kind of a subresource's body; group and version are empty when they are the resource's.
pub(super) fn body_kind(
    resource: &Resource,
    subresource: &Subresource,
) -> (&'static str, &'static str, &'static str) {
    match subresource.kind {
        None => ("", "", resource.kind),
        Some((group, version, kind)) if (group, version) == (resource.group, resource.version) => {
            ("", "", kind)
        }
        Some(other) => other,
    }
}

/// What tells clients that the stored version of a kind has changed.
fn storage_version_hash(resource: &Resource) -> String {
    let text = format!("{}/{}/{}", resource.group, resource.version, resource.kind);
    BASE64.encode(&Sha256::digest(text.as_bytes())[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_described_as_upstream_describes_them() {
        let document = resources(&Registry::builtin(), "", "v1").expect("the core group is served");
        assert_eq!(document["groupVersion"], "v1");
        assert!(document.get("apiVersion").is_none());
        let entries = document["resources"].as_array().expect("a list");
        let find = |name: &str| {
            entries
                .iter()
                .find(|entry| entry["name"] == name)
                .expect(name)
        };
        assert_eq!(find("pods")["shortNames"], json!(["po"]));
        assert_eq!(find("pods")["storageVersionHash"], "xPOwRZ+Yhw8=");
        assert_eq!(
            find("pods/binding"),
            &json!({"name": "pods/binding", "singularName": "", "namespaced": true, "kind": "Binding", "verbs": ["create"]})
        );
        let names: Vec<&str> = entries
            .iter()
            .filter_map(|entry| entry["name"].as_str())
            .collect();
        assert!(names.is_sorted());
    }

    #[test]
    fn scale_says_which_kind_its_body_has() {
        let document = resources(&Registry::builtin(), "apps", "v1").expect("apps is served");
        let entries = document["resources"].as_array().expect("a list");
        let scale = entries
            .iter()
            .find(|entry| entry["name"] == "deployments/scale")
            .expect("scale is served");
        assert_eq!(
            (&scale["group"], &scale["kind"]),
            (&json!("autoscaling"), &json!("Scale"))
        );
    }

    #[test]
    fn groups_that_are_not_served_are_not_there() {
        let registry = Registry::builtin();
        assert!(group(&registry, "none.example.com").is_none());
        assert!(resources(&registry, "apps", "v9").is_none());
        assert_eq!(
            group(&registry, "apps").expect("served")["preferredVersion"]["groupVersion"],
            "apps/v1"
        );
    }
}
