//! What sockets do, line by line: `NAME: what was seen, and then, and then`.

use std::fmt::Display;
use std::io::{self, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use wasmedge_wasi_socket::poll::{EventType, Subscription, poll};
use wasmedge_wasi_socket::socket::{
    AddressFamily, MSG_PEEK, MSG_TRUNC, Socket, SocketOptLevel, SocketOptName, SocketType,
};
use wasmedge_wasi_socket::{Shutdown, TcpListener, TcpStream, UdpSocket, nslookup};

#[derive(Default)]
pub(crate) struct Seen(Vec<String>);

impl Seen {
    pub(crate) fn say(&mut self, what: impl Display) {
        self.0.push(what.to_string());
    }

    /// The error's kind, or `done`.
    pub(crate) fn outcome<T>(&mut self, step: &str, result: &io::Result<T>) {
        match result {
            Ok(_) => self.say(format_args!("{step} done")),
            Err(e) => self.say(format_args!("{step} {:?}", e.kind())),
        }
    }

    fn print(&self, name: &str) {
        println!("{name}: {}", self.0.join(", "));
    }
}

/// A check by its name, of a pod with this address.
pub(crate) type Check<A> = (&'static str, fn(&mut Seen, A) -> io::Result<()>);

pub(crate) const CHECKS: &[Check<Ipv4Addr>] = &[
    ("bind", bind),
    ("in-use", in_use),
    ("refused", refused),
    ("addresses", addresses),
    ("half-close", half_close),
    ("reset", reset),
    ("would-block", would_block),
    ("full-backlog", full_backlog),
    ("timeout", timeout),
    ("options", options),
    ("udp", udp),
    ("udp-connected", udp_connected),
    ("names", names),
];

/// Prints what each sees.
pub(crate) fn run<A: FromStr + Copy>(checks: &[Check<A>], own: &str) -> io::Result<()> {
    let own = own.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
    for (name, check) in checks {
        let mut seen = Seen::default();
        if let Err(e) = check(&mut seen, own) {
            seen.say(format_args!("failed: {:?}", e.kind()));
        }
        seen.print(name);
    }
    Ok(())
}

fn tcp() -> io::Result<Socket> {
    Socket::new(AddressFamily::Inet4, SocketType::Stream)
}

fn at(ip: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.into(), port)
}

fn place(address: SocketAddr, own: Ipv4Addr) -> &'static str {
    match address {
        SocketAddr::V4(v4) if *v4.ip() == own => "own",
        address if address.ip().is_loopback() => "loopback",
        address if address.ip().is_unspecified() => "any",
        _ => "elsewhere",
    }
}

/// A listener at a port that nobody chose.
fn listener(ip: Ipv4Addr) -> io::Result<(TcpListener, u16)> {
    let listener = TcpListener::bind(at(ip, 0), false)?;
    let port = listener.local_addr()?.port();
    Ok((listener, port))
}

fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let (listener, port) = listener(Ipv4Addr::LOCALHOST)?;
    let client = TcpStream::connect(at(Ipv4Addr::LOCALHOST, port))?;
    Ok((client, listener.accept(false)?.0))
}

fn bind(seen: &mut Seen, own: Ipv4Addr) -> io::Result<()> {
    for ip in [
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::LOCALHOST,
        own,
        Ipv4Addr::new(192, 0, 2, 1),
    ] {
        let socket = tcp()?;
        seen.outcome("bind", &socket.bind(&at(ip, 0)));
        let local = socket.get_local()?;
        seen.say(format_args!("{} {}", place(local, own), local.port() != 0));
    }
    seen.outcome(
        "IPv6",
        &Socket::new(AddressFamily::Inet6, SocketType::Stream),
    );
    Ok(())
}

fn in_use(seen: &mut Seen, own: Ipv4Addr) -> io::Result<()> {
    let (first, port) = listener(Ipv4Addr::UNSPECIFIED)?;
    seen.outcome(
        "same",
        &TcpListener::bind(at(Ipv4Addr::UNSPECIFIED, port), false),
    );
    seen.outcome("specific", &TcpListener::bind(at(own, port), false));
    drop(first);
    seen.outcome("after close", &TcpListener::bind(at(own, port), false));
    Ok(())
}

fn refused(seen: &mut Seen, _own: Ipv4Addr) -> io::Result<()> {
    let holder = tcp()?;
    holder.bind(&at(Ipv4Addr::LOCALHOST, 0))?;
    let to = holder.get_local()?;
    let socket = tcp()?;
    seen.outcome("connect", &socket.connect(&to));
    seen.outcome("peer", &socket.get_peer());
    // The same socket may try again.
    holder.listen(1)?;
    seen.outcome("again", &socket.connect(&to));
    seen.outcome("and again", &socket.connect(&to));
    seen.outcome("connect a listener", &holder.connect(&to));
    Ok(())
}

fn addresses(seen: &mut Seen, own: Ipv4Addr) -> io::Result<()> {
    for ip in [Ipv4Addr::LOCALHOST, own] {
        let (listener, port) = listener(Ipv4Addr::UNSPECIFIED)?;
        let client = TcpStream::connect(at(ip, port))?;
        let (server, peer) = listener.accept(false)?;
        seen.say(format_args!(
            "from {} to {}",
            place(client.local_addr()?, own),
            place(client.peer_addr()?, own)
        ));
        let agree = peer == client.local_addr()? && server.local_addr()? == client.peer_addr()?;
        seen.say(format_args!("they agree {agree}"));
    }
    Ok(())
}

fn half_close(seen: &mut Seen, _own: Ipv4Addr) -> io::Result<()> {
    let (mut client, mut server) = pair()?;
    client.write_all(b"question")?;
    client.shutdown(Shutdown::Write)?;
    let mut text = String::new();
    server.read_to_string(&mut text)?;
    seen.say(&text);
    server.write_all(b"answer")?;
    drop(server);
    text.clear();
    client.read_to_string(&mut text)?;
    seen.say(&text);
    seen.outcome("write", &client.write(b"x"));
    Ok(())
}

fn reset(seen: &mut Seen, _own: Ipv4Addr) -> io::Result<()> {
    let (listener, port) = listener(Ipv4Addr::LOCALHOST)?;
    for told_by in ["read", "write", "SO_ERROR"] {
        let mut client = TcpStream::connect(at(Ipv4Addr::LOCALHOST, port))?;
        client.write_all(b"unread")?;
        let (server, _) = listener.accept(false)?;
        // Without the shutdown that this crate's drop begins with, as most programs close.
        close(server);
        match told_by {
            "read" => seen.outcome("read", &client.read(&mut [0; 8])),
            "write" => seen.outcome("write", &client.write(b"x")),
            _ => seen.outcome("SO_ERROR", &client.as_ref().take_error()),
        }
        seen.outcome("SO_ERROR", &client.as_ref().take_error());
        seen.say(format_args!("then {}", client.read(&mut [0; 8])?));
        seen.outcome("write", &client.write(b"x"));
    }
    Ok(())
}

fn close(stream: TcpStream) {
    use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd};
    // Closes the descriptor, and does nothing else.
    drop(unsafe { OwnedFd::from_raw_fd(stream.into_raw_fd()) });
}

fn would_block(seen: &mut Seen, _own: Ipv4Addr) -> io::Result<()> {
    let (listener, port) = listener(Ipv4Addr::LOCALHOST)?;
    listener.as_ref().set_nonblocking(true)?;
    seen.outcome("accept", &listener.accept(true));
    let mut client = TcpStream::connect(at(Ipv4Addr::LOCALHOST, port))?;
    let (mut server, _) = listener.accept(true)?;
    seen.outcome("read", &server.read(&mut [0; 8]));
    client.write_all(b"now")?;
    let events = poll(&[Subscription::io(7, &server, true, false, None)])?;
    seen.say(format_args!("{} ready", events.len()));
    seen.outcome("read", &server.read(&mut [0; 8]));
    let mut sent = 0;
    let full = loop {
        match server.write(&[0; 10_000]) {
            Ok(length) => sent += length,
            Err(e) => break e,
        }
    };
    seen.say(format_args!("full {:?} {}", full.kind(), sent > 10_000));
    let soon = SystemTime::now() + Duration::from_millis(10);
    let events = poll(&[Subscription::io(7, &server, false, true, Some(soon))])?;
    seen.say(format_args!("ready {}", events.iter().any(is_write)));
    drop(client);
    let events = poll(&[Subscription::io(7, &server, false, true, None)])?;
    seen.say(format_args!("ready {}", events.iter().any(is_write)));
    Ok(())
}

fn is_write(event: &wasmedge_wasi_socket::poll::Event) -> bool {
    matches!(event.event_type, EventType::Write)
}

/// A connect that has to wait is in progress, and writable once somebody was accepted.
fn full_backlog(seen: &mut Seen, _own: Ipv4Addr) -> io::Result<()> {
    let server = tcp()?;
    server.bind(&at(Ipv4Addr::LOCALHOST, 0))?;
    server.listen(1)?;
    let to = server.get_local()?;
    let first = TcpStream::connect(to)?;
    let second = tcp()?;
    second.set_nonblocking(true)?;
    let begun = second.connect(&to);
    seen.say(format_args!(
        "connect {:?}",
        begun.unwrap_err().raw_os_error()
    ));
    let again = second.connect(&to);
    seen.say(format_args!(
        "again {:?}",
        again.unwrap_err().raw_os_error()
    ));
    seen.outcome("peer", &second.get_peer());
    seen.outcome("send", &second.send(b"x"));
    let _accepted = server.accept(false)?;
    let events = poll(&[Subscription::io(7, &second, false, true, None)])?;
    seen.say(format_args!("{} ready", events.len()));
    seen.outcome("SO_ERROR", &second.take_error());
    seen.outcome("peer", &second.get_peer());
    drop(first);
    // One that fails is ready too, and tells why.
    let third = tcp()?;
    third.set_nonblocking(true)?;
    let begun = third.connect(&to);
    seen.say(format_args!(
        "connect {:?}",
        begun.unwrap_err().raw_os_error()
    ));
    drop(server);
    poll(&[Subscription::io(7, &third, false, true, None)])?;
    seen.outcome("SO_ERROR", &third.take_error());
    seen.outcome("SO_ERROR", &third.take_error());
    Ok(())
}

fn timeout(seen: &mut Seen, _own: Ipv4Addr) -> io::Result<()> {
    let (mut client, _server) = pair()?;
    client
        .as_ref()
        .set_recv_timeout(Some(Duration::from_millis(5)))?;
    seen.say(format_args!("{:?}", client.as_ref().get_recv_timeout()?));
    seen.outcome("read", &client.read(&mut [0; 8]));
    let udp = UdpSocket::bind(at(Ipv4Addr::LOCALHOST, 0))?;
    let socket = Udp(udp);
    socket.with(|socket| socket.set_recv_timeout(Some(Duration::from_millis(5))))?;
    seen.outcome("receive", &socket.0.recv_from(&mut [0; 8]));
    Ok(())
}

/// Lends the socket of a `UdpSocket`, which has no name for it.
struct Udp(UdpSocket);

impl Udp {
    fn with<T>(&self, what: impl FnOnce(&Socket) -> T) -> T {
        use std::os::fd::{AsRawFd as _, FromRawFd as _};
        // Not dropped, because dropping closes.
        let socket =
            std::mem::ManuallyDrop::new(unsafe { Socket::from_raw_fd(self.0.as_raw_fd()) });
        what(&socket)
    }
}

fn options(seen: &mut Seen, _own: Ipv4Addr) -> io::Result<()> {
    let (level, on) = (SocketOptLevel::SolSocket, 1i32);
    let socket = tcp()?;
    seen.say(format_args!(
        "{:?} {}",
        socket.r#type()?,
        socket.is_listener()?
    ));
    seen.say(format_args!(
        "{} {}",
        socket.keepalive()?,
        socket.reuse_address()?
    ));
    socket.setsockopt(level, SocketOptName::SoKeepalive, on)?;
    socket.setsockopt(level, SocketOptName::SoReuseaddr, on)?;
    seen.say(format_args!(
        "{} {}",
        socket.keepalive()?,
        socket.reuse_address()?
    ));
    for size in [1, 20_000, 1 << 30] {
        socket.setsockopt(level, SocketOptName::SoRcvbuf, size)?;
        seen.say(socket.recv_buffer_size()?);
    }
    seen.outcome("bind to a device", &socket.bind_device(Some(b"eth0")));
    socket.bind(&at(Ipv4Addr::LOCALHOST, 0))?;
    socket.listen(5)?;
    seen.say(format_args!("listens {}", socket.is_listener()?));
    let udp = Socket::new(AddressFamily::Inet4, SocketType::Datagram)?;
    seen.say(format_args!("{:?} {}", udp.r#type()?, udp.broadcast()?));
    seen.outcome("listen", &udp.listen(5));
    Ok(())
}

fn udp(seen: &mut Seen, own: Ipv4Addr) -> io::Result<()> {
    let a = UdpSocket::bind(at(Ipv4Addr::LOCALHOST, 0))?;
    let b = Udp(UdpSocket::bind(at(Ipv4Addr::LOCALHOST, 0))?);
    let local = |socket: &Udp| socket.with(Socket::get_local);
    let to = local(&b)?;
    for text in ["one", "", "three and more"] {
        seen.say(a.send_to(text.as_bytes(), to)?);
    }
    let mut room = [0; 8];
    let (length, from) = b.0.recv_from(&mut room)?;
    let right = from == local(&Udp(a))?;
    seen.say(format_args!(
        "{} from {} {right}",
        text(&room[..length]),
        place(from, own)
    ));
    seen.say(b.0.recv_from(&mut room)?.0);
    // Looked at, then taken; what does not fit is lost, and told.
    let mut room = [MaybeUninit::new(0); 5];
    for flags in [MSG_PEEK, 0] {
        let told = b.with(|socket| socket.recv_from_with_flags(&mut room, flags))?;
        seen.say(format_args!(
            "{} cut {}",
            told.0,
            told.2 as u16 & MSG_TRUNC != 0
        ));
    }
    b.with(|socket| socket.set_nonblocking(true))?;
    seen.outcome("receive", &b.0.recv_from(&mut [0; 8]));
    let events = poll(&[Subscription::io(7, &b.0, true, true, None)])?;
    seen.say(format_args!(
        "{} ready, to write {}",
        events.len(),
        events.iter().all(is_write)
    ));
    Ok(())
}

fn udp_connected(seen: &mut Seen, _own: Ipv4Addr) -> io::Result<()> {
    let socket = Socket::new(AddressFamily::Inet4, SocketType::Datagram)?;
    seen.outcome("send", &socket.send(b"x"));
    let peer = UdpSocket::bind(at(Ipv4Addr::LOCALHOST, 0))?;
    let peer = Udp(peer);
    let to = peer.with(Socket::get_local)?;
    socket.connect(&to)?;
    seen.say(format_args!("peer {}", socket.get_peer()? == to));
    socket.send(b"hello")?;
    let mut room = [0; 8];
    let (length, from) = peer.0.recv_from(&mut room)?;
    seen.say(text(&room[..length]));
    let stranger = UdpSocket::bind(at(Ipv4Addr::LOCALHOST, 0))?;
    stranger.send_to(b"from a stranger", from)?;
    peer.0.send_to(b"welcome", from)?;
    let length = socket.recv(&mut room)?;
    seen.say(text(&room[..length]));
    drop(peer);
    seen.outcome("send", &socket.send(b"x"));
    seen.outcome("receive", &socket.recv(&mut room));
    Ok(())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn names(seen: &mut Seen, _own: Ipv4Addr) -> io::Result<()> {
    for (name, service) in [
        ("localhost", "http"),
        ("store", "1234"),
        ("192.0.2.7", "https"),
    ] {
        let found = nslookup(name, service)?;
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        seen.say(found.join(" "));
    }
    for (name, service) in [("missing", "http"), ("localhost", "gopher")] {
        let error = nslookup(name, service).unwrap_err();
        seen.say(format_args!("{:?}", error.raw_os_error()));
    }
    Ok(())
}
