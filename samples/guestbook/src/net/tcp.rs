//! TCP by `wasi:sockets` 0.2.
//!
//! Every operation of that interface that may take time has two halves, `start-…` and `finish-…`; the latter says
//! `would-block` until the socket's pollable is ready.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use wasip2::io::streams::{InputStream, OutputStream, StreamError};
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::network::{
    ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
};
use wasip2::sockets::tcp::{ShutdownType, TcpSocket};
use wasip2::sockets::tcp_create_socket::create_tcp_socket;

use crate::executor::{any_ready, ready};
use crate::names::lookup;

/// A port that accepts connections: by IPv4 and IPv6, or by the one of them that there is. In WASI a socket is of one family.
pub struct TcpListener {
    sockets: Vec<TcpSocket>,
}

impl TcpListener {
    /// Listens on a port of all the pod's addresses.
    pub async fn bind(port: u16) -> io::Result<Self> {
        let mut sockets = Vec::new();
        let mut failure = None;
        for any in [
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Ipv6Addr::UNSPECIFIED.into(),
        ] {
            match listen(SocketAddr::new(any, port)).await {
                Ok(socket) => sockets.push(socket),
                Err(e) => failure = failure.or(Some(e)),
            }
        }
        match failure {
            Some(e) if sockets.is_empty() => Err(e),
            _ => Ok(Self { sockets }),
        }
    }

    /// Waits for the next connection.
    pub async fn accept(&self) -> io::Result<TcpStream> {
        loop {
            for socket in &self.sockets {
                match socket.accept() {
                    Ok((socket, input, output)) => {
                        return Ok(TcpStream {
                            input,
                            output,
                            socket,
                        });
                    }
                    Err(ErrorCode::WouldBlock) => {}
                    Err(code) => return Err(error(code)),
                }
            }
            any_ready(self.sockets.iter().map(TcpSocket::subscribe)).await;
        }
    }
}

async fn listen(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = create_tcp_socket(family_of(address)).map_err(error)?;
    socket
        .start_bind(&instance_network(), to_wasi(address))
        .map_err(error)?;
    finish(&socket, TcpSocket::finish_bind).await?;
    socket.start_listen().map_err(error)?;
    finish(&socket, TcpSocket::finish_listen).await?;
    Ok(socket)
}

fn family_of(address: SocketAddr) -> IpAddressFamily {
    match address {
        SocketAddr::V4(_) => IpAddressFamily::Ipv4,
        SocketAddr::V6(_) => IpAddressFamily::Ipv6,
    }
}

/// A connection. The fields are dropped in this order: streams before the socket that they belong to.
pub struct TcpStream {
    input: InputStream,
    output: OutputStream,
    socket: TcpSocket,
}

impl TcpStream {
    /// Connects to a name or an address; of several addresses, the first that answers.
    pub async fn connect(host: &str, port: u16) -> io::Result<Self> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
        for address in lookup(host).await? {
            match Self::connect_to(SocketAddr::new(address, port)).await {
                Ok(stream) => return Ok(stream),
                Err(e) => {
                    failure =
                        io::Error::new(e.kind(), format!("{host} ({address}) port {port}: {e}"))
                }
            }
        }
        Err(failure)
    }

    async fn connect_to(address: SocketAddr) -> io::Result<Self> {
        let socket = create_tcp_socket(family_of(address)).map_err(error)?;
        socket
            .start_connect(&instance_network(), to_wasi(address))
            .map_err(error)?;
        let (input, output) = finish(&socket, TcpSocket::finish_connect).await?;
        Ok(Self {
            input,
            output,
            socket,
        })
    }

    /// This end.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.socket.local_address().map(from_wasi).map_err(error)
    }

    /// Who is at the other end.
    pub fn peer(&self) -> io::Result<SocketAddr> {
        self.socket.remote_address().map(from_wasi).map_err(error)
    }

    /// The bytes that have come, at most `max`; none means that the other side has said all it had to.
    pub async fn read(&mut self, max: usize) -> io::Result<Vec<u8>> {
        loop {
            match self.input.read(max as u64) {
                Ok(bytes) if bytes.is_empty() => ready(self.input.subscribe()).await,
                Ok(bytes) => return Ok(bytes),
                Err(StreamError::Closed) => return Ok(Vec::new()),
                Err(e) => return Err(stream_error(e)),
            }
        }
    }

    /// Hands all bytes to the network.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = self.room().await?.min(bytes.len());
            self.output.write(&bytes[..room]).map_err(stream_error)?;
            bytes = &bytes[room..];
        }
        self.output.flush().map_err(stream_error)?;
        // The flush is done when there is room again. That the other side took everything and closed by then is no
        // failure of this write; the next read or write tells.
        let _ = self.room().await;
        Ok(())
    }

    /// Says that nothing more will be written; reading goes on.
    pub fn end_output(&self) -> io::Result<()> {
        self.socket.shutdown(ShutdownType::Send).map_err(error)
    }

    /// Says that nothing more will be written, and lets go of the connection.
    pub fn finish(self) {
        // The other side may have gone already.
        let _ = self.end_output();
    }

    /// Waits until at least one byte may be written.
    async fn room(&self) -> io::Result<usize> {
        loop {
            match self.output.check_write().map_err(stream_error)? {
                0 => ready(self.output.subscribe()).await,
                room => return Ok(usize::try_from(room).unwrap_or(usize::MAX)),
            }
        }
    }
}

/// Repeats the second half of an operation until it no longer says `would-block`.
async fn finish<T>(
    socket: &TcpSocket,
    attempt: impl Fn(&TcpSocket) -> Result<T, ErrorCode>,
) -> io::Result<T> {
    loop {
        match attempt(socket) {
            Ok(value) => return Ok(value),
            Err(ErrorCode::WouldBlock) => ready(socket.subscribe()).await,
            Err(code) => return Err(error(code)),
        }
    }
}

/// The standard library's word for a refusal of `wasi:sockets`.
pub(crate) fn error(code: ErrorCode) -> io::Error {
    use io::ErrorKind as Kind;
    let kind = match code {
        ErrorCode::AccessDenied => Kind::PermissionDenied,
        ErrorCode::AddressInUse => Kind::AddrInUse,
        ErrorCode::ConnectionAborted => Kind::ConnectionAborted,
        ErrorCode::ConnectionRefused => Kind::ConnectionRefused,
        ErrorCode::ConnectionReset => Kind::ConnectionReset,
        ErrorCode::InvalidArgument => Kind::InvalidInput,
        ErrorCode::NameUnresolvable => Kind::NotFound,
        ErrorCode::Timeout => Kind::TimedOut,
        _ => Kind::Other,
    };
    io::Error::new(kind, code.name())
}

fn stream_error(e: StreamError) -> io::Error {
    match e {
        StreamError::Closed => io::ErrorKind::BrokenPipe.into(),
        StreamError::LastOperationFailed(e) => io::Error::other(e.to_debug_string()),
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
            IpSocketAddress::Ipv6(Ipv6SocketAddress {
                port: v6.port(),
                flow_info: v6.flowinfo(),
                address: (a, b, c, d, e, f, g, h),
                scope_id: v6.scope_id(),
            })
        }
    }
}

fn from_wasi(address: IpSocketAddress) -> SocketAddr {
    match address {
        IpSocketAddress::Ipv4(Ipv4SocketAddress {
            port,
            address: (a, b, c, d),
        }) => SocketAddr::new(IpAddr::from([a, b, c, d]), port),
        IpSocketAddress::Ipv6(Ipv6SocketAddress {
            port,
            address: (a, b, c, d, e, f, g, h),
            ..
        }) => SocketAddr::new(IpAddr::from([a, b, c, d, e, f, g, h]), port),
    }
}
