//! Where connects lead: Services, handlers, policies, and nowhere.

use std::net::{Ipv4Addr, SocketAddr};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// One Service at [`vip`] port 80.
struct OneService(Route);

impl ServiceRouter for OneService {
    fn route(&self, _from: IpAddr, to: SocketAddr, protocol: Protocol) -> Route {
        if to == vip(80) && protocol == Protocol::Tcp {
            self.0.clone()
        } else {
            Route::NotAService
        }
    }
}

fn leads_to(fabric: &Fabric, endpoint: SocketAddr) {
    fabric.set_router(Arc::new(OneService(Route::Endpoints(vec![endpoint]))));
}

fn with_endpoints(endpoints: &[SocketAddr]) -> Arc<Fabric> {
    let fabric = fabric();
    fabric.set_router(Arc::new(OneService(Route::Endpoints(endpoints.to_vec()))));
    fabric
}

#[tokio::test(start_paused = true)]
async fn a_service_shows_its_own_address_to_the_client_and_the_pods_to_the_server() {
    let fabric = with_endpoints(&[at(3, 8080)]);
    let (client, server) = (pod(&fabric, 2).scope(), pod(&fabric, 3).scope());
    let listener = server.listen_tcp(any(8080), 8).unwrap();
    let near = client.connect_tcp(vip(80)).await.unwrap();
    let far = listener.accept().await.unwrap();
    assert_eq!(near.peer_addr(), vip(80));
    assert_eq!(far.local_addr(), at(3, 8080));
    assert_eq!(far.peer_addr().ip(), pod_ip(2));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_refuses_or_is_gone_or_full_is_passed_over() {
    let fabric = with_endpoints(&[at(9, 1), at(3, 1), at(4, 1), at(5, 1)]);
    let client = pod(&fabric, 2).scope();
    let _refusing = pod(&fabric, 3);
    let (full, free) = (pod(&fabric, 4).scope(), pod(&fabric, 5).scope());
    let _full = full.listen_tcp(any(1), 1).unwrap();
    let _occupant = client.connect_tcp(at(4, 1)).await.unwrap();
    let listener = free.listen_tcp(any(1), 8).unwrap();
    let _near = client.connect_tcp(vip(80)).await.unwrap();
    assert_eq!(listener.accept().await.unwrap().local_addr(), at(5, 1));
}

#[tokio::test(start_paused = true)]
async fn a_pod_reaches_itself_through_its_service() {
    let fabric = with_endpoints(&[at(2, 80)]);
    let scope = pod(&fabric, 2).scope();
    let listener = scope.listen_tcp(any(80), 8).unwrap();
    let _near = scope.connect_tcp(vip(80)).await.unwrap();
    assert_eq!(listener.accept().await.unwrap().peer_addr().ip(), pod_ip(2));
}

#[tokio::test(start_paused = true)]
async fn cluster_addresses_that_nobody_holds_never_leave_the_node() {
    let fabric = fabric();
    let scope = pod(&fabric, 2).scope();
    for unreachable in [at(77, 80), vip(80), "10.255.1.1:80".parse().unwrap()] {
        assert_eq!(
            scope.connect_tcp(unreachable).await.unwrap_err(),
            NetError::HostUnreachable(unreachable)
        );
    }
    let node = SocketAddr::new(NODE, 80);
    assert_eq!(
        scope.connect_tcp(node).await.unwrap_err(),
        NetError::ConnectionRefused(node)
    );
    fabric.set_router(Arc::new(OneService(Route::Refuse)));
    assert_eq!(
        scope.connect_tcp(vip(80)).await.unwrap_err(),
        NetError::ConnectionRefused(vip(80))
    );
}

#[tokio::test]
async fn the_host_is_closed_to_pods_also_by_way_of_a_service() {
    let outside = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = outside.local_addr().unwrap().port();
    let loopback = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let fabric = with_endpoints(&[loopback, "169.254.169.254:80".parse().unwrap()]);
    let scope = pod(&fabric, 2).scope();
    let denied = |result: Result<TcpStream, NetError>| {
        assert!(matches!(result, Err(NetError::Denied { .. })), "{result:?}");
    };
    denied(scope.connect_tcp(vip(80)).await);
    denied(
        scope
            .connect_tcp("169.254.169.254:80".parse().unwrap())
            .await,
    );
    denied(
        scope
            .connect_tcp("[::ffff:169.254.169.254]:80".parse().unwrap())
            .await,
    );
    denied(fabric.dial(loopback).await);
    // The pod's loopback is its own, in every form.
    for own in [
        loopback,
        format!("[::ffff:127.0.0.1]:{port}").parse().unwrap(),
    ] {
        let error = scope.connect_tcp(own).await.unwrap_err();
        assert_eq!(error, NetError::ConnectionRefused(loopback));
    }
    let zero = scope.connect_tcp(any(port)).await.unwrap_err();
    assert!(matches!(zero, NetError::InvalidArgument(_)));
}

#[tokio::test(start_paused = true)]
async fn a_handler_serves_connections_inside_the_process() {
    let fabric = fabric();
    let address = SocketAddr::new(NODE, 6443);
    fabric.set_handler(
        address,
        Arc::new(|mut stream: TcpStream| {
            tokio::spawn(async move {
                let text = format!("hello {}", stream.peer_addr().ip());
                stream.write_all(text.as_bytes()).await
            });
        }),
    );
    let scope = pod(&fabric, 2).scope();
    let mut text = String::new();
    scope
        .connect_tcp(address)
        .await
        .unwrap()
        .read_to_string(&mut text)
        .await
        .unwrap();
    assert_eq!(text, "hello 10.240.0.2");
    fabric.remove_handler(address);
    assert!(scope.connect_tcp(address).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_node_dials_pods_services_and_loopbacks() {
    let fabric = with_endpoints(&[at(2, 80)]);
    let namespace = pod(&fabric, 2);
    let listener = namespace.scope().listen_tcp(any(80), 8).unwrap();
    for to in [at(2, 80), vip(80)] {
        let near = fabric.dial(to).await.unwrap();
        assert_eq!(near.peer_addr(), to);
        assert_eq!(listener.accept().await.unwrap().peer_addr().ip(), NODE);
    }
    let _forwarded = namespace.dial_loopback(80).await.unwrap();
    let far = listener.accept().await.unwrap();
    assert_eq!(far.peer_addr().ip(), IpAddr::from(Ipv4Addr::LOCALHOST));
    let _reached = namespace.dial(80).await.unwrap();
    assert_eq!(listener.accept().await.unwrap().peer_addr().ip(), NODE);
    drop(listener);
    assert!(namespace.dial_loopback(80).await.is_err());
    // What is for the pod alone is there for who forwards a port, and for nobody else.
    let loopback = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 80);
    let _listener = namespace.scope().listen_tcp(loopback, 8).unwrap();
    namespace.dial_loopback(80).await.unwrap();
    let refused = namespace.dial(80).await.unwrap_err();
    assert_eq!(refused, NetError::ConnectionRefused(at(2, 80)));
}

/// Denies everything that `2` starts and everything that arrives at `3`.
struct Strict;

impl ConnectionPolicy for Strict {
    fn on_connect(&self, from: IpAddr, _to: SocketAddr, _protocol: Protocol) -> Verdict {
        verdict(from != pod_ip(2), "egress")
    }

    fn on_accept(&self, _from: IpAddr, to: SocketAddr, _protocol: Protocol) -> Verdict {
        verdict(to.ip() != pod_ip(3), "ingress")
    }
}

fn verdict(allowed: bool, reason: &str) -> Verdict {
    if allowed {
        Verdict::Allow
    } else {
        Verdict::Deny {
            reason: reason.to_owned(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_is_asked_at_connect_and_at_accept_but_not_about_the_node() {
    let fabric = fabric();
    let (second, third, fourth) = (pod(&fabric, 2), pod(&fabric, 3), pod(&fabric, 4));
    let _third = third.scope().listen_tcp(any(80), 8).unwrap();
    let _fourth = fourth.scope().listen_tcp(any(80), 8).unwrap();
    fabric.set_policy(Arc::new(Strict));
    let denied = |ip, reason: &str| NetError::Denied {
        address: ip,
        reason: reason.to_owned(),
    };
    assert_eq!(
        second.scope().connect_tcp(at(4, 80)).await.unwrap_err(),
        denied(pod_ip(4), "egress")
    );
    assert_eq!(
        fourth.scope().connect_tcp(at(3, 80)).await.unwrap_err(),
        denied(pod_ip(3), "ingress")
    );
    third.scope().connect_tcp(at(4, 80)).await.unwrap();
    fabric.dial(at(3, 80)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_kept_is_judged_as_a_new_one_would_be() {
    let fabric = with_endpoints(&[at(3, 80)]);
    let (second, third, fourth) = (pod(&fabric, 2), pod(&fabric, 3), pod(&fabric, 4));
    let _third = third.scope().listen_tcp(any(80), 8).unwrap();
    let by_service = fourth.scope().connect_tcp(vip(80)).await.unwrap().path();
    let direct = second.scope().connect_tcp(at(3, 80)).await.unwrap().path();
    let own = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 80);
    let own = third.scope().connect_tcp(own).await.unwrap().path();
    let judged = || {
        [
            fourth.scope().could_connect(&by_service),
            second.scope().could_connect(&direct),
            third.scope().could_connect(&own),
        ]
    };
    assert_eq!(judged(), [true, true, true]);
    leads_to(&fabric, at(2, 80));
    assert_eq!(judged(), [false, true, true]);
    leads_to(&fabric, at(3, 80));
    fabric.set_policy(Arc::new(Strict));
    assert_eq!(judged(), [false, false, true]);
}

/// Knows one absolute name, and fails for another.
struct OneName;

#[async_trait]
impl Resolver for OneName {
    async fn lookup(
        &self,
        from: NamespaceView<'_>,
        name: &str,
    ) -> Result<Vec<IpAddr>, ResolveError> {
        assert_eq!(from.pod, "default/pod-2");
        match name {
            "api.default.svc.cluster.local" => Ok(vec![vip(0).ip()]),
            "broken" => Err(ResolveError::Again(name.to_owned())),
            _ => Err(ResolveError::NotFound(name.to_owned())),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn names_come_from_the_hosts_file_and_then_from_the_resolver() {
    let fabric = fabric();
    fabric.set_resolver(Arc::new(OneName));
    let alias: IpAddr = Ipv4Addr::new(192, 0, 2, 7).into();
    let namespace = fabric
        .create_namespace(NamespaceConfig {
            host_aliases: vec![(alias, vec!["legacy".into()])],
            dns: DnsConfig {
                searches: vec!["default.svc.cluster.local".into()],
                options: vec!["ndots:5".into()],
                ..DnsConfig::default()
            },
            ..NamespaceConfig::new("default/pod-2", pod_ip(2), "pod-2")
        })
        .unwrap();
    assert_eq!(namespace.lookup("API").await.unwrap(), [vip(0).ip()]);
    assert_eq!(
        namespace
            .lookup("api.default.svc.cluster.local.")
            .await
            .unwrap(),
        [vip(0).ip()]
    );
    assert_eq!(namespace.lookup("legacy").await.unwrap(), [alias]);
    assert_eq!(namespace.lookup("pod-2").await.unwrap(), [pod_ip(2)]);
    assert_eq!(
        namespace.lookup("10.1.2.3").await.unwrap(),
        ["10.1.2.3".parse::<IpAddr>().unwrap()]
    );
    assert_eq!(
        namespace.lookup("none").await,
        Err(ResolveError::NotFound("none".into()))
    );
    assert_eq!(
        namespace.lookup("broken").await,
        Err(ResolveError::Again("broken".into()))
    );
    assert!(matches!(
        namespace.lookup("a b").await,
        Err(ResolveError::InvalidName(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn an_address_belongs_to_one_pod() {
    let fabric = fabric();
    let _held = pod(&fabric, 2);
    for taken in [pod_ip(2), NODE] {
        let again = fabric.create_namespace(NamespaceConfig::new("default/b", taken, "b"));
        assert!(matches!(again, Err(NetError::AddressInUse(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_connect_gives_port_and_socket_back() {
    let fabric = fabric();
    let (client, server) = (pod(&fabric, 2), pod(&fabric, 3).scope());
    let _listener = server.listen_tcp(any(80), 1).unwrap();
    let first = client.scope().connect_tcp(at(3, 80)).await.unwrap();
    let waiting = tokio::spawn({
        let scope = client.scope();
        async move { scope.connect_tcp(at(3, 80)).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(client.sockets(), 2);
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    assert_eq!(client.sockets(), 1);
    first.write_bytes(Bytes::from_static(b"x")).await.unwrap();
}
