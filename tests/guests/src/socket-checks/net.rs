//! Sockets with as little between them and the host as can be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::OnceLock;

use wasip2::clocks::monotonic_clock;
use wasip2::io::poll::{Pollable, poll};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::network::{
    ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress, Network,
};
use wasip2::sockets::tcp::TcpSocket;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;

pub(crate) const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub(crate) const LOOPBACK6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
pub(crate) const ANY6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
/// For documentation, and nobody's.
pub(crate) const FOREIGN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

static OWN: OnceLock<IpAddr> = OnceLock::new();

pub(crate) fn set_own(address: IpAddr) {
    OWN.set(address).expect("it is set once");
}

pub(crate) fn own() -> IpAddr {
    *OWN.get().expect("it is set first")
}

/// Why a check could not go on.
pub(crate) struct Failure(pub(crate) String);

/// An error that has a name.
pub(crate) trait Named {
    fn word(&self) -> String;
}

impl Named for ErrorCode {
    fn word(&self) -> String {
        self.name().to_owned()
    }
}

impl Named for StreamError {
    fn word(&self) -> String {
        match self {
            StreamError::Closed => "closed".to_owned(),
            // `network-error-code` is not stable: all that there is is a text for people.
            StreamError::LastOperationFailed(error) => {
                let text = error.to_debug_string();
                match text.to_lowercase().contains("reset") {
                    true => "connection-reset".to_owned(),
                    false => text,
                }
            }
        }
    }
}

impl Named for Failure {
    fn word(&self) -> String {
        self.0.clone()
    }
}

/// Says at which step a check could not go on.
pub(crate) trait At<T> {
    fn at(self, step: &str) -> Result<T, Failure>;
}

impl<T, E: Named> At<T> for Result<T, E> {
    fn at(self, step: &str) -> Result<T, Failure> {
        self.map_err(|error| Failure(format!("{step} failed: {}", error.word())))
    }
}

pub(crate) fn network() -> Network {
    instance_network()
}

pub(crate) fn address(ip: IpAddr, port: u16) -> IpSocketAddress {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            IpSocketAddress::Ipv4(Ipv4SocketAddress {
                port,
                address: (a, b, c, d),
            })
        }
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h] = v6.segments();
            IpSocketAddress::Ipv6(Ipv6SocketAddress {
                port,
                flow_info: 0,
                address: (a, b, c, d, e, f, g, h),
                scope_id: 0,
            })
        }
    }
}

pub(crate) fn parsed(address: IpSocketAddress) -> SocketAddr {
    match address {
        IpSocketAddress::Ipv4(v4) => {
            let (a, b, c, d) = v4.address;
            SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), v4.port)
        }
        IpSocketAddress::Ipv6(v6) => {
            let (a, b, c, d, e, f, g, h) = v6.address;
            SocketAddr::new(Ipv6Addr::new(a, b, c, d, e, f, g, h).into(), v6.port)
        }
    }
}

/// The name of an address.
pub(crate) fn place(ip: IpAddr) -> String {
    match ip {
        ip if ip.is_unspecified() => "any".to_owned(),
        ip if ip == own() => "own".to_owned(),
        ip if ip == LOOPBACK || ip == LOOPBACK6 => "loopback".to_owned(),
        ip => ip.to_string(),
    }
}

/// The name of an address, and whether it has a port.
pub(crate) fn shown(address: IpSocketAddress) -> String {
    let address = parsed(address);
    let port = if address.port() == 0 {
        " without a port"
    } else {
        ""
    };
    format!("{}{port}", place(address.ip()))
}

pub(crate) fn family(ip: IpAddr) -> IpAddressFamily {
    match ip {
        IpAddr::V4(_) => IpAddressFamily::Ipv4,
        IpAddr::V6(_) => IpAddressFamily::Ipv6,
    }
}

pub(crate) fn tcp() -> Result<TcpSocket, Failure> {
    create_tcp_socket(IpAddressFamily::Ipv4).at("creating a socket")
}

pub(crate) fn bind(socket: &TcpSocket, ip: IpAddr, port: u16) -> Result<(), ErrorCode> {
    socket.start_bind(&network(), address(ip, port))?;
    loop {
        match socket.finish_bind() {
            Err(ErrorCode::WouldBlock) => socket.subscribe().block(),
            result => return result,
        }
    }
}

pub(crate) fn listen(socket: &TcpSocket) -> Result<(), ErrorCode> {
    socket.start_listen()?;
    loop {
        match socket.finish_listen() {
            Err(ErrorCode::WouldBlock) => socket.subscribe().block(),
            result => return result,
        }
    }
}

/// A listener, and its port.
pub(crate) fn listener(ip: IpAddr, port: u16) -> Result<(TcpSocket, u16), Failure> {
    let socket = create_tcp_socket(family(ip)).at("creating a socket")?;
    bind(&socket, ip, port).at("binding the listener")?;
    listen(&socket).at("listening")?;
    let port = parsed(socket.local_address().at("asking for the address")?).port();
    Ok((socket, port))
}

/// A connection. The streams come first, because they must be dropped first.
pub(crate) struct Connection {
    pub(crate) input: InputStream,
    pub(crate) output: OutputStream,
    pub(crate) socket: TcpSocket,
}

pub(crate) fn finish(socket: TcpSocket) -> Result<Connection, (ErrorCode, TcpSocket)> {
    loop {
        match socket.finish_connect() {
            Err(ErrorCode::WouldBlock) => socket.subscribe().block(),
            Err(code) => return Err((code, socket)),
            Ok((input, output)) => {
                return Ok(Connection {
                    input,
                    output,
                    socket,
                });
            }
        }
    }
}

pub(crate) fn connect_with(
    socket: TcpSocket,
    ip: IpAddr,
    port: u16,
) -> Result<Connection, ErrorCode> {
    socket.start_connect(&network(), address(ip, port))?;
    finish(socket).map_err(|(code, _)| code)
}

pub(crate) fn connect(ip: IpAddr, port: u16) -> Result<Connection, Failure> {
    let socket = create_tcp_socket(family(ip)).at("creating a socket")?;
    connect_with(socket, ip, port).at("connecting")
}

pub(crate) fn accept(listener: &TcpSocket) -> Result<Connection, Failure> {
    loop {
        match listener.accept() {
            Err(ErrorCode::WouldBlock) => listener.subscribe().block(),
            result => {
                let (socket, input, output) = result.at("accepting")?;
                return Ok(Connection {
                    input,
                    output,
                    socket,
                });
            }
        }
    }
}

/// A connection at `ip`: the end that connected, the end that accepted.
pub(crate) fn pair(ip: IpAddr) -> Result<(Connection, Connection), Failure> {
    let (listener, port) = listener(ip, 0)?;
    let client = connect(ip, port)?;
    let server = accept(&listener)?;
    Ok((client, server))
}

impl Connection {
    /// Sends all of it, however long that takes.
    pub(crate) fn send(&self, mut bytes: &[u8]) -> Result<(), StreamError> {
        loop {
            let room = usize::try_from(self.output.check_write()?).unwrap_or(usize::MAX);
            if room == 0 {
                self.output.subscribe().block();
                continue;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.output.write(now)?;
            bytes = later;
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }

    /// The next bytes, however long that takes.
    pub(crate) fn read(&self) -> Result<Vec<u8>, StreamError> {
        loop {
            let bytes = self.input.read(64 * 1024)?;
            if !bytes.is_empty() {
                return Ok(bytes);
            }
            self.input.subscribe().block();
        }
    }

    /// So many bytes, in as many pieces as they come.
    pub(crate) fn read_exactly(&self, length: usize) -> Result<String, StreamError> {
        let mut all = Vec::new();
        while all.len() < length {
            all.extend(self.read()?);
        }
        Ok(String::from_utf8_lossy(&all).into_owned())
    }

    /// What is read until there is an end or an error.
    pub(crate) fn rest(&self) -> (String, String) {
        let mut all = Vec::new();
        loop {
            match self.read() {
                Ok(bytes) => all.extend(bytes),
                Err(error) => {
                    return (String::from_utf8_lossy(&all).into_owned(), error.word());
                }
            }
        }
    }

    /// Waits until there is something to read: bytes, the end, or an error.
    pub(crate) fn wait(&self) {
        self.input.subscribe().block();
    }
}

/// Waits until it is ready, or so long that it never will be.
pub(crate) fn ready_at_last(what: &Pollable) -> bool {
    let long = monotonic_clock::subscribe_duration(20_000_000_000);
    poll(&[what, &long]).contains(&0)
}

/// Whether it becomes ready within a while. That it does not is never told apart from being slow: a check must come to
/// the same result then.
pub(crate) fn ready_soon(what: &Pollable) -> bool {
    let while_ = monotonic_clock::subscribe_duration(200_000_000);
    poll(&[what, &while_]).contains(&0)
}
