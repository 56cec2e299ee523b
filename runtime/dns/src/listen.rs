//! Listeners of the host, and any stream.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Semaphore;

use crate::forward::framed;
use crate::server::{Asker, Now, Server, Via};

/// How long a connection may be silent (RFC 7766 asks for seconds).
const IDLE: Duration = Duration::from_secs(10);
/// Connections of one listener.
const CONNECTIONS: usize = 256;
/// Questions of one listener that wait for others; datagrams past it are lost.
const WAITING: usize = 1024;
/// The longest datagram that is read; questions are far shorter.
const MOST_BYTES: usize = 4096;
/// How long a listener rests when the host has nothing to give.
const REST: Duration = Duration::from_millis(50);
/// How many ports after a given one are tried.
const ATTEMPTS: u16 = 100;

/// A port of the host, for both transports. No runtime knows its sockets before it serves.
pub struct HostListeners {
    udp: std::net::UdpSocket,
    tcp: std::net::TcpListener,
}

impl HostListeners {
    /// Binds exactly this address; port 0 is any port that is free for both.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let attempts = if address.port() == 0 { ATTEMPTS } else { 1 };
        let mut failure = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..attempts {
            let tcp = TcpListener::bind(address).await?;
            match UdpSocket::bind(tcp.local_addr()?).await {
                Ok(udp) => {
                    return Ok(Self {
                        udp: udp.into_std()?,
                        tcp: tcp.into_std()?,
                    });
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Binds this address, or the next port that is free for both.
    pub async fn bind_from(address: SocketAddr) -> io::Result<Self> {
        let mut next = address;
        for _ in 0..ATTEMPTS {
            match Self::bind(next).await {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    let Some(port) = next.port().checked_add(1) else {
                        break;
                    };
                    next.set_port(port);
                }
                other => return other,
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Answers for ever, on the runtime that polls it first; connections and questions under way end with it. Elsewhere every
    /// question would have to be passed on from the threads that watch the sockets.
    pub async fn serve(self, server: Arc<Server>) {
        let here = UdpSocket::from_std(self.udp).and_then(|udp| {
            let tcp = TcpListener::from_std(self.tcp)?;
            Ok((udp, tcp))
        });
        match here {
            Ok((udp, tcp)) => {
                tokio::join!(datagrams(udp, server.clone()), streams(tcp, server));
            }
            Err(error) => tracing::error!(%error, "DNS cannot serve the host"),
        }
    }
}

async fn datagrams(socket: UdpSocket, server: Arc<Server>) {
    let socket = Arc::new(socket);
    let waiting = Arc::new(Semaphore::new(WAITING));
    let mut tasks = tokio::task::JoinSet::new();
    let mut buffer = vec![0; MOST_BYTES];
    loop {
        while tasks.try_join_next().is_some() {}
        let (length, peer) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // Such as an earlier answer's port that was unreachable.
                tracing::debug!(%error, "DNS cannot receive");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        let via = Via {
            tcp: false,
            v6: is_v6(peer),
            host: true,
        };
        match server.now(&buffer[..length], via) {
            Now::Nothing => {}
            Now::Reply(reply) => send(&socket, &reply, peer).await,
            Now::Later(pending) => {
                let Ok(place) = waiting.clone().try_acquire_owned() else {
                    continue; // as a full queue would do
                };
                let (socket, server) = (socket.clone(), server.clone());
                tasks.spawn(async move {
                    let _place = place;
                    if let Some(reply) = server.later(*pending).await {
                        send(&socket, &reply, peer).await;
                    }
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, reply: &[u8], peer: SocketAddr) {
    if let Err(error) = socket.send_to(reply, peer).await {
        tracing::debug!(%peer, %error, "a DNS answer was not sent");
    }
}

async fn streams(listener: TcpListener, server: Arc<Server>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        // Past the most connections new ones wait in the host's backlog.
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let server = server.clone();
                let via = Via {
                    tcp: true,
                    v6: is_v6(peer),
                    host: true,
                };
                tasks.spawn(async move {
                    let _place = place;
                    serve_stream(&server, stream, via).await;
                });
            }
            Err(error) => {
                tracing::debug!(%error, "DNS cannot accept");
                tokio::time::sleep(REST).await;
            }
        }
    }
}

/// Answers the questions of one connection in turn, until its end, an error, or a silence of ten
/// seconds.
pub async fn serve_stream(server: &Server, stream: impl AsyncRead + AsyncWrite + Unpin, via: Via) {
    serve_stream_for(server, stream, via, None).await;
}

/// The same for somebody who may not know every name.
pub async fn serve_stream_for(
    server: &Server,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    via: Via,
    asker: Option<Arc<dyn Asker>>,
) {
    loop {
        let question = tokio::time::timeout(IDLE, read(&mut stream)).await;
        let Ok(Ok(question)) = question else { return };
        let reply = match server.now_for(&question, via, asker.clone()) {
            Now::Nothing => return,
            Now::Reply(reply) => Some(reply),
            Now::Later(pending) => server.later(*pending).await,
        };
        let Some(reply) = reply.and_then(|reply| framed(&reply).ok()) else {
            return;
        };
        let sent = tokio::time::timeout(IDLE, stream.write_all(&reply)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

fn is_v6(peer: SocketAddr) -> bool {
    peer.ip().to_canonical().is_ipv6()
}
