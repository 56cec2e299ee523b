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
