use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use bytes::Bytes;
use coracle_client::{CancellationToken, Client, Context, kube};
use coracle_clock::Clock;
use coracle_network::{NetError, TcpStream};
use coracle_services::DialError;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::build::{CONTROLLER, DEFAULT_CLASS};
use crate::certificates::FallbackCertificates;
use crate::proxy::Network;

/// A cluster without endpoints.
struct Nobody;

#[async_trait]
impl Network for Nobody {
    async fn endpoints(
        &self,
        _client: IpAddr,
        service: &ObjectKey,
        _port: &str,
    ) -> Result<Vec<SocketAddr>, DialError> {
        Err(DialError::NoService(service.clone()))
    }

    async fn dial(&self, _service: &ObjectKey, to: SocketAddr) -> Result<TcpStream, NetError> {
        Err(NetError::HostUnreachable(to))
    }
}

struct NoAuthority;

impl FallbackCertificates for NoAuthority {
    fn issue(&self, _names: &[String]) -> Result<(String, String), String> {
        Err("there is none".to_owned())
    }
}

/// What was written: the path, and the object.
type Writes = mpsc::Receiver<(String, Value)>;

/// A server that passes writes on, has no Secrets, and answers nothing else.
fn context() -> (Context, Writes) {
    let (written, writes) = mpsc::channel(64);
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let written = written.clone();
        async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let is_watch = request
                .uri()
                .query()
                .is_some_and(|query| query.contains("watch"));
            let body = request
                .into_body()
                .collect()
                .await
                .expect("a body")
                .to_bytes();
            let answer = match method {
                Method::GET if path.ends_with("/secrets") && !is_watch => {
                    let metadata = json!({"resourceVersion": "1"});
                    let list = json!({
                        "apiVersion": "v1", "kind": "SecretList", "metadata": metadata, "items": [],
                    });
                    Bytes::from(list.to_string())
                }
                Method::GET => std::future::pending().await,
                _ => {
                    let object = serde_json::from_slice(&body).expect("JSON");
                    written.send((path, object)).await.expect("the test reads");
                    body
                }
            };
            Ok::<_, Infallible>(Response::new(Full::new(answer)))
        }
    });
    let client = Client::new(service, "default");
    let clients = Arc::new(move |_: &str| client.clone());
    let context = Context::new(clients, Clock::fake(1), CancellationToken::new());
    (context, writes)
}

fn controller(context: &Context) -> Controller {
    let proxy = Arc::new(Proxy::new(
        context.clock().clone(),
        Arc::new(Nobody),
        Arc::default(),
    ));
    let resolver = Arc::new(Resolver::new(Arc::new(NoAuthority)));
    let addresses = Addresses {
        http: Some("127.0.0.1:8080".parse().expect("an address")),
        https: None,
    };
    let class = json!({
        "metadata": {"name": "coracle", "annotations": {DEFAULT_CLASS: "true"}},
        "spec": {"controller": CONTROLLER},
    });
    let class: IngressClass = serde_json::from_value(class).expect("a class");
    context.informer().apply(class);
    Controller::new(context.clone(), proxy, resolver, addresses)
}

fn ingress(points: Value) -> Ingress {
    let path = json!({
        "path": "/", "pathType": "Prefix",
        "backend": {"service": {"name": "web", "port": {"number": 80}}},
    });
    let object = json!({
        "metadata": {"namespace": "default", "name": "web", "uid": "u1", "resourceVersion": "7"},
        "spec": {
            "rules": [{"host": "a.com", "http": {"paths": [path]}}],
            "tls": [{"hosts": ["a.com"], "secretName": "cert"}],
        },
        "status": {"loadBalancer": {"ingress": points}},
    });
    serde_json::from_value(object).expect("an ingress")
}

fn service() -> Service {
    let metadata = json!({"namespace": "default", "name": "web"});
    let ports = json!([{"port": 80, "protocol": "TCP"}]);
    let object = json!({"metadata": metadata, "spec": {"ports": ports}});
    serde_json::from_value(object).expect("a service")
}

/// The reasons of Events, in the order that they were written.
async fn reasons(writes: &mut Writes, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < count {
        let (path, object) = writes.recv().await.expect("a write");
        if path.ends_with("/events") {
            all.push(object["reason"].as_str().unwrap_or_default().to_owned());
        }
    }
    all.sort();
    all
}

#[tokio::test(start_paused = true)]
async fn a_served_ingress_gets_its_address() {
    let (context, mut writes) = context();
    let mut controller = controller(&context);
    context.informer().apply(service());
    context.informer().apply(ingress(json!(null)));
    controller.round().await;
    let (path, object) = writes.recv().await.expect("a write");
    assert!(
        path.ends_with("/namespaces/default/ingresses/web/status"),
        "{path}"
    );
    let ports = json!([{"port": 8080, "protocol": "TCP"}]);
    let wanted = json!([{"ip": "127.0.0.1", "ports": ports}]);
    assert_eq!(object["status"]["loadBalancer"]["ingress"], wanted);
    assert_eq!(
        object["metadata"]["resourceVersion"], "7",
        "nobody wrote it since"
    );
    assert_eq!(reasons(&mut writes, 1).await, ["Served"]);

    // Once it says so there is nothing to write, and once the class goes its address does.
    context.informer().apply(Ingress {
        metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            resource_version: Some("8".to_owned()),
            ..ingress(json!(null)).metadata
        },
        ..ingress(wanted)
    });
    controller.round().await;
    assert!(writes.try_recv().is_err());
    let class = context.lister::<IngressClass>().list();
    context
        .informer::<IngressClass>()
        .delete(class[0].as_ref().clone());
    controller.round().await;
    let (_, object) = writes.recv().await.expect("a write");
    assert_eq!(object["status"]["loadBalancer"]["ingress"], json!(null));
}

#[tokio::test(start_paused = true)]
async fn what_stays_wrong_is_told_once_and_what_passes_is_not() {
    let (context, mut writes) = context();
    let mut controller = controller(&context);
    let ports = json!([{"port": 8080, "protocol": "TCP"}]);
    context
        .informer()
        .apply(ingress(json!([{"ip": "127.0.0.1", "ports": ports}])));
    let again = controller.round().await;
    assert_eq!(again, Some(LASTS));
    // The Service comes a moment after its Ingress; the Secret does not.
    context.informer().apply(service());
    context.clock().sleep(LASTS).await;
    controller.round().await;
    assert_eq!(reasons(&mut writes, 1).await, ["SecretNotFound"]);
    for _ in 0..3 {
        context.clock().sleep(LASTS * 10).await;
        controller.round().await;
    }
    context.clock().sleep(LASTS).await;
    assert!(writes.try_recv().is_err());
    // What comes back after it was mended is told again.
    let service = service();
    context.informer().delete(service.clone());
    controller.round().await;
    context.clock().sleep(LASTS).await;
    assert_eq!(controller.round().await, None);
    assert_eq!(reasons(&mut writes, 1).await, ["ServiceNotFound"]);
}
