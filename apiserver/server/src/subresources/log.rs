//! `pods/log`: the container's lines, streamed from the node that runs it.

use bytes::Bytes;
use coracle_api::Object;
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
    let container = container(&pod, call.info.query.get("container").unwrap_or_default())?;
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

/// Which container is meant: the one named, or the only one.
fn container(pod: &Object, named: &str) -> Result<String> {
    let names = |list: &str| -> Vec<String> {
        pod.at("spec")
            .key(list)
            .items()
            .map(|container| container.key("name").str().to_owned())
            .collect()
    };
    let (containers, init) = (names("containers"), names("initContainers"));
    let all: Vec<String> = init
        .iter()
        .chain(&containers)
        .chain(&names("ephemeralContainers"))
        .cloned()
        .collect();
    if !named.is_empty() {
        if all.iter().any(|name| name == named) {
            return Ok(named.to_owned());
        }
        return Err(ApiError::bad_request(format!(
            "container {named} is not valid for pod {}",
            pod.name()
        )));
    }
    if let ([only], [] | [_]) = (containers.as_slice(), all.as_slice()) {
        return Ok(only.clone());
    }
    let preferred = pod
        .at("metadata.annotations")
        .entry("kubectl.kubernetes.io/default-container")
        .str();
    if containers.iter().any(|name| name == preferred) {
        return Ok(preferred.to_owned());
    }
    let mut message = format!(
        "a container name must be specified for pod {}, choose one of: [{}]",
        pod.name(),
        containers.join(" ")
    );
    if !init.is_empty() {
        message.push_str(&format!(
            " or one of the init containers: [{}]",
            init.join(" ")
        ));
    }
    Err(ApiError::bad_request(message))
}

fn check_options(query: &Query) -> Result<()> {
    for key in ["tailLines", "limitBytes", "sinceSeconds"] {
        let Some(text) = query.get(key).filter(|text| !text.is_empty()) else {
            continue;
        };
        let number = crate::options::parse_int(text).map_err(ApiError::bad_request)?;
        let least = i64::from(key != "tailLines");
        if number < least {
            let detail = if least == 0 {
                "must be greater than or equal to 0"
            } else {
                "must be greater than 0"
            };
            let mut errors = coracle_api::FieldErrors::default();
            let kind = coracle_api::field_errors::ErrorType::Invalid;
            errors.push(kind, key, Some(number.into()), detail);
            return Err(ApiError::invalid_as(
                "",
                "PodLogOptions",
                "PodLogOptions",
                "",
                &errors,
            ));
        }
    }
    Ok(())
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
    use serde_json::json;

    fn pod(value: serde_json::Value) -> Object {
        Object::from_value(json!({"metadata": {"name": "x"}, "spec": value})).expect("an object")
    }

    #[test]
    fn the_only_container_is_meant() {
        assert_eq!(
            container(&pod(json!({"containers": [{"name": "a"}]})), "").expect("one"),
            "a"
        );
    }

    #[test]
    fn several_containers_need_a_name() {
        let two = pod(json!({"containers": [{"name": "a"}, {"name": "b"}]}));
        assert_eq!(
            container(&two, "").expect_err("ambiguous").to_string(),
            "a container name must be specified for pod x, choose one of: [a b]"
        );
        assert_eq!(container(&two, "b").expect("named"), "b");
        assert_eq!(
            container(&two, "c").expect_err("unknown").to_string(),
            "container c is not valid for pod x"
        );
        let init = pod(json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}));
        assert_eq!(
            container(&init, "").expect_err("ambiguous").to_string(),
            "a container name must be specified for pod x, choose one of: [a] or one of the init containers: [i]"
        );
    }

    #[test]
    fn options_are_handed_on() {
        let query = Query::parse(
            "follow=true&tailLines=3&container=a&sinceTime=2026-01-01T00:00:00Z&previous=false",
        );
        assert_eq!(
            node_query(&query),
            "follow=true&tailLines=3&sinceTime=2026-01-01T00%3A00%3A00Z"
        );
        assert!(check_options(&Query::parse("tailLines=-1")).is_err());
        assert!(check_options(&Query::parse("sinceSeconds=0")).is_err());
    }
}
