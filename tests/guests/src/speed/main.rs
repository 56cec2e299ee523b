//! Serves and asks, and says how long asking took: a `wasi:cli/command` on `wasi:sockets` 0.2, for `coracle-bench net`.
//!
//! | arguments | effect |
//! |---|---|
//! | `serve PORT` | serves for ever, one connection after the other |
//! | `echo ADDRESS PORT COUNT` | so many round trips of 64 bytes over one connection; prints `NANOSECONDS` of one |
//! | `flood ADDRESS PORT BYTES` | sends so many bytes and waits until they were read; prints `NANOSECONDS` of all |
//! | `connect ADDRESS PORT COUNT` | opens and closes so many connections; prints `NANOSECONDS` of one |
//! | `keep ADDRESS PORT COUNT` | opens so many connections, has a byte answered on each, prints `kept`, and waits for ever |
//!
//! The first byte of a connection says what is wanted: `e` all messages back, `s` all bytes swallowed and one byte at the
//! end, `k` one byte back and the connection kept. It calls the host as wasi-libc does for a blocking socket: room, write,
//! flush; read, and wait where there is nothing. Addresses are IPv4.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Instant;

use wasip2::io::poll::Pollable;
use wasip2::io::streams::{InputStream, OutputStream, StreamError};
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress};
use wasip2::sockets::tcp::{ShutdownType, TcpSocket};
use wasip2::sockets::tcp_create_socket::create_tcp_socket;

const MESSAGE: usize = 64;
const BLOCK: usize = 64 * 1024;
/// Round trips before those that count.
const WARM_UP: u32 = 1000;

type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<()> {
    match words {
        ["serve", port] => serve(number(port)?),
        ["echo", host, port, count] => echo(at(host, port)?, number(count)?),
        ["flood", host, port, bytes] => flood(at(host, port)?, number(bytes)?),
        ["connect", host, port, count] => connect(at(host, port)?, number(count)?),
        ["keep", host, port, count] => keep(at(host, port)?, number(count)?),
        _ => Err(format!("unknown arguments {words:?}")),
    }
}

fn serve(port: u16) -> Result<()> {
    let listener = Socket::new()?;
    let any = Ipv4SocketAddress {
        port,
        address: (0, 0, 0, 0),
    };
    listener
        .socket
        .start_bind(&instance_network(), IpSocketAddress::Ipv4(any))
        .map_err(failed)?;
    listener.finish(TcpSocket::finish_bind)?;
    listener
        .socket
        .set_listen_backlog_size(4096)
        .map_err(failed)?;
    listener.socket.start_listen().map_err(failed)?;
    listener.finish(TcpSocket::finish_listen)?;
    println!("serving");
    let mut kept = Vec::new();
    loop {
        let accepted = listener.finish(TcpSocket::accept)?;
        // Whoever goes in the middle of it is no reason to stop.
        if let Ok(Some(stream)) = answer(Stream::new(accepted)) {
            kept.push(stream);
        }
    }
}

/// Does what the first byte says; gives the connection back if it is to be kept.
fn answer(mut stream: Stream) -> Result<Option<Stream>> {
    match stream.read(1)?.first() {
        Some(b'e') => loop {
            let bytes = stream.read(MESSAGE)?;
            if bytes.is_empty() {
                return Ok(None);
            }
            stream.write(&bytes)?;
        },
        Some(b's') => {
            while !stream.read(BLOCK)?.is_empty() {}
            stream.write(b".")?;
            Ok(None)
        }
        Some(b'k') => {
            stream.write(b".")?;
            Ok(Some(stream))
        }
        _ => Ok(None),
    }
}

fn echo(to: IpSocketAddress, count: u32) -> Result<()> {
    let mut stream = Stream::open(to)?;
    stream.write(b"e")?;
    let message = [7; MESSAGE];
    let mut start = Instant::now();
    for round in 0..WARM_UP + count {
        if round == WARM_UP {
            start = Instant::now();
        }
        stream.write(&message)?;
        let mut got = 0;
        while got < MESSAGE {
            let bytes = stream.read(MESSAGE - got)?;
            if bytes.is_empty() {
                return Err("the other side has gone".to_owned());
            }
            got += bytes.len();
        }
    }
    println!("{}", start.elapsed().as_nanos() / u128::from(count.max(1)));
    Ok(())
}

fn flood(to: IpSocketAddress, bytes: u64) -> Result<()> {
    let mut stream = Stream::open(to)?;
    let block = vec![7; BLOCK];
    let start = Instant::now();
    stream.write(b"s")?;
    let mut left = bytes;
    while left > 0 {
        let part = left.min(BLOCK as u64) as usize;
        stream.write(&block[..part])?;
        left -= part as u64;
    }
    stream.socket.shutdown(ShutdownType::Send).map_err(failed)?;
    if stream.read(1)?.is_empty() {
        return Err("the other side has gone".to_owned());
    }
    println!("{}", start.elapsed().as_nanos());
    Ok(())
}

fn connect(to: IpSocketAddress, count: u32) -> Result<()> {
    let start = Instant::now();
    for _ in 0..count {
        Stream::open(to)?;
    }
    println!("{}", start.elapsed().as_nanos() / u128::from(count.max(1)));
    Ok(())
}

fn keep(to: IpSocketAddress, count: u32) -> Result<()> {
    let mut kept = Vec::new();
    for _ in 0..count {
        let mut stream = Stream::open(to)?;
        stream.write(b"k")?;
        if stream.read(1)?.is_empty() {
            return Err("the other side has gone".to_owned());
        }
        kept.push(stream);
    }
    println!("kept");
    loop {
        std::thread::sleep(std::time::Duration::from_secs(3600));
    }
}

/// A socket with what tells that it can go on.
struct Socket {
    ready: Pollable,
    socket: TcpSocket,
}

impl Socket {
    fn new() -> Result<Self> {
        let socket = create_tcp_socket(IpAddressFamily::Ipv4).map_err(failed)?;
        let ready = socket.subscribe();
        Ok(Self { ready, socket })
    }

    /// Repeats the second half of an operation until it no longer says `would-block`.
    fn finish<T>(
        &self,
        attempt: impl Fn(&TcpSocket) -> std::result::Result<T, ErrorCode>,
    ) -> Result<T> {
        loop {
            match attempt(&self.socket) {
                Ok(value) => return Ok(value),
                Err(ErrorCode::WouldBlock) => self.ready.block(),
                Err(code) => return Err(failed(code)),
            }
        }
    }
}

/// A connection. The fields are dropped in this order: what waits before the streams, these before the socket.
struct Stream {
    readable: Option<Pollable>,
    writable: Option<Pollable>,
    input: InputStream,
    output: OutputStream,
    socket: TcpSocket,
}

impl Stream {
    fn new((socket, input, output): (TcpSocket, InputStream, OutputStream)) -> Self {
        Self {
            readable: None,
            writable: None,
            input,
            output,
            socket,
        }
    }

    fn open(to: IpSocketAddress) -> Result<Self> {
        let socket = Socket::new()?;
        socket
            .socket
            .start_connect(&instance_network(), to)
            .map_err(failed)?;
        let (input, output) = socket.finish(TcpSocket::finish_connect)?;
        drop(socket.ready);
        Ok(Self::new((socket.socket, input, output)))
    }

    /// The bytes that have come, at most `max`; none at the end.
    fn read(&mut self, max: usize) -> Result<Vec<u8>> {
        loop {
            match self.input.read(max as u64) {
                Ok(bytes) if bytes.is_empty() => {
                    let input = &self.input;
                    self.readable
                        .get_or_insert_with(|| input.subscribe())
                        .block();
                }
                Ok(bytes) => return Ok(bytes),
                Err(StreamError::Closed) => return Ok(Vec::new()),
                Err(StreamError::LastOperationFailed(error)) => return Err(error.to_debug_string()),
            }
        }
    }

    fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = self.output.check_write().map_err(lost)?;
            let part = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            if part == 0 {
                let output = &self.output;
                self.writable
                    .get_or_insert_with(|| output.subscribe())
                    .block();
                continue;
            }
            self.output.write(&bytes[..part]).map_err(lost)?;
            self.output.blocking_flush().map_err(lost)?;
            bytes = &bytes[part..];
        }
        Ok(())
    }
}

fn lost(error: StreamError) -> String {
    match error {
        StreamError::Closed => "the other side has gone".to_owned(),
        StreamError::LastOperationFailed(error) => error.to_debug_string(),
    }
}

fn failed(code: ErrorCode) -> String {
    code.name().to_owned()
}

fn at(host: &str, port: &str) -> Result<IpSocketAddress> {
    let host: Ipv4Addr = host
        .parse()
        .map_err(|_| format!("{host} is no IPv4 address"))?;
    let [a, b, c, d] = host.octets();
    Ok(IpSocketAddress::Ipv4(Ipv4SocketAddress {
        port: number(port)?,
        address: (a, b, c, d),
    }))
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T> {
    word.parse()
        .map_err(|_| format!("{word} is no such number"))
}
