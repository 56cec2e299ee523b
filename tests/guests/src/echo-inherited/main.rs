//! Echoes what comes on the listeners that it inherits, as plainly as a WASI 0.1 program can: blocking calls, one
//! connection after the other on the first listener.
//!
//! It says what it was given (`LISTEN_FDS`, `LISTEN_FDNAMES`), and a line for each connection that has ended. With the
//! argument `once` it ends after the first one.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::FromRawFd;

fn main() -> io::Result<()> {
    let variable = |name| std::env::var(name).unwrap_or_else(|_| "unset".into());
    println!(
        "LISTEN_FDS {} LISTEN_FDNAMES {}",
        variable("LISTEN_FDS"),
        variable("LISTEN_FDNAMES")
    );
    let once = std::env::args().nth(1).as_deref() == Some("once");
    // SAFETY: inherited descriptors begin at 3, and nothing else here uses this one.
    let listener = unsafe { TcpListener::from_raw_fd(3) };
    loop {
        let (stream, _) = listener.accept()?;
        match echo(stream) {
            Ok(bytes) => println!("echoed {bytes} bytes"),
            Err(e) => println!("connection lost: {e}"),
        }
        if once {
            return Ok(());
        }
    }
}

/// Sends back all that comes; gives its length.
fn echo(mut stream: TcpStream) -> io::Result<u64> {
    let mut bytes = [0; 4096];
    let mut total = 0;
    loop {
        match stream.read(&mut bytes)? {
            0 => return Ok(total),
            n => {
                stream.write_all(&bytes[..n])?;
                total += n as u64;
            }
        }
    }
}
