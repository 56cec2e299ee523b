//! Discovery: `/api`, `/apis` and the documents below them.
//!
//! Everything follows from the descriptors in the registry. Clients that can take it get all of it at once (the
//! aggregated form, with an `ETag`); others walk from group to version. The documents are made anew for each request:
//! they are small and rarely asked for, and so never stale.

mod aggregated;
pub(crate) mod order;
mod plain;

use http::StatusCode;
use http::header::{CACHE_CONTROL, ETAG, HOST, HeaderMap, HeaderValue, IF_NONE_MATCH, VARY};
use http::request::Parts;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::answer::{Answer, settle, to_json};
use crate::negotiate::{self, Format, Output};
use crate::request_info::RequestInfo;
use crate::server::Server;
use crate::status::ApiError;

/// Answers a discovery path; `None` for other paths.
pub(crate) fn answer(server: &Server, parts: &Parts, info: &RequestInfo) -> Option<Answer> {
    let path: Vec<&str> = info.path.trim_matches('/').split('/').collect();
    let registry = &server.registry;
    let pretty = info.query.get("pretty");
    // Some documents are not behind upstream's router, which refuses in words of its own.
    let acceptable = match path[..] {
        ["apis"] | ["apis", _] => Ok(()),
        _ => negotiate::acceptable(&parts.headers, &[], false),
    };
    if let ["api"] | ["apis"] = path[..]
        && acceptable.is_ok()
        && let Some(output) = negotiate::aggregated(&parts.headers, pretty)
    {
        let document = aggregated::document(registry, path == ["api"]);
        return Some(tagged(&parts.headers, output, &document));
    }
    let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = server
        .public_address
        .as_deref()
        .or(host)
        .or_else(|| parts.uri.authority().map(|authority| authority.as_str()))
        .unwrap_or_default();
    let document = match path[..] {
        [""] | ["index.html"] => {
            // For people, whatever the client accepts.
            let output = Output {
                pretty: true,
                ..Output::PLAIN
            };
            return Some(Answer::value(
                StatusCode::OK,
                output,
                &plain::index(registry),
            ));
        }
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
    let output = acceptable.and_then(|()| negotiate::untransformed(&parts.headers, pretty));
    Some(settle(output.map(|output| {
        Answer::value(StatusCode::OK, output, &document)
    })))
}

/// All of discovery, which clients keep: they are answered with 304 while it is the same. As upstream's, the tag is that
/// of the document in whatever form, and `Vary` keeps the forms apart.
fn tagged(headers: &HeaderMap, output: Output, document: &Value) -> Answer {
    let tag = entity_tag(&to_json(document));
    let known = headers.get(IF_NONE_MATCH);
    let mut answer = if known.is_some_and(|known| *known == tag) {
        Answer::bytes(StatusCode::NOT_MODIFIED, "", Vec::new())
    } else {
        let mut answer = Answer::value(StatusCode::OK, output, document);
        answer.content_type = match output.format {
            Format::Json => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Format::Yaml => "application/yaml;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Format::Protobuf => {
                "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
            }
        };
        answer
    };
    let public = HeaderValue::from_static("public");
    answer.headers.extend([
        (ETAG, tag),
        (VARY, HeaderValue::from_static("Accept")),
        (CACHE_CONTROL, public),
    ]);
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

    #[test]
    fn a_client_that_has_the_document_is_not_sent_it_again() {
        let document = serde_json::json!({"kind": "APIGroupDiscoveryList"});
        let first = tagged(&HeaderMap::new(), Output::PLAIN, &document);
        assert_eq!(first.status, StatusCode::OK);
        let mut headers = HeaderMap::new();
        headers.insert(IF_NONE_MATCH, entity_tag(&to_json(&document)));
        assert_eq!(
            tagged(&headers, Output::PLAIN, &document).status,
            StatusCode::NOT_MODIFIED
        );
    }
}
