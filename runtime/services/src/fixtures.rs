//! Small objects, and a cluster that a test plays itself.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use coracle_client::{CancellationToken, Change, Client, Context, ObjectKey};
use coracle_clock::Clock;
use coracle_network::{Fabric, FabricConfig, NamespaceConfig, ServiceTraffic, SocketScope};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::index::Index;

/// The node in the pod network.
pub(crate) const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 240, 0, 1));

/// Its address of the other family.
pub(crate) const NODE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));

/// The Service `default/NAME`.
pub(crate) fn service(name: &str, spec: Value) -> Service {
    let metadata = json!({"namespace": "default", "name": name, "uid": name});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).expect("a service")
}

/// One at 10.96.0.`last`, port 80.
pub(crate) fn cluster_ip(name: &str, last: u8) -> Service {
    let address = format!("10.96.0.{last}");
    service(
        name,
        json!({
            "clusterIP": address, "clusterIPs": [address],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        }),
    )
}

/// One that stands for another name.
pub(crate) fn external(name: &str, target: &str) -> Service {
    service(
        name,
        json!({"type": "ExternalName", "externalName": target}),
    )
}

/// What went through a Service, by which figures can be told apart.
pub(crate) fn traffic() -> ServiceTraffic {
    ServiceTraffic {
        connections: 4,
        open: 1,
        refused: [1, 0, 0, 2, 0],
        passed_over: 3,
        reset_by_clients: 1,
        waits: [1, 0, 0, 0, 0, 2],
        waited: Duration::from_millis(2500),
        received_bytes: 8,
        sent_bytes: 9,
        ..ServiceTraffic::default()
    }
}

/// The slice `default/NAME` of a Service with the given ports and endpoints.
pub(crate) fn slice(name: &str, service: &str, ports: Value, endpoints: Value) -> EndpointSlice {
    let labels = json!({"kubernetes.io/service-name": service});
    serde_json::from_value(json!({
        "metadata": {"namespace": "default", "name": name, "labels": labels},
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    }))
    .expect("a slice")
}

/// A slice whose pods 10.240.0.`lasts` are ready and serve `http` at `port`.
pub(crate) fn ready(service: &str, port: u16, lasts: &[u8]) -> EndpointSlice {
    let endpoint = |last: &u8| json!({"addresses": [pod_ip(*last)], "conditions": {"ready": true}});
    let endpoints: Vec<Value> = lasts.iter().map(endpoint).collect();
    let ports = json!([{"name": "http", "port": port, "protocol": "TCP"}]);
    slice(&format!("{service}-1"), service, ports, endpoints.into())
}

pub(crate) fn pod_ip(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 240, 0, last).into()
}

pub(crate) fn at(last: u8, port: u16) -> SocketAddr {
    SocketAddr::new(pod_ip(last), port)
}

/// A port on every address of a pod.
pub(crate) fn any(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)
}

pub(crate) fn vip(last: u8, port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(10, 96, 0, last).into(), port)
}

pub(crate) fn key(name: &str) -> ObjectKey {
    ObjectKey::new("default", name)
}

pub(crate) fn applied<K>(new: K) -> Change<K> {
    Change::Applied {
        old: None,
        new: Arc::new(new),
    }
}

/// An index of the given objects on the node `here`.
pub(crate) fn index(
    services: impl IntoIterator<Item = Service>,
    slices: impl IntoIterator<Item = EndpointSlice>,
) -> Arc<Index> {
    let index = Arc::new(Index::of_node("here"));
    for service in services {
        index.service_changed(&applied(service));
    }
    for slice in slices {
        index.slice_changed(&applied(slice));
    }
    index
}

/// A context whose server answers nothing, and passes on what is posted to it. Its informers are
/// filled by the test.
pub(crate) fn context(clock: Clock) -> (Context, mpsc::Receiver<Value>) {
    let (posted, posts) = mpsc::channel(16);
    let answers = tower_service(posted);
    let context = Context::new(
        Arc::new(move |_| answers.clone()),
        clock,
        CancellationToken::new(),
    );
    (context, posts)
}

fn tower_service(posted: mpsc::Sender<Value>) -> Client {
    let service = tower::service_fn(
        move |request: http::Request<coracle_client::kube::client::Body>| {
            let posted = posted.clone();
            async move {
                if request.method() == http::Method::POST {
                    let body = request
                        .into_body()
                        .collect()
                        .await
                        .expect("a body")
                        .to_bytes();
                    let _ = posted
                        .send(serde_json::from_slice(&body).expect("JSON"))
                        .await;
                }
                std::future::pending::<
                    Result<http::Response<http_body_util::Full<bytes::Bytes>>, Infallible>,
                >()
                .await
            }
        },
    );
    Client::new(service, "default")
}

/// A fabric with the usual ranges.
pub(crate) fn fabric(clock: Clock) -> Arc<Fabric> {
    let config = FabricConfig {
        pod_ranges: vec!["10.240.0.0/12".parse().expect("a range")],
        service_ranges: vec!["10.96.0.0/16".parse().expect("a range")],
        second_node_address: Some(NODE6),
        ..FabricConfig::new(NODE)
    };
    Fabric::new(config, clock)
}

/// A pod's sockets.
pub(crate) fn pod(fabric: &Arc<Fabric>, last: u8) -> SocketScope {
    let name = format!("pod-{last}");
    let config = NamespaceConfig::new(format!("default/{name}"), pod_ip(last), name);
    fabric
        .create_namespace(config)
        .expect("a free address")
        .scope()
}
