//! What is seen of a pod's sockets from outside.

use std::time::Duration;

use bytes::Bytes;

use super::*;

fn shown(namespace: &NetworkNamespace) -> Vec<(SocketState, SocketAddr, Option<SocketAddr>)> {
    let table = namespace.socket_table();
    let shown = table
        .iter()
        .map(|socket| (socket.state, socket.local, socket.peer));
    shown.collect()
}

#[tokio::test(start_paused = true)]
async fn both_pods_show_the_connection_and_what_went_through_it() {
    let fabric = fabric();
    let (client, server) = (pod(&fabric, 2), pod(&fabric, 3));
    let listener = server.scope().listen_tcp(any(80), 8).unwrap();
    let near = client.scope().connect_tcp(at(3, 80)).await.unwrap();
    let local = near.local_addr();
    assert_eq!(
        shown(&server),
        [
            (SocketState::Listening, any(80), None),
            (SocketState::Established, at(3, 80), Some(local)),
        ]
    );
    let waiting = server.socket_table()[0];
    assert_eq!((waiting.receive_queue, waiting.send_queue), (1, 8));

    let far = listener.accept().await.unwrap();
    near.write_bytes(Bytes::from_static(b"question"))
        .await
        .unwrap();
    assert_eq!(&far.read_bytes(5).await.unwrap()[..], b"quest");
    let [seen] = client.socket_table()[..] else {
        panic!("{:?}", client.socket_table());
    };
    assert_eq!((seen.local, seen.peer), (local, Some(at(3, 80))));
    assert_eq!((seen.sent_bytes, seen.received_bytes), (8, 0));
    assert_eq!((seen.receive_queue, seen.send_queue), (0, 3));
    let seen = server.socket_table()[1];
    assert_eq!((seen.sent_bytes, seen.received_bytes), (0, 5));
    assert_eq!((seen.receive_queue, seen.send_queue), (3, 0));

    near.shutdown_write();
    assert_eq!(client.socket_table()[0].state, SocketState::FinWait);
    assert_eq!(server.socket_table()[1].state, SocketState::CloseWait);
    far.shutdown_write();
    assert_eq!(client.socket_table()[0].state, SocketState::Closing);
    drop((near, far, listener));
    assert_eq!(shown(&client), []);
    assert_eq!(shown(&server), []);
}

#[tokio::test(start_paused = true)]
async fn sockets_without_a_peer_are_shown_too() {
    let fabric = fabric();
    let pod = pod(&fabric, 2);
    let mut bound = pod.scope().tcp_socket().unwrap();
    bound.bind(any(81)).unwrap();
    let inbox = pod.scope().bind_udp(any(53)).unwrap();
    let other = pod.scope().bind_udp(at(2, 54)).unwrap();
    other
        .send_to(Bytes::from_static(b"hello"), at(2, 53))
        .unwrap();
    let table = pod.socket_table();
    let seen: Vec<_> = table
        .iter()
        .map(|socket| (socket.protocol, socket.local.port(), socket.receive_queue))
        .collect();
    assert_eq!(
        seen,
        [
            (Protocol::Tcp, 81, 0),
            (Protocol::Udp, 53, 5),
            (Protocol::Udp, 54, 0)
        ]
    );
    assert!(
        table
            .iter()
            .all(|socket| socket.state == SocketState::Unconnected && socket.peer.is_none())
    );
    drop((bound, inbox, other));
    assert_eq!(shown(&pod), []);
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_connections_is_counted() {
    let fabric = fabric();
    let (client, server) = (pod(&fabric, 2), pod(&fabric, 3));
    let counts = |namespace: &NetworkNamespace| namespace.traffic().connections;
    let refused = client.scope().connect_tcp(at(3, 80)).await;
    assert!(matches!(refused, Err(NetError::ConnectionRefused(_))));
    assert_eq!((counts(&client).failed, counts(&server).refused), (1, 1));
    let nobody = client.scope().connect_tcp(at(9, 80)).await;
    assert!(matches!(nobody, Err(NetError::HostUnreachable(_))));
    let metadata = SocketAddr::from(([169, 254, 169, 254], 80));
    let denied = client.scope().connect_tcp(metadata).await;
    assert!(matches!(denied, Err(NetError::Denied { .. })));
    let seen = counts(&client);
    assert_eq!((seen.opened, seen.failed, seen.denied), (0, 2, 1));

    let listener = server.scope().listen_tcp(any(80), 8).unwrap();
    let near = client.scope().connect_tcp(at(3, 80)).await.unwrap();
    tokio::time::advance(Duration::from_millis(5)).await;
    let far = listener.accept().await.unwrap();
    let seen = counts(&server);
    assert_eq!((seen.accepted, seen.waits), (1, [0, 0, 1, 0, 0, 0]));
    assert!(seen.waited >= Duration::from_millis(5));
    assert_eq!(counts(&client).opened, 1);

    near.write_bytes(Bytes::from_static(b"unread"))
        .await
        .unwrap();
    drop(far);
    assert_eq!((counts(&server).reset, counts(&client).reset), (1, 0));
}

/// One Service at [`vip`] port 80, counted.
struct Counted {
    flows: Arc<ServiceFlows>,
    route: Route,
}

impl ServiceRouter for Counted {
    fn route(&self, _from: IpAddr, to: SocketAddr, _protocol: Protocol) -> Route {
        match to == vip(80) {
            true => self.route.clone(),
            false => Route::NotAService,
        }
    }

    fn route_counted(
        &self,
        from: IpAddr,
        to: SocketAddr,
        protocol: Protocol,
    ) -> (Route, Option<Arc<ServiceFlows>>) {
        let counted = (to == vip(80)).then(|| self.flows.clone());
        (self.route(from, to, protocol), counted)
    }
}

#[derive(Default)]
struct Records(parking_lot::Mutex<Vec<FlowRecord>>);

impl FlowLog for Records {
    fn ended(&self, record: FlowRecord) {
        self.0.lock().push(record);
    }
}

impl Records {
    fn last(&self) -> FlowRecord {
        self.0.lock().last().cloned().expect("a record")
    }
}

fn counted(fabric: &Fabric, route: Route) -> (Arc<ServiceFlows>, Arc<Records>) {
    let (flows, records) = <(Arc<ServiceFlows>, Arc<Records>)>::default();
    flows.set_log(Some(records.clone()));
    fabric.set_router(Arc::new(Counted {
        flows: flows.clone(),
        route,
    }));
    (flows, records)
}

#[tokio::test(start_paused = true)]
async fn a_service_counts_its_connections_and_tells_of_each_at_its_end() {
    let fabric = fabric();
    let route = Route::Endpoints(vec![at(4, 8080), at(3, 8080)]);
    let (flows, records) = counted(&fabric, route);
    let (client, server) = (pod(&fabric, 2).scope(), pod(&fabric, 3).scope());
    let _refusing = pod(&fabric, 4);
    let listener = server.listen_tcp(any(8080), 8).unwrap();
    let near = client.connect_tcp(vip(80)).await.unwrap();
    tokio::time::advance(Duration::from_millis(5)).await;
    let far = listener.accept().await.unwrap();
    near.write_bytes(Bytes::from_static(b"question"))
        .await
        .unwrap();
    far.write_bytes(Bytes::from_static(b"answer!!!"))
        .await
        .unwrap();
    assert_eq!(near.read_bytes(9).await.unwrap().len(), 9);
    assert_eq!(far.read_bytes(8).await.unwrap().len(), 8);
    let seen = flows.traffic();
    assert_eq!((seen.connections, seen.open, seen.passed_over), (1, 1, 1));
    assert_eq!((seen.received_bytes, seen.sent_bytes), (8, 9));
    assert_eq!(seen.waits, [0, 0, 1, 0, 0, 0]);
    assert!(records.0.lock().is_empty(), "it goes on");

    tokio::time::advance(Duration::from_secs(2)).await;
    let local = near.local_addr();
    drop((near, far));
    let record = records.last();
    assert!(record.duration >= Duration::from_secs(2));
    assert_eq!(
        record,
        FlowRecord {
            client: local,
            client_pod: Some("default/pod-2".to_owned()),
            service: vip(80),
            endpoint: Some(at(3, 8080)),
            received_bytes: 8,
            sent_bytes: 9,
            duration: record.duration,
            outcome: FlowOutcome::Closed,
        }
    );
    let seen = flows.traffic();
    assert_eq!((seen.connections, seen.open), (1, 0));
    assert_eq!((seen.received_bytes, seen.sent_bytes), (8, 9));
}

#[tokio::test(start_paused = true)]
async fn a_service_knows_who_reset_a_connection() {
    let fabric = fabric();
    let (flows, records) = counted(&fabric, Route::Endpoints(vec![at(3, 80)]));
    let (client, server) = (pod(&fabric, 2).scope(), pod(&fabric, 3).scope());
    let listener = server.listen_tcp(any(80), 8).unwrap();
    let unread = Bytes::from_static(b"unread");

    let near = client.connect_tcp(vip(80)).await.unwrap();
    let far = listener.accept().await.unwrap();
    near.write_bytes(unread.clone()).await.unwrap();
    drop(far);
    drop(near);
    assert_eq!(records.last().outcome, FlowOutcome::ResetByEndpoint);

    let near = client.connect_tcp(vip(80)).await.unwrap();
    let far = listener.accept().await.unwrap();
    far.write_bytes(unread).await.unwrap();
    drop(near);
    drop(far);
    assert_eq!(records.last().outcome, FlowOutcome::ResetByClient);

    let near = client.connect_tcp(vip(80)).await.unwrap();
    near.reset();
    drop(near);
    assert_eq!(records.last().outcome, FlowOutcome::ResetByClient);
    let seen = flows.traffic();
    assert_eq!((seen.reset_by_clients, seen.reset_by_endpoints), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_service_counts_whom_nobody_took_and_why() {
    struct Forbidding;
    impl ConnectionPolicy for Forbidding {
        fn on_connect(&self, _: IpAddr, _: SocketAddr, _: Protocol) -> Verdict {
            Verdict::Deny {
                reason: "test".to_owned(),
            }
        }
        fn on_accept(&self, _: IpAddr, _: SocketAddr, _: Protocol) -> Verdict {
            Verdict::Allow
        }
    }
    let fabric = fabric();
    let client = pod(&fabric, 2).scope();
    let (_refusing, full) = (pod(&fabric, 3), pod(&fabric, 4).scope());
    let _full = full.listen_tcp(any(80), 1).unwrap();
    let _occupant = client.connect_tcp(at(4, 80)).await.unwrap();
    let cases = [
        (Route::Refuse, RefusedFlow::NoEndpoints),
        (Route::NoPort, RefusedFlow::NoPort),
        (Route::Endpoints(vec![at(3, 80)]), RefusedFlow::Endpoints),
        (Route::Endpoints(vec![at(4, 80)]), RefusedFlow::TimedOut),
        (Route::Endpoints(vec![at(3, 80)]), RefusedFlow::Policy),
    ];
    for (route, reason) in cases {
        if reason == RefusedFlow::Policy {
            fabric.set_policy(Arc::new(Forbidding));
        }
        let (flows, records) = counted(&fabric, route);
        client.connect_tcp(vip(80)).await.unwrap_err();
        assert_eq!(records.last().outcome, FlowOutcome::Refused(reason));
        assert_eq!(records.last().endpoint, None);
        let refused = RefusedFlow::ALL.map(|other| u64::from(other == reason));
        assert_eq!(flows.traffic().refused, refused, "{reason:?}");
        assert_eq!(flows.traffic().connections, 0);
    }
}

#[tokio::test]
async fn a_service_counts_clients_of_the_host_too() {
    use tokio::io::AsyncWriteExt as _;
    let fabric = fabric();
    let (flows, records) = <(Arc<ServiceFlows>, Arc<Records>)>::default();
    flows.set_log(Some(records.clone()));
    let server = pod(&fabric, 3).scope();
    let listener = server.listen_tcp(any(80), 8).unwrap();
    let door = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialled = door.local_addr().unwrap();
    let mut outside = tokio::net::TcpStream::connect(dialled).await.unwrap();
    let (stream, peer) = door.accept().await.unwrap();
    fabric
        .deliver_for(stream, peer, &[at(3, 80)], Some(flows.clone()))
        .await
        .unwrap();
    outside.write_all(b"hello").await.unwrap();
    outside.shutdown().await.unwrap();
    let far = listener.accept().await.unwrap();
    assert_eq!(read_all(&far).await.unwrap(), b"hello");
    drop(far);
    let record = records.last();
    assert_eq!((record.client, record.service), (peer, dialled));
    assert_eq!(record.endpoint, Some(at(3, 80)));
    assert_eq!((record.received_bytes, record.sent_bytes), (5, 0));
    assert_eq!(record.outcome, FlowOutcome::Closed);

    let _outside = tokio::net::TcpStream::connect(dialled).await.unwrap();
    let (stream, peer) = door.accept().await.unwrap();
    let counted = Some(flows.clone());
    fabric
        .deliver_for(stream, peer, &[], counted)
        .await
        .unwrap_err();
    let nobody = FlowOutcome::Refused(RefusedFlow::NoEndpoints);
    assert_eq!(records.last().outcome, nobody);
}

#[tokio::test(start_paused = true)]
async fn a_service_counts_the_bytes_of_datagrams() {
    let fabric = fabric();
    let (flows, _) = counted(&fabric, Route::Endpoints(vec![at(3, 53)]));
    let (client, server) = (pod(&fabric, 2).scope(), pod(&fabric, 3).scope());
    let (asks, answers) = (client.bind_udp(any(0)), server.bind_udp(any(53)));
    let (asks, answers) = (asks.unwrap(), answers.unwrap());
    asks.send_to(Bytes::from_static(b"question"), vip(80))
        .unwrap();
    let question = answers.recv().await;
    answers
        .send_to(Bytes::from_static(b"answer"), question.from)
        .unwrap();
    assert_eq!(asks.recv().await.from, vip(80));
    let seen = flows.traffic();
    assert_eq!((seen.received_bytes, seen.sent_bytes), (8, 6));
    assert_eq!(seen.connections, 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_node_opens_into_a_pod_is_not_the_pods_doing() {
    let fabric = fabric();
    let pod = pod(&fabric, 2);
    assert!(pod.dial_loopback(80).await.is_err());
    let seen = pod.traffic().connections;
    assert_eq!((seen.refused, seen.failed), (1, 0));

    let listener = pod.scope().listen_tcp(any(80), 8).unwrap();
    let near = pod.dial_loopback(80).await.unwrap();
    near.write_bytes(Bytes::from_static(b"question"))
        .await
        .unwrap();
    let far = listener.accept().await.unwrap();
    assert_eq!(far.read_bytes(8).await.unwrap().len(), 8);
    far.write_bytes(Bytes::from_static(b"yes")).await.unwrap();
    assert_eq!(pod.buffered_bytes(), 3);
    assert_eq!(near.read_bytes(8).await.unwrap().len(), 3);
    let seen = pod.traffic();
    let counts = seen.connections;
    assert_eq!((counts.opened, counts.accepted, counts.failed), (0, 1, 0));
    assert_eq!((seen.received_bytes, seen.sent_bytes), (8, 3));
    // The pod has one end of it, and the other holds none of its ports.
    let local = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 80);
    assert_eq!(
        shown(&pod),
        [
            (SocketState::Listening, any(80), None),
            (SocketState::Established, local, Some(near.local_addr())),
        ]
    );
    assert!(near.local_addr().ip().is_loopback());
}
