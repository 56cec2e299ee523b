//! All of discovery in one document: `APIGroupDiscoveryList`.

use coracle_api::kinds::Subresource;
use coracle_api::{Registry, Resource};
use serde_json::{Map, Value, json};

use super::plain::{body_kind, group_names, version_names};

/// The core group (`/api`), or all named ones (`/apis`).
pub(super) fn document(registry: &Registry, core: bool) -> Value {
    let groups = if core {
        vec![""]
    } else {
        group_names(registry)
    };
    let items: Vec<Value> = groups
        .into_iter()
        .map(|group| item(registry, group))
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
}

fn item(registry: &Registry, group: &str) -> Value {
    let versions: Vec<Value> = version_names(registry, group)
        .into_iter()
        .map(|version| {
            let mut served: Vec<&Resource> = registry
                .iter()
                .filter(|r| r.group == group && r.version == version)
                .collect();
            served.sort_by_key(|resource| resource.plural);
            let resources: Vec<Value> = served.into_iter().map(resource).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let metadata = if group.is_empty() {
        json!({})
    } else {
        json!({"name": group})
    };
    json!({"metadata": metadata, "versions": versions})
}

fn resource(resource: &Resource) -> Value {
    let mut entry = Map::new();
    entry.insert("resource".to_owned(), resource.plural.into());
    entry.insert(
        "responseKind".to_owned(),
        json!({"group": "", "version": "", "kind": resource.kind}),
    );
    entry.insert(
        "scope".to_owned(),
        if resource.namespaced {
            "Namespaced"
        } else {
            "Cluster"
        }
        .into(),
    );
    entry.insert("singularResource".to_owned(), resource.singular.into());
    entry.insert("verbs".to_owned(), json!(resource.verbs));
    if !resource.short_names.is_empty() {
        entry.insert("shortNames".to_owned(), json!(resource.short_names));
    }
    if !resource.categories.is_empty() {
        entry.insert("categories".to_owned(), json!(resource.categories));
    }
    if !resource.subresources.is_empty() {
        let mut subresources: Vec<&Subresource> = resource.subresources.iter().collect();
        subresources.sort_by_key(|subresource| subresource.name);
        let entries: Vec<Value> = subresources
            .into_iter()
            .map(|subresource| {
                let (group, version, kind) = body_kind(resource, subresource);
                json!({
                    "subresource": subresource.name,
                    "responseKind": {"group": group, "version": version, "kind": kind},
                    "verbs": subresource.verbs,
                })
            })
            .collect();
        entry.insert("subresources".to_owned(), entries.into());
    }
    Value::Object(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_is_in_one_of_the_two_documents() {
        let registry = Registry::builtin();
        let count = |core: bool| {
            let document = document(&registry, core);
            let items = document["items"].as_array().expect("a list").clone();
            let versions = items
                .iter()
                .flat_map(|item| item["versions"].as_array().expect("a list").clone());
            versions
                .map(|version| version["resources"].as_array().map_or(0, Vec::len))
                .sum::<usize>()
        };
        assert_eq!(count(true) + count(false), registry.iter().count());
    }

    #[test]
    fn subresources_are_listed_below_their_resource() {
        let document = document(&Registry::builtin(), false);
        let mut groups = document["items"].as_array().expect("a list").iter();
        let apps = groups
            .find(|group| group["metadata"]["name"] == "apps")
            .expect("served");
        let resources = apps["versions"][0]["resources"].as_array().expect("a list");
        let deployments = resources
            .iter()
            .find(|resource| resource["resource"] == "deployments")
            .expect("served");
        assert_eq!(
            deployments["subresources"][0],
            json!({
                "subresource": "scale",
                "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"},
                "verbs": ["get", "patch", "update"],
            })
        );
    }
}
