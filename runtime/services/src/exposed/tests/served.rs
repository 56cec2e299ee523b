//! Who is served through an open door, and by whom.

use super::*;

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
    turned_away(port).await;
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
async fn who_is_not_in_the_ranges_of_a_load_balancer_is_reset_and_counted() {
    let node = Node::start();
    let (port, listener) = (free_port().await, listen(&node.fabric, 2));
    let informer = node.context.informer::<Service>();
    informer.apply(balanced("web", port, "203.0.113.0/24"));
    node.endpoints(&[2]);
    node.opened(port).await;
    turned_away(port).await;
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

#[tokio::test]
async fn messages_of_a_guest_stay_with_one_of_many_endpoints() {
    let node = Node::start();
    let port = json!([{"name": "dns", "port": 53, "protocol": "UDP"}]);
    let spec = json!({"clusterIP": "10.96.0.5", "ports": port});
    node.context.informer().apply(service("web", spec));
    // More than one connect may try.
    let lasts = 10..10 + 2 * u8::try_from(crate::router::CANDIDATES).expect("few");
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 53);
    let servers: Vec<_> = lasts
        .clone()
        .map(|last| pod(&node.fabric, last).bind_udp(any).expect("a free port"))
        .collect();
    let all = lasts.map(|last| json!({"addresses": [crate::fixtures::pod_ip(last)]}));
    let slice = crate::fixtures::slice("s", "web", port, all.collect());
    node.context.informer().apply(slice);
    let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
    let client = pod(&node.fabric, 2).bind_udp(any).expect("a free port");
    for _ in 0..2 * servers.len() {
        let to = "10.96.0.5:53".parse().expect("an address");
        client.send_to("x".into(), to).expect("sent");
    }
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut got = |server: &coracle_network::UdpSocket| {
        std::iter::from_fn(|| server.poll_recv(&mut context).is_ready().then_some(())).count()
    };
    let got: Vec<_> = servers.iter().map(&mut got).filter(|n| *n > 0).collect();
    assert_eq!(got, [2 * servers.len()]);
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
