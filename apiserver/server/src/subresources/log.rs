//! `pods/log`: the container's lines, streamed from the node that runs it.

use bytes::Bytes;
use coracle_api::field_errors::ErrorType;
use coracle_api::{FieldErrors, schema};
use futures::StreamExt;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, BodyStream, StreamBody};

use crate::answer::{Answer, Payload};
use crate::call::Call;
use crate::request_info::{Query, truthy};
use crate::server::Server;
use crate::status::{ApiError, Result};
use crate::subresources::connect;

/// The options that are handed on to the node, as they were sent.
const OPTIONS: &[&str] = &[
    "follow",
    "previous",
    "timestamps",
    "tailLines",
    "limitBytes",
    "sinceSeconds",
    "sinceTime",
    "stream",
];

/// Streams the log of one container of the pod that the path names.
pub(crate) async fn get(server: &Server, call: &Call) -> Result<Answer> {
    check_options(&call.info.query)?;
    let pod = server.storage.get(call.resource, &call.key()).await?;
    let pod = pod
        .ok_or_else(|| ApiError::not_found(call.resource, call.name()))?
        .object();
    let container = connect::container(&pod, call.info.query.get("container").unwrap_or_default())?;
    let node = pod.at("spec.nodeName").str();
    if node.is_empty() {
        // Nothing ran yet, so there is no log: upstream has no location to stream from, and says so with 204.
        return Ok(Answer::bytes(StatusCode::NO_CONTENT, "", Bytes::new()));
    }
    connect::reachable(server, node).await?;
    let uri = format!(
        "/containerLogs/{}/{}/{container}?{}",
        pod.namespace(),
        pod.name(),
        node_query(&call.info.query)
    );
    let request = Request::get(uri)
        .body(Bytes::new())
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    let response = server.dialer.request(node, request).await;
    let response =
        response.map_err(|error| ApiError::internal(format!("Get container log: {error}")))?;
    let status = response.status();
    let body = response.into_body();
    if !status.is_success() {
        let text = crate::body::read(body).await.unwrap_or_default();
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        return Err(if status.is_client_error() {
            ApiError::bad_request(text)
        } else {
            ApiError::internal(text)
        });
    }
    let mut answer = Answer::bytes(StatusCode::OK, "text/plain", Bytes::new());
    // A followed log ends with the server.
    let stopped = server.stop.clone().cancelled_owned();
    let stream = BodyStream::new(body).take_until(Box::pin(stopped));
    answer.payload = Payload::Stream(StreamBody::new(stream).boxed_unsync());
    Ok(answer)
}

/// Refuses options that mean nothing (upstream's `ValidatePodLogOptions`).
fn check_options(query: &Query) -> Result<()> {
    let mut errors = FieldErrors::default();
    let given = |key| query.get(key).filter(|text| !text.is_empty());
    let since_time = given("sinceTime").filter(|text| *text != "null");
    if let Some(text) = since_time {
        // As much as is looked at here; the kubelet reads it.
        schema::rfc3339_seconds(text).map_err(ApiError::bad_request)?;
    }
    let both = since_time.is_some() && given("sinceSeconds").is_some();
    for (key, least) in [("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)] {
        let Some(text) = given(key) else {
            continue;
        };
        let number = crate::options::parse_int(text).map_err(ApiError::bad_request)?;
        if number >= least || both && key == "sinceSeconds" {
            continue;
        }
        let detail = match least {
            0 => "must be greater than or equal to 0",
            _ => "must be greater than 0",
        };
        errors.push(ErrorType::Invalid, key, Some(number.into()), detail);
    }
    if both {
        let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        errors.push(ErrorType::Forbidden, "", None, detail);
    }
    let kind = "PodLogOptions";
    match errors.is_empty() {
        true => Ok(()),
        false => Err(ApiError::invalid_as("", kind, kind, "", &errors)),
    }
}

fn node_query(query: &Query) -> String {
    let mut parts = Vec::new();
    for key in OPTIONS {
        let Some(value) = query.get(key).filter(|value| !value.is_empty()) else {
            continue;
        };
        match *key {
            "follow" | "previous" | "timestamps" => {
                if truthy(Some(value)) {
                    parts.push(format!("{key}=true"));
                }
            }
            _ => parts.push(format!("{key}={}", encode(value))),
        }
    }
    parts.join("&")
}

/// Percent-encodes what is not plain.
pub(super) fn encode(text: &str) -> String {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    text.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_handed_on() {
        let query = Query::parse(
            "follow=true&tailLines=3&container=a&sinceTime=2026-01-01T00:00:00Z&previous=false",
        );
        assert_eq!(
            node_query(&query),
            "follow=true&tailLines=3&sinceTime=2026-01-01T00%3A00%3A00Z"
        );
    }

    #[test]
    fn options_that_mean_nothing_are_refused() {
        for (query, finding) in [
            ("tailLines=0&limitBytes=1&sinceSeconds=1", None),
            (
                "sinceTime=2026-01-01T00:00:00Z&sinceSeconds=&tailLines=",
                None,
            ),
            (
                "tailLines=-1&limitBytes=0&sinceSeconds=0",
                Some(
                    "PodLogOptions \"\" is invalid: [tailLines: Invalid value: -1: must be greater than or equal to 0, \
                     limitBytes: Invalid value: 0: must be greater than 0, sinceSeconds: Invalid value: 0: must be \
                     greater than 0]",
                ),
            ),
            (
                "sinceTime=2026-01-01T00:00:00Z&sinceSeconds=0",
                Some(
                    "PodLogOptions \"\" is invalid: []: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be \
                     specified",
                ),
            ),
            (
                "sinceTime=x",
                Some(
                    "parsing time \"x\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"x\" as \"2006\"",
                ),
            ),
            (
                "tailLines=x",
                Some("strconv.ParseInt: parsing \"x\": invalid syntax"),
            ),
        ] {
            let found = check_options(&Query::parse(query)).err();
            assert_eq!(
                found.map(|error| error.to_string()).as_deref(),
                finding,
                "{query}"
            );
        }
    }
}
