//! TCP and names by `wasi:sockets` 0.2, waiting where the standard library would.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::io::poll::{Pollable, poll};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
};
use wasip2::sockets::tcp::{ShutdownType, TcpSocket};
use wasip2::sockets::tcp_create_socket::create_tcp_socket;

/// Until when something may take; `None` is for ever.
#[derive(Clone, Copy)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    pub fn after(patience: Option<Duration>) -> Self {
        Self(patience.and_then(|patience| Instant::now().checked_add(patience)))
    }

    /// Waits for the pollable, or fails with `TimedOut`.
    fn wait(self, pollable: &Pollable) -> io::Result<()> {
        let Some(end) = self.0 else {
            pollable.block();
            return Ok(());
        };
        let left = end.saturating_duration_since(Instant::now());
        let timer = subscribe_duration(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX));
        if poll(&[pollable, &timer]).contains(&0) {
            Ok(())
        } else {
            Err(io::ErrorKind::TimedOut.into())
        }
    }
}

/// All addresses of a name; search suffixes and cluster names are the host's business.
pub fn lookup(name: &str, deadline: Deadline) -> io::Result<Vec<IpAddr>> {
    let stream = resolve_addresses(&instance_network(), name).map_err(error)?;
    let mut addresses = Vec::new();
    loop {
        match stream.resolve_next_address() {
            Ok(Some(IpAddress::Ipv4((a, b, c, d)))) => {
                addresses.push(Ipv4Addr::new(a, b, c, d).into())
            }
            Ok(Some(IpAddress::Ipv6((a, b, c, d, e, f, g, h)))) => {
                addresses.push(Ipv6Addr::new(a, b, c, d, e, f, g, h).into());
            }
            Ok(None) => return Ok(addresses),
            Err(ErrorCode::WouldBlock) => deadline.wait(&stream.subscribe())?,
            Err(code) => return Err(error(code)),
        }
    }
}

/// A connection. The fields are dropped in this order: streams before the socket that they belong to.
pub struct Stream {
    pub input: InputStream,
    pub output: OutputStream,
    socket: TcpSocket,
}

impl Stream {
    /// Connects to a name or an address; of several addresses, the first that answers.
    pub fn connect(host: &str, port: u16, deadline: Deadline) -> io::Result<Self> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in lookup(host, deadline)? {
            match Self::connect_to(SocketAddr::new(address, port), deadline) {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn connect_to(address: SocketAddr, deadline: Deadline) -> io::Result<Self> {
        let socket = create_tcp_socket(family(address)).map_err(error)?;
        socket
            .start_connect(&instance_network(), to_wasi(address))
            .map_err(error)?;
        let (input, output) = finish(&socket, deadline, TcpSocket::finish_connect)?;
        Ok(Self {
            input,
            output,
            socket,
        })
    }

    /// Waits for one connection to a port of the pod.
    pub fn accept_one(port: u16, deadline: Deadline) -> io::Result<Self> {
        let address = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
        let listener = create_tcp_socket(family(address)).map_err(error)?;
        listener
            .start_bind(&instance_network(), to_wasi(address))
            .map_err(error)?;
        finish(&listener, deadline, TcpSocket::finish_bind)?;
        listener.start_listen().map_err(error)?;
        finish(&listener, deadline, TcpSocket::finish_listen)?;
        let (socket, input, output) = finish(&listener, deadline, TcpSocket::accept)?;
        Ok(Self {
            input,
            output,
            socket,
        })
    }

    /// Who is at the other end.
    pub fn peer(&self) -> String {
        match self.socket.remote_address() {
            Ok(IpSocketAddress::Ipv4(v4)) => {
                let (a, b, c, d) = v4.address;
                SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), v4.port).to_string()
            }
            Ok(IpSocketAddress::Ipv6(v6)) => format!("port {}", v6.port),
            Err(_) => "a peer that has gone".to_owned(),
        }
    }

    /// The next bytes; none at the end.
    pub fn read(&self, most: u64, deadline: Deadline) -> io::Result<Vec<u8>> {
        loop {
            match self.input.read(most) {
                Ok(bytes) if bytes.is_empty() => deadline.wait(&self.input.subscribe())?,
                Ok(bytes) => return Ok(bytes),
                Err(StreamError::Closed) => return Ok(Vec::new()),
                Err(error) => return Err(stream_error(error)),
            }
        }
    }

    /// Hands all bytes to the network.
    pub fn write_all(&self, mut bytes: &[u8], deadline: Deadline) -> io::Result<()> {
        while !bytes.is_empty() {
            let taken = self.write_some(bytes)?;
            if taken == 0 {
                deadline.wait(&self.output.subscribe())?;
            }
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Hands over as much as there is room for.
    pub fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.output.check_write().map_err(stream_error)?;
        let taken = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        if taken > 0 {
            self.output.write(&bytes[..taken]).map_err(stream_error)?;
            self.output.flush().map_err(stream_error)?;
        }
        Ok(taken)
    }

    /// Says that nothing more will be written; reading goes on.
    pub fn end_output(&self) {
        // The other side may have gone already.
        let _ = self.socket.shutdown(ShutdownType::Send);
    }
}

/// Repeats the second half of an operation until it no longer says `would-block`.
fn finish<T>(
    socket: &TcpSocket,
    deadline: Deadline,
    attempt: impl Fn(&TcpSocket) -> Result<T, ErrorCode>,
) -> io::Result<T> {
    loop {
        match attempt(socket) {
            Ok(value) => return Ok(value),
            Err(ErrorCode::WouldBlock) => deadline.wait(&socket.subscribe())?,
            Err(code) => return Err(error(code)),
        }
    }
}

fn family(address: SocketAddr) -> IpAddressFamily {
    if address.is_ipv4() {
        IpAddressFamily::Ipv4
    } else {
        IpAddressFamily::Ipv6
    }
}

fn error(code: ErrorCode) -> io::Error {
    use io::ErrorKind as Kind;
    let (kind, text) = match code {
        ErrorCode::AccessDenied => (Kind::PermissionDenied, "Permission denied"),
        ErrorCode::AddressInUse => (Kind::AddrInUse, "Address in use"),
        ErrorCode::ConnectionRefused => (Kind::ConnectionRefused, "Connection refused"),
        ErrorCode::ConnectionReset => (Kind::ConnectionReset, "Connection reset by peer"),
        ErrorCode::RemoteUnreachable => (Kind::HostUnreachable, "No route to host"),
        ErrorCode::NameUnresolvable => (Kind::NotFound, "the name is not known"),
        ErrorCode::Timeout => (Kind::TimedOut, "Connection timed out"),
        ErrorCode::NewSocketLimit => (Kind::QuotaExceeded, "the pod has as many sockets as it may"),
        other => (Kind::Other, other.name()),
    };
    io::Error::new(kind, text)
}

pub fn stream_error(error: StreamError) -> io::Error {
    match error {
        StreamError::Closed => io::ErrorKind::BrokenPipe.into(),
        StreamError::LastOperationFailed(error) => io::Error::other(error.to_debug_string()),
    }
}

fn to_wasi(address: SocketAddr) -> IpSocketAddress {
    match address {
        SocketAddr::V4(v4) => {
            let [a, b, c, d] = v4.ip().octets();
            IpSocketAddress::Ipv4(Ipv4SocketAddress {
                port: v4.port(),
                address: (a, b, c, d),
            })
        }
        SocketAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h] = v6.ip().segments();
            let address = (a, b, c, d, e, f, g, h);
            IpSocketAddress::Ipv6(Ipv6SocketAddress {
                port: v6.port(),
                flow_info: v6.flowinfo(),
                address,
                scope_id: v6.scope_id(),
            })
        }
    }
}
