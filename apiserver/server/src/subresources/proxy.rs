//! `proxy` of nodes, pods and services: HTTP through the API server.
//!
//! The name may carry more than a name, `scheme:name:port`. Links in what comes back are not rewritten, and requests
//! are read whole before they go on; TLS to pods is not spoken.

use std::net::IpAddr;

use bytes::Bytes;
use coracle_api::Object;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;

use super::connect::{handed_on, reachable, relay, wants_upgrade};
use crate::answer::Answer;
use crate::body::BoxError;
use crate::call::Call;
use crate::dialer::Upgraded;
use crate::server::Server;
use crate::status::{ApiError, Result};
use crate::storage;

/// The port of kubelets.
const KUBELET_PORT: u16 = 10250;

/// What is about one connection only and doesn't go on.
const HOP_BY_HOP: &[HeaderName] = &[
    header::CONNECTION,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Where a request goes.
struct Target {
    address: IpAddr,
    port: u16,
}

/// `scheme:name:port`, of which only the name must be there.
#[derive(Debug, PartialEq)]
struct Reference<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

impl<'a> Reference<'a> {
    /// Reads the name in the path of a `kind`.
    fn parse(id: &'a str, kind: &str) -> Result<Self> {
        let parts: Vec<&str> = id.split(':').collect();
        let (scheme, name, port) = match parts[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => ("?", "", ""),
        };
        if name.is_empty() || !matches!(scheme, "" | "http" | "https") {
            let why = format!("invalid {kind} request {id:?}");
            return Err(ApiError::bad_request(why));
        }
        Ok(Self { scheme, name, port })
    }

    fn check_scheme(&self) -> Result<()> {
        if self.scheme == "https" {
            return Err(unreachable_service(
                "TLS to the cluster's network is not supported",
            ));
        }
        Ok(())
    }
}

/// Hands the request on to a port of the pod.
pub(super) async fn pod(server: &Server, call: &Call, body: Bytes) -> Result<Answer> {
    let reference = Reference::parse(call.name(), "pod")?;
    let key = storage::key(call.resource, call.namespace(), reference.name);
    let pod = server.storage.get(call.resource, &key).await?;
    let pod = pod
        .ok_or_else(|| ApiError::not_found(call.resource, reference.name))?
        .object();
    let port = match reference.port {
        "" => first_port(&pod).unwrap_or(80),
        port => parse_port(port)?,
    };
    let first = pod.at("status.podIPs").index(0).key("ip").str().to_owned();
    let address = match pod.at("status.podIP").str() {
        "" => first,
        address => address.to_owned(),
    };
    reference.check_scheme()?;
    let address = allowed(&address)?;
    forward(server, call, body, Target { address, port }).await
}

/// Hands the request on to one of the pods behind the service.
pub(super) async fn service(server: &Server, call: &Call, body: Bytes) -> Result<Answer> {
    let id = call.name();
    let reference = Reference::parse(id, "service")?;
    let key = storage::key(call.resource, call.namespace(), reference.name);
    let service = server.storage.get(call.resource, &key).await?;
    let service = service
        .ok_or_else(|| ApiError::not_found(call.resource, reference.name))?
        .object();
    let mut port = reference.port.to_owned();
    if let Ok(number) = port.parse::<i64>() {
        let ports = service.at("spec.ports");
        let named = ports
            .items()
            .find(|entry| entry.key("port").as_i64() == Some(number));
        port = match named {
            Some(entry) => entry.key("name").str().to_owned(),
            None => {
                return Err(ApiError::unavailable(format!(
                    "no service port {number} found for service {:?}",
                    reference.name
                )));
            }
        };
    }
    let targets = endpoints(server, call.namespace(), reference.name, &port).await?;
    if targets.is_empty() {
        let why = format!("no endpoints available for service {id:?}");
        return Err(ApiError::unavailable(why));
    }
    reference.check_scheme()?;
    let chosen = server.clock().random_below(targets.len() as u64) as usize;
    let (address, port) = &targets[chosen];
    let address = allowed(address)?;
    let target = Target {
        address,
        port: *port,
    };
    forward(server, call, body, target).await
}

/// Hands the request on to the node's kubelet, or to another port of the node.
pub(super) async fn node(server: &Server, call: &Call, body: Bytes) -> Result<Answer> {
    let reference = Reference::parse(call.name(), "node")?;
    let node = reachable(server, reference.name).await?;
    let kubelet = node
        .at("status.daemonEndpoints.kubeletEndpoint.Port")
        .as_i64();
    let kubelet = kubelet
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port > 0)
        .unwrap_or(KUBELET_PORT);
    if !reference.port.is_empty() && reference.port != kubelet.to_string() {
        let addresses = node.at("status.addresses");
        let address = addresses
            .items()
            .find(|address| address.key("type").str() == "InternalIP")
            .map(|address| address.key("address").str().to_owned());
        let address = allowed(&address.unwrap_or_default())?;
        let port = parse_port(reference.port)?;
        reference.check_scheme()?;
        return forward(server, call, body, Target { address, port }).await;
    }
    let uri = match path(call) {
        Ok(uri) => uri,
        Err(redirect) => return Ok(redirect),
    };
    if wants_upgrade(&call.headers) {
        let request = handed_on(call, &uri, &call.headers, body)?;
        let upgraded = server.dialer.upgrade(reference.name, request).await;
        let upgraded = upgraded.map_err(|error| ApiError::unclassified(error.to_string()))?;
        return relay(call.upgrade.clone(), upgraded);
    }
    let request = handed_on(call, &uri, &forwarded(call), body)?;
    let response = server.dialer.request(reference.name, request).await;
    let response = response.map_err(unreachable_service)?;
    relay(
        None,
        Upgraded {
            response,
            stream: None,
        },
    )
}

/// Addresses and ports of the pods behind a service's port of that name.
async fn endpoints(
    server: &Server,
    namespace: &str,
    service: &str,
    port: &str,
) -> Result<Vec<(String, u16)>> {
    let Some(slices) = server
        .registry
        .by_plural("discovery.k8s.io", "v1", "endpointslices")
    else {
        return Ok(Vec::new());
    };
    let progress = server.storage.catch_up().await;
    let snapshot = server
        .storage
        .cache(slices)?
        .list(&format!("{namespace}/"), progress);
    let mut found = Vec::new();
    for entry in snapshot.entries {
        let owner = entry
            .labels
            .iter()
            .find(|(key, _)| key == "kubernetes.io/service-name");
        if owner.is_none_or(|(_, owner)| owner != service) {
            continue;
        }
        let slice = entry.object();
        let ports = slice.at("ports");
        let Some(number) = ports
            .items()
            .find(|entry| entry.key("name").str() == port)
            .and_then(|entry| u16::try_from(entry.key("port").as_i64()?).ok())
        else {
            continue;
        };
        for endpoint in slice.at("endpoints").items() {
            // Only pods are worth a proxy: other addresses may be anybody's.
            let is_pod = endpoint.at("targetRef.kind").str() == "Pod";
            let ready = endpoint.at("conditions.ready").as_bool() != Some(false);
            if let (true, true, Some(address)) =
                (is_pod, ready, endpoint.key("addresses").index(0).as_str())
            {
                found.push((address.to_owned(), number));
            }
        }
    }
    Ok(found)
}

fn first_port(pod: &Object) -> Option<u16> {
    let containers = pod.at("spec.containers");
    let ports = containers.items().find_map(|container| {
        container
            .key("ports")
            .index(0)
            .key("containerPort")
            .as_i64()
    });
    ports.and_then(|port| u16::try_from(port).ok())
}

fn parse_port(text: &str) -> Result<u16> {
    let wrong = |_| unreachable_service(format!("dial tcp: lookup tcp/{text}: unknown port"));
    text.parse().map_err(wrong)
}

/// The address, if it is one that pods and nodes have.
fn allowed(address: &str) -> Result<IpAddr> {
    let refused = || ApiError::bad_request("address not allowed");
    let address: IpAddr = address.parse().map_err(|_| refused())?;
    let local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    if local || address.is_loopback() || address.is_unspecified() || address.is_multicast() {
        return Err(refused());
    }
    Ok(address)
}

fn unreachable_service(why: impl std::fmt::Display) -> ApiError {
    ApiError::unavailable(format!("error trying to reach service: {why}"))
}

/// Path and query of the request as it goes on; or the way to the root, which ends in a slash.
fn path(call: &Call) -> Result<String, Answer> {
    let query = call.query_text();
    let question = if query.is_empty() {
        String::new()
    } else {
        format!("?{query}")
    };
    let path = &call.info.rest_path;
    if path.is_empty()
        && matches!(call.method, Method::GET | Method::HEAD)
        && !wants_upgrade(&call.headers)
    {
        let mut answer = Answer::bytes(StatusCode::MOVED_PERMANENTLY, "", Bytes::new());
        let location = format!("{}/{question}", call.info.path);
        if let Ok(location) = HeaderValue::try_from(location) {
            answer.headers.push((header::LOCATION, location));
        }
        return Err(answer);
    }
    let path = if path.is_empty() { "/" } else { path };
    Ok(format!("{path}{question}"))
}

/// The headers as they go on.
fn forwarded(call: &Call) -> HeaderMap {
    let mut headers = call.headers.clone();
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove(header::CONTENT_LENGTH);
    if let Ok(uri) = HeaderValue::try_from(call.info.path.as_str()) {
        headers.insert("x-forwarded-uri", uri);
    }
    if let Some(host) = call.headers.get(header::HOST) {
        headers.insert("x-forwarded-host", host.clone());
    }
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    headers
}

/// Sends the request to an address of the cluster's network, and answers as it is answered there.
async fn forward(server: &Server, call: &Call, body: Bytes, target: Target) -> Result<Answer> {
    let uri = match path(call) {
        Ok(uri) => uri,
        Err(redirect) => return Ok(redirect),
    };
    let upgrades = wants_upgrade(&call.headers);
    let mut headers = forwarded(call);
    if upgrades {
        for name in [header::CONNECTION, header::UPGRADE] {
            if let Some(value) = call.headers.get(&name) {
                headers.insert(name, value.clone());
            }
        }
    }
    let host = std::net::SocketAddr::new(target.address, target.port).to_string();
    if let Ok(host) = HeaderValue::try_from(host) {
        headers.insert(header::HOST, host);
    }
    let request = handed_on(call, &uri, &headers, body)?.map(Full::new);
    let stream = server
        .cluster_dialer
        .connect(target.address, target.port)
        .await
        .map_err(unreachable_service)?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(unreachable_service)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a proxied connection failed");
        }
    });
    let mut response = sender
        .send_request(request)
        .await
        .map_err(unreachable_service)?;
    let stream: Option<Box<dyn crate::dialer::Connection>> =
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let upgraded = hyper::upgrade::on(&mut response).await;
            Some(Box::new(TokioIo::new(
                upgraded.map_err(unreachable_service)?,
            )))
        } else {
            for name in HOP_BY_HOP {
                response.headers_mut().remove(name);
            }
            None
        };
    let response = response.map(|body| body.map_err(BoxError::from).boxed_unsync());
    relay(call.upgrade.clone(), Upgraded { response, stream })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_schemes_and_ports() {
        let parse = |id| Reference::parse(id, "pod");
        for (id, scheme, name, port) in [
            ("a", "", "a", ""),
            ("a:80", "", "a", "80"),
            ("http:a:web", "http", "a", "web"),
            ("https:a:", "https", "a", ""),
        ] {
            assert_eq!(parse(id).expect(id), Reference { scheme, name, port });
        }
        for id in ["", ":80", "ftp:a:21", "a:b:c:d"] {
            let error = parse(id).expect_err(id);
            assert_eq!(error.to_string(), format!("invalid pod request {id:?}"));
        }
    }

    #[test]
    fn only_addresses_of_others_are_allowed() {
        assert!(allowed("10.1.2.3").is_ok() && allowed("fd00::1").is_ok());
        for address in [
            "",
            "127.0.0.1",
            "169.254.1.1",
            "0.0.0.0",
            "224.0.0.1",
            "::1",
            "fe80::1",
        ] {
            assert!(allowed(address).is_err(), "{address}");
        }
    }
}
