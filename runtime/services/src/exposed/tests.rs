//! Plans as values; then real sockets of the host, with pods behind them.

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

fn node_port(port: u16) -> Exposure {
    Exposure::NodePort(port, Transport::Tcp)
}

fn opened(port: u16, service: &str) -> (Door, Exposure, ObjectKey) {
    (tcp(port), node_port(port), key(service))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn listeners_follow_the_ports_that_are_wanted() {
    let wanted = BTreeMap::from([
        (node_port(30_001), key("a")),
        (node_port(30_002), key("b")),
        (node_port(30_003), key("c")),
    ]);
    let busy = Failed::after(None, key("c"), seconds(10));
    let failed = BTreeMap::from([(tcp(30_003), busy.clone()), (tcp(30_009), busy.clone())]);
    let mut world = World {
        wanted: &wanted,
        hosts: &HOST,
        open: [30_001, 30_004]
            .map(|port| (tcp(port), node_port(port)))
            .into(),
        failed: &failed,
        now: seconds(10),
        limit: 10,
    };
    let plan = reconcile(&world);
    assert_eq!(plan.close, [tcp(30_004)]);
    assert_eq!(plan.open, [opened(30_002, "b")]);
    assert_eq!(plan.forget, [tcp(30_009)]);
    assert_eq!(plan.next, Some(busy.due));

    world.now = busy.due;
    let plan = reconcile(&world);
    assert_eq!(plan.open, [opened(30_002, "b"), opened(30_003, "c")]);
    assert_eq!(plan.next, None);

    // Another Service took the port over: its first try is now.
    let wanted = BTreeMap::from([(node_port(30_003), key("new"))]);
    world.wanted = &wanted;
    world.now = seconds(10);
    assert_eq!(reconcile(&world).open, [opened(30_003, "new")]);
    world.limit = 0;
    assert!(reconcile(&world).open.is_empty());
}

#[test]
fn a_node_port_keeps_its_socket_and_an_outer_address_gets_it_when_it_goes() {
    let outer = Exposure::Outer(host(30_001), Transport::Tcp);
    let datagrams = Exposure::Outer(host(30_001), Transport::Udp);
    let mut wanted = BTreeMap::from([
        (outer, key("balanced")),
        (datagrams, key("balanced")),
        (node_port(30_001), key("web")),
    ]);
    let failed = BTreeMap::new();
    let udp = Door {
        transport: Transport::Udp,
        ..tcp(30_001)
    };
    let plan = reconcile(&World {
        wanted: &wanted,
        hosts: &HOST,
        open: BTreeMap::new(),
        failed: &failed,
        now: seconds(0),
        limit: 10,
    });
    let both = [opened(30_001, "web"), (udp, datagrams, key("balanced"))];
    assert_eq!(plan.open, both);
    let by = (node_port(30_001), key("web"));
    let in_vain = Shadowed {
        door: tcp(30_001),
        exposure: outer,
        service: key("balanced"),
        by,
    };
    assert_eq!(plan.shadowed, BTreeSet::from([in_vain]));
    wanted.remove(&node_port(30_001));
    let plan = reconcile(&World {
        wanted: &wanted,
        hosts: &HOST,
        open: BTreeMap::from([(tcp(30_001), node_port(30_001)), (udp, datagrams)]),
        failed: &failed,
        now: seconds(0),
        limit: 10,
    });
    assert_eq!(plan.close, [tcp(30_001)]);
    assert_eq!(plan.open, [(tcp(30_001), outer, key("balanced"))]);
    assert!(plan.shadowed.is_empty());
    // The same Service is in its own way.
    wanted.insert(node_port(30_001), key("balanced"));
    let plan = reconcile(&World {
        wanted: &wanted,
        hosts: &HOST,
        open: BTreeMap::new(),
        failed: &failed,
        now: seconds(0),
        limit: 10,
    });
    assert!(plan.shadowed.is_empty(), "{plan:?}");
}

#[test]
fn waits_grow_to_a_bound_and_start_afresh_for_another_service() {
    let mut failed = Failed::after(None, key("a"), seconds(0));
    assert_eq!(failed.due, Duration::from_millis(500));
    for _ in 0..20 {
        failed = Failed::after(Some(&failed), key("a"), seconds(0));
    }
    assert_eq!(failed.due, seconds(30));
    let other = Failed::after(Some(&failed), key("b"), seconds(0));
    assert_eq!(other.due, Duration::from_millis(500));
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
        let clock = Clock::system();
        let (context, posts) = context(clock.clone());
        let fabric = fabric(clock);
        let config = ServicesConfig::new("here", "cluster.local");
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
        let is_open = |doors: &Doors| doors.open.contains(&door);
        doors.wait_for(is_open).await.expect("the services live");
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

#[tokio::test]
async fn a_pod_takes_the_hosts_connection_over() {
    let node = Node::start();
    let (port, listener) = (free_port().await, listen(&node.fabric, 2));
    assert_eq!(node.services.node_port_address("default", "web"), None);
    node.expose(port, &[2]);
    node.opened(port).await;
    assert_eq!(
        node.services.node_port_address("default", "web"),
        Some(host(port))
    );

    let mut client = TcpStream::connect(host(port)).await.expect("open");
    let mut accepted = listener.accept().await.expect("a connection");
    assert_eq!(accepted.peer_addr(), client.local_addr().unwrap());
    assert_eq!(accepted.local_addr(), at(2, 8080));
    client.write_all(b"ping").await.unwrap();
    let mut buffer = [0; 4];
    accepted.read_exact(&mut buffer).await.unwrap();
    accepted.write_all(b"pong").await.unwrap();
    client.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"pong");

    // Taken connections outlive the component; its listeners do not.
    node.context.stop().cancel();
    node.closed().await;
    node.running.await.expect("an orderly end");
    accepted.write_all(b"done").await.unwrap();
    client.read_exact(&mut buffer).await.unwrap();
    assert!(TcpStream::connect(host(port)).await.is_err());
}

#[tokio::test]
async fn an_endpoint_that_refuses_costs_a_retry_and_none_a_reset() {
    let node = Node::start();
    let (port, listener) = (free_port().await, listen(&node.fabric, 3));
    let _refusing = pod(&node.fabric, 2);
    node.expose(port, &[2, 3]);
    node.opened(port).await;
    for _ in 0..4 {
        let _client = TcpStream::connect(host(port)).await.expect("open");
        let accepted = listener.accept().await.expect("a connection");
        assert_eq!(accepted.local_addr(), at(3, 8080));
    }
    node.endpoints(&[]);
    let mut client = TcpStream::connect(host(port)).await.expect("open");
    let mut buffer = [0; 1];
    let error = client.read(&mut buffer).await.expect_err("nobody serves");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_listener_goes_with_its_service() {
    let node = Node::start();
    let port = free_port().await;
    node.expose(port, &[]);
    node.opened(port).await;
    node.context.informer::<Service>().delete(web(port));
    node.closed().await;
    assert_eq!(node.services.node_port_address("default", "web"), None);
    // The listener's task may end a moment later than it was told to.
    while TcpListener::bind(host(port)).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_port_in_use_is_told_and_tried_again() {
    let mut node = Node::start();
    let taken = TcpListener::bind(host(0)).await.unwrap();
    let port = taken.local_addr().unwrap().port();
    node.expose(port, &[]);
    let event = node.posts.recv().await.expect("an event");
    assert_eq!(event["type"], "Warning");
    assert_eq!(event["reason"], "NodePortUnavailable");
    assert_eq!(event["involvedObject"]["name"], "web");
    let message = event["message"].as_str().unwrap();
    assert!(message.contains(&host(port).to_string()), "{message}");
    assert_eq!(node.services.node_port_address("default", "web"), None);
    drop(taken);
    node.opened(port).await;
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

#[tokio::test]
async fn a_load_balancer_whose_port_is_a_node_port_is_known_to_be_closed_until_that_goes() {
    let mut node = Node::start();
    let port = free_port().await;
    node.expose(port, &[]);
    node.opened(port).await;
    let balancer = balanced("balanced", port, "127.0.0.0/8");
    node.context.informer::<Service>().apply(balancer);
    let event = node.posts.recv().await.expect("an event");
    assert_eq!(event["reason"], "AddressInUse");
    assert_eq!(event["involvedObject"]["name"], "balanced");
    let known = || node.services.doors.borrow().clone();
    let in_use = BTreeMap::from([(tcp(port), io::ErrorKind::AddrInUse)]);
    let mut doors = node.services.doors.subscribe();
    let is_known = |doors: &Doors| !doors.failed.is_empty();
    doors.wait_for(is_known).await.expect("the services live");
    assert_eq!((known().open, known().failed), (vec![tcp(port)], in_use));
    node.context.informer::<Service>().delete(web(port));
    let is_open = |doors: &Doors| doors.failed.is_empty() && !doors.open.is_empty();
    doors.wait_for(is_open).await.expect("the services live");
}

#[tokio::test]
async fn who_is_not_in_the_ranges_of_a_load_balancer_is_reset_and_counted() {
    let node = Node::start();
    let (port, listener) = (free_port().await, listen(&node.fabric, 2));
    let informer = node.context.informer::<Service>();
    informer.apply(balanced("web", port, "203.0.113.0/24"));
    node.endpoints(&[2]);
    node.opened(port).await;
    let mut client = TcpStream::connect(host(port)).await.expect("open");
    let error = client.read(&mut [0; 1]).await.expect_err("not let in");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let counted = "coracle_service_connections_refused_total{namespace=\"default\",service=\"web\",reason=\"policy\"} 1";
    let shown = node.services.metrics();
    assert!(shown.lines().any(|line| line == counted), "{shown}");
    informer.apply(balanced("web", port, "127.0.0.0/8"));
    let _client = TcpStream::connect(host(port)).await.expect("open");
    listener.accept().await.expect("let in");
}

#[tokio::test]
async fn a_health_port_tells_how_many_endpoints_the_node_has() {
    let node = Node::start();
    let port = free_port().await;
    let balanced = |policy: &str| {
        let ports = json!([{"name": "http", "port": 80}, {"name": "more", "port": 81}]);
        let spec = json!({
            "type": "LoadBalancer", "clusterIP": "10.96.0.5", "externalTrafficPolicy": policy,
            "healthCheckNodePort": port, "ports": ports,
        });
        service("web", spec)
    };
    let endpoints = |nodes: &[&str]| {
        let all = nodes.iter().zip(2..);
        let all: Vec<Value> = all
            .map(|(node, last)| json!({"addresses": [at(last, 0).ip()], "nodeName": node}))
            .collect();
        let ports = json!([{"name": "http", "port": 8080, "protocol": "TCP"}]);
        node.context
            .informer()
            .apply(crate::fixtures::slice("s", "web", ports, all.into()));
    };
    let ask = async || {
        let mut stream = TcpStream::connect(host(port)).await.expect("open");
        let question = b"GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n";
        stream.write_all(question).await.expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("an answer");
        text
    };
    let informer = node.context.informer::<Service>();
    informer.apply(balanced("Local"));
    node.opened(port).await;
    let nobody = ask().await;
    assert!(nobody.starts_with("HTTP/1.1 503"), "{nobody}");
    endpoints(&["here", "there", "here"]);
    let two = ask().await;
    assert!(two.starts_with("HTTP/1.1 200"), "{two}");
    assert!(
        two.contains("x-load-balancing-endpoint-weight: 2\r\n"),
        "{two}"
    );
    let body: Value =
        serde_json::from_str(two.rsplit("\r\n").next().expect("a body")).expect("JSON");
    let expected = json!({
        "service": {"namespace": "default", "name": "web"},
        "localEndpoints": 2, "serviceProxyHealthy": true,
    });
    assert_eq!(body, expected);
    informer.apply(balanced("Cluster"));
    node.closed().await;
}

#[tokio::test]
async fn the_node_dials_a_service_by_the_name_or_number_of_a_port() {
    let node = Node::start();
    let listener = listen(&node.fabric, 3);
    node.context.informer().apply(web(0));
    node.endpoints(&[2, 3]);
    for port in ["http", "80", ""] {
        let _stream = node
            .services
            .dial("default", "web", port)
            .await
            .expect("a pod listens");
        assert_eq!(listener.accept().await.unwrap().local_addr(), at(3, 8080));
    }
    let error = |name: &'static str, port: &'static str| {
        let services = node.services.clone();
        async move {
            services
                .dial("default", name, port)
                .await
                .expect_err("refused")
                .to_string()
        }
    };
    assert_eq!(
        error("web", "8080").await,
        "service default/web has no TCP port \"8080\""
    );
    assert_eq!(
        error("none", "80").await,
        "service default/none was not found"
    );
    node.endpoints(&[]);
    assert_eq!(
        error("web", "80").await,
        "service default/web has no ready endpoints"
    );
    node.endpoints(&[2]);
    assert_eq!(
        error("web", "80").await,
        "no endpoint of service default/web took the connection"
    );
}

#[tokio::test]
async fn guests_reach_services_by_name() {
    let node = Node::start();
    let (client, listener) = (pod(&node.fabric, 9), listen(&node.fabric, 2));
    node.expose(0, &[2]);
    let addresses = client
        .lookup("web.default.svc.cluster.local.")
        .await
        .expect("known");
    let near = client
        .connect_tcp(SocketAddr::new(addresses[0], 80))
        .await
        .expect("served");
    let far = listener.accept().await.expect("a connection");
    assert_eq!(near.peer_addr().to_string(), "10.96.0.5:80");
    assert_eq!(far.peer_addr().ip(), client.namespace().address());
}

#[tokio::test]
async fn messages_from_outside_reach_one_endpoint_and_its_answers_come_back() {
    let node = Node::start();
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 5353);
    let first = pod(&node.fabric, 2).bind_udp(any).expect("a free port");
    let second = pod(&node.fabric, 3).bind_udp(any).expect("a free port");
    let probe = UdpSocket::bind(host(0)).await.expect("a free port");
    let port = probe.local_addr().expect("bound").port();
    drop(probe);
    let ports = json!([{"name": "dns", "port": 53, "protocol": "UDP", "nodePort": port}]);
    let spec = json!({"type": "NodePort", "clusterIP": "10.96.0.5", "ports": ports});
    node.context.informer().apply(service("web", spec));
    let backends = |lasts: &[u8]| {
        let ports = json!([{"name": "dns", "port": 5353, "protocol": "UDP"}]);
        let all = lasts
            .iter()
            .map(|last| json!({"addresses": [crate::fixtures::pod_ip(*last)]}));
        crate::fixtures::slice("s", "web", ports, all.collect())
    };
    node.context.informer().apply(backends(&[2]));
    let door = Door {
        address: host(port),
        transport: Transport::Udp,
    };
    node.open(door).await;
    let client = UdpSocket::bind(host(0)).await.expect("a port");
    client.connect(door.address).await.expect("connected");
    let mut buffer = [0; 16];
    for text in [&b"one"[..], b"two"] {
        client.send(text).await.expect("sent");
        let question = first.recv().await;
        assert_eq!(&question.data[..], text);
        assert_eq!(question.from.ip(), crate::fixtures::NODE);
        first.send_to(question.data, question.from).expect("sent");
        let length = client.recv(&mut buffer).await.expect("an answer");
        assert_eq!(&buffer[..length], text);
    }
    // The endpoint goes, and the flow goes on with another.
    node.context.informer().apply(backends(&[3]));
    client.send(b"three").await.expect("sent");
    assert_eq!(&second.recv().await.data[..], b"three");
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

#[tokio::test]
async fn a_pod_has_the_port_of_the_host_that_it_asks_for_while_it_lives() {
    let node = Node::start();
    let (port, listener) = (free_port().await, listen(&node.fabric, 2));
    node.context.informer().apply(direct(2, port, "Running"));
    node.opened(port).await;
    let client = TcpStream::connect(host(port)).await.expect("open");
    let accepted = listener.accept().await.expect("a connection");
    assert_eq!(accepted.peer_addr(), client.local_addr().unwrap());
    // Pods find it at the node's address, too.
    let inside = pod(&node.fabric, 3);
    let to = SocketAddr::new(node.fabric.node_address(), port);
    inside.connect_tcp(to).await.expect("the pod's listener");
    node.context.informer().apply(direct(2, port, "Succeeded"));
    node.closed().await;
    inside.connect_tcp(to).await.expect_err("nobody's port");
}

#[tokio::test]
async fn a_host_port_that_a_service_has_is_told_and_opened_when_that_goes() {
    let mut node = Node::start();
    let (port, listener) = (free_port().await, listen(&node.fabric, 2));
    node.expose(port, &[]);
    node.opened(port).await;
    node.context.informer().apply(direct(2, port, "Running"));
    let event = node.posts.recv().await.expect("an event");
    assert_eq!(event["reason"], "HostPortUnavailable");
    assert_eq!(event["involvedObject"]["kind"], "Pod");
    let message = event["message"].as_str().expect("text");
    let expected =
        format!("hostPort {port} is not open: service default/web has TCP 127.0.0.1:{port};");
    assert!(message.starts_with(&expected), "{message}");
    node.context.informer::<Service>().delete(web(port));
    // The same door, for another one.
    let connected = async {
        loop {
            let _client = TcpStream::connect(host(port)).await;
            tokio::select! {
                accepted = listener.accept() => break accepted.expect("a connection"),
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
    };
    connected.await;
}

#[tokio::test]
async fn a_host_port_that_is_taken_is_told_and_tried_again() {
    let mut node = Node::start();
    let taken = TcpListener::bind(host(0)).await.expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    node.context.informer().apply(direct(2, port, "Running"));
    let event = node.posts.recv().await.expect("an event");
    assert_eq!(event["reason"], "HostPortUnavailable");
    assert_eq!(event["involvedObject"]["kind"], "Pod");
    let message = event["message"].as_str().expect("text");
    assert!(message.contains(&format!("hostPort {port}")), "{message}");
    drop(taken);
    node.opened(port).await;
}
