//! Messages between pods.

use std::net::SocketAddr;

use bytes::Bytes;

use super::*;

#[tokio::test(start_paused = true)]
async fn messages_keep_their_borders_and_know_their_sender() {
    let fabric = fabric();
    let (a, b) = (pod(&fabric, 2).scope(), pod(&fabric, 3).scope());
    let (a, b) = (a.bind_udp(any(0)).unwrap(), b.bind_udp(any(53)).unwrap());
    a.send_to(Bytes::from_static(b"one"), at(3, 53)).unwrap();
    a.send_to(Bytes::new(), at(3, 53)).unwrap();
    let first = b.recv().await;
    assert_eq!(&first.data[..], b"one");
    assert_eq!(
        first.from,
        SocketAddr::new(pod_ip(2), a.local_addr().port())
    );
    assert!(b.recv().await.data.is_empty());
    b.send_to(Bytes::from_static(b"back"), first.from).unwrap();
    assert_eq!(a.recv().await.from, at(3, 53));
    assert!(is_pending(a.poll_readable(&mut context())));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_loses_messages_and_counts_them() {
    let fabric = fabric();
    let server = pod_with(
        &fabric,
        3,
        Limits {
            datagrams: 4,
            ..Limits::default()
        },
    );
    let socket = server.scope().bind_udp(any(53)).unwrap();
    let client = pod(&fabric, 2).scope().bind_udp(any(0)).unwrap();
    for n in 0..10u8 {
        client.send_to(Bytes::from(vec![n]), at(3, 53)).unwrap();
    }
    assert_eq!(server.traffic().dropped_datagrams, 6);
    assert_eq!(server.buffered_bytes(), 4);
    for n in 0..4u8 {
        assert_eq!(socket.recv().await.data[0], n);
    }
    assert!(is_pending(socket.poll_recv(&mut context())));
    assert_eq!(server.buffered_bytes(), 0);
    client
        .send_to(Bytes::from_static(b"unread"), at(3, 53))
        .unwrap();
    drop(socket);
    assert_eq!((server.buffered_bytes(), server.sockets()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn tcp_and_udp_ports_are_apart_and_udp_ports_are_shared_by_the_pod() {
    let namespace = pod(&fabric(), 2);
    let _tcp = namespace.scope().listen_tcp(any(53), 1).unwrap();
    let _udp = namespace.scope().bind_udp(any(53)).unwrap();
    assert_eq!(
        namespace.scope().bind_udp(any(53)).unwrap_err(),
        NetError::AddressInUse(any(53))
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_there_is_silence_and_special_addresses_are_errors() {
    let fabric = fabric();
    let socket = pod(&fabric, 2).scope().bind_udp(any(0)).unwrap();
    let _other = pod(&fabric, 3);
    socket.send_to(Bytes::from_static(b"x"), at(3, 53)).unwrap();
    assert_eq!(
        socket.send_to(Bytes::from_static(b"x"), at(9, 53)),
        Err(NetError::HostUnreachable(at(9, 53)))
    );
    assert!(matches!(
        socket.send_to(
            Bytes::from_static(b"x"),
            "169.254.169.254:53".parse().unwrap()
        ),
        Err(NetError::Denied { .. })
    ));
    assert!(matches!(
        socket.send_to(Bytes::from_static(b"x"), "239.1.1.1:53".parse().unwrap()),
        Err(NetError::Denied { .. })
    ));
    assert!(matches!(
        socket.send_to(Bytes::from(vec![0; MAX_DATAGRAM + 1]), at(3, 53)),
        Err(NetError::DatagramTooLarge(_))
    ));
}

/// Two endpoints whose order turns at every question, as a balancing router's would.
struct Turning(std::sync::atomic::AtomicUsize);

impl ServiceRouter for Turning {
    fn route(&self, _from: IpAddr, to: SocketAddr, _protocol: Protocol) -> Route {
        if to != vip(53) {
            return Route::NotAService;
        }
        let mut endpoints = vec![at(3, 53), at(4, 53)];
        endpoints.rotate_left(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 2);
        Route::Endpoints(endpoints)
    }
}

#[tokio::test(start_paused = true)]
async fn a_flow_to_a_service_keeps_its_endpoint_and_replies_come_from_the_service() {
    let fabric = fabric();
    fabric.set_router(Arc::new(Turning(0.into())));
    let client = pod(&fabric, 2).scope().bind_udp(any(0)).unwrap();
    let first = pod(&fabric, 3).scope().bind_udp(any(53)).unwrap();
    let second = pod(&fabric, 4).scope().bind_udp(any(53)).unwrap();
    for _ in 0..3 {
        client.send_to(Bytes::from_static(b"?"), vip(53)).unwrap();
        let question = first.recv().await;
        first
            .send_to(Bytes::from_static(b"!"), question.from)
            .unwrap();
        assert_eq!(client.recv().await.from, vip(53));
    }
    assert!(is_pending(second.poll_readable(&mut context())));
    tokio::time::sleep(std::time::Duration::from_secs(61)).await;
    client.send_to(Bytes::from_static(b"?"), vip(53)).unwrap();
    second.recv().await;
}

/// Answers every message with what it got and from whom.
struct Echo;

impl DatagramHandler for Echo {
    fn handle(&self, data: Bytes, from: SocketAddr, reply: DatagramReply) {
        let mut answer = data.to_vec();
        answer.extend(from.to_string().bytes());
        reply.send(answer.into());
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_answers_messages_to_the_node_and_to_a_service_that_leads_there() {
    let fabric = fabric();
    let node = SocketAddr::new(NODE, 53);
    fabric.set_router(Arc::new(OneEndpoint(node)));
    fabric.set_datagram_handler(node, Arc::new(Echo));
    let client = pod(&fabric, 2).scope().bind_udp(any(5000)).unwrap();
    for to in [node, vip(53)] {
        client.send_to(Bytes::from_static(b"?"), to).unwrap();
        let answer = client.recv().await;
        assert_eq!(&answer.data[..], b"?10.240.0.2:5000");
        assert_eq!(answer.from, to);
    }
    // A handler of messages takes no connections, and the other way around.
    let refused = pod(&fabric, 3).scope().connect_tcp(node).await;
    assert_eq!(refused.unwrap_err(), NetError::ConnectionRefused(node));
    fabric.remove_datagram_handler(node);
    let gone = client.send_to(Bytes::from_static(b"?"), node);
    assert_eq!(gone, Err(NetError::ConnectionRefused(node)));
}

/// Leads every Service to one endpoint.
struct OneEndpoint(SocketAddr);

impl ServiceRouter for OneEndpoint {
    fn route(&self, _from: IpAddr, to: SocketAddr, _protocol: Protocol) -> Route {
        match to == vip(53) {
            true => Route::Endpoints(vec![self.0]),
            false => Route::NotAService,
        }
    }
}

/// Keeps what it got.
#[derive(Default)]
struct Kept(parking_lot::Mutex<Vec<(Bytes, SocketAddr)>>);

impl DatagramHandler for Kept {
    fn handle(&self, data: Bytes, from: SocketAddr, _reply: DatagramReply) {
        self.0.lock().push((data, from));
    }
}

#[tokio::test(start_paused = true)]
async fn the_node_sends_for_others_and_gets_the_answers() {
    let fabric = fabric();
    let server = pod(&fabric, 3).scope().bind_udp(any(53)).unwrap();
    let answers = Arc::new(Kept::default());
    let port = fabric.bind_node_udp(answers.clone(), NODE).unwrap();
    let other = fabric
        .bind_node_udp(Arc::new(Kept::default()), NODE)
        .unwrap();
    assert_ne!(port.address(), other.address());
    let outside = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    port.send_to(Bytes::from_static(b"?"), outside, at(3, 53))
        .unwrap();
    let question = server.recv().await;
    assert_eq!(question.from, port.address());
    server
        .send_to(Bytes::from_static(b"!"), question.from)
        .unwrap();
    assert_eq!(*answers.0.lock(), [(Bytes::from_static(b"!"), at(3, 53))]);
    let nobody = port.send_to(Bytes::from_static(b"?"), outside, at(9, 53));
    assert_eq!(nobody, Err(NetError::HostUnreachable(at(9, 53))));
    let address = port.address();
    drop(port);
    let gone = server.send_to(Bytes::from_static(b"!"), address);
    assert_eq!(gone, Err(NetError::ConnectionRefused(address)));
}

#[tokio::test(start_paused = true)]
async fn the_node_asks_a_handler_for_others_and_gets_the_answer() {
    let fabric = fabric();
    let node = SocketAddr::new(NODE, 53);
    fabric.set_datagram_handler(node, Arc::new(Echo));
    let answers = Arc::new(Kept::default());
    let port = fabric.bind_node_udp(answers.clone(), NODE).unwrap();
    let outside = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    port.send_to(Bytes::from_static(b"?"), outside, node)
        .unwrap();
    let answer = Bytes::from(format!("?{}", port.address()));
    assert_eq!(*answers.0.lock(), [(answer, node)]);
}

/// Two Services with one endpoint.
struct SameEndpoint;

impl ServiceRouter for SameEndpoint {
    fn route(&self, _from: IpAddr, to: SocketAddr, _protocol: Protocol) -> Route {
        match to == vip(53) || to == vip(54) {
            true => Route::Endpoints(vec![at(3, 53)]),
            false => Route::NotAService,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_flow_that_ends_leaves_the_others_to_its_endpoint_alone() {
    let fabric = fabric();
    fabric.set_router(Arc::new(SameEndpoint));
    let client = pod(&fabric, 2).scope().bind_udp(any(0)).unwrap();
    let server = pod(&fabric, 3).scope().bind_udp(any(53)).unwrap();
    let x = || Bytes::from_static(b"x");
    client.send_to(x(), vip(53)).unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(61)).await;
    client.send_to(x(), vip(54)).unwrap();
    // The first flow is over, and begins anew; the server answers both.
    client.send_to(x(), vip(53)).unwrap();
    client.send_to(x(), vip(54)).unwrap();
    for _ in 0..4 {
        let from = server.recv().await.from;
        server.send_to(x(), from).unwrap();
        let from = client.recv().await.from;
        assert!(from == vip(53) || from == vip(54), "{from}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connected_socket_is_told_once_that_nobody_holds_the_peers_port() {
    let fabric = fabric();
    let socket = pod(&fabric, 2).scope().bind_udp(any(0)).unwrap();
    let other = pod(&fabric, 3);
    let x = || Bytes::from_static(b"x");
    let refused = NetError::ConnectionRefused(at(3, 53));
    socket.send_connected(x(), at(3, 53)).unwrap();
    assert!(socket.poll_readable(&mut context()).is_ready());
    assert_eq!(socket.send_connected(x(), at(3, 53)), Err(refused.clone()));
    assert!(is_pending(socket.poll_readable(&mut context())));
    // A task that waits already is woken by it.
    let waiting = tokio::spawn({
        let socket = socket.clone();
        async move { std::future::poll_fn(|cx| socket.poll_recv_connected(cx)).await }
    });
    tokio::task::yield_now().await;
    socket.send_connected(x(), at(3, 53)).unwrap();
    assert_eq!(waiting.await.unwrap(), Err(refused));
    // Somebody there, or no connection: nothing is told.
    let there = other.scope().bind_udp(any(53)).unwrap();
    socket.send_connected(x(), at(3, 53)).unwrap();
    assert_eq!(there.recv().await.data, x());
    socket.send_to(x(), at(3, 54)).unwrap();
    assert_eq!(socket.take_error(), None);
}
