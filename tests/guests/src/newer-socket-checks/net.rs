//! Sockets with as little between them and the host as can be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::OnceLock;

use wasip3::sockets::types::{
    ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress, TcpSocket,
};
use wasip3::wit_bindgen::StreamReader;
use wasip3::wit_stream;

pub(crate) type Result<T> = std::result::Result<T, ErrorCode>;

pub(crate) const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub(crate) const LOOPBACK6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
/// For documentation, and nobody's.
pub(crate) const FOREIGN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

static OWN: OnceLock<IpAddr> = OnceLock::new();

pub(crate) fn set_own(address: IpAddr) {
    OWN.set(address).expect("it is set once");
}

pub(crate) fn own() -> IpAddr {
    *OWN.get().expect("it is set first")
}

pub(crate) fn word(code: &ErrorCode) -> String {
    let name = format!("{code:?}");
    name.trim_start_matches("ErrorCode::").to_owned()
}

/// Says at which step a check could not go on.
pub(crate) trait At<T> {
    fn at(self, step: &str) -> std::result::Result<T, String>;
}

impl<T> At<T> for Result<T> {
    fn at(self, step: &str) -> std::result::Result<T, String> {
        self.map_err(|code| format!("{step} failed: {}", word(&code)))
    }
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

pub(crate) fn tcp() -> std::result::Result<TcpSocket, String> {
    TcpSocket::create(IpAddressFamily::Ipv4).at("creating a socket")
}

/// A socket that listens, and what it accepts.
pub(crate) struct Listener {
    pub(crate) accepted: StreamReader<TcpSocket>,
    pub(crate) socket: TcpSocket,
}

impl Listener {
    pub(crate) fn at(ip: IpAddr, port: u16) -> std::result::Result<Self, String> {
        let socket = tcp()?;
        socket.bind(address(ip, port)).at("binding the listener")?;
        let accepted = socket.listen().at("listening")?;
        Ok(Self { accepted, socket })
    }

    pub(crate) fn port(&self) -> std::result::Result<u16, String> {
        let local = self
            .socket
            .get_local_address()
            .at("asking for the address")?;
        Ok(parsed(local).port())
    }

    pub(crate) async fn accept(&mut self) -> std::result::Result<TcpSocket, String> {
        self.accepted
            .next()
            .await
            .ok_or("accepting ended".to_owned())
    }
}

pub(crate) async fn connect(ip: IpAddr, port: u16) -> std::result::Result<TcpSocket, String> {
    let socket = tcp()?;
    socket.connect(address(ip, port)).await.at("connecting")?;
    Ok(socket)
}

/// A connection at the loopback: the end that connected, the end that accepted.
pub(crate) async fn pair() -> std::result::Result<(TcpSocket, TcpSocket), String> {
    let mut listener = Listener::at(LOOPBACK, 0)?;
    let client = connect(LOOPBACK, listener.port()?).await?;
    let server = listener.accept().await?;
    Ok((client, server))
}

/// Sends all of it, and an end; says how that went.
pub(crate) async fn send(socket: &TcpSocket, bytes: &[u8]) -> Result<()> {
    let (mut writer, stream) = wit_stream::new();
    let (sent, ()) = futures::join!(socket.send(stream).into_future(), async {
        writer.write_all(bytes.to_vec()).await;
        drop(writer);
    });
    sent
}

/// All that comes until the end, and how it ended.
pub(crate) async fn receive(socket: &TcpSocket) -> (String, Result<()>) {
    let (bytes, end) = socket.receive();
    let bytes = bytes.collect().await;
    (String::from_utf8_lossy(&bytes).into_owned(), end.await)
}
