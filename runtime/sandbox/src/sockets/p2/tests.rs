//! The interfaces as a guest would call them, without a guest.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use coracle_clock::Clock;
use coracle_network::{
    Fabric, FabricConfig, Limits, NamespaceConfig, NamespaceView, NetworkNamespace, ResolveError,
    Resolver,
};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, Pollable, StreamError};

use super::bindings::wasi::sockets::instance_network::Host as _;
use super::bindings::wasi::sockets::ip_name_lookup::{Host as _, HostResolveAddressStream as _};
use super::bindings::wasi::sockets::network::{Host as _, IpAddress};
use super::bindings::wasi::sockets::tcp::{HostTcpSocket as _, ShutdownType};
use super::bindings::wasi::sockets::tcp_create_socket::Host as _;
use super::bindings::wasi::sockets::udp::{
    HostIncomingDatagramStream as _, HostOutgoingDatagramStream as _, OutgoingDatagram,
};
use super::bindings::wasi::sockets::udp_create_socket::Host as _;
use super::tcp::TcpSocket;
use super::udp::{Incoming, Outgoing, UdpSocket};
use super::*;

/// What a store would hold.
struct Guest {
    scope: SocketScope,
    table: ResourceTable,
}

impl Guest {
    fn view(&mut self) -> SocketsView<'_> {
        SocketsView {
            scope: &self.scope,
            table: &mut self.table,
        }
    }

    fn network(&mut self) -> Resource<Network> {
        self.view().instance_network().unwrap()
    }

    fn tcp(&mut self) -> Resource<TcpSocket> {
        self.view()
            .create_tcp_socket(IpAddressFamily::Ipv4)
            .unwrap()
    }

    fn listen(&mut self, port: u16) -> Resource<TcpSocket> {
        let (socket, network) = (self.tcp(), self.network());
        self.view()
            .start_bind(again(&socket), network, address([0, 0, 0, 0], port))
            .unwrap();
        self.view().finish_bind(again(&socket)).unwrap();
        self.view().start_listen(again(&socket)).unwrap();
        self.view().finish_listen(again(&socket)).unwrap();
        socket
    }

    fn connect(
        &mut self,
        to: IpSocketAddress,
    ) -> Result<(Resource<TcpSocket>, Streams), ErrorCode> {
        let (socket, network) = (self.tcp(), self.network());
        self.view()
            .start_connect(again(&socket), network, to)
            .map_err(code)?;
        let (input, output) = self.view().finish_connect(again(&socket)).map_err(code)?;
        Ok((socket, Streams { input, output }))
    }

    fn udp(&mut self, port: u16) -> Resource<UdpSocket> {
        let socket = self
            .view()
            .create_udp_socket(IpAddressFamily::Ipv4)
            .unwrap();
        let network = self.network();
        let any = address([0, 0, 0, 0], port);
        udp_host::HostUdpSocket::start_bind(&mut self.view(), again(&socket), network, any)
            .unwrap();
        udp_host::HostUdpSocket::finish_bind(&mut self.view(), again(&socket)).unwrap();
        socket
    }

    fn streams(
        &mut self,
        socket: &Resource<UdpSocket>,
        peer: Option<IpSocketAddress>,
    ) -> (Resource<Incoming>, Resource<Outgoing>) {
        udp_host::HostUdpSocket::stream(&mut self.view(), again(socket), peer).unwrap()
    }

    fn write(&mut self, streams: &Streams, text: &'static str) {
        let output = self.table.get_mut(&streams.output).unwrap();
        assert!(output.check_write().unwrap() >= text.len());
        output.write(text.into()).unwrap();
    }

    fn read(&mut self, streams: &Streams) -> Result<String, StreamError> {
        let bytes = self.table.get_mut(&streams.input).unwrap().read(1000)?;
        Ok(String::from_utf8(bytes.to_vec()).unwrap())
    }
}

struct Streams {
    input: Resource<DynInputStream>,
    output: Resource<DynOutputStream>,
}

/// Another handle of the same resource, as each call of a guest brings one.
fn again<T: 'static>(resource: &Resource<T>) -> Resource<T> {
    Resource::new_borrow(resource.rep())
}

fn code(error: SocketError) -> ErrorCode {
    error.downcast().expect("an error code, not a trap")
}

fn address(ip: [u8; 4], port: u16) -> IpSocketAddress {
    IpSocketAddress::Ipv4(Ipv4SocketAddress {
        port,
        address: ip.into(),
    })
}

fn fabric() -> Arc<Fabric> {
    Fabric::new(
        FabricConfig {
            pod_ranges: vec!["10.240.0.0/12".parse().unwrap()],
            ..FabricConfig::new(Ipv4Addr::new(10, 240, 0, 1).into())
        },
        Clock::fake(1),
    )
}

fn namespace(fabric: &Arc<Fabric>, last: u8, limits: Limits) -> Arc<NetworkNamespace> {
    let address = Ipv4Addr::new(10, 240, 0, last).into();
    let config = NamespaceConfig::new("default/test", address, "test");
    fabric
        .create_namespace(NamespaceConfig { limits, ..config })
        .unwrap()
}

fn guest(fabric: &Arc<Fabric>, last: u8) -> Guest {
    let scope = namespace(fabric, last, Limits::default()).scope();
    Guest {
        scope,
        table: ResourceTable::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn two_guests_talk() {
    let fabric = fabric();
    let (mut server, mut client) = (guest(&fabric, 2), guest(&fabric, 3));
    let listener = server.listen(80);
    assert_eq!(
        server.view().accept(again(&listener)).map_err(code).err(),
        Some(ErrorCode::WouldBlock)
    );
    let (socket, near) = client.connect(address([10, 240, 0, 2], 80)).unwrap();
    server.table.get_mut(&listener).unwrap().ready().await;
    let (accepted, input, output) = server.view().accept(again(&listener)).unwrap();
    let far = Streams { input, output };
    client.write(&near, "ping");
    server.table.get_mut(&far.input).unwrap().ready().await;
    assert_eq!(server.read(&far).unwrap(), "ping");
    assert_eq!(server.read(&far).unwrap(), "", "nothing more yet");
    server.write(&far, "pong");
    assert_eq!(client.read(&near).unwrap(), "pong");
    let seen = server.view().remote_address(again(&accepted)).unwrap();
    let own = client.view().local_address(again(&socket)).unwrap();
    assert_eq!(from_wasi(seen), from_wasi(own));
    client
        .view()
        .shutdown(again(&socket), ShutdownType::Send)
        .unwrap();
    assert!(matches!(server.read(&far), Err(StreamError::Closed)));
    let output = client.table.get_mut(&near.output).unwrap();
    assert!(matches!(output.check_write(), Err(StreamError::Closed)));
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_an_error_with_a_code() {
    let fabric = fabric();
    let (mut server, mut client) = (guest(&fabric, 2), guest(&fabric, 3));
    let listener = server.listen(80);
    let (_socket, near) = client.connect(address([10, 240, 0, 2], 80)).unwrap();
    client.write(&near, "unread");
    drop((listener, server));
    let Err(StreamError::LastOperationFailed(error)) = client.read(&near) else {
        panic!("a reset")
    };
    let error = client.table.push(error).unwrap();
    assert_eq!(
        client.view().network_error_code(error).unwrap(),
        Some(ErrorCode::ConnectionReset)
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_stream_announces_no_room_until_it_is_read() {
    let fabric = fabric();
    let (mut server, mut client) = (guest(&fabric, 2), guest(&fabric, 3));
    let listener = server.listen(80);
    let (_socket, near) = client.connect(address([10, 240, 0, 2], 80)).unwrap();
    let (_accepted, input, _output) = server.view().accept(again(&listener)).unwrap();
    let output = client.table.get_mut(&near.output).unwrap();
    loop {
        match output.check_write().unwrap() {
            0 => break,
            room => output.write(vec![0; room].into()).unwrap(),
        }
    }
    let input = server.table.get_mut(&input).unwrap();
    while !input.read(64 * 1024).unwrap().is_empty() {}
    output.write_ready().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn calls_out_of_order_have_the_codes_of_the_specification() {
    let fabric = fabric();
    let mut guest = guest(&fabric, 2);
    let network = guest.network();
    let net = || again(&network);
    let socket = guest.tcp();
    let s = || again(&socket);
    let any = || address([0, 0, 0, 0], 80);
    let mut view = guest.view();
    assert_eq!(
        view.finish_bind(s()).map_err(code),
        Err(ErrorCode::NotInProgress)
    );
    assert_eq!(
        view.start_listen(s()).map_err(code),
        Err(ErrorCode::InvalidState)
    );
    assert_eq!(
        view.local_address(s()).map_err(code).err(),
        Some(ErrorCode::InvalidState)
    );
    assert_eq!(
        view.accept(s()).map_err(code).err(),
        Some(ErrorCode::InvalidState)
    );
    assert_eq!(
        view.start_bind(s(), net(), address([10, 9, 9, 9], 80))
            .map_err(code),
        Err(ErrorCode::AddressNotBindable)
    );
    assert_eq!(
        view.start_bind(s(), net(), address([224, 0, 0, 1], 80))
            .map_err(code),
        Err(ErrorCode::InvalidArgument)
    );
    view.start_bind(s(), net(), any()).unwrap();
    assert_eq!(
        view.start_bind(s(), net(), any()).map_err(code),
        Err(ErrorCode::ConcurrencyConflict)
    );
    view.finish_bind(s()).unwrap();
    assert_eq!(
        view.start_bind(s(), net(), any()).map_err(code),
        Err(ErrorCode::InvalidState)
    );
    assert_eq!(
        view.set_listen_backlog_size(s(), 0).map_err(code),
        Err(ErrorCode::InvalidArgument)
    );
    assert_eq!(
        view.set_hop_limit(s(), 0).map_err(code),
        Err(ErrorCode::InvalidArgument)
    );
    view.set_keep_alive_idle_time(s(), 5_000_000_000).unwrap();
    assert_eq!(view.keep_alive_idle_time(s()).unwrap(), 5_000_000_000);
    view.start_listen(s()).unwrap();
    assert!(view.is_listening(s()).unwrap());
    assert_eq!(
        view.accept(s()).map_err(code).err(),
        Some(ErrorCode::InvalidState)
    );
    view.finish_listen(s()).unwrap();
    assert!(view.is_listening(s()).unwrap());
    assert_eq!(
        view.start_connect(s(), net(), address([10, 240, 0, 2], 80))
            .map_err(code),
        Err(ErrorCode::InvalidState)
    );
    assert_eq!(
        view.create_tcp_socket(IpAddressFamily::Ipv6)
            .map_err(code)
            .err(),
        Some(ErrorCode::NotSupported)
    );
    let second = guest.tcp();
    assert_eq!(
        guest
            .view()
            .start_bind(again(&second), net(), any())
            .map_err(code),
        Err(ErrorCode::AddressInUse)
    );
}

#[tokio::test(start_paused = true)]
async fn failed_connects_say_why() {
    let fabric = fabric();
    let mut guest = guest(&fabric, 2);
    for (ip, port, expected) in [
        ([10, 240, 0, 2], 81, ErrorCode::ConnectionRefused),
        ([127, 0, 0, 1], 81, ErrorCode::ConnectionRefused),
        ([10, 240, 0, 9], 81, ErrorCode::RemoteUnreachable),
        ([169, 254, 169, 254], 80, ErrorCode::AccessDenied),
        ([0, 0, 0, 0], 80, ErrorCode::InvalidArgument),
        ([10, 240, 0, 2], 0, ErrorCode::InvalidArgument),
    ] {
        assert_eq!(
            guest.connect(address(ip, port)).err(),
            Some(expected),
            "{ip:?}:{port}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_has_to_wait_is_finished_when_it_is_ready() {
    let fabric = fabric();
    let (mut server, mut client) = (guest(&fabric, 2), guest(&fabric, 3));
    let (listener, network) = (server.tcp(), server.network());
    server
        .view()
        .start_bind(again(&listener), network, address([0, 0, 0, 0], 80))
        .unwrap();
    server.view().finish_bind(again(&listener)).unwrap();
    server
        .view()
        .set_listen_backlog_size(again(&listener), 1)
        .unwrap();
    server.view().start_listen(again(&listener)).unwrap();
    server.view().finish_listen(again(&listener)).unwrap();
    let to = address([10, 240, 0, 2], 80);
    let _first = client.connect(to).unwrap();
    let (socket, network) = (client.tcp(), client.network());
    client
        .view()
        .start_connect(again(&socket), network, to)
        .unwrap();
    let waiting = client.view().finish_connect(again(&socket)).map_err(code);
    assert_eq!(waiting.err(), Some(ErrorCode::WouldBlock));
    server.view().accept(again(&listener)).unwrap();
    client.table.get_mut(&socket).unwrap().ready().await;
    client.view().finish_connect(again(&socket)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_socket_limit_is_the_pods() {
    let fabric = fabric();
    let limits = Limits {
        sockets: 2,
        ..Limits::default()
    };
    let scope = namespace(&fabric, 2, limits).scope();
    let mut guest = Guest {
        scope,
        table: ResourceTable::new(),
    };
    let first = guest.tcp();
    let _second = guest
        .view()
        .create_udp_socket(IpAddressFamily::Ipv4)
        .unwrap();
    let limit = Some(ErrorCode::NewSocketLimit);
    assert_eq!(
        guest
            .view()
            .create_tcp_socket(IpAddressFamily::Ipv4)
            .map_err(code)
            .err(),
        limit
    );
    assert_eq!(
        guest
            .view()
            .create_udp_socket(IpAddressFamily::Ipv4)
            .map_err(code)
            .err(),
        limit
    );
    let network = guest.network();
    let asked = guest
        .view()
        .resolve_addresses(network, "localhost".to_owned());
    assert_eq!(asked.map_err(code).err(), limit);
    guest.table.delete(first).unwrap();
    guest.tcp();
}

#[tokio::test(start_paused = true)]
async fn datagrams_go_to_the_peer_and_come_from_the_peer_only() {
    let fabric = fabric();
    let (mut a, mut b) = (guest(&fabric, 2), guest(&fabric, 3));
    let (server, client) = (a.udp(53), b.udp(1000));
    let stranger = b.udp(2000);
    let (incoming, outgoing) = a.streams(&server, None);
    let (client_in, client_out) = b.streams(&client, Some(address([10, 240, 0, 2], 53)));
    let (_, stranger_out) = b.streams(&stranger, None);

    let message = |to: Option<IpSocketAddress>| {
        vec![OutgoingDatagram {
            data: b"x".to_vec(),
            remote_address: to,
        }]
    };
    b.view().check_send(again(&client_out)).unwrap();
    assert_eq!(b.view().send(again(&client_out), message(None)).unwrap(), 1);
    let elsewhere = Some(address([10, 240, 0, 9], 53));
    let refused = b
        .view()
        .send(again(&client_out), message(elsewhere))
        .map_err(code);
    assert_eq!(refused, Err(ErrorCode::InvalidArgument));
    a.table.get_mut(&incoming).unwrap().ready().await;
    let received = a.view().receive(again(&incoming), 10).unwrap();
    assert_eq!(received.len(), 1);
    assert_eq!(
        from_wasi(received[0].remote_address),
        "10.240.0.3:1000".parse().unwrap()
    );

    // The client hears the server, not the stranger.
    b.view().check_send(again(&stranger_out)).unwrap();
    let to_client = Some(address([10, 240, 0, 3], 1000));
    b.view()
        .send(again(&stranger_out), message(to_client))
        .unwrap();
    a.view().check_send(again(&outgoing)).unwrap();
    a.view().send(again(&outgoing), message(to_client)).unwrap();
    let received = b.view().receive(again(&client_in), 10).unwrap();
    assert_eq!(received.len(), 1);
    assert_eq!(
        from_wasi(received[0].remote_address),
        "10.240.0.2:53".parse().unwrap()
    );

    let unpermitted = vec![message(to_client).remove(0); 17];
    let trap = a.view().send(again(&outgoing), unpermitted).unwrap_err();
    assert!(
        trap.downcast().is_err(),
        "more than permitted is the guest's bug"
    );
}

struct OneName;

#[async_trait]
impl Resolver for OneName {
    async fn lookup(
        &self,
        _from: NamespaceView<'_>,
        name: &str,
    ) -> Result<Vec<IpAddr>, ResolveError> {
        // As a resolver that has to ask someone.
        tokio::task::yield_now().await;
        match name {
            "api" => Ok(vec![
                Ipv6Addr::LOCALHOST.into(),
                Ipv4Addr::new(10, 96, 0, 7).into(),
            ]),
            _ => Err(ResolveError::NotFound(name.to_owned())),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn names_are_answered_when_ready() {
    let fabric = fabric();
    fabric.set_resolver(Arc::new(OneName));
    let mut guest = guest(&fabric, 2);
    let network = guest.network();
    let net = || again(&network);
    let stream = guest
        .view()
        .resolve_addresses(net(), "api".to_owned())
        .unwrap();
    guest.table.get_mut(&stream).unwrap().ready().await;
    let first = guest.view().resolve_next_address(again(&stream)).unwrap();
    assert!(matches!(first, Some(IpAddress::Ipv4((10, 96, 0, 7)))));
    assert!(matches!(
        guest.view().resolve_next_address(again(&stream)).unwrap(),
        Some(IpAddress::Ipv6(_))
    ));
    assert!(
        guest
            .view()
            .resolve_next_address(again(&stream))
            .unwrap()
            .is_none()
    );

    let unknown = guest
        .view()
        .resolve_addresses(net(), "nobody".to_owned())
        .unwrap();
    guest.table.get_mut(&unknown).unwrap().ready().await;
    let answer = guest
        .view()
        .resolve_next_address(again(&unknown))
        .map_err(code);
    assert_eq!(answer.err(), Some(ErrorCode::NameUnresolvable));
    let wrong = guest
        .view()
        .resolve_addresses(net(), "not a name".to_owned())
        .map_err(code);
    assert_eq!(wrong.err(), Some(ErrorCode::InvalidArgument));
    let literal = guest
        .view()
        .resolve_addresses(net(), "10.1.2.3".to_owned())
        .unwrap();
    assert!(
        guest
            .view()
            .resolve_next_address(literal)
            .unwrap()
            .is_some()
    );
}

fn six(address: &str, port: u16) -> IpSocketAddress {
    to_wasi(SocketAddr::new(address.parse().unwrap(), port))
}

/// A pod with an address of each family: 10.240.0.`last` and fd00::`last`.
fn dual(fabric: &Arc<Fabric>, last: u8) -> Guest {
    let mut config = NamespaceConfig::new("default/dual", [10, 240, 0, last].into(), "dual");
    config.second_address = Some(format!("fd00::{last}").parse().unwrap());
    Guest {
        scope: fabric.create_namespace(config).unwrap().scope(),
        table: ResourceTable::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn sockets_of_ipv6_exist_where_the_pod_has_it_and_know_ipv6_alone() {
    let fabric = fabric();
    let mut single = guest(&fabric, 2);
    let refused = single.view().create_tcp_socket(IpAddressFamily::Ipv6);
    assert_eq!(code(refused.unwrap_err()), ErrorCode::NotSupported);

    let (mut server, mut client) = (dual(&fabric, 3), dual(&fabric, 4));
    let socket = |guest: &mut Guest| {
        let socket = guest.view().create_tcp_socket(IpAddressFamily::Ipv6);
        (socket.unwrap(), guest.network())
    };
    let (listener, network) = socket(&mut server);
    let family = server.view().address_family(again(&listener)).unwrap();
    assert!(matches!(family, IpAddressFamily::Ipv6));
    for wrong in [address([0, 0, 0, 0], 80), six("::ffff:10.240.0.3", 80)] {
        let error = server
            .view()
            .start_bind(again(&listener), again(&network), wrong);
        assert_eq!(code(error.unwrap_err()), ErrorCode::InvalidArgument);
    }
    let mut view = server.view();
    view.start_bind(again(&listener), network, six("::", 80))
        .unwrap();
    view.finish_bind(again(&listener)).unwrap();
    view.start_listen(again(&listener)).unwrap();
    view.finish_listen(again(&listener)).unwrap();

    // IPv4 finds nobody there.
    let refused = client.connect(address([10, 240, 0, 3], 80)).map(drop);
    assert_eq!(refused.unwrap_err(), ErrorCode::ConnectionRefused);
    let (near, network) = socket(&mut client);
    let mut view = client.view();
    view.start_connect(again(&near), network, six("fd00::3", 80))
        .unwrap();
    view.finish_connect(again(&near)).unwrap();
    let own = from_wasi(view.local_address(again(&near)).unwrap());
    assert_eq!(own.ip(), "fd00::4".parse::<IpAddr>().unwrap());
    let (far, _, _) = server.view().accept(again(&listener)).unwrap();
    let peer = from_wasi(server.view().remote_address(again(&far)).unwrap());
    assert_eq!(peer, own);
    let family = server.view().address_family(again(&far)).unwrap();
    assert!(matches!(family, IpAddressFamily::Ipv6));
}
