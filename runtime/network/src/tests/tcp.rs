//! Socket semantics of connections in memory.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::ports::EPHEMERAL;

#[tokio::test(start_paused = true)]
async fn bytes_arrive_in_order_and_each_end_knows_the_other() {
    let (client, server) = connected(&fabric()).await;
    assert_eq!(client.peer_addr(), at(3, 80));
    assert_eq!(server.local_addr(), at(3, 80));
    assert_eq!(server.peer_addr(), client.local_addr());
    assert_eq!(client.local_addr().ip(), pod_ip(2));
    assert!(EPHEMERAL.contains(&client.local_addr().port()));
    client
        .write_bytes(Bytes::from_static(b"ping"))
        .await
        .unwrap();
    assert_eq!(&server.read_bytes(64).await.unwrap()[..], b"ping");
    server
        .write_bytes(Bytes::from_static(b"pong"))
        .await
        .unwrap();
    assert_eq!(&client.read_bytes(2).await.unwrap()[..], b"po");
    assert_eq!(&client.read_bytes(64).await.unwrap()[..], b"ng");
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_connection_still_carries_the_answer() {
    let (client, server) = connected(&fabric()).await;
    client
        .write_bytes(Bytes::from_static(b"question"))
        .await
        .unwrap();
    client.shutdown_write();
    assert_eq!(
        client.push(Bytes::from_static(b"more")),
        Err(NetError::BrokenPipe)
    );
    assert_eq!(read_all(&server).await.unwrap(), b"question");
    server
        .write_bytes(Bytes::from_static(b"answer"))
        .await
        .unwrap();
    drop(server);
    assert_eq!(read_all(&client).await.unwrap(), b"answer");
}

#[tokio::test(start_paused = true)]
async fn dropping_an_end_with_bytes_unread_resets_the_other() {
    let (client, server) = connected(&fabric()).await;
    client
        .write_bytes(Bytes::from_static(b"never read"))
        .await
        .unwrap();
    drop(server);
    assert_eq!(client.read_bytes(1).await, Err(NetError::ConnectionReset));
    assert_eq!(
        client.push(Bytes::from_static(b"x")),
        Err(NetError::BrokenPipe)
    );
}

#[tokio::test(start_paused = true)]
async fn dropping_an_end_in_order_is_the_end_and_then_a_broken_pipe() {
    let (client, server) = connected(&fabric()).await;
    drop(server);
    assert_eq!(read_all(&client).await.unwrap(), b"");
    assert_eq!(
        client.push(Bytes::from_static(b"x")),
        Err(NetError::BrokenPipe)
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_sent_after_shutdown_of_reading_is_thrown_away() {
    let (client, server) = connected(&fabric()).await;
    server.shutdown_read();
    for _ in 0..100 {
        client
            .write_bytes(Bytes::from(vec![1; 64 * 1024]))
            .await
            .unwrap();
    }
    assert_eq!(read_all(&server).await.unwrap(), b"");
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_the_writer_back_in_bounded_memory() {
    let fabric = fabric();
    let limits = Limits {
        stream_buffer: 10_000,
        ..Limits::default()
    };
    let (client, server) = (pod(&fabric, 2), pod_with(&fabric, 3, limits));
    let listener = server.scope().listen_tcp(any(80), 8).unwrap();
    let near = client.scope().connect_tcp(at(3, 80)).await.unwrap();
    let far = listener.accept().await.unwrap();
    let mut writer = near.clone();
    let sending = tokio::spawn(async move { writer.write_all(&vec![7; 1_000_000]).await });
    let mut seen = 0;
    while seen < 1_000_000 {
        std::future::poll_fn(|cx| far.poll_readable(cx)).await;
        assert!(
            server.buffered_bytes() <= 10_000,
            "{}",
            server.buffered_bytes()
        );
        seen += far.read_bytes(777).await.unwrap().len();
    }
    sending.await.unwrap().unwrap();
    assert_eq!(server.buffered_bytes(), 0);
    assert_eq!(server.traffic().received_bytes, 1_000_000);
    assert_eq!(client.traffic().sent_bytes, 1_000_000);
}

#[tokio::test(start_paused = true)]
async fn readiness_is_exact_and_every_waiting_task_is_woken() {
    let (client, server) = connected(&fabric()).await;
    assert!(is_pending(server.poll_readable(&mut context())));
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let server = server.clone();
            tokio::spawn(async move { std::future::poll_fn(|cx| server.poll_readable(cx)).await })
        })
        .collect();
    tokio::task::yield_now().await;
    client.push(Bytes::from_static(b"!")).unwrap();
    for task in waiting {
        task.await.unwrap();
    }
    while let std::task::Poll::Ready(room) = client.poll_writable(&mut context()) {
        client.push(Bytes::from(vec![0; room.unwrap()])).unwrap();
    }
    assert_eq!(client.push(Bytes::from_static(b"x")), Ok(0));
    read_some(&server).await;
    std::future::poll_fn(|cx| client.poll_writable(cx))
        .await
        .unwrap();
}

async fn read_some(stream: &TcpStream) {
    while let std::task::Poll::Ready(bytes) = stream.poll_read_bytes(&mut context(), 64 * 1024) {
        assert!(!bytes.unwrap().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn halves_close_their_own_direction() {
    let (client, server) = connected(&fabric()).await;
    let (mut reading, mut writing) = client.into_split();
    writing.write_all(b"all").await.unwrap();
    drop(writing);
    assert_eq!(read_all(&server).await.unwrap(), b"all");
    server
        .write_bytes(Bytes::from_static(b"done"))
        .await
        .unwrap();
    drop(server);
    let mut text = String::new();
    reading.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "done");
}

#[tokio::test(start_paused = true)]
async fn containers_of_a_pod_share_ports_and_localhost() {
    let fabric = fabric();
    let namespace = pod(&fabric, 2);
    let (web, sidecar) = (namespace.scope(), namespace.scope());
    let listener = web.listen_tcp(any(8080), 8).unwrap();
    assert_eq!(
        sidecar.listen_tcp(any(8080), 8).unwrap_err(),
        NetError::AddressInUse(any(8080))
    );
    let loopback = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 8080);
    assert!(sidecar.listen_tcp(loopback, 8).is_err());
    let near = sidecar.connect_tcp(loopback).await.unwrap();
    let far = listener.accept().await.unwrap();
    assert_eq!(far.peer_addr().ip(), loopback.ip());
    assert_eq!((web.open_connections(), sidecar.open_connections()), (1, 1));
    drop((near, far, listener));
    assert_eq!((web.open_connections(), namespace.sockets()), (0, 0));
    sidecar
        .listen_tcp(any(8080), 8)
        .expect("the port is free again");
}

#[tokio::test(start_paused = true)]
async fn loopback_and_the_pods_address_are_two_addresses() {
    let fabric = fabric();
    let (namespace, other) = (pod(&fabric, 2), pod(&fabric, 3));
    let scope = namespace.scope();
    let loopback = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 80);
    let inner = scope.listen_tcp(loopback, 8).unwrap();
    let outer = scope.listen_tcp(at(2, 80), 8).unwrap();
    let _a = scope.connect_tcp(loopback).await.unwrap();
    assert_eq!(inner.accept().await.unwrap().local_addr(), loopback);
    let _b = other.scope().connect_tcp(at(2, 80)).await.unwrap();
    assert_eq!(outer.accept().await.unwrap().local_addr(), at(2, 80));
    drop(outer);
    assert_eq!(
        other.scope().connect_tcp(at(2, 80)).await.unwrap_err(),
        NetError::ConnectionRefused(at(2, 80))
    );
    assert_eq!(namespace.listening(), [loopback]);
}

#[tokio::test(start_paused = true)]
async fn only_the_pods_own_addresses_can_be_bound() {
    let scope = pod(&fabric(), 2).scope();
    for foreign in ["10.240.0.9:80", "192.0.2.1:0", "[::1]:80", "[::]:0"] {
        let address: SocketAddr = foreign.parse().unwrap();
        assert_eq!(
            scope.listen_tcp(address, 1).unwrap_err(),
            NetError::AddressNotBindable(address)
        );
    }
    let listener = scope.listen_tcp(any(0), 1).unwrap();
    assert!(EPHEMERAL.contains(&listener.local_addr().port()));
}

#[tokio::test(start_paused = true)]
async fn a_full_backlog_makes_connects_wait_and_then_time_out() {
    let fabric = fabric();
    let (client, server) = (pod(&fabric, 2).scope(), pod(&fabric, 3).scope());
    let listener = server.listen_tcp(any(80), 2).unwrap();
    let _first = client.connect_tcp(at(3, 80)).await.unwrap();
    let _second = client.connect_tcp(at(3, 80)).await.unwrap();
    assert_eq!(
        client.connect_tcp(at(3, 80)).await.unwrap_err(),
        NetError::TimedOut(at(3, 80))
    );
    let third = tokio::spawn({
        let client = client.clone();
        async move { client.connect_tcp(at(3, 80)).await }
    });
    tokio::task::yield_now().await;
    assert!(!third.is_finished());
    let _accepted = listener.accept().await.unwrap();
    third.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn closing_a_listener_resets_those_who_wait_and_refuses_others() {
    let fabric = fabric();
    let (client, server) = (pod(&fabric, 2).scope(), pod(&fabric, 3).scope());
    let listener = server.listen_tcp(any(80), 1).unwrap();
    let queued = client.connect_tcp(at(3, 80)).await.unwrap();
    let blocked = tokio::spawn({
        let client = client.clone();
        async move { client.connect_tcp(at(3, 80)).await }
    });
    tokio::task::yield_now().await;
    listener.close();
    assert_eq!(queued.read_bytes(1).await, Err(NetError::ConnectionReset));
    assert_eq!(
        blocked.await.unwrap().unwrap_err(),
        NetError::ConnectionRefused(at(3, 80))
    );
    assert_eq!(listener.accept().await.unwrap_err(), NetError::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_terminating_container_refuses_new_connections_but_keeps_the_old() {
    let fabric = fabric();
    let (client, server) = (pod(&fabric, 2).scope(), pod(&fabric, 3).scope());
    let listener = server.listen_tcp(any(80), 8).unwrap();
    let near = client.connect_tcp(at(3, 80)).await.unwrap();
    let far = listener.accept().await.unwrap();
    let waiting = client.connect_tcp(at(3, 80)).await.unwrap();
    server.stop_listening();
    assert_eq!(
        client.connect_tcp(at(3, 80)).await.unwrap_err(),
        NetError::ConnectionRefused(at(3, 80))
    );
    // Who was let in before is served.
    assert_eq!(server.silent_connections(), 2);
    let taken = listener.waiting().expect("one waits");
    assert!(listener.waiting().is_none());
    waiting
        .write_bytes(Bytes::from_static(b"hello"))
        .await
        .unwrap();
    assert_eq!(&taken.read_bytes(64).await.unwrap()[..], b"hello");
    assert_eq!(server.silent_connections(), 1);
    drop((waiting, taken));
    assert!(
        is_pending(listener.poll_accept(&mut context())),
        "the guest goes on waiting"
    );
    let before = server.moves();
    near.write_bytes(Bytes::from_static(b"last request"))
        .await
        .unwrap();
    assert_eq!(server.moves(), before);
    assert_eq!(&far.read_bytes(64).await.unwrap()[..], b"last request");
    let counts = (server.open_connections(), server.silent_connections());
    assert_eq!(counts, (1, 0));
    assert!(server.moves() > before);
}

#[tokio::test(start_paused = true)]
async fn past_the_socket_limit_there_is_a_clear_refusal() {
    let fabric = fabric();
    let small = pod_with(
        &fabric,
        2,
        Limits {
            sockets: 2,
            ..Limits::default()
        },
    );
    let other = pod(&fabric, 3).scope();
    let listener = small.scope().listen_tcp(any(80), 8).unwrap();
    let accepted = other.connect_tcp(at(2, 80)).await.unwrap();
    assert_eq!(
        small.scope().tcp_socket().err(),
        Some(NetError::SocketLimit(2))
    );
    assert_eq!(
        small.scope().bind_udp(any(0)).err(),
        Some(NetError::SocketLimit(2))
    );
    assert_eq!(
        other.connect_tcp(at(2, 80)).await.unwrap_err(),
        NetError::ConnectionRefused(at(2, 80))
    );
    drop(listener.accept().await.unwrap());
    drop(accepted);
    other.connect_tcp(at(2, 80)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn outgoing_connections_run_out_of_ephemeral_ports() {
    let fabric = fabric();
    let limits = Limits {
        sockets: 100_000,
        ..Limits::default()
    };
    let namespace = pod_with(&fabric, 2, limits);
    let scope = namespace.scope();
    let mut sockets: Vec<TcpSocket> = EPHEMERAL
        .map(|_| {
            let mut socket = scope.tcp_socket().unwrap();
            socket.bind(any(0)).unwrap();
            socket
        })
        .collect();
    assert_eq!(
        scope.connect_tcp(at(2, 80)).await.unwrap_err(),
        NetError::PortsExhausted
    );
    sockets.pop();
    assert_eq!(
        scope.connect_tcp(at(2, 80)).await.unwrap_err(),
        NetError::ConnectionRefused(at(2, 80))
    );
}

#[tokio::test(start_paused = true)]
async fn a_closed_namespace_gives_its_address_back() {
    let fabric = fabric();
    let (old, client) = (pod(&fabric, 2), pod(&fabric, 3).scope());
    let listener = old.scope().listen_tcp(any(80), 8).unwrap();
    let queued = client.connect_tcp(at(2, 80)).await.unwrap();
    old.close();
    assert_eq!(queued.read_bytes(1).await, Err(NetError::ConnectionReset));
    assert_eq!(old.scope().tcp_socket().err(), Some(NetError::Closed));
    assert_eq!(listener.accept().await.unwrap_err(), NetError::Closed);
    assert_eq!(
        client.connect_tcp(at(2, 80)).await.unwrap_err(),
        NetError::HostUnreachable(at(2, 80))
    );
    let new = pod(&fabric, 2);
    old.close();
    assert!(Arc::ptr_eq(&fabric.namespace(pod_ip(2)).unwrap(), &new));
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_told_once_by_whichever_call_comes_first() {
    let x = || Bytes::from_static(b"x");
    let reset = async |first: fn(&TcpStream) -> NetError| {
        let (client, server) = connected(&fabric()).await;
        client.write_bytes(x()).await.unwrap();
        server.push(Bytes::from_static(b"last words")).unwrap();
        drop(server);
        assert_eq!(&client.read_bytes(64).await.unwrap()[..], b"last words");
        assert_eq!(first(&client), NetError::ConnectionReset);
        assert_eq!(client.take_error(), None);
        assert_eq!(client.read_bytes(64).await.unwrap(), Bytes::new());
        assert_eq!(client.push(x()), Err(NetError::BrokenPipe));
    };
    reset(|client| client.push(Bytes::from_static(b"x")).unwrap_err()).await;
    reset(|client| client.take_error().unwrap()).await;
    reset(|client| match client.poll_read_bytes(&mut context(), 1) {
        Poll::Ready(Err(error)) => error,
        other => panic!("{other:?}"),
    })
    .await;
}
