//! The documents about discovery itself: `/openapi/v3/apis`, `/openapi/v3/apis/apps`, `/openapi/v3/version` and so on.
//!
//! Each describes one path with one GET. Clients hardly read them, but the index names them, as upstream's does.

use coracle_api::Registry;
use coracle_api::schema::SchemaRef;
use serde_json::{Map, Value, json};

use super::descriptions::Descriptions;
use super::{envelope, paths, schemas};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// One of these documents: what its operation is called, what it says it does, and what it answers with.
struct Small {
    /// The path that it describes.
    path: String,
    id: String,
    tag: String,
    description: &'static str,
    /// The definition of the answer; empty for text.
    answer: String,
}

/// The paths below `/openapi/v3/` of all these documents.
pub(super) fn index(registry: &Registry) -> Vec<String> {
    let mut names: Vec<String> = [
        ".well-known/openid-configuration",
        "api",
        "apis",
        "openid/v1/jwks",
        "version",
    ]
    .map(str::to_owned)
    .to_vec();
    for resource in registry.iter().filter(|r| !r.group.is_empty()) {
        let name = format!("apis/{}", resource.group);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The document at `name`, if it is one of these.
pub(super) fn document(registry: &Registry, name: &str) -> Option<Value> {
    let meta = |kind: &str| format!("{META}.{kind}");
    let small = match name {
        "api" => Small {
            path: "/api/".to_owned(),
            id: "getCoreAPIVersions".to_owned(),
            tag: "core".to_owned(),
            description: "get available API versions",
            answer: meta("APIVersions"),
        },
        "apis" => Small {
            path: "/apis/".to_owned(),
            id: "getAPIVersions".to_owned(),
            tag: "apis".to_owned(),
            description: "get available API versions",
            answer: meta("APIGroupList"),
        },
        "version" => Small {
            path: "/version/".to_owned(),
            id: "getCodeVersion".to_owned(),
            tag: "version".to_owned(),
            description: "get the version information for this server",
            answer: "io.k8s.apimachinery.pkg.version.Info".to_owned(),
        },
        ".well-known/openid-configuration" => Small {
            path: "/.well-known/openid-configuration/".to_owned(),
            id: "getServiceAccountIssuerOpenIDConfiguration".to_owned(),
            tag: "WellKnown".to_owned(),
            description: "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
            answer: String::new(),
        },
        "openid/v1/jwks" => Small {
            path: "/openid/v1/jwks/".to_owned(),
            id: "getServiceAccountIssuerOpenIDKeyset".to_owned(),
            tag: "openid".to_owned(),
            description: "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
            answer: String::new(),
        },
        _ => {
            let group = name.strip_prefix("apis/")?;
            registry
                .iter()
                .find(|resource| resource.group == group && !group.is_empty())?;
            let tag = paths::group_tag(group);
            Small {
                path: format!("/apis/{group}/"),
                id: format!("get{}APIGroup", paths::upper(&tag)),
                tag,
                description: "get information of a group",
                answer: meta("APIGroup"),
            }
        }
    };
    Some(small.document())
}

/// The path that tells which resources a version of a group has.
pub(super) fn resources_path(group: &str, version: &str) -> (String, Value) {
    let tag = paths::group_tag(group);
    let small = Small {
        path: match group {
            "" => format!("/api/{version}/"),
            group => format!("/apis/{group}/{version}/"),
        },
        id: format!(
            "get{}{}APIResources",
            paths::upper(&tag),
            paths::upper(version)
        ),
        tag: format!("{tag}_{version}"),
        description: "get available resources",
        answer: format!("{META}.APIResourceList"),
    };
    let item = small.item();
    (small.path, item)
}

impl Small {
    fn item(&self) -> Value {
        let media = match self.answer.as_str() {
            "" => Map::from_iter([("application/json".to_owned(), text())]),
            "io.k8s.apimachinery.pkg.version.Info" => {
                let schema = json!({"schema": paths::reference(&self.answer)});
                Map::from_iter([("application/json".to_owned(), schema)])
            }
            answer => [
                "application/json",
                "application/vnd.kubernetes.protobuf",
                "application/yaml",
            ]
            .into_iter()
            .map(|media| {
                let schema = json!({"schema": paths::reference(answer)});
                (media.to_owned(), schema)
            })
            .collect(),
        };
        json!({"get": {
            "tags": [self.tag],
            "description": self.description,
            "operationId": self.id,
            "responses": {
                "200": {"description": "OK", "content": media},
                "401": {"description": "Unauthorized"},
            },
        }})
    }

    fn document(&self) -> Value {
        let found = SchemaRef::builtin(&self.answer);
        let roots: Vec<paths::Kind> = Vec::new();
        let texts = Descriptions::of(&roots);
        let definitions = schemas::of_definitions(found.as_slice(), &texts);
        let paths = Map::from_iter([(self.path.clone(), self.item())]);
        envelope(paths, definitions)
    }
}

fn text() -> Value {
    json!({"schema": {"type": "string"}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_in_the_index_has_a_document() {
        let registry = Registry::builtin();
        for name in index(&registry) {
            let document = document(&registry, &name).expect("a document");
            let paths = document["paths"].as_object().expect("paths");
            assert!(paths.contains_key(&format!("/{name}/")), "{name}");
        }
        assert!(document(&registry, "apis/none.example.com").is_none());
    }
}
