//! `exec`, `attach`, `portforward` and `proxy`: requests that the API server hands on, after a look at the object.
//!
//! ```text
//! pods/exec·attach·portforward ──▶ NodeDialer::upgrade ──▶ kubelet   (bytes both ways after "101")
//! nodes/proxy                  ──▶ NodeDialer::request ──▶ kubelet
//! pods/proxy, services/proxy   ──▶ ClusterDialer       ──▶ the pod's port, as HTTP
//! ```
//!
//! Kubelets speak WebSocket or SPDY with the client by themselves; nothing is translated here.

use std::time::Duration;

use bytes::Bytes;
use coracle_api::Object;
use http::header::{CONNECTION, HeaderMap, UPGRADE};
use http::{Request, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use super::proxy;
use crate::answer::{Answer, Payload};
use crate::body::{self, Body};
use crate::call::Call;
use crate::dialer::{Connection, Upgraded};
use crate::request_info::{Query, truthy};
use crate::server::Server;
use crate::status::{ApiError, Result};
use crate::verbs::create::may_create;

/// How long the body of a request without a deadline may take: a slow sender must not hold a place for ever.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes that a tunnel carries at once, each way.
const PIECE: usize = 32 << 10;

/// Whether a subresource is one of these.
pub(crate) fn is_connect(subresource: &str) -> bool {
    matches!(subresource, "attach" | "exec" | "portforward" | "proxy")
}

/// Hands the request on.
pub(crate) async fn connect(server: &Server, call: &Call, body: Body) -> Result<Answer> {
    let name = call.subresource.map_or("", |subresource| subresource.name);
    match (name, call.resource.plural) {
        ("proxy", "nodes") => proxy::node(server, call, body).await,
        ("proxy", "services") => proxy::service(server, call, body).await,
        ("proxy", _) => proxy::pod(server, call, body).await,
        _ => {
            // WebSocket asks with GET, SPDY with POST (upstream: `AuthorizePodWebsocketUpgradeCreatePermission`).
            may_create(server, call).await?;
            // Nothing is expected in it; but a connection whose request was not read can't be used again.
            read(body).await?;
            stream(server, call, name).await
        }
    }
}

/// Reads the body of a request that goes on whole.
pub(super) async fn read(body: Body) -> Result<Bytes> {
    let read = tokio::time::timeout(BODY_TIMEOUT, body::read(body)).await;
    read.unwrap_or_else(|_| Err(ApiError::timed_out()))
}

/// Ties the client to a container of the pod, or to its ports.
async fn stream(server: &Server, call: &Call, name: &str) -> Result<Answer> {
    let pod = server.storage.get(call.resource, &call.key()).await?;
    let pod = pod
        .ok_or_else(|| ApiError::not_found(call.resource, call.name()))?
        .object();
    let query = &call.info.query;
    let container = match name {
        "portforward" => None,
        _ => Some(container(&pod, query.get("container").unwrap_or_default())?),
    };
    let node = pod.at("spec.nodeName").str();
    if node.is_empty() {
        let why = format!("pod {} does not have a host assigned", pod.name());
        return Err(ApiError::bad_request(why));
    }
    reachable(server, node).await?;
    let folder = if name == "portforward" {
        "portForward"
    } else {
        name
    };
    let mut uri = format!("/{folder}/{}/{}", pod.namespace(), pod.name());
    if let Some(container) = container {
        uri.push_str(&format!("/{container}"));
    }
    let parameters = node_query(query, name);
    if !parameters.is_empty() {
        uri.push_str(&format!("?{parameters}"));
    }
    if !wants_upgrade(&call.headers) {
        return Err(ApiError::bad_request("Upgrade request required"));
    }
    let request = handed_on(call, &uri, &call.headers, Bytes::new())?;
    let upgraded = server.dialer.upgrade(node, request).await;
    let upgraded = upgraded.map_err(|error| ApiError::unclassified(error.to_string()))?;
    relay(server, call.upgrade.clone(), upgraded)
}

/// Whether the client wants to go on with another protocol.
pub(super) fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && headers.get_all(CONNECTION).iter().any(|value| {
            let text = value.to_str().unwrap_or_default();
            text.to_ascii_lowercase().contains("upgrade")
        })
}

/// The node, if it exists and has an address.
pub(super) async fn reachable(server: &Server, node: &str) -> Result<Object> {
    let nodes = server.registry.by_plural("", "v1", "nodes");
    let nodes = nodes.ok_or_else(ApiError::unknown_path)?;
    let found = server.storage.get(nodes, node).await?;
    let found = found
        .ok_or_else(|| ApiError::not_found(nodes, node))?
        .object();
    if found.at("status.addresses").is_empty() {
        let why = "no preferred addresses found; known addresses: []";
        return Err(ApiError::unclassified(why));
    }
    Ok(found)
}

/// The request as it goes on. Who the client is, is nobody's business further on.
pub(super) fn handed_on<B>(
    call: &Call,
    uri: &str,
    headers: &HeaderMap,
    body: B,
) -> Result<Request<B>> {
    let request = Request::builder().method(call.method.clone()).uri(uri);
    let mut request = request
        .body(body)
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    for (name, value) in headers {
        let secret = *name == http::header::AUTHORIZATION
            || name.as_str().starts_with("impersonate-")
            || name.as_str().starts_with("x-remote-");
        if !secret {
            request.headers_mut().append(name, value.clone());
        }
    }
    Ok(request)
}

/// Answers as the other side did, and carries bytes between the two if the protocol changed, until the server stops.
pub(super) fn relay(
    server: &Server,
    client: Option<OnUpgrade>,
    upgraded: Upgraded,
) -> Result<Answer> {
    let Upgraded { response, stream } = upgraded;
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let (parts, body) = response.into_parts();
    let mut answer = Answer::bytes(parts.status, "", Bytes::new());
    for (name, value) in &parts.headers {
        answer.headers.push((name.clone(), value.clone()));
    }
    match (switched, client, stream) {
        (true, Some(client), Some(stream)) => {
            let (tunnel, held) = oneshot::channel();
            answer.payload = Payload::Tunnel(tunnel);
            let stopped = server.stop.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = carry(client, stream) => {}
                    () = stopped.cancelled() => {}
                }
                // Its place among the long requests is free again.
                drop(held);
            });
        }
        (true, _, _) => {
            return Err(ApiError::unclassified(
                "the connection cannot go on with another protocol",
            ));
        }
        (false, _, _) => answer.payload = Payload::Stream(body),
    }
    Ok(answer)
}

async fn carry(client: OnUpgrade, mut stream: Box<dyn Connection>) {
    match client.await {
        Ok(client) => {
            let mut client = TokioIo::new(client);
            // Either side may end at any time; there is nobody to tell.
            let _ =
                tokio::io::copy_bidirectional_with_sizes(&mut client, &mut stream, PIECE, PIECE)
                    .await;
        }
        Err(error) => tracing::debug!(%error, "a client did not change the protocol"),
    }
}

/// Which container is meant: the one named, or the only one that is neither for the start nor to debug with (upstream's
/// `validateContainer`).
pub(super) fn container(pod: &Object, named: &str) -> Result<String> {
    let names = |list: &str| -> Vec<String> {
        let containers = pod.at("spec").key(list);
        let names = containers
            .items()
            .map(|item| item.key("name").str().to_owned());
        names.collect()
    };
    let containers = names("containers");
    let all = [
        names("initContainers"),
        containers.clone(),
        names("ephemeralContainers"),
    ]
    .concat();
    if !named.is_empty() {
        if all.iter().any(|name| name == named) {
            return Ok(named.to_owned());
        }
        let why = format!("container {named} is not valid for pod {}", pod.name());
        return Err(ApiError::bad_request(why));
    }
    let mut why = format!("a container name must be specified for pod {}", pod.name());
    match containers.as_slice() {
        [only] => return Ok(only.clone()),
        [] => {}
        _ => why.push_str(&format!(", choose one of: [{}]", all.join(" "))),
    }
    Err(ApiError::bad_request(why))
}

/// The options in the kubelet's words.
fn node_query(query: &Query, name: &str) -> String {
    let mut parts = Vec::new();
    if name == "portforward" {
        parts.extend(query.all("ports").map(|port| ("port", port.to_owned())));
    } else {
        for (key, theirs) in [
            ("stdin", "input"),
            ("stdout", "output"),
            ("stderr", "error"),
            ("tty", "tty"),
        ] {
            if truthy(query.get(key)) {
                parts.push((theirs, "1".to_owned()));
            }
        }
        if name == "exec" {
            parts.extend(
                query
                    .all("command")
                    .map(|word| ("command", word.to_owned())),
            );
        }
    }
    let parts: Vec<String> = parts
        .into_iter()
        .map(|(key, value)| format!("{key}={}", super::log::encode(&value)))
        .collect();
    parts.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_only_container_is_meant_whatever_init_containers_there_are() {
        let pod = |spec| {
            Object::from_value(json!({"metadata": {"name": "x"}, "spec": spec})).expect("an object")
        };
        let one = pod(json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}));
        assert_eq!(container(&one, "").expect("one"), "a");
        assert_eq!(container(&one, "i").expect("named"), "i");
        let two = pod(json!({
            "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}],
            "ephemeralContainers": [{"name": "e"}],
        }));
        assert_eq!(container(&two, "e").expect("named"), "e");
        for (pod, named, refusal) in [
            (
                &two,
                "",
                "a container name must be specified for pod x, choose one of: [i a b e]",
            ),
            (&two, "c", "container c is not valid for pod x"),
            (
                &pod(json!({})),
                "",
                "a container name must be specified for pod x",
            ),
        ] {
            let refused = container(pod, named).expect_err(refusal);
            assert_eq!(refused.to_string(), refusal);
        }
    }

    #[test]
    fn options_become_the_kubelets() {
        let query =
            Query::parse("command=ls&command=-l%20a&stdin=true&stdout=true&tty=false&container=c");
        assert_eq!(
            node_query(&query, "exec"),
            "input=1&output=1&command=ls&command=-l%20a"
        );
        assert_eq!(node_query(&query, "attach"), "input=1&output=1");
        assert_eq!(
            node_query(&Query::parse("ports=80"), "portforward"),
            "port=80"
        );
    }
}
