//! Names and plain connections, over the pod's network.

use std::io::{self, Read, Write};

use wasip2::io::poll::{Pollable, poll};
use wasip2::io::streams::StreamError;

use crate::context::{Cx, Input};
use crate::failure::{Failure, Outcome, why};
use crate::options::Options;
use crate::tcp::{Deadline, Stream, lookup, stream_error};

pub fn nslookup(cx: &mut Cx, args: &[String]) -> Outcome {
    let name = args
        .iter()
        .find(|arg| !arg.starts_with('-'))
        .ok_or_else(|| Failure::usage("needs a name"))?;
    let conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let server = conf
        .lines()
        .find_map(|line| line.strip_prefix("nameserver "))
        .unwrap_or("the pod's resolver");
    writeln!(cx.out, "Server:\t\t{}\n", server.trim())?;
    match lookup(name, Deadline::after(None)) {
        Ok(addresses) if !addresses.is_empty() => {
            for address in addresses {
                writeln!(cx.out, "Name:\t{name}\nAddress: {address}")?;
            }
            Ok(0)
        }
        Ok(_) => Err(Failure::new(format!("can't find {name}: no address"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Failure::new(format!("can't find {name}: NXDOMAIN")))
        }
        Err(error) => Err(Failure::new(format!("can't find {name}: {}", why(&error)))),
    }
}

pub fn getent(cx: &mut Cx, args: &[String]) -> Outcome {
    let (database, names) = args
        .split_first()
        .ok_or_else(|| Failure::usage("needs hosts and a name"))?;
    if !matches!(database.as_str(), "hosts" | "ahosts" | "ahostsv4") {
        return Err(Failure::usage(format!(
            "{database}: the toolbox knows only hosts"
        )));
    }
    let mut code = 0;
    for name in names {
        match lookup(name, Deadline::after(None)) {
            Ok(addresses) if !addresses.is_empty() => {
                for address in addresses {
                    writeln!(cx.out, "{address:<15} {name}")?;
                }
            }
            _ => code = 2,
        }
    }
    Ok(code)
}

pub fn nc(cx: &mut Cx, args: &[String]) -> Outcome {
    let options = Options::read(args, "lzvw:p:nk4q:N", &[])?;
    let port = |text: &str| {
        text.parse::<u16>()
            .map_err(|_| Failure::usage(format!("{text}: not a port")))
    };
    let patience = options
        .value('w')
        .map(super::system::duration)
        .transpose()?;
    let deadline = Deadline::after(patience);
    let tell_end = options.has('N');
    if options.has('l') {
        let number = options
            .value('p')
            .or(options.operands.last().map(String::as_str));
        let number = port(number.ok_or_else(|| Failure::usage("needs a port"))?)?;
        let stream = Stream::accept_one(number, deadline)?;
        if options.has('v') {
            cx.complain("nc", &format!("connection from {}", stream.peer()));
        }
        return exchange(cx, &stream, tell_end);
    }
    let [host, number] = &options.operands[..] else {
        return Err(Failure::usage("needs a host and a port"));
    };
    let stream = match Stream::connect(host, port(number)?, deadline) {
        Ok(stream) => stream,
        // Without -v it fails silently, as it does elsewhere when it only tries.
        Err(_) if options.has('z') && !options.has('v') => return Ok(1),
        Err(error) => {
            return Err(Failure::new(format!(
                "{host} port {number}: {}",
                why(&error)
            )));
        }
    };
    if options.has('v') {
        cx.complain("nc", &format!("connected to {}", stream.peer()));
    }
    if options.has('z') {
        return Ok(0);
    }
    exchange(cx, &stream, tell_end)
}

/// Copies both ways until the other side has said all it had to.
fn exchange(cx: &mut Cx, stream: &Stream, tell_end: bool) -> Outcome {
    cx.flush();
    // What was read and is not sent; more is read when it is gone.
    let mut pending = Vec::new();
    let mut ended = false;
    if !matches!(cx.input, Input::Stdin) {
        cx.input.clone().read_to_end(&mut pending)?;
        ended = true;
    }
    let stdin = wasip2::cli::stdin::get_stdin();
    let mut told = false;
    loop {
        if !pending.is_empty() {
            // One that hangs up may have said something before.
            let taken = stream.write_some(&pending).unwrap_or(pending.len());
            pending.drain(..taken);
        }
        // Many servers take an end of the input for a hang-up, so it is told only on request.
        if ended && pending.is_empty() && !told && tell_end {
            stream.end_output();
            told = true;
        }
        match stream.input.read(32 << 10) {
            Ok(bytes) if !bytes.is_empty() => {
                cx.out.write_all(&bytes)?;
                cx.out.flush()?;
                continue;
            }
            Ok(_) => {}
            Err(StreamError::Closed) => return Ok(0),
            Err(error) => return Err(stream_error(error).into()),
        }
        if !ended && pending.is_empty() {
            match stdin.read(32 << 10) {
                Ok(bytes) if !bytes.is_empty() => {
                    pending = bytes;
                    continue;
                }
                Ok(_) => {}
                Err(StreamError::Closed) => {
                    ended = true;
                    continue;
                }
                Err(error) => return Err(stream_error(error).into()),
            }
        }
        let mut waited = vec![stream.input.subscribe()];
        if !pending.is_empty() {
            waited.push(stream.output.subscribe());
        } else if !ended {
            waited.push(stdin.subscribe());
        }
        poll(&waited.iter().collect::<Vec<&Pollable>>());
    }
}
