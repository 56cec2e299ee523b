//! TCP.

use std::net::{IpAddr, Ipv4Addr};

use wasip3::sockets::ip_name_lookup::resolve_addresses;
use wasip3::sockets::types::{IpAddress, IpAddressFamily, TcpSocket};
use wasip3::wit_stream;

use crate::net::{
    ANY, At as _, FOREIGN, LOOPBACK, LOOPBACK6, Listener, address, connect, own, pair, parsed,
    place, receive, send, shown, tcp,
};
use crate::{Seen, checks};

type Checked = Result<(), String>;

pub(crate) async fn run() {
    checks! {
        "bind-any" => async |seen: &mut Seen| bound(seen, ANY);
        "bind-loopback" => async |seen: &mut Seen| bound(seen, LOOPBACK);
        "bind-own" => async |seen: &mut Seen| bound(seen, own());
        "bind-foreign" => async |seen: &mut Seen| bound(seen, FOREIGN);
        "bind-broadcast" => async |seen: &mut Seen| bound(seen, Ipv4Addr::BROADCAST.into());
        "bind-wrong-family" => async |seen: &mut Seen| bound(seen, LOOPBACK6);
        "bind-states" => async |seen: &mut Seen| bind_states(seen);
        "in-use-same" => async |seen: &mut Seen| in_use(seen, LOOPBACK, LOOPBACK);
        "in-use-wildcard-first" => async |seen: &mut Seen| in_use(seen, ANY, LOOPBACK);
        "in-use-wildcard-second" => async |seen: &mut Seen| in_use(seen, LOOPBACK, ANY);
        "in-use-two-addresses" => async |seen: &mut Seen| in_use(seen, LOOPBACK, own());
        "listen-states" => listen_states;
        "refused" => refused;
        "connect-nonsense" => nonsense;
        "connect-states" => connect_states;
        "connect-listener-closed" => listener_closed;
        "addresses-loopback" => async |seen: &mut Seen| addresses(seen, LOOPBACK).await;
        "addresses-own" => async |seen: &mut Seen| addresses(seen, own()).await;
        "half-close" => half_close;
        "directions-once" => directions_once;
        "receive-dropped" => receive_dropped;
        "send-after-the-peer-left" => send_after_end;
        "bulk" => bulk;
        "options" => async |seen: &mut Seen| options(seen);
        "options-are-inherited" => inherited;
        "ipv6-tcp" => ipv6;
        "resolve" => resolve;
    }
}

fn bound(seen: &mut Seen, ip: IpAddr) -> Checked {
    let socket = tcp()?;
    seen.outcome("bind", &socket.bind(address(ip, 0)));
    match socket.get_local_address() {
        Ok(address) => seen.say(format_args!("at {}", shown(address))),
        Err(code) => seen.say(format_args!("address {}", crate::net::word(&code))),
    }
    Ok(())
}

fn bind_states(seen: &mut Seen) -> Checked {
    let socket = tcp()?;
    seen.outcome("foreign", &socket.bind(address(FOREIGN, 0)));
    seen.outcome("loopback", &socket.bind(address(LOOPBACK, 0)));
    seen.outcome("again", &socket.bind(address(LOOPBACK, 0)));
    seen.outcome("remote address", &socket.get_remote_address());
    Ok(())
}

fn in_use(seen: &mut Seen, first: IpAddr, second: IpAddr) -> Checked {
    let first = Listener::at(first, 0)?;
    let socket = tcp()?;
    let result = socket.bind(address(second, first.port()?));
    seen.outcome("second", &result);
    if result.is_err() {
        seen.outcome("another port", &socket.bind(address(second, 0)));
    }
    Ok(())
}

async fn listen_states(seen: &mut Seen) -> Checked {
    let socket = tcp()?;
    seen.outcome("backlog of 0", &socket.set_listen_backlog_size(0));
    seen.outcome("backlog of 5", &socket.set_listen_backlog_size(5));
    seen.say(format_args!("listening {}", socket.get_is_listening()));
    // Without a bind it takes any address.
    let accepted = socket.listen().at("listen")?;
    seen.say(format_args!("listening {}", socket.get_is_listening()));
    seen.say(shown(socket.get_local_address().at("address")?));
    seen.outcome("listen again", &socket.listen());
    seen.outcome("bind", &socket.bind(address(LOOPBACK, 0)));
    seen.outcome("connect", &socket.connect(address(LOOPBACK, 1)).await);
    seen.outcome("backlog of 7", &socket.set_listen_backlog_size(7));
    let (bytes, end) = receive(&socket).await;
    seen.outcome(&format!("receive {:?}", bytes), &end);
    seen.outcome("send", &send(&socket, b"").await);
    drop(accepted);
    Ok(())
}

/// A port that is held but not listened on refuses, and nobody else can begin to listen on it.
async fn refused(seen: &mut Seen) -> Checked {
    let holder = tcp()?;
    holder.bind(address(LOOPBACK, 0)).at("bind")?;
    let to = holder.get_local_address().at("address")?;
    let socket = tcp()?;
    seen.outcome("connect", &socket.connect(to).await);
    seen.outcome("is then", &socket.bind(address(LOOPBACK, 0)));
    Ok(())
}

async fn nonsense(seen: &mut Seen) -> Checked {
    let socket = tcp()?;
    for (name, ip, port) in [
        ("any", ANY, 80),
        ("port 0", LOOPBACK, 0),
        ("broadcast", Ipv4Addr::BROADCAST.into(), 80),
        ("multicast", Ipv4Addr::new(224, 0, 0, 1).into(), 80),
        ("IPv6", LOOPBACK6, 80),
    ] {
        seen.outcome(name, &socket.connect(address(ip, port)).await);
    }
    let listener = Listener::at(LOOPBACK, 0)?;
    let then = socket.connect(address(LOOPBACK, listener.port()?)).await;
    seen.outcome("then", &then);
    Ok(())
}

async fn connect_states(seen: &mut Seen) -> Checked {
    let (client, server) = pair().await?;
    let to = server.get_local_address().at("address")?;
    seen.outcome("connect again", &client.connect(to).await);
    seen.outcome("bind", &client.bind(address(LOOPBACK, 0)));
    seen.outcome("listen", &client.listen());
    seen.outcome("backlog", &client.set_listen_backlog_size(5));
    seen.say(format_args!("listening {}", client.get_is_listening()));
    let free = tcp()?;
    let (bytes, end) = receive(&free).await;
    seen.outcome(&format!("receive {bytes:?}"), &end);
    seen.outcome("send", &send(&free, b"").await);
    Ok(())
}

async fn listener_closed(seen: &mut Seen) -> Checked {
    let listener = Listener::at(LOOPBACK, 0)?;
    let client = connect(LOOPBACK, listener.port()?).await?;
    drop(listener);
    let (bytes, end) = receive(&client).await;
    seen.outcome(&format!("{bytes:?} and"), &end);
    Ok(())
}

async fn addresses(seen: &mut Seen, ip: IpAddr) -> Checked {
    let mut listener = Listener::at(ANY, 0)?;
    let socket = tcp()?;
    socket.bind(address(ip, 0)).at("bind")?;
    socket
        .connect(address(ip, listener.port()?))
        .await
        .at("connecting")?;
    let server = listener.accept().await?;
    let ask = |socket: &TcpSocket| -> Result<_, String> {
        let local = parsed(socket.get_local_address().at("local address")?);
        let remote = parsed(socket.get_remote_address().at("remote address")?);
        Ok((local, remote))
    };
    let ((from, to), (at, peer)) = (ask(&socket)?, ask(&server)?);
    seen.say(format_args!(
        "from {} to {}",
        place(from.ip()),
        place(to.ip())
    ));
    seen.say(format_args!("they agree {}", from == peer && to == at));
    Ok(())
}

async fn half_close(seen: &mut Seen) -> Checked {
    let (client, server) = pair().await?;
    seen.outcome("send", &send(&client, b"question").await);
    let (text, end) = receive(&server).await;
    seen.outcome(&text, &end);
    seen.outcome("answer", &send(&server, b"answer").await);
    let (text, end) = receive(&client).await;
    seen.outcome(&text, &end);
    Ok(())
}

async fn directions_once(seen: &mut Seen) -> Checked {
    let (client, server) = pair().await?;
    send(&client, b"once").await.at("sending")?;
    seen.outcome("send again", &send(&client, b"twice").await);
    let (text, end) = receive(&server).await;
    seen.outcome(&text, &end);
    let (text, end) = receive(&server).await;
    seen.outcome(&format!("{text:?}"), &end);
    Ok(())
}

/// Who wants no more bytes does not hold the sender up.
async fn receive_dropped(seen: &mut Seen) -> Checked {
    let (client, server) = pair().await?;
    let (bytes, end) = client.receive();
    drop((bytes, end));
    seen.outcome("peer sends", &send(&server, b"into the void").await);
    seen.outcome("sends", &send(&client, b"still").await);
    let (text, end) = receive(&server).await;
    seen.outcome(&text, &end);
    Ok(())
}

/// A kernel needs a write to learn that nobody is there.
async fn send_after_end(seen: &mut Seen) -> Checked {
    let (client, server) = pair().await?;
    drop(client);
    let (text, end) = receive(&server).await;
    seen.outcome(&format!("{text:?}"), &end);
    let (mut writer, stream) = wit_stream::new();
    let (sent, ()) = futures::join!(server.send(stream).into_future(), async {
        // Given back when nobody takes it any more.
        while writer.write_all(b"anybody?".to_vec()).await.is_empty() {
            wasip3::clocks::monotonic_clock::wait_for(1_000_000).await;
        }
        drop(writer);
    });
    seen.outcome("send", &sent);
    Ok(())
}

async fn bulk(seen: &mut Seen) -> Checked {
    let (client, server) = pair().await?;
    let all: Vec<u8> = (0..1_000_000u32).map(|i| b'a' + (i % 23) as u8).collect();
    let (sent, (got, end)) = futures::join!(send(&client, &all), receive(&server));
    seen.outcome("sent", &sent);
    seen.outcome(&format!("in order {}", got.as_bytes() == all), &end);
    Ok(())
}

const SECOND: u64 = 1_000_000_000;

fn options(seen: &mut Seen) -> Checked {
    let socket = tcp()?;
    for value in [0, 1, 10 * SECOND, u64::MAX] {
        seen.outcome("idle time", &socket.set_keep_alive_idle_time(value));
        seen.say(socket.get_keep_alive_idle_time().at("idle time")?);
        seen.outcome("interval", &socket.set_keep_alive_interval(value));
        seen.say(socket.get_keep_alive_interval().at("interval")?);
    }
    for value in [0, 3, u32::MAX] {
        seen.outcome("count", &socket.set_keep_alive_count(value));
        seen.say(socket.get_keep_alive_count().at("count")?);
    }
    for value in [0, 1, 255] {
        seen.outcome("hop limit", &socket.set_hop_limit(value));
        seen.say(socket.get_hop_limit().at("hop limit")?);
    }
    for value in [0, 16 * 1024] {
        seen.outcome("receive buffer", &socket.set_receive_buffer_size(value));
        seen.outcome("send buffer", &socket.set_send_buffer_size(value));
    }
    seen.say(socket.get_receive_buffer_size().at("receive buffer")?);
    seen.say(socket.get_send_buffer_size().at("send buffer")?);
    socket.set_send_buffer_size(u64::MAX).at("send buffer")?;
    let most = socket.get_send_buffer_size().at("send buffer")?;
    seen.say(format_args!("lowered {}", most < 1 << 32));
    Ok(())
}

async fn inherited(seen: &mut Seen) -> Checked {
    let socket = tcp()?;
    socket.set_keep_alive_enabled(true).at("on")?;
    socket
        .set_keep_alive_idle_time(60 * SECOND)
        .at("idle time")?;
    socket.set_hop_limit(33).at("hop limit")?;
    socket.bind(address(LOOPBACK, 0)).at("bind")?;
    let accepted = socket.listen().at("listen")?;
    let mut listener = Listener { accepted, socket };
    let _client = connect(LOOPBACK, listener.port()?).await?;
    let server = listener.accept().await?;
    seen.say(server.get_keep_alive_enabled().at("on")?);
    seen.say(server.get_keep_alive_idle_time().at("idle time")?);
    seen.say(server.get_hop_limit().at("hop limit")?);
    Ok(())
}

async fn ipv6(seen: &mut Seen) -> Checked {
    let socket = TcpSocket::create(IpAddressFamily::Ipv6).at("creating a socket")?;
    seen.outcome("IPv4 address", &socket.bind(address(LOOPBACK, 0)));
    seen.outcome("loopback", &socket.bind(address(LOOPBACK6, 0)));
    let accepted = socket.listen().at("listening")?;
    let mut listener = Listener { accepted, socket };
    let client = TcpSocket::create(IpAddressFamily::Ipv6).at("creating a socket")?;
    client
        .connect(address(LOOPBACK6, listener.port()?))
        .await
        .at("connecting")?;
    let server = listener.accept().await?;
    seen.say(shown(server.get_remote_address().at("remote address")?));
    Ok(())
}

async fn resolve(seen: &mut Seen) -> Checked {
    for name in ["127.0.0.1", "192.0.2.7", "::1"] {
        let found = resolve_addresses(name.to_owned()).await;
        match found.as_deref() {
            Ok([IpAddress::Ipv4((a, b, c, d))]) => seen.say(format_args!("{a}.{b}.{c}.{d}")),
            Ok([IpAddress::Ipv6((.., h))]) => seen.say(format_args!("::{h}")),
            other => seen.say(format_args!("{other:?}")),
        }
    }
    let found = resolve_addresses("localhost".to_owned()).await;
    let loopback = |address: &IpAddress| matches!(address, IpAddress::Ipv4((127, 0, 0, 1)));
    seen.say(format_args!(
        "localhost {}",
        found.is_ok_and(|all| all.iter().any(loopback))
    ));
    for name in ["", "two words"] {
        let found = resolve_addresses(name.to_owned()).await;
        seen.say(format_args!("{name:?} {:?}", found.err()));
    }
    Ok(())
}
