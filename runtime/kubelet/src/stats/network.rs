//! `/net`: the sockets of the pods, and the Services, for `coracle net`; and what became of their connections, for `/metrics`.

use std::collections::HashMap;
use std::net::IpAddr;

use coracle_cri::{PodSandboxNetwork, SocketStatus};
use serde_json::{Value, json};

use super::page::Page;

/// The network of a pod.
#[derive(Clone, Debug)]
pub(super) struct PodNetwork {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) network: PodSandboxNetwork,
}

/// Which pods a request is about.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Asked {
    /// Of one namespace alone.
    namespace: Option<String>,
    /// Of one name alone.
    pod: Option<String>,
}

impl Asked {
    /// The namespace of the Services that are asked for; `None` if none are, because one pod alone is.
    pub(super) fn services(&self) -> Option<Option<&str>> {
        self.pod.is_none().then_some(self.namespace.as_deref())
    }

    /// What the query says with `namespace` and `pod`; other parameters mean nothing.
    pub(super) fn of(query: &str) -> Self {
        let mut asked = Self::default();
        for pair in query.split('&') {
            // Names of namespaces and pods have no letter that would have to be escaped.
            match pair.split_once('=') {
                Some(("namespace", value)) => asked.namespace = Some(value.to_owned()),
                Some(("pod", value)) => asked.pod = Some(value.to_owned()),
                _ => {}
            }
        }
        asked
    }

    fn is_about(&self, pod: &PodNetwork) -> bool {
        let fits = |asked: &Option<String>, is: &str| asked.as_ref().is_none_or(|name| name == is);
        fits(&self.namespace, &pod.namespace) && fits(&self.pod, &pod.name)
    }
}

/// The sockets of the pods that were asked for, with the names of peers that are pods of this node; and the Services as
/// they are given.
pub(super) fn page(
    node: &str,
    networks: &[PodNetwork],
    services: Vec<Value>,
    asked: &Asked,
) -> Value {
    let names: HashMap<IpAddr, String> = networks
        .iter()
        .flat_map(|pod| {
            let name = format!("{}/{}", pod.namespace, pod.name);
            let addresses = pod.network.addresses.iter();
            addresses.map(move |address| (*address, name.clone()))
        })
        .collect();
    let pods = networks.iter().filter(|pod| asked.is_about(pod));
    let pods: Vec<Value> = pods.map(|pod| shown(pod, &names)).collect();
    json!({"node": node, "pods": pods, "services": services})
}

fn shown(pod: &PodNetwork, names: &HashMap<IpAddr, String>) -> Value {
    let network = &pod.network;
    let counts = &network.connections;
    let sockets = network.sockets.iter();
    let addresses: Vec<String> = network.addresses.iter().map(ToString::to_string).collect();
    json!({
        "namespace": pod.namespace,
        "name": pod.name,
        "uid": network.id.0,
        "address": addresses.first(),
        "addresses": addresses,
        "receivedBytes": network.received_bytes,
        "sentBytes": network.sent_bytes,
        "droppedDatagrams": network.dropped_datagrams,
        "connections": {
            "opened": counts.opened,
            "accepted": counts.accepted,
            "refused": counts.refused,
            "failed": counts.failed,
            "denied": counts.denied,
            "reset": counts.reset,
            "acceptWaitSeconds": counts.waited.as_secs_f64(),
        },
        "sockets": sockets.map(|socket| socket_shown(socket, names)).collect::<Vec<_>>(),
    })
}

fn socket_shown(socket: &SocketStatus, names: &HashMap<IpAddr, String>) -> Value {
    let mut shown = json!({
        "protocol": if socket.udp { "udp" } else { "tcp" },
        "state": socket.state.name(),
        "local": socket.local.to_string(),
        "receiveQueue": socket.receive_queue,
        "sendQueue": socket.send_queue,
    });
    if let Some(peer) = socket.peer {
        shown["peer"] = peer.to_string().into();
        if let Some(name) = names.get(&peer.ip()) {
            shown["peerPod"] = name.as_str().into();
        }
        shown["receivedBytes"] = socket.received_bytes.into();
        shown["sentBytes"] = socket.sent_bytes.into();
    }
    shown
}

type Count = fn(&PodSandboxNetwork) -> u64;

/// Name, help, value.
const COUNTERS: [(&str, &str, Count); 8] = [
    (
        "coracle_pod_network_receive_bytes_total",
        "Bytes that guests of the pod have read from sockets.",
        |network| network.received_bytes,
    ),
    (
        "coracle_pod_network_transmit_bytes_total",
        "Bytes that guests of the pod have written to sockets.",
        |network| network.sent_bytes,
    ),
    (
        "coracle_pod_connections_opened_total",
        "TCP connections that the pod opened.",
        |network| network.connections.opened,
    ),
    (
        "coracle_pod_connections_accepted_total",
        "TCP connections that the pod accepted.",
        |network| network.connections.accepted,
    ),
    (
        "coracle_pod_connections_refused_total",
        "TCP connections that the pod refused: nobody listened, or it had no socket left.",
        |network| network.connections.refused,
    ),
    (
        "coracle_pod_connections_failed_total",
        "TCP connections that the pod wanted and nobody took.",
        |network| network.connections.failed,
    ),
    (
        "coracle_pod_connections_denied_total",
        "TCP connections that the pod wanted and was forbidden.",
        |network| network.connections.denied,
    ),
    (
        "coracle_pod_connections_reset_total",
        "TCP connections that the pod ended with a reset.",
        |network| network.connections.reset,
    ),
];

/// What became of the pods' connections; nothing without pods.
pub(super) fn figures(page: &mut Page, networks: &[PodNetwork]) {
    if networks.is_empty() {
        return;
    }
    for (name, help, value) in COUNTERS {
        page.family(name, "counter", help);
        for pod in networks {
            let labels: [(&str, &str); 2] = [("namespace", &pod.namespace), ("pod", &pod.name)];
            page.figure(name, &labels, value(&pod.network), None);
        }
    }
    let name = "coracle_pod_accept_wait_seconds";
    let help = "How long TCP connections waited until the pod accepted them.";
    page.family(name, "histogram", help);
    for pod in networks {
        let labels: [(&str, &str); 2] = [("namespace", &pod.namespace), ("pod", &pod.name)];
        let counts = &pod.network.connections;
        let mut below = 0;
        let bounds = counts.waits.iter().map(|(bound, count)| {
            below += count;
            (bound.as_secs_f64().to_string(), below)
        });
        let bounds: Vec<_> = bounds.collect();
        let all = ("+Inf".to_owned(), counts.accepted);
        for (bound, count) in bounds.into_iter().chain([all]) {
            let labels = [labels[0], labels[1], ("le", bound.as_str())];
            // The order of labels is that of their names.
            let labels = [labels[2], labels[0], labels[1]];
            page.figure(&format!("{name}_bucket"), &labels, count, None);
        }
        let waited = counts.waited.as_secs_f64();
        page.figure(&format!("{name}_sum"), &labels, waited, None);
        page.figure(&format!("{name}_count"), &labels, counts.accepted, None);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use coracle_cri::{ConnectionCounts, SandboxId, SocketState};

    use super::*;

    fn pod(name: &str, last: u8, sockets: Vec<SocketStatus>) -> PodNetwork {
        PodNetwork {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            network: PodSandboxNetwork {
                id: SandboxId(format!("uid-{name}")),
                addresses: vec![[10, 240, 0, last].into()],
                received_bytes: 10,
                sent_bytes: 20,
                dropped_datagrams: 0,
                connections: ConnectionCounts {
                    accepted: 4,
                    waits: vec![(Duration::from_micros(100), 1), (Duration::from_secs(1), 2)],
                    waited: Duration::from_millis(1500),
                    ..ConnectionCounts::default()
                },
                sockets,
            },
        }
    }

    fn two() -> Vec<PodNetwork> {
        let socket = |state, peer: Option<&str>| SocketStatus {
            udp: false,
            state,
            local: "10.240.0.2:80".parse().unwrap(),
            peer: peer.map(|peer| peer.parse().unwrap()),
            received_bytes: 5,
            sent_bytes: 6,
            receive_queue: 1,
            send_queue: 2,
        };
        let web = vec![
            socket(SocketState::Listening, None),
            socket(SocketState::Established, Some("10.240.0.3:40000")),
            socket(SocketState::Established, Some("192.0.2.1:40000")),
        ];
        vec![pod("ask", 3, Vec::new()), pod("web", 2, web)]
    }

    #[test]
    fn peers_have_the_names_of_their_pods() {
        let asked = Asked::of("namespace=default&pod=web");
        let page = page("node-a", &two(), vec![json!({"name": "web"})], &asked);
        assert_eq!(page["node"], "node-a");
        assert_eq!(page["services"], json!([{"name": "web"}]));
        let [pod] = page["pods"].as_array().unwrap().as_slice() else {
            panic!("{page}");
        };
        assert_eq!(pod["address"], "10.240.0.2");
        assert_eq!(pod["connections"]["accepted"], 4);
        assert_eq!(
            pod["sockets"],
            json!([
                {"protocol": "tcp", "state": "LISTEN", "local": "10.240.0.2:80",
                 "receiveQueue": 1, "sendQueue": 2},
                {"protocol": "tcp", "state": "ESTAB", "local": "10.240.0.2:80",
                 "receiveQueue": 1, "sendQueue": 2, "peer": "10.240.0.3:40000",
                 "peerPod": "default/ask", "receivedBytes": 5, "sentBytes": 6},
                {"protocol": "tcp", "state": "ESTAB", "local": "10.240.0.2:80",
                 "receiveQueue": 1, "sendQueue": 2, "peer": "192.0.2.1:40000",
                 "receivedBytes": 5, "sentBytes": 6},
            ])
        );
    }

    #[test]
    fn a_namespace_or_all_can_be_asked_for() {
        let names = |query: &str| {
            let page = page("n", &two(), Vec::new(), &Asked::of(query));
            let pods = page["pods"].as_array().unwrap().clone();
            let names = pods
                .iter()
                .map(|pod| pod["name"].as_str().unwrap().to_owned());
            names.collect::<Vec<_>>()
        };
        assert_eq!(names(""), ["ask", "web"]);
        assert_eq!(names("namespace=default"), ["ask", "web"]);
        assert_eq!(names("namespace=other"), [""; 0]);
        assert_eq!(names("pod=ask"), ["ask"]);
        assert_eq!(Asked::of("").services(), Some(None));
        assert_eq!(Asked::of("namespace=a").services(), Some(Some("a")));
        assert_eq!(Asked::of("namespace=a&pod=b").services(), None);
    }

    #[test]
    fn waits_are_a_histogram_that_adds_up() {
        let mut page = Page::default();
        figures(&mut page, &two()[1..]);
        let text = page.finish();
        for line in [
            "coracle_pod_network_receive_bytes_total{namespace=\"default\",pod=\"web\"} 10",
            "coracle_pod_accept_wait_seconds_bucket{le=\"0.0001\",namespace=\"default\",pod=\"web\"} 1",
            "coracle_pod_accept_wait_seconds_bucket{le=\"1\",namespace=\"default\",pod=\"web\"} 3",
            "coracle_pod_accept_wait_seconds_bucket{le=\"+Inf\",namespace=\"default\",pod=\"web\"} 4",
            "coracle_pod_accept_wait_seconds_sum{namespace=\"default\",pod=\"web\"} 1.5",
            "coracle_pod_accept_wait_seconds_count{namespace=\"default\",pod=\"web\"} 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
