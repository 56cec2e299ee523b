//! Uses WasmEdge's socket extension as programs do that were written for it: by the crate `wasmedge_wasi_socket`. A WASI 0.1
//! command.
//!
//! | arguments | effect |
//! |---|---|
//! | `echo PORT` | serves for ever: sends back what comes, one connection after the other |
//! | `connect HOST PORT TEXT` | sends the text and an end, prints what comes back and who is who |
//! | `checks OWN` | says what sockets do, line by line, in a pod whose address is `OWN` |
//! | `checks6 OWN` | the same of sockets of IPv6, in a pod that has the address `OWN` too |
//!
//! A failure is a line on stderr and code 1; arguments that make no sense are code 2.

mod checks;
mod ipv6;

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use wasmedge_wasi_socket::{Shutdown, TcpListener, TcpStream};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["echo", port] => echo(port),
        ["connect", host, port, text] => connect(host, port, text),
        ["checks", own] => checks::run(checks::CHECKS, own),
        ["checks6", own] => checks::run(ipv6::CHECKS, own),
        words => {
            eprintln!("unknown arguments {words:?}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{:?}", e.kind());
            ExitCode::FAILURE
        }
    }
}

fn echo(port: &str) -> io::Result<()> {
    let listener = TcpListener::bind(format!("0.0.0.0:{port}").as_str(), false)?;
    println!("listening at {}", listener.local_addr()?);
    loop {
        let (mut stream, peer) = listener.accept(false)?;
        println!("accepted {}", peer.ip());
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        stream.write_all(&all)?;
    }
}

fn connect(host: &str, port: &str, text: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(format!("{host}:{port}").as_str())?;
    println!(
        "from {} to {}",
        stream.local_addr()?.ip(),
        stream.peer_addr()?
    );
    stream.write_all(text.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut all = String::new();
    stream.read_to_string(&mut all)?;
    println!("{all}");
    Ok(())
}
