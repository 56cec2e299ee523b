//! Services as `coracle net` shows them: where they are, and what went through them.

use coracle_network::{Protocol, RefusedFlow, ServiceTraffic};
use serde_json::{Map, Value, json};

use crate::index::{Front, Port, ServiceEntry};

/// One Service. Bytes are seen from it: received from clients, sent to them.
pub(crate) fn service(entry: &ServiceEntry, traffic: &ServiceTraffic) -> Value {
    let (addresses, external) = match &entry.front {
        Front::ClusterIps(addresses) => (addresses.as_slice(), None),
        Front::Headless => (&[][..], None),
        Front::ExternalName(name) => (&[][..], Some(name)),
    };
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let refused = RefusedFlow::ALL.iter().zip(traffic.refused);
    let refused: Map<String, Value> = refused
        .map(|(reason, count)| (reason.name().to_owned(), count.into()))
        .collect();
    json!({
        "namespace": entry.key.namespace,
        "name": entry.key.name,
        "addresses": addresses,
        "externalName": external,
        "ports": entry.ports.iter().map(port).collect::<Vec<_>>(),
        "readyEndpoints": ready(entry),
        "connections": {
            "taken": traffic.connections,
            "open": traffic.open,
            "refused": refused,
            "endpointRefusals": traffic.passed_over,
            "reset": {
                "client": traffic.reset_by_clients,
                "endpoint": traffic.reset_by_endpoints,
            },
            "accepted": traffic.waits.iter().sum::<u64>(),
            "acceptWaitSeconds": traffic.waited.as_secs_f64(),
        },
        "receivedBytes": traffic.received_bytes,
        "sentBytes": traffic.sent_bytes,
    })
}

/// How many endpoints are ready; one with an address of each family counts once.
fn ready(entry: &ServiceEntry) -> usize {
    let all = entry.addresses.len();
    let v4 = entry.addresses.iter().filter(|ip| ip.is_ipv4()).count();
    v4.max(all - v4)
}

/// As `kubectl get services` has it, without the node port.
fn port(port: &Port) -> String {
    let protocol = match port.protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    };
    format!("{}/{protocol}", port.port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{cluster_ip, external, ready, traffic};
    use crate::index::Here;

    fn entry(service: &k8s_openapi::api::core::v1::Service) -> ServiceEntry {
        let slices = [ready("web", 8080, &[2, 3])];
        crate::index::entry(service, &slices, &Here::default())
    }

    #[test]
    fn a_service_is_shown_with_its_place_and_its_figures() {
        let traffic = traffic();
        assert_eq!(
            service(&entry(&cluster_ip("web", 7)), &traffic),
            json!({
                "namespace": "default", "name": "web",
                "addresses": ["10.96.0.7"], "externalName": null,
                "ports": ["80/TCP"], "readyEndpoints": 2,
                "connections": {
                    "taken": 4, "open": 1,
                    "refused": {"no-endpoints": 1, "no-port": 0, "endpoints": 0, "policy": 2, "timeout": 0},
                    "endpointRefusals": 3,
                    "reset": {"client": 1, "endpoint": 0},
                    "accepted": 3, "acceptWaitSeconds": 2.5,
                },
                "receivedBytes": 8, "sentBytes": 9,
            })
        );
        let named = service(&entry(&external("out", "example.org")), &traffic);
        assert_eq!(named["externalName"], "example.org");
        assert_eq!(named["addresses"], json!([]));
    }
}
