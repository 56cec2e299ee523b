//! OpenAPI: `/openapi/v3` with one document per group and version, and `/openapi/v2` with all of them in one.
//!
//! ```text
//! registry ──▶ paths ────┐
//! schema table ▶ schemas ┼─▶ document ─▶ kept compressed
//! k8s-openapi ▶ texts ───┘
//! ```
//!
//! kubectl takes from them what to say in `explain`, how to merge lists in `apply`, and whether the server validates
//! fields itself. A document is made when it is first asked for; what is kept is its compressed form, a tenth of its
//! size. Its hash in the index is of what it is made from, so that the index needs no documents.

mod descriptions;
mod message;
mod paths;
mod schemas;
mod small;
mod v2;
mod v3;

use std::collections::BTreeMap;
use std::io::{Read, Write};

use bytes::Bytes;
use coracle_api::{Registry, Resource};
use http::header::{ACCEPT, CACHE_CONTROL, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, VARY};
use http::request::Parts;
use http::{Method, StatusCode, header};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::answer::{Answer, to_json};
use crate::discovery::{entity_tag, hash};
use crate::health::KUBERNETES_VERSION;
use crate::negotiate;
use crate::request_info::RequestInfo;
use crate::server::Server;

/// Counted up when documents change though their sources don't.
const FORMAT: u32 = 2;

/// The documents made so far, compressed.
#[derive(Default)]
pub(crate) struct Documents {
    made: Mutex<BTreeMap<String, Bytes>>,
}

/// Answers an OpenAPI path; `None` for other paths.
pub(crate) fn answer(server: &Server, parts: &Parts, info: &RequestInfo) -> Option<Answer> {
    let path = info.path.trim_end_matches('/');
    if path == "/openapi/v2" {
        return Some(version_2(server, parts));
    }
    let path = path.strip_prefix("/openapi/v3")?;
    if path.is_empty() {
        let index = to_json(&index(&server.registry));
        return Some(Answer::bytes(
            StatusCode::OK,
            "text/plain; charset=utf-8",
            index,
        ));
    }
    let path = path.strip_prefix('/')?;
    let registry = &server.registry;
    let found = group_version(registry, path);
    if found.is_none() && !small::index(registry).iter().any(|name| name == path) {
        return Some(Answer::bytes(StatusCode::NOT_FOUND, "", Vec::new()));
    }
    let Some(protobuf) = form(&parts.headers) else {
        return Some(Answer::bytes(StatusCode::NOT_ACCEPTABLE, "", Vec::new()));
    };
    let tag = match found {
        Some((group, version)) => document_hash(registry, group, version),
        None => small_hash(path),
    };
    let asked = info.query.get("hash").filter(|asked| !asked.is_empty());
    if asked.is_some_and(|asked| asked != tag) && parts.method == Method::GET {
        let mut answer = Answer::bytes(
            StatusCode::MOVED_PERMANENTLY,
            "text/html; charset=utf-8",
            Vec::new(),
        );
        let location = HeaderValue::try_from(format!("/openapi/v3/{path}?hash={tag}")).ok()?;
        answer.headers.push((header::LOCATION, location));
        return Some(answer);
    }
    let entity = match protobuf {
        true => entity_tag(format!("{tag}.pb").as_bytes()),
        false => entity_tag(tag.as_bytes()),
    };
    let mut answer = if knows(&parts.headers, &entity) {
        Answer::bytes(StatusCode::NOT_MODIFIED, "", Vec::new())
    } else {
        let make = || match found {
            Some((group, version)) => document(registry, group, version),
            None => small::document(registry, path).unwrap_or_default(),
        };
        let documents = &server.documents;
        match protobuf {
            true => {
                let kept = format!("{path}.pb");
                let bytes = documents.get_bytes(&kept, || v3::to_protobuf(&make()).into());
                Answer::bytes(StatusCode::OK, V3_PROTOBUF, bytes)
            }
            false => Answer::bytes(StatusCode::OK, negotiate::JSON, documents.get(path, make)),
        }
    };
    answer.headers.push((ETAG, entity));
    answer
        .headers
        .push((VARY, HeaderValue::from_static("Accept")));
    let fresh = if asked.is_some() {
        "public, immutable"
    } else {
        "no-cache, private"
    };
    answer
        .headers
        .push((CACHE_CONTROL, HeaderValue::from_static(fresh)));
    Some(answer)
}

/// `/openapi/v2`: protobuf for those who ask for it, else JSON.
fn version_2(server: &Server, parts: &Parts) -> Answer {
    const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    // Clients write the version with `@`, or after a dot.
    let protobuf = accepts(&parts.headers, |media| {
        media.starts_with("application/com.github.proto-openapi.spec.v2")
    });
    if !protobuf && !takes_json(&parts.headers) {
        return Answer::bytes(StatusCode::NOT_ACCEPTABLE, "", Vec::new());
    }
    let registry = &server.registry;
    let make = || {
        let mut versions: Vec<(&str, &str)> =
            registry.iter().map(|r| (r.group, r.version)).collect();
        versions.dedup();
        let documents: Vec<Value> = versions
            .into_iter()
            .map(|(group, version)| document(registry, group, version))
            .collect();
        v2::document(&documents, KUBERNETES_VERSION)
    };
    let (bytes, content_type) = if protobuf {
        (
            server
                .documents
                .get_bytes("v2.pb", || v2::to_protobuf(&make()).into()),
            PROTOBUF,
        )
    } else {
        (server.documents.get("v2.json", make), negotiate::JSON)
    };
    let entity = entity_tag(&bytes);
    let mut answer = if knows(&parts.headers, &entity) {
        Answer::bytes(StatusCode::NOT_MODIFIED, "", Vec::new())
    } else {
        Answer::bytes(StatusCode::OK, content_type, bytes)
    };
    answer.headers.push((ETAG, entity));
    answer
        .headers
        .push((VARY, HeaderValue::from_static("Accept")));
    answer
}

impl Documents {
    /// The document at `path`, made now if it has never been.
    fn get(&self, path: &str, make: impl FnOnce() -> Value) -> Bytes {
        self.get_bytes(path, || to_json(&make()))
    }

    fn get_bytes(&self, path: &str, make: impl FnOnce() -> Bytes) -> Bytes {
        let known = self.made.lock().get(path).cloned();
        if let Some(document) = known.as_deref().and_then(unpack) {
            return document;
        }
        let document = make();
        if let Some(packed) = pack(&document) {
            self.made.lock().insert(path.to_owned(), packed);
        }
        document
    }
}

fn pack(bytes: &[u8]) -> Option<Bytes> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

fn unpack(bytes: &[u8]) -> Option<Bytes> {
    let mut document = Vec::new();
    flate2::read::GzDecoder::new(bytes)
        .read_to_end(&mut document)
        .ok()?;
    Some(Bytes::from(document))
}

/// What protobuf of a v3 document is called. Older clients write the version with `@`, and get this name, too.
const V3_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";

/// Whether a v3 document is wanted in protobuf (`true`) or in JSON: what `Accept` names first; `None` for neither.
fn form(headers: &HeaderMap) -> Option<bool> {
    const OLDER: &str = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";
    if !headers.contains_key(ACCEPT) {
        return Some(false);
    }
    clauses(headers).find_map(|media| match media.as_str() {
        V3_PROTOBUF | OLDER => Some(true),
        "application/json" | "application/*" | "*/*" => Some(false),
        _ => None,
    })
}

fn takes_json(headers: &HeaderMap) -> bool {
    !headers.contains_key(ACCEPT)
        || accepts(headers, |media| {
            ["application/json", "application/*", "*/*"].contains(&media)
        })
}

/// Whether `Accept` has a media type that fits.
fn accepts(headers: &HeaderMap, fits: impl Fn(&str) -> bool) -> bool {
    clauses(headers).any(|media| fits(&media))
}

/// The media types of `Accept`, without their parameters.
fn clauses(headers: &HeaderMap) -> impl Iterator<Item = String> {
    let accept: Vec<&str> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let media = |clause: &str| {
        let media = clause.split(';').next().unwrap_or_default();
        media.trim().to_owned()
    };
    let clauses: Vec<String> = accept.join(",").split(',').map(media).collect();
    clauses.into_iter()
}

/// The path of a group's version below `/openapi/v3`.
fn document_path(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

fn group_version(registry: &Registry, path: &str) -> Option<(&'static str, &'static str)> {
    registry
        .iter()
        .map(|r| (r.group, r.version))
        .find(|(group, version)| document_path(group, version) == path)
}

fn index(registry: &Registry) -> Value {
    let mut paths = BTreeMap::new();
    for resource in registry.iter() {
        let path = document_path(resource.group, resource.version);
        paths.entry(path.clone()).or_insert_with(|| {
            let hash = document_hash(registry, resource.group, resource.version);
            json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")})
        });
    }
    for name in small::index(registry) {
        let url = format!("/openapi/v3/{name}?hash={}", small_hash(&name));
        paths.insert(name, json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

/// Whether the client has what bears this tag already.
fn knows(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|known| known.trim().trim_start_matches("W/") == *tag || known.trim() == "*")
}

/// The hash of one of the small documents, whose content follows from its name.
fn small_hash(name: &str) -> String {
    hash(format!("{FORMAT} {} {name}", env!("CARGO_PKG_VERSION")).as_bytes())
}

/// A hash of what a document is made from.
fn document_hash(registry: &Registry, group: &str, version: &str) -> String {
    let mut source = format!(
        "{FORMAT} {} {KUBERNETES_VERSION} {group} {version}",
        env!("CARGO_PKG_VERSION")
    );
    for resource in registry
        .iter()
        .filter(|r| r.group == group && r.version == version)
    {
        source.push_str(&format!(
            " {} {:?} {:?}",
            resource.kind, resource.verbs, resource.subresources
        ));
    }
    hash(source.as_bytes())
}

fn document(registry: &Registry, group: &str, version: &str) -> Value {
    let resources: Vec<&Resource> = registry
        .iter()
        .filter(|r| r.group == group && r.version == version)
        .collect();
    let mut roots = paths::shared_kinds();
    let mut all_paths = Map::from_iter([small::resources_path(group, version)]);
    for resource in &resources {
        roots.push((resource.group, resource.version, resource.kind));
        roots.extend(
            resource
                .subresources
                .iter()
                .filter_map(|subresource| subresource.kind),
        );
        all_paths.extend(paths::of(resource));
    }
    let texts = descriptions::Descriptions::of(&roots);
    envelope(all_paths, schemas::of(&roots, &resources, &texts))
}

/// A whole document.
fn envelope(paths: Map<String, Value>, definitions: Value) -> Value {
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": KUBERNETES_VERSION},
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {
                "BearerToken": {
                    "type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header",
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apps() -> Value {
        document(&Registry::builtin(), "apps", "v1")
    }

    #[test]
    fn the_index_names_every_served_version() {
        let index = index(&Registry::builtin());
        let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
            .as_str()
            .expect("apps is served");
        assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="), "{url}");
        assert!(index["paths"].get("api/v1").is_some());
    }

    #[test]
    fn patches_say_what_kubectl_looks_for() {
        let document = apps();
        let patch =
            &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-action"], "patch");
        let kind = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
        assert_eq!(patch["x-kubernetes-group-version-kind"], kind);
        let parameters = patch["parameters"].as_array().expect("a list");
        for name in ["fieldValidation", "fieldManager", "dryRun", "force"] {
            assert!(
                parameters
                    .iter()
                    .any(|p| p["name"] == name && p["in"] == "query"),
                "{name}"
            );
        }
        assert!(
            patch["requestBody"]["content"]
                .get("application/strategic-merge-patch+json")
                .is_some()
        );
    }

    #[test]
    fn schemas_carry_types_merge_keys_and_texts() {
        let document = apps();
        let schemas = &document["components"]["schemas"];
        let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
        let kind = json!([{"group": "apps", "kind": "Deployment", "version": "v1"}]);
        assert_eq!(deployment["x-kubernetes-group-version-kind"], kind);
        assert_eq!(
            schemas["io.k8s.api.apps.v1.DeploymentSpec"]["required"],
            json!(["selector", "template"])
        );
        let strategy = &schemas["io.k8s.api.apps.v1.DeploymentStrategy"]["properties"]["type"];
        assert_eq!(strategy["type"], "string");
        assert!(
            strategy["description"]
                .as_str()
                .expect("described")
                .starts_with("Type of deployment.")
        );
        let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(map) => {
                    if let Some(Value::String(reference)) = map.get("$ref") {
                        found.push(reference.clone());
                    }
                    map.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        for (group, version) in [("", "v1"), ("apps", "v1"), ("discovery.k8s.io", "v1")] {
            let document = document(&Registry::builtin(), group, version);
            let mut found = Vec::new();
            references(&document, &mut found);
            assert!(!found.is_empty());
            for reference in found {
                let name = reference
                    .strip_prefix("#/components/schemas/")
                    .expect("a schema");
                assert!(
                    document["components"]["schemas"].get(name).is_some(),
                    "{reference}"
                );
            }
        }
    }

    #[test]
    fn documents_are_kept_compressed_and_come_back_whole() {
        let documents = Documents::default();
        let made = documents.get("x", || json!({"a": "b"}));
        let again = documents.get("x", || panic!("made twice"));
        assert_eq!(made, again);
    }
}
