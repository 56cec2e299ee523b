//! Plans as values; then real sockets of the host, with pods behind them.

mod plan;
mod served;
mod told;

use std::net::{IpAddr, Ipv4Addr};

use coracle_clock::Clock;
use coracle_network::TcpListener as PodListener;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::fixtures::{at, context, fabric, key, pod, ready, service};
use crate::{Services, ServicesConfig};

const HOST: [IpAddr; 1] = [IpAddr::V4(Ipv4Addr::LOCALHOST)];

fn host(port: u16) -> SocketAddr {
    SocketAddr::new(HOST[0], port)
}

fn tcp(port: u16) -> Door {
    Door {
        address: host(port),
        transport: Transport::Tcp,
    }
}

/// What is open, and for whom.
fn held(doors: &Doors) -> Vec<(Door, ObjectKey)> {
    let open = doors.open.iter();
    open.map(|(door, (_, owner))| (*door, owner.clone()))
        .collect()
}

fn node_port(port: u16) -> Exposure {
    Exposure::NodePort(port, Transport::Tcp)
}

/// Services over a fabric, with a cluster played by the test.
struct Node {
    services: Services,
    fabric: Arc<Fabric>,
    context: Context,
    posts: mpsc::Receiver<Value>,
    running: JoinHandle<()>,
}

impl Node {
    fn start() -> Self {
        Self::start_with(|_| {})
    }

    fn start_with(change: impl FnOnce(&mut ServicesConfig)) -> Self {
        let clock = Clock::system();
        let (context, posts) = context(clock.clone());
        let fabric = fabric(clock);
        let mut config = ServicesConfig::new("here", "cluster.local");
        change(&mut config);
        let services = Services::start(config, context.clone(), fabric.clone());
        let running = tokio::spawn({
            let services = services.clone();
            async move { services.run().await }
        });
        Self {
            services,
            fabric,
            context,
            posts,
            running,
        }
    }

    /// The Service `web` at a node port, with pods that serve port 8080.
    fn expose(&self, node_port: u16, pods: &[u8]) {
        self.context.informer::<Service>().apply(web(node_port));
        self.endpoints(pods);
    }

    fn endpoints(&self, pods: &[u8]) {
        self.context.informer().apply(ready("web", 8080, pods));
    }

    async fn opened(&self, port: u16) {
        self.open(tcp(port)).await;
    }

    async fn open(&self, door: Door) {
        let mut doors = self.services.doors.subscribe();
        let is_open = |doors: &Doors| doors.open.contains_key(&door);
        doors.wait_for(is_open).await.expect("the services live");
    }

    /// The message of the next Event, which warns with this reason of an object of this name.
    async fn told(&mut self, reason: &str, kind: &str, name: &str) -> String {
        let event = self.posts.recv().await.expect("an event");
        assert_eq!(event["type"], "Warning");
        assert_eq!(event["reason"], reason);
        let object = &event["involvedObject"];
        assert_eq!(
            (object["kind"].as_str(), object["name"].as_str()),
            (Some(kind), Some(name))
        );
        event["message"].as_str().expect("text").to_owned()
    }

    async fn closed(&self) {
        let mut doors = self.services.doors.subscribe();
        let is_empty = |doors: &Doors| doors.open.is_empty();
        doors.wait_for(is_empty).await.expect("the services live");
    }
}

fn web(node_port: u16) -> Service {
    let ports = json!([{"name": "http", "port": 80, "nodePort": node_port}]);
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.5", "ports": ports});
    service("web", spec)
}

async fn free_port() -> u16 {
    let probe = TcpListener::bind(host(0)).await.expect("a free port");
    probe.local_addr().expect("an address").port()
}

fn listen(fabric: &Arc<Fabric>, last: u8) -> PodListener {
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 8080);
    pod(fabric, last).listen_tcp(any, 16).expect("a free port")
}

/// Connects to a port of the host, and is turned away.
async fn turned_away(port: u16) {
    let mut client = TcpStream::connect(host(port)).await.expect("open");
    let error = client.read(&mut [0; 1]).await.expect_err("nobody serves");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// A load balancer that has this port of 127.0.0.1, for clients of that range.
fn balanced(name: &str, port: u16, range: &str) -> Service {
    let spec = json!({
        "type": "LoadBalancer", "clusterIP": "10.96.0.5", "loadBalancerSourceRanges": [range],
        "ports": [{"name": "http", "port": port}],
    });
    let mut service = service(name, spec);
    let status = json!({"loadBalancer": {"ingress": [{"ip": "127.0.0.1", "ipMode": "VIP"}]}});
    service.status = serde_json::from_value(status).expect("a status");
    service
}

/// The pod `default/direct` of this node at 10.240.0.`last`, which wants `host_port` for its port 8080.
fn direct(last: u8, host_port: u16, phase: &str) -> k8s_openapi::api::core::v1::Pod {
    let ports = json!([{"containerPort": 8080, "hostPort": host_port}]);
    serde_json::from_value(json!({
        "metadata": {"namespace": "default", "name": "direct", "uid": "direct"},
        "spec": {"nodeName": "here", "containers": [{"name": "c", "ports": ports}]},
        "status": {"phase": phase, "podIP": at(last, 0).ip()},
    }))
    .expect("a pod")
}
