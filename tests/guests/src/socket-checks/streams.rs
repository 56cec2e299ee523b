//! Bytes: half-closed, reset, too many, none.

use wasip2::sockets::tcp::ShutdownType;

use crate::net::{
    At as _, Connection, Failure, LOOPBACK, Named as _, address, connect, listener, network, pair,
};
use crate::{Check, Checked, Seen};

pub(crate) const CHECKS: &[Check] = &[
    ("half-close-by-client", |seen| {
        let (client, server) = pair(LOOPBACK)?;
        half_close(seen, &client, &server)
    }),
    ("half-close-by-server", |seen| {
        let (client, server) = pair(LOOPBACK)?;
        half_close(seen, &server, &client)
    }),
    ("shutdown-receive", shutdown_receive),
    ("shutdown-both", shutdown_both),
    ("shutdown-states", shutdown_states),
    ("end-in-order", end_in_order),
    ("end-with-bytes-on-the-way", end_with_bytes),
    ("write-after-the-peer-left", write_after_end),
    ("reset-then-read", reset_then_read),
    ("reset-then-write", reset_then_write),
    ("reset-after-last-words", last_words),
    ("output-dropped-alone", output_dropped),
    ("nothing-read-and-written", nothing),
    ("bulk", bulk),
    ("slow-reader", slow_reader),
    ("both-ways-at-once", both_ways),
];

fn half_close(seen: &mut Seen, first: &Connection, second: &Connection) -> Checked {
    first.send(b"question").at("sending")?;
    seen.outcome("shutdown", &first.socket.shutdown(ShutdownType::Send));
    seen.outcome("write after it", &first.send(b"more"));
    let (question, end) = second.rest();
    seen.say(format_args!("{question} and {end}"));
    second.send(b"answer").at("answering")?;
    seen.say(first.read_exactly(6).at("reading the answer")?);
    seen.outcome("shutdown again", &first.socket.shutdown(ShutdownType::Send));
    second
        .socket
        .shutdown(ShutdownType::Send)
        .at("second shutdown")?;
    seen.say(first.rest().1);
    Ok(())
}

fn shutdown_receive(seen: &mut Seen) -> Checked {
    let (client, server) = pair(LOOPBACK)?;
    seen.outcome("shutdown", &client.socket.shutdown(ShutdownType::Receive));
    seen.say(format_args!("reader {}", client.rest().1));
    seen.outcome("peer writes", &server.send(b"into the void"));
    seen.outcome("peer writes again", &server.send(b"into the void"));
    seen.say(format_args!("reader {}", client.rest().1));
    client.send(b"still").at("sending")?;
    seen.say(server.read_exactly(5).at("reading")?);
    Ok(())
}

fn shutdown_both(seen: &mut Seen) -> Checked {
    let (client, server) = pair(LOOPBACK)?;
    client.send(b"bye").at("sending")?;
    seen.outcome("shutdown", &client.socket.shutdown(ShutdownType::Both));
    let (bytes, end) = server.rest();
    seen.say(format_args!("{bytes} and {end}"));
    seen.say(format_args!("reader {}", client.rest().1));
    seen.outcome("writer", &client.send(b"more"));
    Ok(())
}

fn shutdown_states(seen: &mut Seen) -> Checked {
    let socket = crate::net::tcp()?;
    for how in [
        ShutdownType::Receive,
        ShutdownType::Send,
        ShutdownType::Both,
    ] {
        seen.outcome("unconnected", &socket.shutdown(how));
    }
    socket
        .start_bind(&network(), address(LOOPBACK, 0))
        .at("bind")?;
    socket.finish_bind().at("bind")?;
    seen.outcome("bound", &socket.shutdown(ShutdownType::Both));
    Ok(())
}

fn end_in_order(seen: &mut Seen) -> Checked {
    let (client, server) = pair(LOOPBACK)?;
    drop(client);
    seen.say(server.rest().1);
    seen.say(format_args!("again {}", server.rest().1));
    Ok(())
}

fn end_with_bytes(seen: &mut Seen) -> Checked {
    let (client, server) = pair(LOOPBACK)?;
    client.send(&vec![b'x'; 50_000]).at("sending")?;
    drop(client);
    let (bytes, end) = server.rest();
    seen.say(format_args!("{} bytes and {end}", bytes.len()));
    Ok(())
}

/// A kernel needs a write to learn that nobody is there; then, or at once, it is told.
fn write_after_end(seen: &mut Seen) -> Checked {
    let (client, server) = pair(LOOPBACK)?;
    drop(client);
    seen.say(server.rest().1);
    loop {
        if let Err(error) = server.send(b"anybody?") {
            seen.say(format_args!("writer {}", error.word()));
            break;
        }
        // Gives up its turn, so that the answer gets through.
        crate::net::ready_soon(&server.socket.subscribe());
    }
    seen.outcome("again", &server.send(b"anybody?"));
    seen.say(format_args!("reader {}", server.rest().1));
    Ok(())
}

/// A connection that its listener reset.
fn reset() -> Result<Connection, Failure> {
    let (listener, port) = listener(LOOPBACK, 0)?;
    let client = connect(LOOPBACK, port)?;
    client.send(b"unread").at("sending")?;
    drop(listener);
    client.wait();
    Ok(client)
}

fn reset_then_read(seen: &mut Seen) -> Checked {
    let client = reset()?;
    seen.outcome("read", &client.read());
    seen.outcome("read again", &client.read());
    seen.outcome("write", &client.send(b"x"));
    seen.outcome("write again", &client.send(b"x"));
    Ok(())
}

fn reset_then_write(seen: &mut Seen) -> Checked {
    let client = reset()?;
    seen.outcome("write", &client.send(b"x"));
    seen.outcome("write again", &client.send(b"x"));
    seen.outcome("read", &client.read());
    seen.outcome("read again", &client.read());
    Ok(())
}

/// Somebody who leaves without having read everything resets; what was sent before arrives.
fn last_words(seen: &mut Seen) -> Checked {
    let (client, server) = pair(LOOPBACK)?;
    client.send(b"unread").at("sending")?;
    server.wait();
    server.send(b"last words").at("last words")?;
    drop(server);
    client.wait();
    let (bytes, end) = client.rest();
    seen.say(bytes);
    seen.say(end);
    Ok(())
}

fn output_dropped(seen: &mut Seen) -> Checked {
    let (client, server) = pair(LOOPBACK)?;
    let Connection {
        input,
        output,
        socket,
    } = client;
    output.write(b"").at("writing")?;
    drop(output);
    let now = server.input.read(100).at("reading")?;
    seen.say(format_args!("{} bytes, no end", now.len()));
    drop(input);
    let now = server.input.read(100).at("reading")?;
    seen.say(format_args!("{} bytes, no end", now.len()));
    drop(socket);
    seen.say(server.rest().1);
    Ok(())
}

fn nothing(seen: &mut Seen) -> Checked {
    let (client, server) = pair(LOOPBACK)?;
    seen.outcome("read 0", &client.input.read(0));
    client.output.check_write().at("asking for room")?;
    seen.outcome("write 0", &client.output.write(b""));
    seen.outcome("flush", &client.output.flush());
    let now = server.input.read(10).at("reading")?;
    seen.say(format_args!("{} bytes arrived", now.len()));
    client.send(b"abc").at("sending")?;
    server.wait();
    seen.outcome("read 0 of 3", &server.input.read(0));
    seen.say(server.read_exactly(3).at("reading")?);
    drop(client);
    server.wait();
    seen.outcome("read 0 before the end", &server.input.read(0));
    seen.outcome("read 1", &server.input.read(1));
    seen.outcome("read 0 after the end", &server.input.read(0));
    Ok(())
}

/// More than any queue holds, in order.
fn bulk(seen: &mut Seen) -> Checked {
    let (client, server) = pair(LOOPBACK)?;
    let all: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let (mut sent, mut got) = (0, Vec::new());
    while got.len() < all.len() {
        if sent < all.len() {
            let room = client.output.check_write().at("asking for room")?;
            let part = &all[sent..][..(all.len() - sent).min(room as usize)];
            client.output.write(part).at("writing")?;
            sent += part.len();
            if sent == all.len() {
                client.socket.shutdown(ShutdownType::Send).at("shutdown")?;
            }
        }
        if got.len() < sent {
            got.extend(server.read().at("reading")?);
        } else {
            client.output.subscribe().block();
        }
    }
    seen.say(format_args!("in order {}", got == all));
    seen.say(server.rest().1);
    Ok(())
}

/// Somebody who does not read holds the writer up; reading lets it go on.
fn slow_reader(seen: &mut Seen) -> Checked {
    let (client, server) = pair(LOOPBACK)?;
    let block = [b'x'; 64 * 1024];
    let mut sent = 0;
    loop {
        let room = client.output.check_write().at("asking for room")? as usize;
        if room == 0 && !crate::net::ready_soon(&client.output.subscribe()) {
            break;
        }
        let part = room.min(block.len());
        client.output.write(&block[..part]).at("writing")?;
        sent += part;
        if sent > 64 << 20 {
            return Err(Failure("nothing held the writer up".to_owned()));
        }
    }
    seen.say("held up");
    let pollable = client.output.subscribe();
    let mut read = 0;
    while !pollable.ready() {
        if read < sent {
            read += server.read().at("reading")?.len();
        } else {
            pollable.block();
        }
    }
    seen.say("goes on once somebody reads");
    drop(pollable);
    client.socket.shutdown(ShutdownType::Send).at("shutdown")?;
    let rest = server.rest();
    seen.say(format_args!("all arrived {}", read + rest.0.len() == sent));
    Ok(())
}

fn both_ways(seen: &mut Seen) -> Checked {
    let (client, server) = pair(LOOPBACK)?;
    for _ in 0..100 {
        client.send(b"ping").at("sending")?;
        server.send(b"pong").at("sending")?;
    }
    let there = server.read_exactly(400).at("reading")?;
    let back = client.read_exactly(400).at("reading")?;
    seen.say(there == "ping".repeat(100) && back == "pong".repeat(100));
    Ok(())
}
