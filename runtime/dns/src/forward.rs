//! Asking other name servers: over UDP, and over TCP for what a datagram does not hold.
//!
//! ```text
//!   servers of the name ──▶ those that answered lately first ──▶ UDP ──truncated──▶ TCP
//!                               ▲                                 │ silence, failure
//!                               └──────────── the next one ◀──────┘
//! ```
//!
//! Every question has a socket, and so a port, of its own, and a random number: an answer that
//! fits neither is nobody's. The number of questions under way is bounded.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use coracle_clock::Clock;
use hickory_proto::op::ResponseCode;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use crate::message::{Asked, Reply};
use crate::metrics::Metrics;
use crate::upstreams::{UpstreamConfig, Upstreams};

/// Questions under way at once; more are refused. CoreDNS's usual `max_concurrent` is 1000; each has a descriptor here.
const IN_FLIGHT: usize = 512;
/// How long one server has for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long all of them have together.
const DEADLINE: Duration = Duration::from_secs(5);
/// A server that did not answer is asked after the others for this long.
const AVOID: Duration = Duration::from_secs(10);
/// Servers whose failures are remembered.
const REMEMBERED: usize = 64;
/// Wrong answers to one question that are passed over before the server counts as failed.
const WRONG_ANSWERS: usize = 16;
/// The longest datagram.
const MOST_BYTES: usize = 4096;

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// Nobody is named who could know.
    #[error("no name server is configured")]
    NoServers,
    /// Too many questions are under way.
    #[error("too many questions are under way")]
    Busy,
    /// No server answered in time.
    #[error("no name server answered")]
    NoAnswer,
}

/// Asks name servers elsewhere.
pub struct Forwarder {
    upstreams: Upstreams,
    clock: Clock,
    places: Semaphore,
    metrics: Arc<Metrics>,
    /// Until when a server is avoided.
    avoided: Mutex<HashMap<SocketAddr, Duration>>,
}

impl Forwarder {
    /// Asks whom `config` names.
    pub fn new(config: UpstreamConfig, clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self {
            upstreams: Upstreams::new(config),
            clock,
            places: Semaphore::new(IN_FLIGHT),
            metrics,
            avoided: Mutex::default(),
        }
    }

    /// The servers for names of no stub domain, as of now.
    pub fn servers(&self) -> Vec<SocketAddr> {
        self.upstreams.general(self.clock.monotonic())
    }

    /// The first answer that one of the name's servers gives. A refusal or failure of one counts
    /// only when no other has an answer.
    pub(crate) async fn resolve(&self, asked: &Asked) -> Result<Reply, ForwardError> {
        let servers = self.in_order(self.upstreams.of(&asked.text(), self.clock.monotonic()));
        if servers.is_empty() {
            return Err(ForwardError::NoServers);
        }
        let Ok(_place) = self.places.try_acquire() else {
            self.metrics.rejected();
            return Err(ForwardError::Busy);
        };
        let mut failure = None;
        let tries = async {
            for server in servers {
                match tokio::time::timeout(PATIENCE, self.ask(server, asked)).await {
                    Ok(Ok(reply)) => {
                        self.avoided.lock().remove(&server);
                        let code = reply.outcome.code;
                        if matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
                            return Some(reply);
                        }
                        failure.get_or_insert(reply);
                    }
                    Ok(Err(error)) => self.failed(server, &error.to_string()),
                    Err(_) => self.failed(server, "no answer in time"),
                }
            }
            None
        };
        let found = tokio::time::timeout(DEADLINE, tries).await.ok().flatten();
        found.or(failure).ok_or(ForwardError::NoAnswer)
    }

    fn failed(&self, server: SocketAddr, why: &str) {
        tracing::debug!(%server, why, "a name server did not answer");
        self.metrics.upstream_failed(server);
        let now = self.clock.monotonic();
        let mut avoided = self.avoided.lock();
        if avoided.len() >= REMEMBERED {
            avoided.retain(|_, until| *until > now);
            if avoided.len() >= REMEMBERED {
                return;
            }
        }
        avoided.insert(server, now + AVOID);
    }

    /// Those that failed lately last.
    fn in_order(&self, servers: Vec<SocketAddr>) -> Vec<SocketAddr> {
        let now = self.clock.monotonic();
        let avoided = self.avoided.lock();
        let is_avoided =
            |server: &SocketAddr| avoided.get(server).is_some_and(|until| *until > now);
        let (last, mut first): (Vec<_>, Vec<_>) = servers.into_iter().partition(is_avoided);
        first.extend(last);
        first
    }

    async fn ask(&self, server: SocketAddr, asked: &Asked) -> io::Result<Reply> {
        let id = self.clock.random_below(1 << 16) as u16;
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let question = asked.bytes(id).ok_or_else(invalid)?;
        self.metrics.forwarded(server);
        let started = self.clock.monotonic();
        let mut reply = over_udp(server, asked, id, &question).await?;
        if reply.truncated {
            reply = over_tcp(server, asked, id, &question).await?;
        }
        let took = self.clock.monotonic().saturating_sub(started);
        self.metrics
            .upstream_answered(server, reply.outcome.code, took);
        Ok(reply)
    }
}

async fn over_udp(
    server: SocketAddr,
    asked: &Asked,
    id: u16,
    question: &[u8],
) -> io::Result<Reply> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; MOST_BYTES];
    for _ in 0..WRONG_ANSWERS {
        let length = socket.recv(&mut buffer).await?;
        if let Some(reply) = asked.read_reply(id, &buffer[..length]) {
            return Ok(reply);
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

async fn over_tcp(
    server: SocketAddr,
    asked: &Asked,
    id: u16,
    question: &[u8],
) -> io::Result<Reply> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&framed(question)?).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; length.into()];
    stream.read_exact(&mut buffer).await?;
    let reply = asked.read_reply(id, &buffer);
    reply.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// A message as a stream carries it: behind its length.
pub(crate) fn framed(message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut bytes = Vec::with_capacity(message.len() + 2);
    bytes.extend(length.to_be_bytes());
    bytes.extend(message);
    Ok(bytes)
}
