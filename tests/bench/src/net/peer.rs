//! The kernel's side: what the guest `speed` does, natively, by blocking calls over loopback TCP. Client and server are
//! processes of their own, as two pods have nothing in common either.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use coracle_clock::Clock;
use rustix::thread::{CpuSet, sched_getaffinity};

use crate::fairness::run_on;

const MESSAGE: usize = 64;
const BLOCK: usize = 64 * 1024;
/// Round trips before those that count, as the guest's.
const WARM_UP: u64 = 1000;

/// One end.
#[derive(Debug, Args)]
pub(crate) struct Peer {
    /// Runs on one processor, the first that this program may use
    #[arg(long)]
    together: bool,
    #[command(subcommand)]
    role: Role,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Role {
    /// Serves for ever, one connection after the other; prints its address
    Serve,
    /// Sends back every datagram, for ever; prints its address
    EchoDatagrams,
    /// Round trips of 64 bytes; prints the nanoseconds of one
    Echo { server: SocketAddr, count: u64 },
    /// Sends bytes and waits until they were read; prints the nanoseconds of all
    Flood { server: SocketAddr, bytes: u64 },
    /// Opens and closes connections; prints the nanoseconds of one
    Connect { server: SocketAddr, count: u64 },
}

impl Peer {
    /// Plays its role to the end.
    pub(crate) fn run(&self, clock: &Clock) -> Result<()> {
        if self.together {
            run_on(&[first_processor()?])?;
        }
        match self.role {
            Role::Serve => serve(),
            Role::EchoDatagrams => echo_datagrams(),
            Role::Echo { server, count } => echo(server, count, clock),
            Role::Flood { server, bytes } => flood(server, bytes, clock),
            Role::Connect { server, count } => connect(server, count, clock),
        }
    }
}

fn first_processor() -> Result<usize> {
    let set = sched_getaffinity(None).context("failed to ask where this program may run")?;
    let first = (0..CpuSet::MAX_CPU).find(|at| set.is_set(*at));
    first.context("this program may run nowhere")
}

fn serve() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?);
    let mut block = vec![0; BLOCK];
    loop {
        let (stream, _) = listener.accept()?;
        // Whoever goes in the middle of it is no reason to stop.
        let _ = answer(stream, &mut block);
    }
}

fn echo_datagrams() -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", socket.local_addr()?);
    let mut datagram = [0; 4096];
    loop {
        let (length, client) = socket.recv_from(&mut datagram)?;
        // A client that has gone is no reason to stop.
        let _ = socket.send_to(&datagram[..length], client);
    }
}

/// Does what the first byte says, as the guest does.
fn answer(mut stream: TcpStream, block: &mut [u8]) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut word = [0];
    if stream.read(&mut word)? == 0 {
        return Ok(());
    }
    match word[0] {
        b'e' => loop {
            let n = stream.read(&mut block[..MESSAGE])?;
            if n == 0 {
                return Ok(());
            }
            stream.write_all(&block[..n])?;
        },
        _ => {
            while stream.read(block)? > 0 {}
            Ok(stream.write_all(b".")?)
        }
    }
}

fn open(server: SocketAddr, word: u8) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    stream.write_all(&[word])?;
    Ok(stream)
}

fn echo(server: SocketAddr, count: u64, clock: &Clock) -> Result<()> {
    let mut stream = open(server, b'e')?;
    let mut message = [7; MESSAGE];
    let mut start = clock.monotonic();
    for round in 0..WARM_UP + count {
        if round == WARM_UP {
            start = clock.monotonic();
        }
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
    }
    let took = clock.monotonic().saturating_sub(start);
    println!("{}", took.as_nanos() / u128::from(count.max(1)));
    Ok(())
}

fn flood(server: SocketAddr, bytes: u64, clock: &Clock) -> Result<()> {
    let block = vec![7; BLOCK];
    let start = clock.monotonic();
    let mut stream = open(server, b's')?;
    let mut left = bytes;
    while left > 0 {
        let part = left.min(BLOCK as u64) as usize;
        stream.write_all(&block[..part])?;
        left -= part as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    ensure!(stream.read(&mut [0])? == 1, "the other side has gone");
    println!("{}", clock.monotonic().saturating_sub(start).as_nanos());
    Ok(())
}

fn connect(server: SocketAddr, count: u64, clock: &Clock) -> Result<()> {
    let start = clock.monotonic();
    for _ in 0..count {
        TcpStream::connect(server)?;
    }
    let took = clock.monotonic().saturating_sub(start);
    println!("{}", took.as_nanos() / u128::from(count.max(1)));
    Ok(())
}

/// A serving end in a process of its own; it ends when this is dropped.
pub(super) struct Server {
    process: Child,
    pub(super) address: SocketAddr,
    /// What both ends are told of where to run.
    place: Option<&'static str>,
}

impl Server {
    /// Starts this program in that role: both ends on one processor, or wherever the system puts them.
    pub(super) fn start(role: &str, together: bool) -> Result<Self> {
        let place = together.then_some("--together");
        let mut process = Command::new(std::env::current_exe()?)
            .arg("peer")
            .args(place)
            .arg(role)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to run this program as the kernel's server")?;
        let mut line = String::new();
        let output = process.stdout.take().context("no output")?;
        BufReader::new(output).read_line(&mut line)?;
        let address = line.trim().parse();
        let address = address.with_context(|| format!("the server said {line:?}"))?;
        Ok(Self {
            process,
            address,
            place,
        })
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What a client prints that has this server asked for.
    pub(super) async fn ask(&self, role: &str, count: u64) -> Result<f64> {
        let output = tokio::process::Command::new(std::env::current_exe()?)
            .arg("peer")
            .args(self.place)
            .args([role, &self.address.to_string(), &count.to_string()])
            .kill_on_drop(true)
            .output()
            .await
            .context("failed to run this program as the kernel's client")?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.success(),
            "the kernel's client failed: {errors}"
        );
        super::printed(&String::from_utf8_lossy(&output.stdout))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
