//! The serving half of `speed` as a WASI 0.1 program: the same answers to the same first bytes, on the first listener that
//! it inherits, one connection after the other by blocking calls.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::FromRawFd;

const MESSAGE: usize = 64;
const BLOCK: usize = 64 * 1024;

fn main() -> io::Result<()> {
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
