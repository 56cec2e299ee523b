//! What goes wrong on a network, by the same seams as what goes right.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// All of these addresses, in this order, for the Service at [`vip`] 80.
struct Endpoints(Vec<SocketAddr>);

impl ServiceRouter for Endpoints {
    fn route(&self, _from: IpAddr, to: SocketAddr, _protocol: Protocol) -> Route {
        match to == vip(80) {
            true => Route::Endpoints(self.0.clone()),
            false => Route::NotAService,
        }
    }
}

/// Allows everything, and does something first: when it is asked, an endpoint has been picked and
/// not yet been connected to.
struct Meanwhile(Mutex<Box<dyn FnMut(SocketAddr) + Send>>);

impl Meanwhile {
    fn new(what: impl FnMut(SocketAddr) + Send + 'static) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Box::new(what))))
    }
}

impl ConnectionPolicy for Meanwhile {
    fn on_connect(&self, _from: IpAddr, to: SocketAddr, _protocol: Protocol) -> Verdict {
        (*self.0.lock())(to);
        Verdict::Allow
    }

    fn on_accept(&self, _from: IpAddr, _to: SocketAddr, _protocol: Protocol) -> Verdict {
        Verdict::Allow
    }
}

/// A pod that listens.
type Server = (Arc<NetworkNamespace>, TcpListener);

/// A Service of pods 3, 4 and 5 that listen, and pod 2 that will connect.
fn three_endpoints() -> (Arc<Fabric>, SocketScope, Vec<Server>) {
    let fabric = fabric();
    let endpoints = vec![at(3, 80), at(4, 80), at(5, 80)];
    fabric.set_router(Arc::new(Endpoints(endpoints)));
    let client = pod(&fabric, 2).scope();
    let servers = [3, 4, 5].map(|last| {
        let server = pod(&fabric, last);
        let listener = server.scope().listen_tcp(any(80), 8).unwrap();
        (server, listener)
    });
    (fabric, client, servers.into())
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_whose_pod_dies_between_pick_and_connect_is_passed_over() {
    let (fabric, client, servers) = three_endpoints();
    let [first, second, third] = servers.try_into().expect("three");
    let mut dying = vec![first, second];
    fabric.set_policy(Meanwhile::new(move |to| {
        // The pod goes, its listener with it.
        if let Some(dead) = dying.iter().position(|(pod, _)| pod.address() == to.ip()) {
            let (pod, listener) = dying.remove(dead);
            pod.close();
            drop(listener);
        }
    }));
    let near = client.connect_tcp(vip(80)).await.unwrap();
    let far = third.1.accept().await.unwrap();
    assert_eq!((near.peer_addr(), far.local_addr()), (vip(80), at(5, 80)));
    assert_eq!(far.peer_addr().ip(), pod_ip(2));
    near.write_bytes(Bytes::from_static(b"hello"))
        .await
        .unwrap();
    assert_eq!(&far.read_bytes(64).await.unwrap()[..], b"hello");
    // Only what could not be had anywhere is a failure.
    let counts = client.namespace().traffic().connections;
    assert_eq!((counts.opened, counts.failed), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_stops_listening_between_pick_and_connect_is_passed_over() {
    let (fabric, client, mut servers) = three_endpoints();
    let (_, listener) = servers.remove(0);
    let mut listener = Some(listener);
    fabric.set_policy(Meanwhile::new(move |_| drop(listener.take())));
    let _near = client.connect_tcp(vip(80)).await.unwrap();
    assert_eq!(servers[0].1.accept().await.unwrap().local_addr(), at(4, 80));
}

#[tokio::test(start_paused = true)]
async fn when_all_endpoints_die_the_connect_is_refused_and_everything_is_given_back() {
    let (fabric, client, servers) = three_endpoints();
    let mut servers = Some(servers);
    fabric.set_policy(Meanwhile::new(move |_| {
        for (pod, _) in servers.take().into_iter().flatten() {
            pod.close();
        }
    }));
    assert!(matches!(
        client.connect_tcp(vip(80)).await,
        Err(NetError::ConnectionRefused(_))
    ));
    let pod = client.namespace();
    assert_eq!((pod.sockets(), pod.ports().len()), (0, 0));
    assert_eq!(pod.traffic().connections.failed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_endpoint_that_dies_lets_who_waits_go_on_to_the_next() {
    let (_fabric, client, mut servers) = three_endpoints();
    // Nobody has room.
    let mut occupants = Vec::new();
    for last in [3, 4, 5] {
        for _ in 0..8 {
            occupants.push(client.connect_tcp(at(last, 80)).await.unwrap());
        }
    }
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.connect_tcp(vip(80)).await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    let (_, second) = servers.remove(1);
    let accepted = second.accept().await.unwrap();
    drop(servers.remove(0));
    let near = waiting.await.unwrap().unwrap();
    near.write_bytes(Bytes::from_static(b"late")).await.unwrap();
    let mut late = None;
    while let Some(stream) = second.waiting() {
        late = Some(stream);
    }
    let late = late.expect("the one who waited");
    assert_eq!(&late.read_bytes(64).await.unwrap()[..], b"late");
    drop(accepted);
}

#[tokio::test(start_paused = true)]
async fn a_reset_in_mid_stream_wakes_a_writer_that_waits_and_frees_what_was_queued() {
    let fabric = fabric();
    let (client, server) = (pod(&fabric, 2), pod(&fabric, 3));
    let listener = server.scope().listen_tcp(any(80), 8).unwrap();
    let mut near = client.scope().connect_tcp(at(3, 80)).await.unwrap();
    let far = listener.accept().await.unwrap();
    let mut writer = near.clone();
    let sending = tokio::spawn(async move { writer.write_all(&vec![7; 1_000_000]).await });
    while far.read_bytes(1000).await.unwrap().len() + server.buffered_bytes() < 100_000 {}
    assert!(!sending.is_finished());
    drop(far);
    let error = sending.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    // It was told; now it is the end.
    assert_eq!(near.read(&mut [0; 8]).await.unwrap(), 0);
    let error = near.write(b"x").await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    assert_eq!(server.buffered_bytes(), 0);
    assert_eq!(server.traffic().connections.reset, 1);
}

#[tokio::test(start_paused = true)]
async fn a_reset_in_mid_stream_wakes_a_reader_that_waits() {
    let (client, server) = connected(&fabric()).await;
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.read_bytes(1).await }
    });
    tokio::task::yield_now().await;
    server.reset();
    assert_eq!(waiting.await.unwrap(), Err(NetError::ConnectionReset));
}

/// A pod that reads nothing costs its budget, plus a little for each connection, whatever it is sent.
#[tokio::test(start_paused = true)]
async fn a_pod_that_never_reads_is_sent_no_more_than_its_budget() {
    const CONNECTIONS: usize = 64;
    let fabric = fabric();
    let limits = Limits {
        buffered_bytes: 1 << 20,
        ..Limits::default()
    };
    let (client, server) = (pod(&fabric, 2), pod_with(&fabric, 3, limits));
    let listener = server.scope().listen_tcp(any(80), CONNECTIONS).unwrap();
    let mut ends = Vec::new();
    let sent = Arc::new(AtomicUsize::new(0));
    for _ in 0..CONNECTIONS {
        let near = client.scope().connect_tcp(at(3, 80)).await.unwrap();
        let far = listener.accept().await.unwrap();
        let sent = sent.clone();
        let sending = tokio::spawn(async move {
            let block = Bytes::from(vec![0; 10_000]);
            while near.write_bytes(block.clone()).await.is_ok() {
                sent.fetch_add(block.len(), Ordering::Relaxed);
            }
        });
        ends.push((far, sending));
    }
    // Under the paused clock this passes once all writers wait.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(ends.iter().all(|(_, sending)| !sending.is_finished()));
    let bound =
        limits.buffered_bytes + limits.stream_buffer + CONNECTIONS * Limits::MIN_STREAM_BUFFER;
    let held = server.buffered_bytes();
    assert!((limits.buffered_bytes..=bound).contains(&held), "{held}");
    // What the writers believe to be sent is what is held, but for what each has begun.
    let told = sent.load(Ordering::Relaxed);
    assert!(
        (told..=told + CONNECTIONS * 10_000).contains(&held),
        "{told} {held}"
    );
    // The slow reader is no other pod's business, and reading one connection gives room to it.
    let other = pod(&fabric, 4).scope().listen_tcp(any(80), 8).unwrap();
    let near = client.scope().connect_tcp(at(4, 80)).await.unwrap();
    near.write_bytes(Bytes::from(vec![1; 100_000]))
        .await
        .unwrap();
    assert_eq!(
        other
            .accept()
            .await
            .unwrap()
            .read_bytes(5)
            .await
            .unwrap()
            .len(),
        5
    );
    drop(std::mem::take(&mut ends));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(server.buffered_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn lost_messages_are_counted_and_those_after_them_arrive() {
    let fabric = fabric();
    let limits = Limits {
        datagrams: 4,
        ..Limits::default()
    };
    let (client, server) = (pod(&fabric, 2), pod_with(&fabric, 3, limits));
    let sender = client.scope().bind_udp(any(0)).unwrap();
    let receiver = server.scope().bind_udp(any(53)).unwrap();
    let send = |text: String| sender.send_to(Bytes::from(text), at(3, 53)).unwrap();
    for n in 0..10 {
        send(n.to_string());
    }
    assert_eq!(server.traffic().dropped_datagrams, 6);
    for n in 0..4 {
        assert_eq!(receiver.recv().await.data, n.to_string());
    }
    assert!(is_pending(receiver.poll_recv(&mut context())));
    send("after".into());
    assert_eq!(receiver.recv().await.data, "after");
    // Nobody there is as good as lost; the answer to who was there and has gone, too.
    let late = receiver.local_addr().port();
    drop(receiver);
    send("nobody".into());
    let again = server.scope().bind_udp(any(late)).unwrap();
    assert!(is_pending(again.poll_recv(&mut context())));
    send("somebody".into());
    assert_eq!(again.recv().await.data, "somebody");
    assert_eq!(server.buffered_bytes(), 0);
}

/// Another node, which has these pods and never answers.
struct Silent(Vec<IpAddr>);

#[async_trait::async_trait]
impl crate::route::RemoteNodes for Silent {
    fn reaches(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    async fn open(
        &self,
        _from: SocketAddr,
        _to: SocketAddr,
    ) -> Result<Arc<dyn crate::route::StreamHandler>, NetError> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_endpoint_leaves_time_for_the_next() {
    let (fabric, client, servers) = three_endpoints();
    fabric.set_remote_nodes(Arc::new(Silent(vec![pod_ip(13), pod_ip(14)])));
    let begun = fabric.clock().monotonic();
    let leads_to = |endpoints: &[SocketAddr]| {
        fabric.set_router(Arc::new(Endpoints(endpoints.to_vec())));
    };
    leads_to(&[at(13, 80), at(14, 80), at(3, 80)]);
    let connected = client.connect_tcp(vip(80)).await.unwrap();
    assert_eq!(connected.path().endpoint, at(3, 80));
    let took = || fabric.clock().monotonic().saturating_sub(begun).as_secs();
    assert_eq!(took(), 20, "two of three shares");

    leads_to(&[at(13, 80), at(14, 80)]);
    let nobody = client.connect_tcp(vip(80)).await.unwrap_err();
    assert!(matches!(nobody, NetError::TimedOut(_)), "{nobody}");
    assert_eq!(took(), 50);
    drop(servers);
}
