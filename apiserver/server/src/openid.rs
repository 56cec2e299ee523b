//! OpenID Connect discovery: who issues service accounts' tokens, and the keys that verify them.

use http::header::CACHE_CONTROL;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};

use crate::answer::{Answer, to_json};
use crate::authn::{discovery_document, key_set};
use crate::request_info::RequestInfo;
use crate::server::Server;

/// How long clients may keep the documents: new keys are to be published this long before they sign.
const CACHED: &str = "public, max-age=3600";

/// The answer, if the path is one of the two, and this server issues tokens.
pub(crate) fn answer(server: &Server, parts: &Parts, info: &RequestInfo) -> Option<Answer> {
    let tokens = server.authentication.service_accounts.as_ref()?;
    let host = server.public_address.as_deref();
    let host = host.unwrap_or("kubernetes.default.svc");
    let (media_type, document) = match info.path.trim_end_matches('/') {
        "/.well-known/openid-configuration" => {
            ("application/json", discovery_document(tokens, host))
        }
        "/openid/v1/jwks" => ("application/jwk-set+json", key_set(tokens)),
        _ => return None,
    };
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        let mut answer = Answer::text(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed");
        let allow = (http::header::ALLOW, HeaderValue::from_static("GET"));
        answer.headers.push(allow);
        return Some(answer);
    }
    let mut answer = Answer::bytes(StatusCode::OK, media_type, to_json(&document));
    let cached = (CACHE_CONTROL, HeaderValue::from_static(CACHED));
    answer.headers.push(cached);
    Some(answer)
}
