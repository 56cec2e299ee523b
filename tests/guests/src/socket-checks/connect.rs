//! Connecting, being refused, waiting, and who is who.

use std::net::{IpAddr, Ipv4Addr};

use wasip2::io::poll::poll;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{ErrorCode, IpAddress};

use crate::net::{
    ANY, At as _, Failure, LOOPBACK, LOOPBACK6, Named as _, accept, address, bind, connect,
    connect_with, finish, listen, listener, network, own, pair, parsed, place, ready_soon, shown,
    tcp,
};
use crate::{Check, Checked, Seen};

pub(crate) const CHECKS: &[Check] = &[
    ("refused-loopback", |seen| refused(seen, LOOPBACK)),
    ("refused-own", |seen| refused(seen, own())),
    ("refused-after-close", refused_after_close),
    ("connect-nonsense", nonsense),
    ("connect-states", connect_states),
    ("connect-before-accept", before_accept),
    ("connect-full-backlog", full_backlog),
    ("connect-listener-closed", listener_closed),
    ("addresses-any-loopback", |seen| {
        addresses(seen, ANY, LOOPBACK)
    }),
    ("addresses-any-own", |seen| addresses(seen, ANY, own())),
    ("addresses-loopback", |seen| {
        addresses(seen, LOOPBACK, LOOPBACK)
    }),
    ("addresses-own", |seen| addresses(seen, own(), own())),
    ("addresses-bound-own", |seen| {
        from_bound(seen, own(), LOOPBACK)
    }),
    ("addresses-bound-loopback", |seen| {
        from_bound(seen, LOOPBACK, own())
    }),
    ("addresses-bound-any", |seen| {
        from_bound(seen, ANY, LOOPBACK)
    }),
    ("listens-elsewhere", elsewhere),
    ("ready-listener", ready_listener),
    ("resolve-literals", resolve_literals),
    ("resolve-localhost", resolve_localhost),
    ("resolve-nonsense", resolve_nonsense),
];

/// A port that is held but not listened on refuses, and nobody else can begin to listen on it.
fn refused(seen: &mut Seen, ip: IpAddr) -> Checked {
    let holder = tcp()?;
    bind(&holder, ip, 0).at("bind")?;
    let port = parsed(holder.local_address().at("address")?).port();
    let socket = tcp()?;
    socket
        .start_connect(&network(), address(ip, port))
        .at("start")?;
    let Err((code, socket)) = finish(socket) else {
        return Err(Failure("connected".to_owned()));
    };
    seen.say(code.word());
    seen.outcome("finish again", &socket.finish_connect());
    let again = socket.start_connect(&network(), address(ip, port));
    seen.outcome("connect again", &again);
    seen.outcome("listen", &socket.start_listen());
    Ok(())
}

fn refused_after_close(seen: &mut Seen) -> Checked {
    let (server, port) = listener(LOOPBACK, 0)?;
    let client = connect(LOOPBACK, port)?;
    let accepted = accept(&server)?;
    drop(server);
    // Hold the port, lest another program gets it.
    let holder = tcp()?;
    bind(&holder, LOOPBACK, port).at("bind")?;
    seen.outcome("connect", &connect_with(tcp()?, LOOPBACK, port));
    accepted.send(b"still here").at("sending")?;
    seen.say(client.read_exactly(10).at("reading")?);
    Ok(())
}

fn nonsense(seen: &mut Seen) -> Checked {
    let socket = tcp()?;
    for (name, ip, port) in [
        ("any", ANY, 80),
        ("port 0", LOOPBACK, 0),
        ("broadcast", Ipv4Addr::BROADCAST.into(), 80),
        ("multicast", Ipv4Addr::new(224, 0, 0, 1).into(), 80),
        ("IPv6", LOOPBACK6, 80),
    ] {
        let result = socket.start_connect(&network(), address(ip, port));
        seen.outcome(name, &result);
    }
    // None of that changed it.
    let (server, port) = listener(LOOPBACK, 0)?;
    seen.outcome("then", &connect_with(socket, LOOPBACK, port));
    drop(server);
    Ok(())
}

fn connect_states(seen: &mut Seen) -> Checked {
    let (server, port) = listener(LOOPBACK, 0)?;
    let to = || address(LOOPBACK, port);
    let socket = tcp()?;
    seen.outcome("finish first", &socket.finish_connect());
    seen.outcome("remote address first", &socket.remote_address());
    seen.outcome("local address first", &socket.local_address());
    socket.start_connect(&network(), to()).at("start")?;
    seen.outcome("start again", &socket.start_connect(&network(), to()));
    seen.outcome("bind", &socket.start_bind(&network(), address(LOOPBACK, 0)));
    seen.outcome("listen", &socket.start_listen());
    seen.outcome("accept", &socket.accept());
    seen.outcome("remote address", &socket.remote_address());
    let client = finish(socket).map_err(|(code, _)| code).at("finish")?;
    let _accepted = accept(&server)?;
    let socket = &client.socket;
    seen.outcome("finish again", &socket.finish_connect());
    seen.outcome("connect again", &socket.start_connect(&network(), to()));
    seen.outcome("bind", &socket.start_bind(&network(), address(LOOPBACK, 0)));
    seen.outcome("listen", &socket.start_listen());
    seen.outcome("accept", &socket.accept());
    seen.outcome("backlog", &socket.set_listen_backlog_size(5));
    seen.say(format_args!("listening {}", socket.is_listening()));
    Ok(())
}

/// A connection stands, and carries bytes, before anybody accepts it.
fn before_accept(seen: &mut Seen) -> Checked {
    let (server, port) = listener(LOOPBACK, 0)?;
    let client = connect(LOOPBACK, port)?;
    client.send(b"early").at("sending")?;
    let accepted = accept(&server)?;
    seen.say(accepted.read_exactly(5).at("reading")?);
    seen.outcome("another", &server.accept());
    Ok(())
}

/// When as many wait as may, a connect waits too, until somebody is accepted.
fn full_backlog(seen: &mut Seen) -> Checked {
    let server = tcp()?;
    server.set_listen_backlog_size(1).at("backlog")?;
    bind(&server, LOOPBACK, 0).at("bind")?;
    listen(&server).at("listen")?;
    let port = parsed(server.local_address().at("address")?).port();
    let mut open = Vec::new();
    let waiting = loop {
        let socket = tcp()?;
        socket
            .start_connect(&network(), address(LOOPBACK, port))
            .at("start")?;
        if !ready_soon(&socket.subscribe()) {
            break socket;
        }
        open.push(finish(socket).map_err(|(code, _)| code).at("connecting")?);
        if open.len() == 64 {
            return Err(Failure("nobody had to wait".to_owned()));
        }
    };
    seen.outcome("one too many", &waiting.finish_connect());
    let mut accepted = Vec::new();
    let late = loop {
        let (connected, acceptable) = (waiting.subscribe(), server.subscribe());
        poll(&[&connected, &acceptable]);
        drop((connected, acceptable));
        while let Ok(connection) = server.accept() {
            accepted.push(connection);
        }
        match waiting.finish_connect() {
            Err(ErrorCode::WouldBlock) => {}
            result => break result.at("the late one")?,
        }
    };
    seen.say("connected once others were accepted");
    drop(late);
    drop(waiting);
    for (_, input, output) in accepted {
        drop((input, output));
    }
    Ok(())
}

/// Who was connected but not accepted when the listener closed is reset.
fn listener_closed(seen: &mut Seen) -> Checked {
    let (server, port) = listener(LOOPBACK, 0)?;
    let client = connect(LOOPBACK, port)?;
    drop(server);
    let (bytes, end) = client.rest();
    seen.say(format_args!("{} bytes", bytes.len()));
    seen.say(end);
    Ok(())
}

fn addresses(seen: &mut Seen, bound: IpAddr, dialled: IpAddr) -> Checked {
    let (server, port) = listener(bound, 0)?;
    seen.say(format_args!(
        "listening at {}",
        shown(server.local_address().at("address")?)
    ));
    let client = connect(dialled, port)?;
    let accepted = accept(&server)?;
    ends(seen, &client.socket, &accepted.socket)
}

fn from_bound(seen: &mut Seen, bound: IpAddr, dialled: IpAddr) -> Checked {
    let (server, port) = listener(ANY, 0)?;
    let socket = tcp()?;
    bind(&socket, bound, 0).at("bind")?;
    let before = parsed(socket.local_address().at("address")?).port();
    let client = connect_with(socket, dialled, port).at("connecting")?;
    let accepted = accept(&server)?;
    let after = parsed(client.socket.local_address().at("address")?).port();
    seen.say(format_args!("same port {}", before == after));
    ends(seen, &client.socket, &accepted.socket)
}

/// What both ends say of themselves and of each other.
fn ends(
    seen: &mut Seen,
    client: &wasip2::sockets::tcp::TcpSocket,
    server: &wasip2::sockets::tcp::TcpSocket,
) -> Checked {
    let [from, to] = [client.local_address(), client.remote_address()];
    let [at, peer] = [server.local_address(), server.remote_address()];
    let (from, to) = (
        parsed(from.at("local address")?),
        parsed(to.at("remote address")?),
    );
    let (at, peer) = (
        parsed(at.at("local address")?),
        parsed(peer.at("remote address")?),
    );
    seen.say(format_args!(
        "from {} to {}",
        place(from.ip()),
        place(to.ip())
    ));
    seen.say(format_args!(
        "at {} from {}",
        place(at.ip()),
        place(peer.ip())
    ));
    seen.say(format_args!("they agree {}", from == peer && to == at));
    Ok(())
}

/// A listener at one address is not found at another.
fn elsewhere(seen: &mut Seen) -> Checked {
    let (_server, port) = listener(LOOPBACK, 0)?;
    // Hold the port there, lest another program gets it.
    let holder = tcp()?;
    bind(&holder, own(), port).at("bind")?;
    seen.outcome("connect", &connect_with(tcp()?, own(), port));
    Ok(())
}

fn ready_listener(seen: &mut Seen) -> Checked {
    let (server, port) = listener(LOOPBACK, 0)?;
    let pollable = server.subscribe();
    seen.say(format_args!("ready {}", pollable.ready()));
    let client = connect(LOOPBACK, port)?;
    pollable.block();
    seen.say(format_args!("ready {}", pollable.ready()));
    drop(pollable);
    let accepted = accept(&server)?;
    let now = accepted.input.read(10).at("reading")?;
    seen.say(format_args!("{} bytes", now.len()));
    let pollable = accepted.input.subscribe();
    client.send(b"now").at("sending")?;
    pollable.block();
    seen.say(format_args!("input ready {}", pollable.ready()));
    seen.say(accepted.read_exactly(3).at("reading")?);
    drop(client);
    pollable.block();
    seen.say(format_args!("ready at the end, {}", accepted.rest().1));
    drop(pollable);
    let (client, _server) = pair(LOOPBACK)?;
    let pollable = client.output.subscribe();
    pollable.block();
    seen.say("output ready");
    Ok(())
}

fn resolved(name: &str) -> Result<Vec<IpAddress>, ErrorCode> {
    let network = network();
    let stream = resolve_addresses(&network, name)?;
    let mut all = Vec::new();
    loop {
        match stream.resolve_next_address() {
            Ok(Some(address)) => all.push(address),
            Ok(None) => return Ok(all),
            Err(ErrorCode::WouldBlock) => stream.subscribe().block(),
            Err(code) => return Err(code),
        }
    }
}

fn resolve_literals(seen: &mut Seen) -> Checked {
    for name in ["127.0.0.1", "192.0.2.7", "::1", "2001:db8::7"] {
        let addresses = resolved(name).at(name)?;
        for address in addresses {
            match address {
                IpAddress::Ipv4((a, b, c, d)) => seen.say(format_args!("{a}.{b}.{c}.{d}")),
                IpAddress::Ipv6((a, b, .., h)) => seen.say(format_args!("{a:x}:{b:x}::{h:x}")),
            }
        }
    }
    Ok(())
}

fn resolve_localhost(seen: &mut Seen) -> Checked {
    let addresses = resolved("localhost").at("localhost")?;
    let loopback = |address: &IpAddress| matches!(address, IpAddress::Ipv4((127, 0, 0, 1)));
    seen.say(format_args!("loopback {}", addresses.iter().any(loopback)));
    Ok(())
}

fn resolve_nonsense(seen: &mut Seen) -> Checked {
    for name in ["", "two words", "a..b", "http://name"] {
        seen.outcome(&format!("{name:?}"), &resolved(name));
    }
    Ok(())
}
