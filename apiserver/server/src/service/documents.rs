//! Paths that name no resource: health, version, metrics, discovery and the schemas.

use coracle_api::kinds::Storage;
use http::request::Parts;
use http::{Method, StatusCode};

use crate::answer::Answer;
use crate::health::statusz;
use crate::negotiate::Output;
use crate::request_info::RequestInfo;
use crate::server::Server;
use crate::status::{ApiError, Result};
use crate::{discovery, flowcontrol, openapi, openid};

/// Answers a path that names no resource.
pub(super) fn answer(server: &Server, parts: &Parts, info: &RequestInfo) -> Result<Answer> {
    if let Some(answer) = server.health.answer(info, server.is_draining()) {
        return Ok(answer);
    }
    let answer = match info.path.trim_end_matches('/') {
        "/version" => Some(Answer::value(
            StatusCode::OK,
            Output {
                pretty: true,
                ..Output::PLAIN
            },
            &crate::health::version(),
        )),
        "/metrics" => Some(metrics(server)),
        "/statusz" => Some(statusz::answer(server, parts, info)),
        "/metrics/slis" => Some(server.health.slis()),
        path => path
            .strip_prefix(flowcontrol::DEBUG)
            .and_then(|name| server.flow.dump(name))
            .map(|text| Answer::text(StatusCode::OK, text)),
    };
    let answer = answer
        .or_else(|| openid::answer(server, parts, info))
        .or_else(|| discovery::answer(server, parts, info))
        .or_else(|| openapi::answer(server, parts, info));
    let Some(answer) = answer else {
        return Ok(page_not_found());
    };
    if parts.method != Method::GET
        && answer.status != StatusCode::NOT_FOUND
        && knows_methods(&info.path)
    {
        return Err(ApiError::method_not_allowed());
    }
    Ok(answer)
}

/// `/metrics`: the server's own numbers and those of the process's other parts.
fn metrics(server: &Server) -> Answer {
    // Each store once, whatever versions and groups show what is in it.
    let stored = server.registry.iter();
    let stored = stored.filter(|resource| resource.storage == Storage::Own);
    let objects = stored.filter_map(|resource| {
        let cache = server.storage.caches().of(resource)?;
        Some((resource.qualified(), cache.len()))
    });
    let audit = server.audit.as_ref().map(|audit| audit.metrics());
    let audit = audit.unwrap_or_default() + &server.authorization.metrics();
    let further: String = server
        .further_metrics
        .iter()
        .map(|source| source())
        .collect();
    let text = server.metrics.render(objects) + &server.flow.metrics() + &audit + &further;
    Answer::metrics(text)
}

/// Whether upstream serves the path by its router, which knows methods; the other documents don't look at them.
fn knows_methods(path: &str) -> bool {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    matches!(
        segments[..],
        ["api" | "version"]
            | ["api", _]
            | ["apis", _, _]
            | ["openid", "v1", "jwks"]
            | [".well-known", "openid-configuration"]
    )
}

/// What Go's server answers for paths that nothing handles.
pub(super) fn page_not_found() -> Answer {
    Answer::text(StatusCode::NOT_FOUND, "404 page not found\n")
}
