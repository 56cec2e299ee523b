//! What a request is about: the kind and the part of it that its path names, and the form of the answer.

use coracle_api::Resource;
use coracle_api::kinds::{Storage, Subresource};
use http::Method;
use http::header::{HOST, HeaderValue};
use http::request::Parts;

use crate::negotiate::{self, Output};
use crate::request_info::RequestInfo;
use crate::server::Server;
use crate::status::{ApiError, Result};
use crate::subresources::connect;

/// What a path names.
pub(super) struct Target {
    pub(super) resource: &'static Resource,
    pub(super) subresource: Option<&'static Subresource>,
}

/// Finds what the path names and checks that the method is served there. `None` if nobody knows the group.
pub(super) fn find(server: &Server, method: &Method, info: &RequestInfo) -> Result<Option<Target>> {
    let registry = &server.registry;
    let resource = bindings(server, info)
        .or_else(|| registry.by_plural(&info.group, &info.version, &info.resource));
    let Some(resource) = resource else {
        return match registry.iter().any(|other| other.group == info.group) {
            true => Err(ApiError::unknown_path()),
            false => Ok(None),
        };
    };
    if info.name.contains('/') {
        return Err(ApiError::unknown_path());
    }
    let subresource = subresource(info, resource)?;
    check_method(method, info, resource, subresource)?;
    check_name(info)?;
    Ok(Some(Target {
        resource,
        subresource,
    }))
}

/// Refuses names that would be steps of a path.
fn check_name(info: &RequestInfo) -> Result<()> {
    if let "." | ".." = info.name.as_str() {
        let name = &info.name;
        return Err(ApiError::bad_request(format!(
            "Name parameter invalid: {name:?}: may not be '{name}'"
        )));
    }
    Ok(())
}

/// `bindings` is served as a way to write pods; it has no storage of its own.
fn bindings(server: &Server, info: &RequestInfo) -> Option<&'static Resource> {
    let asked = info.group.is_empty() && info.version == "v1" && info.resource == "bindings";
    asked
        .then(|| server.registry.by_plural("", "v1", "pods"))
        .flatten()
}

/// Checks that the path fits the resource, and finds its subresource.
fn subresource(
    info: &RequestInfo,
    resource: &'static Resource,
) -> Result<Option<&'static Subresource>> {
    let is_namespace = resource.group.is_empty() && resource.plural == "namespaces";
    let has_namespace = !info.namespace.is_empty() && !is_namespace;
    let misplaced = !resource.namespaced && has_namespace
        || resource.namespaced && !has_namespace && !info.name.is_empty()
        || info.resource == "bindings" && !has_namespace
        || !info.rest.is_empty() && info.subresource != "proxy";
    if misplaced {
        return Err(ApiError::unknown_path());
    }
    if info.subresource.is_empty() {
        return Ok(None);
    }
    resource
        .subresource(&info.subresource)
        .map(Some)
        .ok_or_else(ApiError::unknown_path)
}

/// Whether the method is one of those that the path serves.
fn check_method(
    method: &Method,
    info: &RequestInfo,
    resource: &Resource,
    subresource: Option<&Subresource>,
) -> Result<()> {
    let is_bindings = info.resource == "bindings";
    if is_question(resource) && !info.name.is_empty() {
        // Questions have no names.
        return Err(ApiError::unknown_path());
    }
    let allowed = match subresource {
        Some(subresource) => subresource.verbs.contains(&info.verb),
        None if is_bindings => info.verb == "create" && info.name.is_empty(),
        None => resource.verbs.contains(&info.verb) && fits(info, resource),
    };
    let watches = !info.watch_prefix || *method == Method::GET;
    // Upstream has routes for these where requests are handed on, and for nothing else.
    let proxied = info.subresource == "proxy";
    let unusual = match *method {
        Method::HEAD => !proxied,
        Method::OPTIONS if proxied && subresource.is_some() => return Ok(()),
        Method::OPTIONS => true,
        _ => false,
    };
    if allowed && watches && !unusual {
        Ok(())
    } else {
        Err(ApiError::method_not_allowed())
    }
}

/// Whether the verb fits a collection or an object, as the path has it.
fn fits(info: &RequestInfo, resource: &Resource) -> bool {
    let collection = info.name.is_empty();
    // A namespaced object is created in a namespace.
    let placed = !resource.namespaced || !info.namespace.is_empty() || info.empty_namespace;
    match info.verb {
        "create" => collection && placed,
        "list" | "deletecollection" => collection,
        "watch" => true,
        _ => !collection,
    }
}

/// The host that the client asked: HTTP/2 says it in the URI.
pub(super) fn host(parts: &Parts) -> Option<HeaderValue> {
    let asked = parts.headers.get(HOST).cloned();
    asked.or_else(|| HeaderValue::try_from(parts.uri.authority()?.as_str()).ok())
}

/// How the answer is written; first as upstream's router looks at `Accept`, then as its handlers do.
pub(super) fn representation(
    parts: &Parts,
    info: &RequestInfo,
    resource: &Resource,
    subresource: Option<&Subresource>,
) -> Result<Output> {
    let pretty = info.query.get("pretty");
    if subresource.is_some_and(|subresource| subresource.name == "log") {
        negotiate::acceptable(&parts.headers, &["text/plain"], false)?;
        // Logs are text whatever the client accepts.
        return Ok(Output::PLAIN);
    }
    if subresource.is_some_and(|subresource| connect::is_connect(subresource.name)) {
        // Whoever answers in the end knows what it can produce.
        return Ok(Output::PLAIN);
    }
    let lists = matches!(info.verb, "list" | "watch");
    negotiate::acceptable(&parts.headers, &[], lists)?;
    if info.verb == "watch" {
        negotiate::stream(&parts.headers, pretty)
    } else {
        negotiate::output(
            &parts.headers,
            pretty,
            has_tables(info, resource, subresource),
        )
    }
}

/// Whether the answer can be a table: upstream's parts without a `TableConvertor` have none.
fn has_tables(info: &RequestInfo, resource: &Resource, subresource: Option<&Subresource>) -> bool {
    match subresource.map(|part| part.name) {
        Some(name) => !matches!(
            name,
            "binding" | "ephemeralcontainers" | "eviction" | "finalize" | "resize" | "token"
        ),
        // Questions and bindings are answered, not kept.
        None => info.verb != "create" || !is_question(resource) && info.resource != "bindings",
    }
}

/// Whether objects of that kind are answered and not kept.
fn is_question(resource: &Resource) -> bool {
    resource.storage == Storage::None && resource.verbs.contains(&"create")
}
