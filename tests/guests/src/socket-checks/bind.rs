//! Addresses to bind to, and who may have them.

use std::net::{IpAddr, Ipv4Addr};

use wasip2::sockets::network::{ErrorCode, IpAddressFamily};
use wasip2::sockets::tcp_create_socket::create_tcp_socket;

use crate::net::{
    ANY, ANY6, At as _, FOREIGN, LOOPBACK, LOOPBACK6, accept, address, bind, connect, listen,
    listener, network, own, parsed, shown, tcp,
};
use crate::{Check, Checked, Seen};

pub(crate) const CHECKS: &[Check] = &[
    ("bind-any", |seen| bound(seen, ANY)),
    ("bind-loopback", |seen| bound(seen, LOOPBACK)),
    ("bind-own", |seen| bound(seen, own())),
    ("bind-foreign", |seen| bound(seen, FOREIGN)),
    ("bind-broadcast", |seen| {
        bound(seen, Ipv4Addr::BROADCAST.into())
    }),
    ("bind-multicast", |seen| {
        bound(seen, Ipv4Addr::new(224, 0, 0, 1).into())
    }),
    ("bind-wrong-family", |seen| bound(seen, LOOPBACK6)),
    ("bind-states", bind_states),
    ("bound-twice-before-listening", bound_twice),
    ("in-use-same", |seen| in_use(seen, LOOPBACK, LOOPBACK)),
    ("in-use-wildcard-first", |seen| in_use(seen, ANY, LOOPBACK)),
    ("in-use-wildcard-second", |seen| in_use(seen, LOOPBACK, ANY)),
    ("in-use-wildcard-and-own", |seen| in_use(seen, ANY, own())),
    ("in-use-two-addresses", |seen| in_use(seen, LOOPBACK, own())),
    ("in-use-after-close", after_close),
    (
        "in-use-after-close-with-connections",
        after_close_with_connections,
    ),
    ("in-use-port-of-a-connection", port_of_a_connection),
    ("listen-states", listen_states),
    ("ipv6-tcp", ipv6),
];

fn bound(seen: &mut Seen, ip: IpAddr) -> Checked {
    let socket = tcp()?;
    let result = bind(&socket, ip, 0);
    seen.outcome("bind", &result);
    match socket.local_address() {
        Ok(address) => seen.say(format_args!("at {}", shown(address))),
        Err(code) => seen.say(format_args!("address {}", code.name())),
    }
    Ok(())
}

fn bind_states(seen: &mut Seen) -> Checked {
    let socket = tcp()?;
    seen.outcome("finish first", &socket.finish_bind());
    socket
        .start_bind(&network(), address(LOOPBACK, 0))
        .at("start")?;
    let local = socket.local_address();
    seen.outcome("address while binding", &local);
    let again = socket.start_bind(&network(), address(LOOPBACK, 0));
    seen.outcome("start again", &again);
    let early = socket.start_connect(&network(), address(LOOPBACK, 1));
    seen.outcome("connect while binding", &early);
    seen.outcome("listen while binding", &socket.start_listen());
    seen.outcome("finish", &socket.finish_bind());
    seen.outcome("finish again", &socket.finish_bind());
    let again = socket.start_bind(&network(), address(LOOPBACK, 0));
    seen.outcome("bind again", &again);
    // A bind that failed leaves the socket as it was.
    let socket = tcp()?;
    seen.outcome("foreign", &bind(&socket, FOREIGN, 0));
    seen.outcome("then loopback", &bind(&socket, LOOPBACK, 0));
    Ok(())
}

fn bound_twice(seen: &mut Seen) -> Checked {
    let (first, second) = (tcp()?, tcp()?);
    bind(&first, LOOPBACK, 0).at("the first")?;
    let port = parsed(first.local_address().at("its address")?).port();
    seen.outcome("second", &bind(&second, LOOPBACK, port));
    Ok(())
}

fn in_use(seen: &mut Seen, first: IpAddr, second: IpAddr) -> Checked {
    let (_first, port) = listener(first, 0)?;
    let socket = tcp()?;
    let result = bind(&socket, second, port);
    seen.outcome("second", &result);
    // The same socket may then have another port.
    if result.is_err() {
        seen.outcome("another port", &bind(&socket, second, 0));
    }
    Ok(())
}

fn after_close(seen: &mut Seen) -> Checked {
    let (first, port) = listener(LOOPBACK, 0)?;
    drop(first);
    let socket = tcp()?;
    seen.outcome("bind", &bind(&socket, LOOPBACK, port));
    seen.outcome("listen", &listen(&socket));
    Ok(())
}

fn after_close_with_connections(seen: &mut Seen) -> Checked {
    let (first, port) = listener(LOOPBACK, 0)?;
    let client = connect(LOOPBACK, port)?;
    let server = accept(&first)?;
    drop(first);
    let (second, _) = listener(LOOPBACK, port)?;
    seen.say("listening again");
    client.send(b"still here").at("sending")?;
    seen.say(server.read_exactly(10).at("reading")?);
    // The side that closes first is the one whose port a kernel keeps a while.
    drop(server);
    drop(client);
    drop(second);
    listener(LOOPBACK, port)?;
    seen.say("and again");
    Ok(())
}

fn port_of_a_connection(seen: &mut Seen) -> Checked {
    let (server, port) = listener(LOOPBACK, 0)?;
    let client = connect(LOOPBACK, port)?;
    let _accepted = accept(&server)?;
    let taken = parsed(client.socket.local_address().at("its address")?).port();
    let socket = tcp()?;
    seen.outcome("bind", &bind(&socket, LOOPBACK, taken));
    Ok(())
}

fn listen_states(seen: &mut Seen) -> Checked {
    let socket = tcp()?;
    seen.outcome("unbound", &socket.start_listen());
    seen.outcome("finish first", &socket.finish_listen());
    seen.outcome("accept first", &socket.accept());
    seen.outcome("backlog of 0", &socket.set_listen_backlog_size(0));
    seen.outcome("backlog of 5", &socket.set_listen_backlog_size(5));
    seen.outcome(
        "backlog without bounds",
        &socket.set_listen_backlog_size(u64::MAX),
    );
    bind(&socket, LOOPBACK, 0).at("bind")?;
    seen.say(format_args!("listening {}", socket.is_listening()));
    socket.start_listen().at("start")?;
    seen.say(format_args!("while starting {}", socket.is_listening()));
    seen.outcome("start again", &socket.start_listen());
    seen.outcome("finish", &socket.finish_listen());
    seen.outcome("finish again", &socket.finish_listen());
    seen.say(format_args!("listening {}", socket.is_listening()));
    seen.outcome("listen again", &socket.start_listen());
    seen.outcome("bind", &socket.start_bind(&network(), address(LOOPBACK, 0)));
    seen.outcome(
        "connect",
        &socket.start_connect(&network(), address(LOOPBACK, 1)),
    );
    seen.outcome("accept", &socket.accept());
    seen.outcome("remote address", &socket.remote_address());
    seen.outcome("backlog of 7", &socket.set_listen_backlog_size(7));
    seen.outcome("backlog of 0", &socket.set_listen_backlog_size(0));
    let how = wasip2::sockets::tcp::ShutdownType::Both;
    seen.outcome("shutdown", &socket.shutdown(how));
    Ok(())
}

fn ipv6(seen: &mut Seen) -> Checked {
    let socket = create_tcp_socket(IpAddressFamily::Ipv6).at("creating a socket")?;
    seen.outcome("IPv4 address", &bind(&socket, LOOPBACK, 0));
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped().into();
    seen.outcome("mapped address", &bind(&socket, mapped, 0));
    seen.outcome("loopback", &bind(&socket, LOOPBACK6, 0));
    let (server, port) = listener(ANY6, 0)?;
    seen.say(shown(server.local_address().at("address")?));
    // Only IPv6, always: the same port of IPv4 is another one.
    let other = tcp()?;
    match bind(&other, ANY, port) {
        // Somebody else's.
        Err(ErrorCode::AddressInUse) | Ok(()) => seen.say("apart from IPv4"),
        Err(code) => seen.say(code.name()),
    }
    let client = connect(LOOPBACK6, port)?;
    let accepted = accept(&server)?;
    seen.say(shown(
        accepted.socket.remote_address().at("remote address")?,
    ));
    seen.say(shown(client.socket.remote_address().at("remote address")?));
    client.send(b"hello").at("sending")?;
    seen.say(accepted.read_exactly(5).at("reading")?);
    Ok(())
}
