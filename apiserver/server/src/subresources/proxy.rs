//! `proxy` of nodes, pods and services: HTTP through the API server.
//!
//! The name may carry more than a name, `scheme:name:port`. Bodies stream to pods and services; what goes to a
//! kubelet is read whole. How the request goes on is in [`forward`](super::forward).

use std::net::IpAddr;

use coracle_api::Object;

use super::connect::{handed_on, reachable, read, relay, wants_upgrade};
use super::forward::{Target, forward, seen_through, unreachable_service};
use super::onward::{forwarded, path, strip};
use crate::answer::Answer;
use crate::body::Body;
use crate::call::Call;
use crate::dialer::Upgraded;
use crate::server::Server;
use crate::status::{ApiError, Result};
use crate::storage;
use crate::verbs::create::may_create;

/// The port of kubelets.
const KUBELET_PORT: u16 = 10250;

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

    fn target(&self, address: IpAddr, port: u16) -> Target {
        let tls = self.scheme == "https";
        Target { address, port, tls }
    }
}

/// Hands the request on to a port of the pod.
pub(super) async fn pod(server: &Server, call: &Call, body: Body) -> Result<Answer> {
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
    let target = reference.target(allowed(&address)?, port);
    forward(server, call, body, target).await
}

/// Hands the request on to one of the pods behind the service.
pub(super) async fn service(server: &Server, call: &Call, body: Body) -> Result<Answer> {
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
    let chosen = server.clock().random_below(targets.len() as u64) as usize;
    let (address, port) = &targets[chosen];
    let target = reference.target(allowed(address)?, *port);
    forward(server, call, body, target).await
}

/// Hands the request on to the node's kubelet, or to another port of the node.
pub(super) async fn node(server: &Server, call: &Call, body: Body) -> Result<Answer> {
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
        let target = reference.target(address, parse_port(reference.port)?);
        return forward(server, call, body, target).await;
    }
    let uri = match path(call) {
        Ok(uri) => uri,
        Err(redirect) => return Ok(*redirect),
    };
    let body = read(body).await?;
    if wants_upgrade(&call.headers) {
        // What a kubelet streams are its pods' `exec`, `attach` and ports.
        may_create(server, call).await?;
        let request = handed_on(call, &uri, &call.headers, body)?;
        let upgraded = server.dialer.upgrade(reference.name, request).await;
        let upgraded = upgraded.map_err(|error| ApiError::unclassified(error.to_string()))?;
        return relay(server, call.upgrade.clone(), upgraded);
    }
    let request = handed_on(call, &uri, &forwarded(call), body)?;
    let response = server.dialer.request(reference.name, request).await;
    let mut response = response.map_err(unreachable_service)?;
    strip(response.headers_mut());
    let response = seen_through(call, &kubelet_authority(&node, kubelet), true, response);
    relay(
        server,
        None,
        Upgraded {
            response,
            stream: None,
        },
    )
}

/// How the node's kubelet is addressed: by the first address of the kinds that upstream prefers, in their order.
fn kubelet_authority(node: &Object, port: u16) -> String {
    let addresses = node.at("status.addresses");
    let of = |kind: &str| {
        let mut found = addresses
            .items()
            .filter(|found| found.key("type").str() == kind);
        found
            .next()
            .map(|found| found.key("address").str().to_owned())
    };
    let preferred = [
        "Hostname",
        "InternalDNS",
        "InternalIP",
        "ExternalDNS",
        "ExternalIP",
    ];
    let host = preferred.into_iter().find_map(of).unwrap_or_default();
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
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
