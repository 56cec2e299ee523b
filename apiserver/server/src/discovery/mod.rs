//! Discovery: `/api`, `/apis` and the documents below them.
//!
//! Everything follows from the descriptors in the registry. Clients that can take it get all of it at once (the
//! aggregated form, with an `ETag`); others walk from group to version. The documents are made anew for each request:
//! they are small and rarely asked for, and so never stale.

mod aggregated;
pub(crate) mod order;
mod plain;

use http::header::{CACHE_CONTROL, ETAG, HOST, HeaderMap, HeaderValue, IF_NONE_MATCH, VARY};
use http::request::Parts;
use http::{StatusCode, header::ACCEPT};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::answer::{Answer, to_json};
use crate::negotiate;
use crate::request_info::RequestInfo;
use crate::server::Server;
use crate::status::ApiError;

/// Answers a discovery path; `None` for other paths.
pub(crate) fn answer(server: &Server, parts: &Parts, info: &RequestInfo) -> Option<Answer> {
    let path: Vec<&str> = info.path.trim_matches('/').split('/').collect();
    let registry = &server.registry;
    if let ["api"] | ["apis"] = path[..]
        && let Some(version) = aggregated_version(&parts.headers)
    {
        let document = aggregated::document(registry, path == ["api"], version);
        return Some(tagged(&parts.headers, version, &document));
    }
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = server
        .public_address
        .as_deref()
        .or(host)
        .or_else(|| parts.uri.authority().map(|authority| authority.as_str()))
        .unwrap_or_default();
    let document = match path[..] {
        [""] => plain::index(registry),
        ["api"] => plain::versions(host),
        ["apis"] => plain::groups(registry),
        ["apis", group] => match plain::group(registry, group) {
            Some(document) => document,
            None => return Some(Answer::text(StatusCode::NOT_FOUND, "404 page not found\n")),
        },
        ["api", version] => match plain::resources(registry, "", version) {
            Some(document) => document,
            None => return Some(Answer::from(ApiError::unknown_path())),
        },
        ["apis", group, version] => match plain::resources(registry, group, version) {
            Some(document) => document,
            None => {
                plain::group(registry, group)?;
                return Some(Answer::from(ApiError::unknown_path()));
            }
        },
        _ => return None,
    };
    let routed = !matches!(path[..], [""] | ["apis"] | ["apis", _]);
    Some(negotiated(parts, info, &document, routed))
}

/// The document as the client accepts it. Some are not behind upstream's router, which refuses in words of its own.
fn negotiated(parts: &Parts, info: &RequestInfo, document: &Value, routed: bool) -> Answer {
    let acceptable = if routed {
        negotiate::acceptable(&parts.headers, &[], false)
    } else {
        Ok(())
    };
    let output = acceptable
        .and_then(|()| negotiate::untransformed(&parts.headers, info.query.get("pretty")));
    match output {
        Ok(output) => Answer::value(StatusCode::OK, output, document),
        Err(error) => Answer::from(error),
    }
}

/// The version of the aggregated form that the client prefers to all plain ones.
fn aggregated_version(headers: &HeaderMap) -> Option<&'static str> {
    let accept: Vec<&str> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    for clause in accept.join(",").split(',') {
        let mut parts = clause.split(';').map(str::trim);
        if !matches!(
            parts.next(),
            Some("application/json" | "*/*" | "application/yaml")
        ) {
            continue;
        }
        let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
        let get = |key: &str| {
            parameters
                .iter()
                .find(|(k, _)| *k == key)
                .map(|(_, value)| *value)
        };
        match (get("as"), get("g"), get("v")) {
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => {
                return Some("v2");
            }
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2beta1")) => {
                return Some("v2beta1");
            }
            (None, _, _) => return None,
            _ => {}
        }
    }
    None
}

/// A document that clients keep: unchanged ones are answered with 304.
fn tagged(headers: &HeaderMap, version: &str, document: &Value) -> Answer {
    let content_type = match version {
        "v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        _ => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
    };
    let bytes = to_json(document);
    let tag = entity_tag(&bytes);
    let mut answer = if headers
        .get(IF_NONE_MATCH)
        .is_some_and(|known| *known == tag)
    {
        Answer::bytes(StatusCode::NOT_MODIFIED, content_type, Vec::new())
    } else {
        Answer::bytes(StatusCode::OK, content_type, bytes)
    };
    answer.headers.push((ETAG, tag));
    answer
        .headers
        .push((VARY, HeaderValue::from_static("Accept")));
    answer
        .headers
        .push((CACHE_CONTROL, HeaderValue::from_static("public")));
    answer
}

/// A quoted hash of the bytes.
pub(crate) fn entity_tag(bytes: &[u8]) -> HeaderValue {
    let tag = format!("\"{}\"", hash(bytes));
    HeaderValue::try_from(tag).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// SHA-256 in upper-case hexadecimal digits.
pub(crate) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(accept: &'static str) -> Option<&'static str> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        aggregated_version(&headers)
    }

    #[test]
    fn clients_say_whether_they_take_all_at_once() {
        let v2 =
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        assert_eq!(version(v2), Some("v2"));
        let older = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(version(older), Some("v2beta1"));
        assert_eq!(version("application/json, */*"), None);
        assert_eq!(
            version("application/json;g=apidiscovery.k8s.io;v=v3;as=APIGroupDiscoveryList"),
            None
        );
    }

    #[test]
    fn a_client_that_has_the_document_is_not_sent_it_again() {
        let document = serde_json::json!({"kind": "APIGroupDiscoveryList"});
        let first = tagged(&HeaderMap::new(), "v2", &document);
        assert_eq!(first.status, StatusCode::OK);
        let mut headers = HeaderMap::new();
        headers.insert(IF_NONE_MATCH, entity_tag(&to_json(&document)));
        assert_eq!(
            tagged(&headers, "v2", &document).status,
            StatusCode::NOT_MODIFIED
        );
    }
}
