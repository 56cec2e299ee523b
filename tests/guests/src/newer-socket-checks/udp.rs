//! Datagrams.

use std::net::IpAddr;

use wasip3::sockets::types::{IpAddressFamily, UdpSocket};

use crate::net::{
    ANY, At as _, FOREIGN, LOOPBACK, LOOPBACK6, Result as Outcome, address, own, parsed, place,
    shown,
};
use crate::{Seen, checks};

type Checked = Result<(), String>;

pub(crate) async fn run() {
    checks! {
        "udp-bind-any" => async |seen: &mut Seen| bound(seen, ANY);
        "udp-bind-own" => async |seen: &mut Seen| bound(seen, own());
        "udp-bind-foreign" => async |seen: &mut Seen| bound(seen, FOREIGN);
        "udp-bind-wrong-family" => async |seen: &mut Seen| bound(seen, LOOPBACK6);
        "udp-in-use" => async |seen: &mut Seen| in_use(seen);
        "udp-unbound" => unbound;
        "udp-borders" => borders;
        "udp-sizes" => sizes;
        "udp-nonsense" => nonsense;
        "udp-connected" => connected;
        "udp-unreachable" => unreachable;
        "udp-options" => async |seen: &mut Seen| options(seen);
    }
}

fn create() -> Result<UdpSocket, String> {
    UdpSocket::create(IpAddressFamily::Ipv4).at("creating a socket")
}

fn socket() -> Result<UdpSocket, String> {
    let socket = create()?;
    socket.bind(address(LOOPBACK, 0)).at("bind")?;
    Ok(socket)
}

fn port(socket: &UdpSocket) -> Result<u16, String> {
    Ok(parsed(socket.get_local_address().at("address")?).port())
}

async fn send(socket: &UdpSocket, text: &str, port: Option<u16>) -> Outcome<()> {
    let to = port.map(|port| address(LOOPBACK, port));
    socket.send(text.as_bytes().to_vec(), to).await
}

async fn receive(socket: &UdpSocket) -> Result<(String, IpAddr, u16), String> {
    let (bytes, from) = socket.receive().await.at("receiving")?;
    let from = parsed(from);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok((text, from.ip(), from.port()))
}

fn bound(seen: &mut Seen, ip: IpAddr) -> Checked {
    let socket = create()?;
    seen.outcome("bind", &socket.bind(address(ip, 0)));
    match socket.get_local_address() {
        Ok(address) => seen.say(format_args!("at {}", shown(address))),
        Err(code) => seen.say(format_args!("address {}", crate::net::word(&code))),
    }
    seen.outcome("again", &socket.bind(address(LOOPBACK, 0)));
    Ok(())
}

fn in_use(seen: &mut Seen) -> Checked {
    let holder = socket()?;
    for ip in [LOOPBACK, ANY, own()] {
        let second = create()?;
        seen.outcome(&place(ip), &second.bind(address(ip, port(&holder)?)));
    }
    Ok(())
}

/// Receiving wants a port; sending takes one.
async fn unbound(seen: &mut Seen) -> Checked {
    let (socket, peer) = (create()?, socket()?);
    seen.outcome("address", &socket.get_local_address());
    seen.outcome("receive", &socket.receive().await);
    seen.outcome("send", &send(&socket, "x", Some(port(&peer)?)).await);
    seen.say(shown(socket.get_local_address().at("address")?));
    let (_, ip, from) = receive(&peer).await?;
    seen.say(format_args!(
        "from {} {}",
        place(ip),
        from == port(&socket)?
    ));
    Ok(())
}

async fn borders(seen: &mut Seen) -> Checked {
    let (a, b) = (socket()?, socket()?);
    for text in ["one", "", "three"] {
        send(&a, text, Some(port(&b)?)).await.at("sending")?;
    }
    for _ in 0..3 {
        let (text, ip, from) = receive(&b).await?;
        seen.say(format_args!(
            "{text:?} from {} {}",
            place(ip),
            from == port(&a)?
        ));
    }
    Ok(())
}

async fn sizes(seen: &mut Seen) -> Checked {
    let (a, b) = (socket()?, socket()?);
    for size in [65_507, 65_508, 70_000] {
        let sent = send(&a, &"x".repeat(size), Some(port(&b)?)).await;
        seen.outcome(&size.to_string(), &sent);
    }
    seen.say(format_args!("{} arrived", receive(&b).await?.0.len()));
    Ok(())
}

async fn nonsense(seen: &mut Seen) -> Checked {
    let socket = socket()?;
    seen.outcome("to nobody", &send(&socket, "x", None).await);
    seen.outcome("to port 0", &send(&socket, "x", Some(0)).await);
    for (name, ip) in [("any", ANY), ("IPv6", LOOPBACK6)] {
        let to = || address(ip, 9);
        seen.outcome(
            &format!("to {name}"),
            &socket.send(b"x".to_vec(), Some(to())).await,
        );
        seen.outcome(&format!("connected to {name}"), &socket.connect(to()));
    }
    seen.outcome("disconnect", &socket.disconnect());
    Ok(())
}

async fn connected(seen: &mut Seen) -> Checked {
    let (a, b, c) = (socket()?, socket()?, socket()?);
    let (here, there) = (Some(port(&a)?), port(&b)?);
    a.connect(address(LOOPBACK, there)).at("connect")?;
    let remote = parsed(a.get_remote_address().at("remote address")?);
    seen.say(format_args!(
        "peer {} {}",
        place(remote.ip()),
        remote.port() == there
    ));
    seen.outcome("to the peer", &send(&a, "one", None).await);
    seen.outcome("to the peer by name", &send(&a, "two", Some(there)).await);
    seen.outcome("to another", &send(&a, "x", Some(port(&c)?)).await);
    for _ in 0..2 {
        seen.say(receive(&b).await?.0);
    }
    send(&c, "from a stranger", here).await.at("sending")?;
    send(&b, "from the peer", here).await.at("sending")?;
    seen.say(receive(&a).await?.0);
    // Another peer, in the place of this one.
    seen.outcome("connect again", &a.connect(address(LOOPBACK, port(&c)?)));
    send(&a, "hello", None).await.at("sending")?;
    seen.say(receive(&c).await?.0);
    seen.outcome("disconnect", &a.disconnect());
    seen.outcome("remote address", &a.get_remote_address());
    Ok(())
}

async fn unreachable(seen: &mut Seen) -> Checked {
    let (a, b) = (socket()?, socket()?);
    let gone = port(&b)?;
    drop(b);
    seen.outcome("unconnected", &send(&a, "x", Some(gone)).await);
    a.connect(address(LOOPBACK, gone)).at("connect")?;
    seen.outcome("send", &send(&a, "x", None).await);
    seen.outcome("send", &send(&a, "x", None).await);
    seen.outcome("send", &send(&a, "x", None).await);
    seen.outcome("receive", &a.receive().await);
    Ok(())
}

fn options(seen: &mut Seen) -> Checked {
    let socket = create()?;
    seen.outcome("0", &socket.set_unicast_hop_limit(0));
    seen.outcome("7", &socket.set_unicast_hop_limit(7));
    seen.say(socket.get_unicast_hop_limit().at("hop limit")?);
    seen.outcome("0", &socket.set_receive_buffer_size(0));
    seen.outcome("16384", &socket.set_receive_buffer_size(16_384));
    seen.say(socket.get_receive_buffer_size().at("buffer")?);
    Ok(())
}
