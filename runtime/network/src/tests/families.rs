//! Pods that have an address of each family.

use bytes::Bytes;

use super::*;

fn ip6(last: u8) -> IpAddr {
    format!("fd00:10:240::{last}").parse().unwrap()
}

fn at6(last: u8, port: u16) -> SocketAddr {
    SocketAddr::new(ip6(last), port)
}

fn any6(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), port)
}

fn loopback6(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), port)
}

fn dual_fabric() -> Arc<Fabric> {
    let mut config = config();
    config.second_node_address = Some(ip6(1));
    config.pod_ranges.push("fd00:10:240::/64".parse().unwrap());
    Fabric::new(config, Clock::fake(1))
}

fn dual(fabric: &Arc<Fabric>, last: u8) -> Arc<NetworkNamespace> {
    let name = format!("pod-{last}");
    let mut config = NamespaceConfig::new(format!("default/{name}"), pod_ip(last), name);
    config.second_address = Some(ip6(last));
    fabric.create_namespace(config).unwrap()
}

#[tokio::test(start_paused = true)]
async fn pods_reach_each_other_by_both_addresses_and_see_the_right_peer() {
    let fabric = dual_fabric();
    let (client, server) = (dual(&fabric, 2).scope(), dual(&fabric, 3).scope());
    let four = server.listen_tcp(any(80), 8).unwrap();
    // As with IPV6_V6ONLY the same port is another one.
    let six = server.listen_tcp(any6(80), 8).unwrap();
    let near = client.connect_tcp(at6(3, 80)).await.unwrap();
    let far = six.accept().await.unwrap();
    assert_eq!(near.local_addr().ip(), ip6(2));
    assert_eq!(far.peer_addr(), near.local_addr());
    assert_eq!(far.local_addr(), at6(3, 80));
    let near = client.connect_tcp(at(3, 80)).await.unwrap();
    assert_eq!(near.local_addr().ip(), pod_ip(2));
    assert_eq!(four.accept().await.unwrap().peer_addr(), near.local_addr());
}

/// Leads to the first pod of those by the client's address.
struct ByClient(Vec<(IpAddr, SocketAddr)>);

impl ServiceRouter for ByClient {
    fn route(&self, from: IpAddr, _to: SocketAddr, _protocol: Protocol) -> Route {
        let endpoint = self.0.iter().find(|(client, _)| *client == from);
        endpoint.map_or(Route::Refuse, |(_, endpoint)| {
            Route::Endpoints(vec![*endpoint])
        })
    }
}

#[tokio::test(start_paused = true)]
async fn services_know_a_client_by_its_address_of_the_family_that_it_dials() {
    let fabric = dual_fabric();
    let (client, server) = (dual(&fabric, 2).scope(), dual(&fabric, 3).scope());
    let clients = vec![(ip6(2), at6(3, 80)), (pod_ip(2), at(3, 80))];
    fabric.set_router(Arc::new(ByClient(clients)));
    let _four = server.listen_tcp(any(80), 8).unwrap();
    let six = server.listen_tcp(any6(80), 8).unwrap();
    let service = SocketAddr::new("fd00:10:96::7".parse().unwrap(), 80);
    let near = client.connect_tcp(service).await.unwrap();
    assert_eq!(near.local_addr().ip(), ip6(2));
    assert_eq!(six.accept().await.unwrap().peer_addr(), near.local_addr());
}

#[tokio::test(start_paused = true)]
async fn a_pod_binds_its_own_addresses_of_both_families_and_no_others() {
    let fabric = dual_fabric();
    let scope = dual(&fabric, 2).scope();
    for own in [any6(81), loopback6(82), at6(2, 83), at(2, 84)] {
        scope.listen_tcp(own, 1).unwrap();
        scope.bind_udp(own).unwrap();
    }
    let foreign = scope.listen_tcp(at6(3, 80), 1).unwrap_err();
    assert_eq!(foreign, NetError::AddressNotBindable(at6(3, 80)));
    let _held = scope.listen_tcp(any6(80), 1).unwrap();
    let twice = scope.listen_tcp(at6(2, 80), 1).unwrap_err();
    assert_eq!(twice, NetError::AddressInUse(at6(2, 80)));

    let fabric = super::fabric();
    let single = pod(&fabric, 2).scope();
    for missing in [any6(81), loopback6(82)] {
        let error = single.listen_tcp(missing, 1).unwrap_err();
        assert_eq!(error, NetError::AddressNotBindable(missing));
    }
}

#[tokio::test(start_paused = true)]
async fn the_loopback_has_both_families_too() {
    let fabric = dual_fabric();
    let namespace = dual(&fabric, 2);
    let scope = namespace.scope();
    let six = scope.listen_tcp(loopback6(80), 8).unwrap();
    let near = scope.connect_tcp(loopback6(80)).await.unwrap();
    assert_eq!(near.local_addr().ip(), loopback6(0).ip());
    six.accept().await.unwrap();
    let four = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 80);
    let refused = scope.connect_tcp(four).await.unwrap_err();
    assert_eq!(refused, NetError::ConnectionRefused(four));
    let _near = namespace.dial_loopback(80).await.unwrap();
    six.accept().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_listener_may_serve_both_families() {
    let fabric = dual_fabric();
    let (client, server) = (dual(&fabric, 2).scope(), dual(&fabric, 3));
    let listener = server.scope().listen_tcp_anywhere(80, 8).unwrap();
    for to in [at(3, 80), at6(3, 80)] {
        let _near = client.connect_tcp(to).await.unwrap();
        assert_eq!(listener.accept().await.unwrap().local_addr(), to);
    }
    assert_eq!(server.listening(), [any(80), any6(80)]);
    drop(listener);
    assert!(server.listening().is_empty());
    let refused = client.connect_tcp(at6(3, 80)).await.unwrap_err();
    assert_eq!(refused, NetError::ConnectionRefused(at6(3, 80)));
}

#[tokio::test(start_paused = true)]
async fn sockets_keep_to_their_family() {
    let fabric = dual_fabric();
    let scope = dual(&fabric, 2).scope();
    let mut bound = scope.tcp_socket().unwrap();
    bound.bind(any(0)).unwrap();
    let mixed = bound.connect(at6(3, 80)).await.unwrap_err();
    assert!(matches!(mixed, NetError::InvalidArgument(_)), "{mixed}");
    let udp = scope.bind_udp(any6(0)).unwrap();
    let mixed = udp
        .send_to(Bytes::from_static(b"x"), at(3, 53))
        .unwrap_err();
    assert!(matches!(mixed, NetError::InvalidArgument(_)), "{mixed}");
}

#[tokio::test(start_paused = true)]
async fn datagrams_and_the_node_have_both_families() {
    let fabric = dual_fabric();
    let (client, server) = (dual(&fabric, 2).scope(), dual(&fabric, 3).scope());
    let inbox = server.bind_udp(any6(53)).unwrap();
    let asks = client.bind_udp(any6(0)).unwrap();
    asks.send_to(Bytes::from_static(b"question"), at6(3, 53))
        .unwrap();
    let from = inbox.recv().await.from;
    assert_eq!(from.ip(), ip6(2));

    let listener = server.listen_tcp(any6(80), 8).unwrap();
    let near = fabric.dial(at6(3, 80)).await.unwrap();
    assert_eq!(near.local_addr().ip(), ip6(1));
    listener.accept().await.unwrap();
    let nobody = client.connect_tcp(at6(1, 80)).await.unwrap_err();
    assert_eq!(nobody, NetError::ConnectionRefused(at6(1, 80)));
}

#[tokio::test(start_paused = true)]
async fn both_addresses_are_taken_and_given_back_together() {
    let fabric = dual_fabric();
    let first = dual(&fabric, 2);
    let mut config = NamespaceConfig::new("default/other", pod_ip(9), "other");
    config.second_address = Some(ip6(2));
    let taken = fabric.create_namespace(config.clone()).unwrap_err();
    assert_eq!(taken, NetError::AddressInUse(at6(2, 0)));
    assert!(
        fabric.namespace(pod_ip(9)).is_none(),
        "nothing is half done"
    );
    first.close();
    fabric.create_namespace(config).unwrap();
    assert!(fabric.namespace(ip6(2)).is_some());
}
