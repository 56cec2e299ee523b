//! Options: what is accepted, what is bounded, what is read back.

use std::fmt::Display;

use wasip2::sockets::network::{ErrorCode, IpAddressFamily};
use wasip2::sockets::tcp::TcpSocket;
use wasip2::sockets::udp_create_socket::create_udp_socket;

use crate::net::{At as _, LOOPBACK, accept, bind, connect_with, listen, pair, parsed, tcp};
use crate::{Check, Checked, Seen};

const SECOND: u64 = 1_000_000_000;

pub(crate) const CHECKS: &[Check] = &[
    ("option-keep-alive", keep_alive),
    ("option-idle-time", |seen| {
        let socket = tcp()?;
        times(
            seen,
            |v| socket.set_keep_alive_idle_time(v),
            || socket.keep_alive_idle_time(),
        )
    }),
    ("option-interval", |seen| {
        let socket = tcp()?;
        times(
            seen,
            |v| socket.set_keep_alive_interval(v),
            || socket.keep_alive_interval(),
        )
    }),
    ("option-count", count),
    ("option-hop-limit", hop_limit),
    ("option-receive-buffer", |seen| {
        let socket = tcp()?;
        buffer(
            seen,
            |v| socket.set_receive_buffer_size(v),
            || socket.receive_buffer_size(),
        )
    }),
    ("option-send-buffer", |seen| {
        let socket = tcp()?;
        buffer(
            seen,
            |v| socket.set_send_buffer_size(v),
            || socket.send_buffer_size(),
        )
    }),
    ("option-udp-receive-buffer", |seen| {
        let socket = create_udp_socket(IpAddressFamily::Ipv4).at("creating a socket")?;
        buffer(
            seen,
            |v| socket.set_receive_buffer_size(v),
            || socket.receive_buffer_size(),
        )
    }),
    ("option-udp-send-buffer", |seen| {
        let socket = create_udp_socket(IpAddressFamily::Ipv4).at("creating a socket")?;
        buffer(
            seen,
            |v| socket.set_send_buffer_size(v),
            || socket.send_buffer_size(),
        )
    }),
    ("option-udp-hop-limit", |seen| {
        let socket = create_udp_socket(IpAddressFamily::Ipv4).at("creating a socket")?;
        seen.outcome("0", &socket.set_unicast_hop_limit(0));
        seen.outcome("7", &socket.set_unicast_hop_limit(7));
        read_back(seen, socket.unicast_hop_limit())
    }),
    ("options-are-inherited", inherited),
    ("options-of-a-connection", of_a_connection),
];

fn read_back<T: Display>(seen: &mut Seen, value: Result<T, ErrorCode>) -> Checked {
    seen.say(value.at("reading it back")?);
    Ok(())
}

fn keep_alive(seen: &mut Seen) -> Checked {
    let socket = tcp()?;
    read_back(seen, socket.keep_alive_enabled())?;
    seen.outcome("on", &socket.set_keep_alive_enabled(true));
    read_back(seen, socket.keep_alive_enabled())?;
    seen.outcome("off", &socket.set_keep_alive_enabled(false));
    read_back(seen, socket.keep_alive_enabled())
}

/// The shortest is a second, and the longest 32767 of them.
fn times(
    seen: &mut Seen,
    set: impl Fn(u64) -> Result<(), ErrorCode>,
    get: impl Fn() -> Result<u64, ErrorCode>,
) -> Checked {
    read_back(seen, get())?;
    for value in [0, 10 * SECOND, 1, u64::MAX] {
        seen.outcome(&value.to_string(), &set(value));
        read_back(seen, get())?;
    }
    Ok(())
}

fn count(seen: &mut Seen) -> Checked {
    let socket = tcp()?;
    read_back(seen, socket.keep_alive_count())?;
    for value in [0, 3, u32::MAX] {
        seen.outcome(&value.to_string(), &socket.set_keep_alive_count(value));
        read_back(seen, socket.keep_alive_count())?;
    }
    Ok(())
}

fn hop_limit(seen: &mut Seen) -> Checked {
    let socket = tcp()?;
    read_back(seen, socket.hop_limit())?;
    for value in [0, 1, 255] {
        seen.outcome(&value.to_string(), &socket.set_hop_limit(value));
        read_back(seen, socket.hop_limit())?;
    }
    Ok(())
}

/// Sizes are wishes: in between they are granted, too small and too large ones are moved to the nearest that can be.
fn buffer(
    seen: &mut Seen,
    set: impl Fn(u64) -> Result<(), ErrorCode>,
    get: impl Fn() -> Result<u64, ErrorCode>,
) -> Checked {
    seen.outcome("0", &set(0));
    for value in [16 * 1024, 64 * 1024] {
        seen.outcome(&value.to_string(), &set(value));
        read_back(seen, get())?;
    }
    seen.outcome("1", &set(1));
    let least = get().at("reading it back")?;
    seen.say(format_args!("raised {}", least > 1 && least < 16 * 1024));
    seen.outcome("all there are", &set(u64::MAX));
    let most = get().at("reading it back")?;
    seen.say(format_args!(
        "lowered {}",
        (64 * 1024..1 << 32).contains(&most)
    ));
    Ok(())
}

fn all(seen: &mut Seen, socket: &TcpSocket) -> Checked {
    read_back(seen, socket.keep_alive_enabled())?;
    read_back(seen, socket.keep_alive_idle_time())?;
    read_back(seen, socket.keep_alive_interval())?;
    read_back(seen, socket.keep_alive_count())?;
    read_back(seen, socket.hop_limit())?;
    read_back(seen, socket.receive_buffer_size())?;
    read_back(seen, socket.send_buffer_size())
}

/// What is accepted begins with the listener's options.
fn inherited(seen: &mut Seen) -> Checked {
    let server = tcp()?;
    server.set_keep_alive_enabled(true).at("on")?;
    server
        .set_keep_alive_idle_time(60 * SECOND)
        .at("idle time")?;
    server.set_keep_alive_interval(5 * SECOND).at("interval")?;
    server.set_keep_alive_count(4).at("count")?;
    server.set_hop_limit(33).at("hop limit")?;
    server
        .set_receive_buffer_size(32 * 1024)
        .at("receive buffer")?;
    server.set_send_buffer_size(48 * 1024).at("send buffer")?;
    bind(&server, LOOPBACK, 0).at("bind")?;
    listen(&server).at("listen")?;
    all(seen, &server)?;
    let port = parsed(server.local_address().at("address")?).port();
    let client = tcp()?;
    client.set_hop_limit(44).at("hop limit")?;
    client.set_send_buffer_size(20 * 1024).at("send buffer")?;
    let client = connect_with(client, LOOPBACK, port).at("connecting")?;
    let accepted = accept(&server)?;
    all(seen, &accepted.socket)?;
    read_back(seen, client.socket.hop_limit())?;
    read_back(seen, client.socket.send_buffer_size())?;
    // Changing the listener changes nothing that it has accepted.
    server.set_hop_limit(34).at("hop limit")?;
    read_back(seen, accepted.socket.hop_limit())
}

fn of_a_connection(seen: &mut Seen) -> Checked {
    let (client, server) = pair(LOOPBACK)?;
    seen.outcome("on", &client.socket.set_keep_alive_enabled(true));
    read_back(seen, client.socket.keep_alive_enabled())?;
    seen.outcome("hop limit", &client.socket.set_hop_limit(9));
    read_back(seen, client.socket.hop_limit())?;
    seen.outcome("buffer", &client.socket.set_send_buffer_size(30 * 1024));
    read_back(seen, client.socket.send_buffer_size())?;
    client.send(b"works").at("sending")?;
    seen.say(server.read_exactly(5).at("reading")?);
    Ok(())
}
