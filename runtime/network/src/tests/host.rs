//! Connections over the host's sockets; these tests run under the real clock.

use std::net::Ipv4Addr;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// A host on which nothing is its own.
struct NothingOwn;

impl HostAddresses for NothingOwn {
    fn is_own(&self, _address: IpAddr) -> bool {
        false
    }
}

/// A connection as a NodePort gets it: the browser's end, and the accepted one with its peer.
async fn accepted() -> (tokio::net::TcpStream, tokio::net::TcpStream, SocketAddr) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let browser = tokio::net::TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    (browser, stream, peer)
}

#[tokio::test]
async fn a_delivered_connection_is_the_pods_and_shows_the_real_peer() {
    let fabric = fabric();
    let server = pod(&fabric, 3).scope();
    let listener = server.listen_tcp(any(80), 8).unwrap();
    let (mut browser, stream, peer) = accepted().await;
    // The first endpoint is nobody's.
    fabric
        .deliver(stream, peer, &[at(9, 80), at(3, 80)])
        .await
        .unwrap();
    let stream = listener.accept().await.unwrap();
    assert_eq!((stream.peer_addr(), stream.local_addr()), (peer, at(3, 80)));
    assert!(is_pending(stream.poll_readable(&mut context())));
    browser.write_all(b"GET").await.unwrap();
    assert_eq!(&stream.read_bytes(2).await.unwrap()[..], b"GE");
    assert_eq!(&stream.read_bytes(9).await.unwrap()[..], b"T");
    browser.shutdown().await.unwrap();
    assert!(stream.read_bytes(9).await.unwrap().is_empty());
    stream
        .write_bytes(Bytes::from_static(b"200"))
        .await
        .unwrap();
    stream.shutdown_write();
    assert_eq!(
        stream.push(Bytes::from_static(b"x")),
        Err(NetError::BrokenPipe)
    );
    let mut text = String::new();
    browser.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "200");
}

#[tokio::test]
async fn what_a_host_socket_promised_is_sent_even_after_the_guest_dropped_it() {
    let fabric = fabric();
    let server = pod(&fabric, 3).scope();
    let listener = server.listen_tcp(any(80), 8).unwrap();
    let (mut browser, stream, peer) = accepted().await;
    fabric.deliver(stream, peer, &[at(3, 80)]).await.unwrap();
    let stream = listener.accept().await.unwrap();
    let mut promised = 0;
    // Until the system takes no more and the rest of a write is kept.
    while let std::task::Poll::Ready(room) = stream.poll_writable(&mut context()) {
        promised += stream.push(Bytes::from(vec![5; room.unwrap()])).unwrap();
    }
    drop(stream);
    let mut received = Vec::new();
    browser.read_to_end(&mut received).await.unwrap();
    assert_eq!(received.len(), promised);
}

#[tokio::test]
async fn every_byte_wakes_its_reader_on_whatever_runtime() {
    let fabric = fabric();
    let server = pod(&fabric, 3).scope();
    let listener = server.listen_tcp(any(80), 8).unwrap();
    let (mut browser, stream, peer) = accepted().await;
    fabric.deliver(stream, peer, &[at(3, 80)]).await.unwrap();
    let other = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let stream = listener.accept().await.unwrap();
    let mut stream = stream.driven_by(other.handle());
    let echo = other.spawn(async move {
        let mut buffer = [0; 64];
        loop {
            match stream.read(&mut buffer).await.unwrap() {
                0 => break,
                read => stream.write_all(&buffer[..read]).await.unwrap(),
            }
        }
    });
    // Fewer bytes than there is room for, as many, and more.
    for length in (1..=200).chain([1000, 100_000]) {
        let sent = vec![u8::try_from(length % 251).unwrap(); length];
        let mut received = vec![0; length];
        let (mut reader, mut writer) = browser.split();
        let (written, read) =
            tokio::join!(writer.write_all(&sent), reader.read_exact(&mut received));
        written.unwrap();
        read.unwrap();
        assert_eq!(sent, received);
    }
    browser.shutdown().await.unwrap();
    echo.await.unwrap();
    other.shutdown_background();
}

#[tokio::test]
async fn a_delivery_that_nobody_takes_is_reset() {
    let fabric = fabric();
    let (mut browser, stream, peer) = accepted().await;
    assert!(fabric.deliver(stream, peer, &[at(9, 80)]).await.is_err());
    let error = browser.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// Services that lead out of the cluster.
struct Leading(Vec<(SocketAddr, SocketAddr)>);

impl ServiceRouter for Leading {
    fn route(&self, _from: IpAddr, to: SocketAddr, _protocol: Protocol) -> Route {
        match self.0.iter().find(|(service, _)| *service == to) {
            Some((_, endpoint)) => Route::Endpoints(vec![*endpoint]),
            None => Route::NotAService,
        }
    }
}

/// A fabric whose outside is this machine's loopback, the one network that every machine has; a
/// Service leads there, since what pods call loopback is their own.
fn leading(services: &[(SocketAddr, SocketAddr)]) -> Arc<Fabric> {
    let egress = EgressPolicy::open_for_tests(NothingOwn);
    let fabric = Fabric::new(FabricConfig { egress, ..config() }, Clock::system());
    fabric.set_router(Arc::new(Leading(services.to_vec())));
    fabric
}

#[tokio::test]
async fn pods_stream_to_the_outside_through_the_nodes_sockets() {
    let outside = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fabric = leading(&[(vip(80), outside.local_addr().unwrap())]);
    let namespace = pod(&fabric, 2);
    let near = namespace.scope().connect_tcp(vip(80)).await.unwrap();
    assert_eq!(
        near.local_addr().ip(),
        pod_ip(2),
        "the host's port is not the pod's business"
    );
    assert_eq!(near.peer_addr(), vip(80));
    let (mut far, _) = outside.accept().await.unwrap();
    far.write_all(b"welcome").await.unwrap();
    drop(far);
    assert_eq!(read_all(&near).await.unwrap(), b"welcome");
    assert_eq!(namespace.traffic().received_bytes, 7);
}

#[tokio::test]
async fn an_external_endpoint_is_delivered_to_by_copying() {
    let outside = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fabric = leading(&[]);
    let (mut browser, stream, peer) = accepted().await;
    fabric
        .deliver(stream, peer, &[outside.local_addr().unwrap()])
        .await
        .unwrap();
    let (mut far, _) = outside.accept().await.unwrap();
    browser.write_all(b"ping").await.unwrap();
    browser.shutdown().await.unwrap();
    let mut text = String::new();
    far.read_to_string(&mut text).await.unwrap();
    far.write_all(b"pong").await.unwrap();
    drop(far);
    browser.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "pingpong");
}

#[tokio::test]
async fn only_those_who_were_written_to_may_send_messages_in() {
    let echo = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let stranger = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let fabric = leading(&[(vip(53), echo.local_addr().unwrap())]);
    let socket = pod(&fabric, 2).scope().bind_udp(any(0)).unwrap();
    socket
        .send_to(Bytes::from_static(b"ping"), vip(53))
        .unwrap();
    let mut buffer = [0; 16];
    let (length, from) = echo.recv_from(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..length], b"ping");
    stranger.send_to(b"intruder", from).await.unwrap();
    echo.send_to(b"pong", from).await.unwrap();
    let answer = socket.recv().await;
    assert_eq!((&answer.data[..], answer.from), (&b"pong"[..], vip(53)));
}

/// Passes on what it gets.
struct PassedOn(tokio::sync::mpsc::UnboundedSender<(Bytes, SocketAddr)>);

impl DatagramHandler for PassedOn {
    fn handle(&self, data: Bytes, from: SocketAddr, _reply: DatagramReply) {
        self.0.send((data, from)).unwrap();
    }
}

#[tokio::test]
async fn the_node_sends_to_the_outside_for_others_and_gets_the_answers() {
    let outside = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let to = outside.local_addr().unwrap();
    let fabric = leading(&[]);
    let (sender, mut answers) = tokio::sync::mpsc::unbounded_channel();
    let answered = Arc::new(PassedOn(sender));
    let port = fabric.bind_node_udp(answered, to.ip()).unwrap();
    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut buffer = [0; 16];
    for text in [&b"one"[..], b"two"] {
        port.send_to(Bytes::from_static(text), peer, to).unwrap();
        let (length, from) = outside.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], text);
        outside.send_to(text, from).await.unwrap();
        assert_eq!(answers.recv().await, Some((Bytes::from_static(text), to)));
    }
}

#[tokio::test]
async fn a_refusal_outside_is_a_refusal_inside() {
    // A port that was free a moment ago: bound, but nobody listens.
    let held = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    held.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
        .unwrap();
    let closed = held.local_addr().unwrap().as_socket().unwrap();
    let fabric = leading(&[(vip(80), closed)]);
    let refused = pod(&fabric, 2)
        .scope()
        .connect_tcp(vip(80))
        .await
        .unwrap_err();
    assert_eq!(refused, NetError::ConnectionRefused(closed));
}

#[tokio::test]
async fn a_pod_on_the_hosts_network_reaches_the_hosts_loopback_and_its_own_first() {
    let outside = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = outside.local_addr().unwrap();
    let fabric = fabric();
    let name = NamespaceConfig::new("default/on-host", pod_ip(2), "on-host");
    let config = NamespaceConfig {
        host_network: true,
        ..name
    };
    let scope = fabric.create_namespace(config).unwrap().scope();
    let near = scope.connect_tcp(to).await.unwrap();
    let (mut far, _) = outside.accept().await.unwrap();
    near.write_bytes(Bytes::from_static(b"hello"))
        .await
        .unwrap();
    near.shutdown_write();
    let mut text = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut far, &mut text)
        .await
        .unwrap();
    assert_eq!(text, "hello");

    let listener = scope.listen_tcp(any(to.port()), 8).unwrap();
    let _near = scope.connect_tcp(to).await.unwrap();
    listener.accept().await.unwrap();
    let other = pod(&fabric, 3).scope();
    let refused = other.connect_tcp(to).await.unwrap_err();
    assert_eq!(refused, NetError::ConnectionRefused(to), "its own loopback");
}
