//! What `up -f` does with manifests: creates what is missing, merges the rest as `kubectl apply`.

mod three_way;

use std::fmt;

use anyhow::{Context, Result, anyhow, bail};
use coracle_api::schema::{SchemaRef, from_kept_json};
use coracle_api::{Registry, Resource};
use coracle_client::Client;
use http::{Method, Request};
use serde_json::Value;

use crate::manifests::Manifest;

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was not there.
    Created,
    /// It was there and changed.
    Configured,
    /// It was there as it should be.
    Unchanged,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
        })
    }
}

/// An object that was applied.
#[derive(Clone, Debug)]
pub struct Applied {
    /// What was done.
    pub outcome: Outcome,
    /// `deployment.apps/web`: as kubectl names it.
    pub name: String,
    /// Its URL path.
    pub path: String,
    /// The object as the server answered.
    pub object: Value,
}

/// Applies one manifest. The error says which document was refused, and the server's reason.
pub async fn apply(client: &Client, registry: &Registry, manifest: &Manifest) -> Result<Applied> {
    apply_object(client, registry, &manifest.object)
        .await
        .with_context(|| manifest.source.clone())
}

async fn apply_object(client: &Client, registry: &Registry, object: &Value) -> Result<Applied> {
    let resource = resource_of(registry, object)?;
    let object = &in_its_namespace(resource, object);
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let collection = collection_path(resource, object)?;
    let display = format!(
        "{}{}/{}",
        resource.singular,
        if resource.group.is_empty() {
            String::new()
        } else {
            format!(".{}", resource.group)
        },
        if name.is_empty() { "(generated)" } else { name },
    );
    const QUERY: &str = "fieldManager=kubectl-client-side-apply&fieldValidation=Strict";
    let path = format!("{collection}/{name}");
    // Under a name that cannot stand in a path there is nothing; the server says what is wrong with it.
    let live = if is_path_segment(name) {
        get(client, &path).await?
    } else {
        None
    };
    let refused = || format!("{display} was refused");
    let (outcome, object) = match live {
        None => {
            let body = three_way::annotated(object);
            let created = send(
                client,
                Method::POST,
                &format!("{collection}?{QUERY}"),
                JSON,
                &body,
            )
            .await;
            (Outcome::Created, created.with_context(refused)?)
        }
        Some(live) => {
            let schema = SchemaRef::for_kind(resource.group, resource.version, resource.kind)
                .ok_or_else(|| anyhow!("{} has no schema", resource.kind))?;
            let body = three_way::patch(object, &live, &schema);
            let patched = send(
                client,
                Method::PATCH,
                &format!("{path}?{QUERY}"),
                STRATEGIC,
                &body,
            )
            .await;
            let patched = patched.with_context(refused)?;
            let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
            let is_same = version(&patched) == version(&live);
            (
                if is_same {
                    Outcome::Unchanged
                } else {
                    Outcome::Configured
                },
                patched,
            )
        }
    };
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    Ok(Applied {
        outcome,
        name: display,
        path: format!("{collection}/{name}"),
        object,
    })
}

const JSON: &str = "application/json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

/// The object at `path`, or `None` when there is none.
pub async fn get(client: &Client, path: &str) -> Result<Option<Value>> {
    let request = Request::get(path).body(Vec::new())?;
    match client.request_text(request).await {
        Ok(object) => Ok(from_kept_json(object.as_bytes())?),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(explain(error)),
    }
}

async fn send(
    client: &Client,
    method: Method,
    path: &str,
    kind: &str,
    body: &Value,
) -> Result<Value> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", kind)
        .body(serde_json::to_vec(body)?)?;
    let answer = client.request_text(request).await.map_err(explain)?;
    Ok(from_kept_json(answer.as_bytes())?)
}

/// The server's own words, without the client library's around them.
fn explain(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => anyhow!("{}", status.message),
        other => anyhow!(other),
    }
}

fn resource_of(registry: &Registry, object: &Value) -> Result<&'static Resource> {
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let kind = object["kind"].as_str().unwrap_or_default();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    registry.by_kind(group, version, kind).ok_or_else(|| {
        let known = registry.iter().find(|r| r.kind == kind);
        let hint = match known {
            Some(resource) => format!("{kind} is served as apiVersion {}", resource.api_version()),
            None => "`kubectl api-resources` lists what is served".to_owned(),
        };
        anyhow!("no matches for kind {kind:?} in version {api_version:?}: {hint}")
    })
}

fn collection_path(resource: &Resource, object: &Value) -> Result<String> {
    let root = if resource.group.is_empty() {
        "/api"
    } else {
        "/apis"
    };
    let namespace = object["metadata"]["namespace"]
        .as_str()
        .filter(|n| !n.is_empty())
        .unwrap_or("default");
    if resource.namespaced {
        if !is_path_segment(namespace) {
            bail!("metadata.namespace {namespace:?} is not a name");
        }
        Ok(format!(
            "{root}/{}/namespaces/{namespace}/{}",
            resource.api_version(),
            resource.plural
        ))
    } else {
        Ok(format!(
            "{root}/{}/{}",
            resource.api_version(),
            resource.plural
        ))
    }
}

/// The object with its namespace spelled out, as kubectl sends and remembers it.
fn in_its_namespace(resource: &Resource, object: &Value) -> Value {
    let mut object = object.clone();
    let namespace = &mut object["metadata"]["namespace"];
    if resource.namespaced && namespace.as_str().unwrap_or_default().is_empty() {
        *namespace = Value::from("default");
    }
    object
}

/// Whether `text` can stand between two slashes of a path as it is.
fn is_path_segment(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    !matches!(text, "" | "." | "..") && text.bytes().all(is_plain)
}
