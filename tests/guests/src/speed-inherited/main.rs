//! `speed` as a WASI 0.1 program, by blocking calls. It serves on the first listener that it inherits, whatever the port
//! is, and opens connections as WasmEdge's extension has it.
//!
//! | arguments | effect |
//! |---|---|
//! | `serve PORT` | serves for ever, one connection after the other: the same answers to the same first bytes |
//! | `echo ADDRESS PORT COUNT` | so many round trips of 64 bytes over one connection; prints `NANOSECONDS` of one |
//! | `flood ADDRESS PORT BYTES` | sends so many bytes and waits until they were read; prints `NANOSECONDS` of all |
//! | `connect ADDRESS PORT COUNT` | opens and closes so many connections; prints `NANOSECONDS` of one |

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{FromRawFd, IntoRawFd};
use std::time::Instant;

const MESSAGE: usize = 64;
const BLOCK: usize = 64 * 1024;
/// Round trips before those that count.
const WARM_UP: u64 = 1000;

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let (ask, host, port, amount) = match words[..] {
        ["serve", _] => return serve_for_ever(),
        [ask, host, port, amount] => (ask, host, port, amount),
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let to = format!("{host}:{port}");
    let amount = amount.parse().map_err(|_| io::ErrorKind::InvalidInput)?;
    let nanos = match ask {
        "echo" => echo(&to, amount)?,
        "flood" => flood(&to, amount)?,
        "connect" => connect(&to, amount)?,
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    println!("{nanos}");
    Ok(())
}

fn open(to: &str) -> io::Result<TcpStream> {
    let stream = wasmedge_wasi_socket::TcpStream::connect(to)?;
    // SAFETY: the descriptor is a connection, and nobody else's any more.
    Ok(unsafe { TcpStream::from_raw_fd(stream.into_raw_fd()) })
}

fn echo(to: &str, count: u64) -> io::Result<u128> {
    let mut stream = open(to)?;
    stream.write_all(b"e")?;
    let mut message = [7; MESSAGE];
    let mut start = Instant::now();
    for round in 0..WARM_UP + count {
        if round == WARM_UP {
            start = Instant::now();
        }
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
    }
    Ok(start.elapsed().as_nanos() / u128::from(count.max(1)))
}

fn flood(to: &str, bytes: u64) -> io::Result<u128> {
    let mut stream = open(to)?;
    let block = vec![7; BLOCK];
    let start = Instant::now();
    stream.write_all(b"s")?;
    let mut left = bytes;
    while left > 0 {
        let part = left.min(BLOCK as u64) as usize;
        stream.write_all(&block[..part])?;
        left -= part as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    stream.read_exact(&mut [0])?;
    Ok(start.elapsed().as_nanos())
}

fn connect(to: &str, count: u64) -> io::Result<u128> {
    let start = Instant::now();
    for _ in 0..count {
        open(to)?;
    }
    Ok(start.elapsed().as_nanos() / u128::from(count.max(1)))
}

fn serve_for_ever() -> io::Result<()> {
    // SAFETY: inherited descriptors begin at 3, and nothing else here uses this one.
    let listener = unsafe { TcpListener::from_raw_fd(3) };
    let mut kept = Vec::new();
    let mut block = vec![0; BLOCK];
    println!("serving");
    loop {
        let (stream, _) = listener.accept()?;
        // Whoever goes in the middle of it is no reason to stop.
        if let Ok(Some(stream)) = serve(stream, &mut block) {
            kept.push(stream);
        }
    }
}

/// Does what the first byte says; gives the connection back if it is to be kept.
fn serve(mut stream: TcpStream, block: &mut [u8]) -> io::Result<Option<TcpStream>> {
    let mut word = [0];
    if stream.read(&mut word)? == 0 {
        return Ok(None);
    }
    match word[0] {
        b'e' => loop {
            let n = stream.read(&mut block[..MESSAGE])?;
            if n == 0 {
                return Ok(None);
            }
            stream.write_all(&block[..n])?;
        },
        b's' => {
            while stream.read(block)? > 0 {}
            stream.write_all(b".")?;
            Ok(None)
        }
        b'k' => {
            stream.write_all(b".")?;
            Ok(Some(stream))
        }
        _ => Ok(None),
    }
}
