//! Datagrams.

use std::net::{IpAddr, Ipv4Addr};

use wasip2::sockets::network::{ErrorCode, IpAddressFamily};
use wasip2::sockets::udp::{
    IncomingDatagramStream, OutgoingDatagram, OutgoingDatagramStream, UdpSocket,
};
use wasip2::sockets::udp_create_socket::create_udp_socket;

use crate::net::{
    ANY, At as _, FOREIGN, Failure, LOOPBACK, LOOPBACK6, address, family, network, own, parsed,
    place, ready_at_last, ready_soon, shown,
};
use crate::{Check, Checked, Seen};

pub(crate) const CHECKS: &[Check] = &[
    ("udp-bind-any", |seen| bound(seen, ANY)),
    ("udp-bind-loopback", |seen| bound(seen, LOOPBACK)),
    ("udp-bind-own", |seen| bound(seen, own())),
    ("udp-bind-foreign", |seen| bound(seen, FOREIGN)),
    ("udp-bind-multicast", |seen| {
        bound(seen, Ipv4Addr::new(224, 0, 0, 1).into())
    }),
    ("udp-bind-wrong-family", |seen| bound(seen, LOOPBACK6)),
    ("udp-bind-states", states),
    ("udp-in-use-same", |seen| in_use(seen, LOOPBACK, LOOPBACK)),
    ("udp-in-use-wildcard", |seen| in_use(seen, ANY, LOOPBACK)),
    ("udp-in-use-two-addresses", |seen| {
        in_use(seen, LOOPBACK, own())
    }),
    ("udp-in-use-after-close", after_close),
    ("udp-borders", borders),
    ("udp-from-own", |seen| from(seen, own(), LOOPBACK)),
    ("udp-from-any-to-loopback", |seen| from(seen, ANY, LOOPBACK)),
    ("udp-from-any-to-own", |seen| from(seen, ANY, own())),
    ("udp-would-block", would_block),
    ("udp-several-at-once", several),
    ("udp-sizes", sizes),
    ("udp-nonsense", nonsense),
    ("udp-connected", connected),
    ("udp-wrong-peer", wrong_peer),
    ("udp-reconnected", reconnected),
    ("udp-unreachable-told-by-receive", unreachable_receive),
    ("udp-unreachable-told-by-send", unreachable_send),
    ("udp-unreachable-unconnected", unreachable_unconnected),
    ("udp-more-than-fits", overflow),
    ("ipv6-udp", ipv6),
];

/// The streams come first, because they must be dropped first.
struct Udp {
    incoming: IncomingDatagramStream,
    outgoing: OutgoingDatagramStream,
    socket: UdpSocket,
}

fn unbound() -> Result<UdpSocket, Failure> {
    create_udp_socket(IpAddressFamily::Ipv4).at("creating a socket")
}

fn bind(socket: &UdpSocket, ip: IpAddr, port: u16) -> Result<(), ErrorCode> {
    socket.start_bind(&network(), address(ip, port))?;
    loop {
        match socket.finish_bind() {
            Err(ErrorCode::WouldBlock) => socket.subscribe().block(),
            result => return result,
        }
    }
}

fn port(socket: &UdpSocket) -> Result<u16, Failure> {
    Ok(parsed(socket.local_address().at("address")?).port())
}

impl Udp {
    fn at(ip: IpAddr) -> Result<Self, Failure> {
        let socket = create_udp_socket(family(ip)).at("creating a socket")?;
        bind(&socket, ip, 0).at("bind")?;
        Self::of(socket, None)
    }

    fn of(socket: UdpSocket, peer: Option<(IpAddr, u16)>) -> Result<Self, Failure> {
        let peer = peer.map(|(ip, port)| address(ip, port));
        let (incoming, outgoing) = socket.stream(peer).at("opening streams")?;
        Ok(Self {
            incoming,
            outgoing,
            socket,
        })
    }

    fn connected(self, ip: IpAddr, port: u16) -> Result<Self, Failure> {
        let Self {
            incoming,
            outgoing,
            socket,
        } = self;
        drop((incoming, outgoing));
        Self::of(socket, Some((ip, port)))
    }

    fn port(&self) -> Result<u16, Failure> {
        port(&self.socket)
    }

    fn send(&self, data: &[u8], to: Option<(IpAddr, u16)>) -> Result<(), ErrorCode> {
        let datagram = OutgoingDatagram {
            data: data.to_vec(),
            remote_address: to.map(|(ip, port)| address(ip, port)),
        };
        loop {
            while self.outgoing.check_send()? == 0 {
                self.outgoing.subscribe().block();
            }
            if self.outgoing.send(std::slice::from_ref(&datagram))? == 1 {
                return Ok(());
            }
        }
    }

    /// So many messages, however long that takes: their text and whence they came.
    fn receive(&self, count: usize) -> Result<Vec<(String, IpAddr, u16)>, ErrorCode> {
        let mut all = Vec::new();
        while all.len() < count {
            self.incoming.subscribe().block();
            for datagram in self.incoming.receive((count - all.len()) as u64)? {
                let from = parsed(datagram.remote_address);
                let text = String::from_utf8_lossy(&datagram.data).into_owned();
                all.push((text, from.ip(), from.port()));
            }
        }
        Ok(all)
    }
}

fn bound(seen: &mut Seen, ip: IpAddr) -> Checked {
    let socket = unbound()?;
    seen.outcome("bind", &bind(&socket, ip, 0));
    match socket.local_address() {
        Ok(address) => seen.say(format_args!("at {}", shown(address))),
        Err(code) => seen.say(format_args!("address {}", code.name())),
    }
    Ok(())
}

fn states(seen: &mut Seen) -> Checked {
    let socket = unbound()?;
    seen.outcome("finish first", &socket.finish_bind());
    seen.outcome("stream first", &socket.stream(None));
    seen.outcome("address first", &socket.local_address());
    socket
        .start_bind(&network(), address(LOOPBACK, 0))
        .at("start")?;
    seen.outcome(
        "start again",
        &socket.start_bind(&network(), address(LOOPBACK, 0)),
    );
    seen.outcome("finish", &socket.finish_bind());
    seen.outcome("finish again", &socket.finish_bind());
    seen.outcome(
        "bind again",
        &socket.start_bind(&network(), address(LOOPBACK, 0)),
    );
    seen.outcome("remote address", &socket.remote_address());
    let socket = unbound()?;
    seen.outcome("foreign", &bind(&socket, FOREIGN, 0));
    seen.outcome("then loopback", &bind(&socket, LOOPBACK, 0));
    Ok(())
}

fn in_use(seen: &mut Seen, first: IpAddr, second: IpAddr) -> Checked {
    let holder = Udp::at(first)?;
    let socket = unbound()?;
    let result = bind(&socket, second, holder.port()?);
    seen.outcome("second", &result);
    if result.is_err() {
        seen.outcome("another port", &bind(&socket, second, 0));
    }
    Ok(())
}

fn after_close(seen: &mut Seen) -> Checked {
    let holder = Udp::at(LOOPBACK)?;
    let port = holder.port()?;
    drop(holder);
    seen.outcome("bind", &bind(&unbound()?, LOOPBACK, port));
    Ok(())
}

fn borders(seen: &mut Seen) -> Checked {
    let (a, b) = (Udp::at(LOOPBACK)?, Udp::at(LOOPBACK)?);
    for text in ["one", "", "three"] {
        let sent = a.send(text.as_bytes(), Some((LOOPBACK, b.port()?)));
        sent.at("sending")?;
    }
    for (text, ip, port) in b.receive(3).at("receiving")? {
        let right = port == a.port()?;
        seen.say(format_args!("{text:?} from {} {right}", place(ip)));
    }
    Ok(())
}

fn from(seen: &mut Seen, bound: IpAddr, to: IpAddr) -> Checked {
    let (a, b) = (Udp::at(bound)?, Udp::at(ANY)?);
    a.send(b"x", Some((to, b.port()?))).at("sending")?;
    let messages = b.receive(1).at("receiving")?;
    seen.say(place(messages[0].1));
    // And the answer finds its way.
    b.send(b"y", Some((messages[0].1, messages[0].2)))
        .at("answering")?;
    let answers = a.receive(1).at("receiving")?;
    seen.say(place(answers[0].1));
    Ok(())
}

fn would_block(seen: &mut Seen) -> Checked {
    let socket = Udp::at(LOOPBACK)?;
    let none = socket.incoming.receive(10).at("receiving")?;
    seen.say(format_args!("{} messages", none.len()));
    seen.say(format_args!(
        "ready {}",
        socket.incoming.subscribe().ready()
    ));
    socket
        .send(b"x", Some((LOOPBACK, socket.port()?)))
        .at("sending")?;
    socket.incoming.subscribe().block();
    let none = socket.incoming.receive(0).at("receiving")?;
    seen.say(format_args!("{} of 0", none.len()));
    let one = socket.incoming.receive(10).at("receiving")?;
    seen.say(format_args!("{} of 10", one.len()));
    Ok(())
}

fn several(seen: &mut Seen) -> Checked {
    let (a, b) = (Udp::at(LOOPBACK)?, Udp::at(LOOPBACK)?);
    let to = Some(address(LOOPBACK, b.port()?));
    let datagrams: Vec<_> = (0..3u8)
        .map(|n| OutgoingDatagram {
            data: vec![b'0' + n],
            remote_address: to,
        })
        .collect();
    let may = a.outgoing.check_send().at("asking")?;
    seen.say(format_args!("three may {}", may >= 3));
    let sent = a.outgoing.send(&datagrams).at("sending")?;
    seen.say(format_args!("{sent} sent"));
    for (text, ..) in b.receive(3).at("receiving")? {
        seen.say(text);
    }
    seen.outcome("none", &a.outgoing.send(&[]));
    // What follows the one that cannot be sent waits for another call.
    let mut mixed = datagrams.clone();
    mixed[1].remote_address = Some(address(ANY, 1));
    a.outgoing.check_send().at("asking")?;
    let sent = a.outgoing.send(&mixed).at("sending")?;
    seen.say(format_args!("{sent} sent of a list with an error in it"));
    a.outgoing.check_send().at("asking")?;
    seen.outcome("error first", &a.outgoing.send(&mixed[1..]));
    Ok(())
}

fn sizes(seen: &mut Seen) -> Checked {
    let (a, b) = (Udp::at(LOOPBACK)?, Udp::at(LOOPBACK)?);
    let to = Some((LOOPBACK, b.port()?));
    for size in [65_507, 65_508, 70_000] {
        seen.outcome(&size.to_string(), &a.send(&vec![b'x'; size], to));
    }
    // Nothing is cut.
    let messages = b.receive(1).at("receiving")?;
    seen.say(format_args!("{} arrived", messages[0].0.len()));
    Ok(())
}

fn nonsense(seen: &mut Seen) -> Checked {
    let socket = Udp::at(LOOPBACK)?;
    seen.outcome("to nobody", &socket.send(b"x", None));
    seen.outcome("to any", &socket.send(b"x", Some((ANY, 9))));
    seen.outcome("to port 0", &socket.send(b"x", Some((LOOPBACK, 0))));
    seen.outcome("to IPv6", &socket.send(b"x", Some((LOOPBACK6, 9))));
    let Udp {
        incoming,
        outgoing,
        socket,
    } = socket;
    drop((incoming, outgoing));
    for (name, ip, port) in [
        ("any", ANY, 9),
        ("port 0", LOOPBACK, 0),
        ("IPv6", LOOPBACK6, 9),
    ] {
        let result = socket.stream(Some(address(ip, port)));
        seen.outcome(&format!("connected to {name}"), &result);
    }
    Ok(())
}

fn connected(seen: &mut Seen) -> Checked {
    let (a, b) = (Udp::at(LOOPBACK)?, Udp::at(LOOPBACK)?);
    let (to, other) = (b.port()?, Udp::at(LOOPBACK)?);
    let a = a.connected(LOOPBACK, to)?;
    let remote = parsed(a.socket.remote_address().at("remote address")?);
    seen.say(format_args!(
        "peer {} {}",
        place(remote.ip()),
        remote.port() == to
    ));
    seen.outcome("to the peer", &a.send(b"one", None));
    seen.outcome("to the peer by name", &a.send(b"two", Some((LOOPBACK, to))));
    seen.outcome("to another", &a.send(b"x", Some((LOOPBACK, other.port()?))));
    for (text, ..) in b.receive(2).at("receiving")? {
        seen.say(text);
    }
    Ok(())
}

fn wrong_peer(seen: &mut Seen) -> Checked {
    let (a, b, c) = (Udp::at(LOOPBACK)?, Udp::at(LOOPBACK)?, Udp::at(LOOPBACK)?);
    let here = Some((LOOPBACK, a.port()?));
    let a = a.connected(LOOPBACK, b.port()?)?;
    c.send(b"from a stranger", here).at("sending")?;
    let none = a.incoming.receive(10).at("receiving")?;
    seen.say(format_args!("{} messages", none.len()));
    b.send(b"from the peer", here).at("sending")?;
    for (text, ..) in a.receive(1).at("receiving")? {
        seen.say(text);
    }
    Ok(())
}

fn reconnected(seen: &mut Seen) -> Checked {
    let (a, b, c) = (Udp::at(LOOPBACK)?, Udp::at(LOOPBACK)?, Udp::at(LOOPBACK)?);
    let (here, there) = (a.port()?, c.port()?);
    let a = a
        .connected(LOOPBACK, b.port()?)?
        .connected(LOOPBACK, there)?;
    seen.say(format_args!("same port {}", a.port()? == here));
    a.send(b"hello", None).at("sending")?;
    for (text, ..) in c.receive(1).at("receiving")? {
        seen.say(text);
    }
    Ok(())
}

/// A socket that is connected to a port that nobody holds.
fn to_nobody() -> Result<Udp, Failure> {
    let (a, b) = (Udp::at(LOOPBACK)?, Udp::at(LOOPBACK)?);
    let gone = b.port()?;
    drop(b);
    a.connected(LOOPBACK, gone)
}

fn unreachable_receive(seen: &mut Seen) -> Checked {
    let a = to_nobody()?;
    seen.outcome("send", &a.send(b"x", None));
    if !ready_at_last(&a.incoming.subscribe()) {
        return Err(Failure("nothing is told".to_owned()));
    }
    seen.outcome("receive", &a.incoming.receive(1));
    let then = a.incoming.receive(1);
    seen.say(format_args!(
        "then {} messages",
        then.at("receive again")?.len()
    ));
    Ok(())
}

fn unreachable_send(seen: &mut Seen) -> Checked {
    let a = to_nobody()?;
    seen.outcome("send", &a.send(b"x", None));
    seen.outcome("send again", &a.send(b"x", None));
    seen.outcome("and again", &a.send(b"x", None));
    Ok(())
}

fn unreachable_unconnected(seen: &mut Seen) -> Checked {
    let (a, b) = (Udp::at(LOOPBACK)?, Udp::at(LOOPBACK)?);
    let gone = Some((LOOPBACK, b.port()?));
    drop(b);
    seen.outcome("send", &a.send(b"x", gone));
    seen.outcome("send again", &a.send(b"x", gone));
    let none = a.incoming.receive(1).at("receiving")?;
    seen.say(format_args!("{} messages", none.len()));
    Ok(())
}

/// Past a bound messages are lost, never the sender's progress nor the order.
fn overflow(seen: &mut Seen) -> Checked {
    let (a, b) = (Udp::at(LOOPBACK)?, Udp::at(LOOPBACK)?);
    let to = Some((LOOPBACK, b.port()?));
    for n in 0..2000 {
        let text = format!("{n:01000}");
        a.send(text.as_bytes(), to).at("sending")?;
    }
    let first = b.receive(10).at("receiving")?;
    let in_order = first
        .iter()
        .enumerate()
        .all(|(n, message)| message.0 == format!("{n:01000}"));
    let mut count = first.len();
    while ready_soon(&b.incoming.subscribe()) {
        count += b.incoming.receive(16).at("receiving")?.len();
    }
    seen.say(format_args!(
        "in order {in_order}, some lost {}",
        count < 2000
    ));
    a.send(b"after", to).at("sending")?;
    for (text, ..) in b.receive(1).at("receiving")? {
        seen.say(text);
    }
    Ok(())
}

fn ipv6(seen: &mut Seen) -> Checked {
    let socket = create_udp_socket(IpAddressFamily::Ipv6).at("creating a socket")?;
    seen.outcome("IPv4 address", &bind(&socket, LOOPBACK, 0));
    let (a, b) = (Udp::at(LOOPBACK6)?, Udp::at(LOOPBACK6)?);
    a.send(b"hello", Some((LOOPBACK6, b.port()?)))
        .at("sending")?;
    for (text, ip, _) in b.receive(1).at("receiving")? {
        seen.say(format_args!("{text} from {}", place(ip)));
    }
    Ok(())
}
