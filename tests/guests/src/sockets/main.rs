//! Listens, connects and looks names up as its arguments say: a `wasi:cli/command` on `wasi:sockets` 0.2.
//!
//! | arguments | effect |
//! |---|---|
//! | `echo PORT` | serves for ever: sends back what comes, all connections at once |
//! | `sink PORT` | takes one connection, reads to its end, says how many bytes, ends |
//! | `hold PORT` | listens and never accepts |
//! | `connect HOST PORT TEXT` | sends the text and an end, prints what comes back and from where |
//! | `flood HOST PORT BYTES` | sends so many bytes, then ends |
//! | `lookup NAME…` | `NAME ADDRESS…` for each, or `NAME` and what the host said |
//! | `loopback PORT` | listens and connects to itself at 127.0.0.1 |
//! | `twice PORT` | listens on the same port twice and says what the second said |
//! | `connections HOST PORT COUNT` | opens so many connections at once, keeps them, says when that is done |
//! | `hoard [ROUNDS]` | takes ports of TCP and UDP in turn until that is refused, says how many and why not more, gives all back and begins again |
//!
//! A failure is a line on stderr that ends with the host's word, such as `connection-refused`, and code 1; arguments that
//! make no sense are code 2.

use std::io;
use std::process::ExitCode;

use guestbook_net::executor::{block_on, spawn};
use guestbook_net::names::lookup;
use guestbook_net::tcp::{TcpListener, TcpStream};
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress};
use wasip2::sockets::tcp::TcpSocket;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;
use wasip2::sockets::udp::UdpSocket;
use wasip2::sockets::udp_create_socket::create_udp_socket;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match block_on(run(&words)) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

async fn run(words: &[&str]) -> io::Result<ExitCode> {
    match words {
        ["echo", port] => echo(listen(port).await?).await?,
        ["sink", port] => {
            let mut stream = listen(port).await?.accept().await?;
            println!("took {} bytes", read_to_end(&mut stream).await?.len());
        }
        ["hold", port] => {
            let _listener = listen(port).await?;
            block_forever().await;
        }
        ["connect", host, port, text] => {
            let mut stream = TcpStream::connect(host, number(port)?).await?;
            println!("connected from {} to {}", stream.local()?, stream.peer()?);
            stream.write_all(text.as_bytes()).await?;
            stream.end_output()?;
            println!(
                "{}",
                String::from_utf8_lossy(&read_to_end(&mut stream).await?)
            );
        }
        ["flood", host, port, bytes] => {
            let mut stream = TcpStream::connect(host, number(port)?).await?;
            let mut left: usize = number(bytes)?;
            let block = [b'x'; 16 * 1024];
            while left > 0 {
                let n = left.min(block.len());
                stream.write_all(&block[..n]).await?;
                left -= n;
            }
            stream.finish();
            println!("sent {bytes} bytes");
        }
        ["lookup", names @ ..] => {
            let mut failed = false;
            for name in names {
                match lookup(name).await {
                    Ok(addresses) => {
                        let addresses: Vec<String> =
                            addresses.iter().map(ToString::to_string).collect();
                        println!("{name} {}", addresses.join(" "));
                    }
                    Err(e) => {
                        failed = true;
                        println!("{name} {e}");
                    }
                }
            }
            return Ok(if failed {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            });
        }
        ["loopback", port] => {
            let listener = listen(port).await?;
            let mut client = TcpStream::connect("127.0.0.1", number(port)?).await?;
            let mut server = listener.accept().await?;
            client.write_all(b"to myself").await?;
            client.end_output()?;
            println!(
                "heard {:?}",
                String::from_utf8_lossy(&read_to_end(&mut server).await?)
            );
        }
        ["twice", port] => {
            let _first = listen(port).await?;
            match TcpListener::bind(number(port)?).await {
                Ok(_) => println!("the second listens too"),
                Err(e) => println!("the second: {e}"),
            }
        }
        ["connections", host, port, count] => {
            let mut open = Vec::new();
            for _ in 0..number::<usize>(count)? {
                open.push(TcpStream::connect(host, number(port)?).await?);
            }
            println!("{} connections are open", open.len());
            block_forever().await;
        }
        ["hoard"] => hoard(u64::MAX)?,
        ["hoard", rounds] => hoard(number(rounds)?)?,
        _ => {
            eprintln!("unknown arguments {words:?}");
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn listen(port: &str) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(number(port)?).await?;
    println!("listening on port {port}");
    Ok(listener)
}

async fn echo(listener: TcpListener) -> io::Result<()> {
    loop {
        let mut stream = listener.accept().await?;
        let peer = stream.peer()?;
        println!("accepted {peer}");
        spawn(async move {
            match echo_one(&mut stream).await {
                Ok(bytes) => println!("echoed {bytes} bytes to {peer}"),
                Err(e) => println!("{peer}: {e}"),
            }
        });
    }
}

async fn echo_one(stream: &mut TcpStream) -> io::Result<usize> {
    let mut total = 0;
    loop {
        let bytes = stream.read(4096).await?;
        if bytes.is_empty() {
            stream.end_output()?;
            return Ok(total);
        }
        stream.write_all(&bytes).await?;
        total += bytes.len();
    }
}

async fn read_to_end(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let bytes = stream.read(64 * 1024).await?;
        if bytes.is_empty() {
            return Ok(all);
        }
        all.extend(bytes);
    }
}

fn hoard(rounds: u64) -> io::Result<()> {
    for _ in 0..rounds {
        let (mut tcp, mut udp) = (Vec::new(), Vec::new());
        let refusal = loop {
            let taken = tcp_port().map(|socket| tcp.push(socket));
            if let Err(refusal) = taken.and_then(|()| udp_port().map(|socket| udp.push(socket))) {
                break refusal;
            }
        };
        println!("{} sockets: {}", tcp.len() + udp.len(), refusal.name());
        if tcp.is_empty() {
            return Err(io::Error::other(refusal.name()));
        }
    }
    Ok(())
}

/// Any port of all addresses.
const ANY: IpSocketAddress = IpSocketAddress::Ipv4(Ipv4SocketAddress {
    port: 0,
    address: (0, 0, 0, 0),
});

fn tcp_port() -> Result<TcpSocket, ErrorCode> {
    let socket = create_tcp_socket(IpAddressFamily::Ipv4)?;
    socket.start_bind(&instance_network(), ANY)?;
    socket.finish_bind()?;
    socket.start_listen()?;
    socket.finish_listen()?;
    Ok(socket)
}

fn udp_port() -> Result<UdpSocket, ErrorCode> {
    let socket = create_udp_socket(IpAddressFamily::Ipv4)?;
    socket.start_bind(&instance_network(), ANY)?;
    socket.finish_bind()?;
    Ok(socket)
}

/// Waits for ever, in the host.
async fn block_forever() {
    loop {
        guestbook_net::executor::sleep(std::time::Duration::from_secs(3600)).await;
    }
}

fn number<T: std::str::FromStr>(word: &str) -> io::Result<T> {
    word.parse().map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{word} is no such number"),
        )
    })
}
