//! What sockets of IPv6 do, line by line. The crate opens and binds them, but leaves them out of `connect` and of its lookups:
//! those two functions are called here as it calls them for IPv4.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd as _;

use wasmedge_wasi_socket::socket::{
    AddressFamily, Socket, SocketType, WasiAddress, WasiAddrinfo, WasiSockaddr,
};
use wasmedge_wasi_socket::{Shutdown, TcpListener, TcpStream, UdpSocket};

use crate::checks::{Check, Seen};

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn sock_connect(fd: u32, address: *mut WasiAddress, port: u32) -> u32;
    fn sock_getaddrinfo(
        node: *const u8,
        node_length: u32,
        service: *const u8,
        service_length: u32,
        hints: *const WasiAddrinfo,
        list: *mut u32,
        most: u32,
        count: *mut u32,
    ) -> u32;
}

pub(crate) const CHECKS: &[Check<Ipv6Addr>] = &[
    ("bind", bind),
    ("only", only),
    ("refused", refused),
    ("addresses", addresses),
    ("udp", udp),
    ("names", names),
];

fn tcp() -> io::Result<Socket> {
    Socket::new(AddressFamily::Inet6, SocketType::Stream)
}

fn place(address: SocketAddr, own: Ipv6Addr) -> &'static str {
    match address {
        SocketAddr::V6(v6) if *v6.ip() == own => "own",
        SocketAddr::V6(v6) if v6.ip().is_loopback() => "loopback",
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => "any",
        _ => "elsewhere",
    }
}

/// Connects as the crate does to addresses of IPv4.
fn connect(socket: &Socket, to: SocketAddr) -> io::Result<()> {
    let octets = match to {
        SocketAddr::V4(v4) => v4.ip().octets().to_vec(),
        SocketAddr::V6(v6) => v6.ip().octets().to_vec(),
    };
    let mut address = WasiAddress {
        buf: octets.as_ptr(),
        size: octets.len(),
    };
    let fd = socket.as_raw_fd() as u32;
    match unsafe { sock_connect(fd, &mut address, to.port().into()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error as i32)),
    }
}

fn bind(seen: &mut Seen, own: Ipv6Addr) -> io::Result<()> {
    let foreign = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    for ip in [Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST, own, foreign] {
        let socket = tcp()?;
        seen.outcome("bind", &socket.bind(&SocketAddr::from((ip, 0))));
        let local = socket.get_local()?;
        seen.say(format_args!("{} {}", place(local, own), local.port() != 0));
    }
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    seen.say(format_args!("IPv4 {:?}", code(tcp()?.bind(&to))));
    Ok(())
}

fn code<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

/// The same port of the other family is another one.
fn only(seen: &mut Seen, own: Ipv6Addr) -> io::Result<()> {
    let six = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)), false)?;
    let port = six.local_addr()?.port();
    seen.outcome(
        "the same",
        &TcpListener::bind(SocketAddr::from((own, port)), false),
    );
    seen.outcome(
        "IPv4's",
        &TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), false),
    );
    Ok(())
}

fn refused(seen: &mut Seen, _own: Ipv6Addr) -> io::Result<()> {
    let holder = tcp()?;
    holder.bind(&SocketAddr::from((Ipv6Addr::LOCALHOST, 0)))?;
    let to = holder.get_local()?;
    let socket = tcp()?;
    seen.outcome("connect", &connect(&socket, to));
    seen.outcome("peer", &socket.get_peer());
    holder.listen(1)?;
    seen.outcome("again", &connect(&socket, to));
    let other = SocketAddr::from((Ipv4Addr::LOCALHOST, to.port()));
    seen.say(format_args!("IPv4 {:?}", code(connect(&tcp()?, other))));
    Ok(())
}

fn addresses(seen: &mut Seen, own: Ipv6Addr) -> io::Result<()> {
    for ip in [Ipv6Addr::LOCALHOST, own] {
        // Unbound, it listens anywhere.
        let listener = tcp()?;
        listener.listen(1)?;
        seen.say(place(listener.get_local()?, own));
        let to = SocketAddr::from((ip, listener.get_local()?.port()));
        let client = tcp()?;
        connect(&client, to)?;
        let mut client = TcpStream::new(client);
        let mut server = TcpStream::new(listener.accept(false)?);
        seen.say(format_args!(
            "from {} to {}",
            place(client.local_addr()?, own),
            place(client.peer_addr()?, own)
        ));
        let agree = server.peer_addr()? == client.local_addr()?
            && server.local_addr()? == client.peer_addr()?;
        seen.say(format_args!("they agree {agree}"));
        client.write_all(b"hello")?;
        client.shutdown(Shutdown::Write)?;
        let mut text = String::new();
        server.read_to_string(&mut text)?;
        seen.say(text);
    }
    Ok(())
}

fn udp(seen: &mut Seen, own: Ipv6Addr) -> io::Result<()> {
    let server = UdpSocket::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 5353)))?;
    // Bound by what it sends.
    let client = Socket::new(AddressFamily::Inet6, SocketType::Datagram)?;
    for ip in [Ipv6Addr::LOCALHOST, own] {
        client.send_to(b"question", SocketAddr::from((ip, 5353)))?;
        let mut room = [0; 16];
        let (length, from) = server.recv_from(&mut room)?;
        seen.say(format_args!("{length} from {}", place(from, own)));
        server.send_to(b"answer", from)?;
        let (length, from) = client.recv_from(&mut room)?;
        seen.say(format_args!("{length} from {}", place(from, own)));
    }
    seen.say(place(client.get_local()?, own));
    let other = SocketAddr::from((Ipv4Addr::LOCALHOST, 5353));
    seen.say(format_args!("IPv4 {:?}", code(client.send_to(b"x", other))));
    connect(&client, SocketAddr::from((own, 9)))?;
    client.send(b"x")?;
    seen.outcome("receive", &client.recv(&mut [0; 8]));
    Ok(())
}

fn names(seen: &mut Seen, _own: Ipv6Addr) -> io::Result<()> {
    for (name, family) in [
        ("localhost", AddressFamily::Inet6),
        ("newer", AddressFamily::Inet6),
        ("newer", AddressFamily::Unspec),
        ("store", AddressFamily::Inet6),
        ("::1", AddressFamily::Inet6),
    ] {
        match lookup(name, family) {
            Ok(found) => seen.say(found.join(" ")),
            Err(error) => seen.say(format_args!("{:?}", error.raw_os_error())),
        }
    }
    Ok(())
}

/// As the crate looks names up, with the room that IPv6 needs.
fn lookup(name: &str, family: AddressFamily) -> io::Result<Vec<String>> {
    const MOST: usize = 4;
    let mut data = [[0u8; 26]; MOST];
    let mut hints = WasiAddrinfo::default();
    hints.ai_family = family;
    let mut addresses = vec![WasiSockaddr::default(); MOST];
    let mut list = vec![WasiAddrinfo::default(); MOST];
    for at in (0..MOST).rev() {
        addresses[at].sa_data_len = data[at].len() as u32;
        addresses[at].sa_data = data[at].as_mut_ptr();
        list[at].ai_addr = &mut addresses[at];
        if at + 1 < MOST {
            list[at].ai_next = &mut list[at + 1];
        }
    }
    let (mut first, mut count) = (list.as_mut_ptr() as u32, 0);
    let error = unsafe {
        sock_getaddrinfo(
            name.as_ptr(),
            name.len() as u32,
            c"80".as_ptr().cast(),
            3,
            &hints,
            &mut first,
            MOST as u32,
            &mut count,
        )
    };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error as i32));
    }
    // The host wrote through pointers that are not known to be written to here.
    let found = (0..count as usize).map(|at| {
        let family = unsafe { std::ptr::read_volatile(&raw const addresses[at].family) };
        let data = unsafe { std::ptr::read_volatile(&raw const data[at]) };
        let port = u16::from_be_bytes([data[0], data[1]]);
        let address = match family {
            AddressFamily::Inet6 => {
                let octets: [u8; 16] = data[6..22].try_into().expect("16 bytes");
                SocketAddr::from((octets, port))
            }
            _ => SocketAddr::from(([data[2], data[3], data[4], data[5]], port)),
        };
        address.to_string()
    });
    Ok(found.collect())
}
