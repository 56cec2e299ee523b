//! Ports of the host, and any stream.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::datagrams::Datagrams;
use crate::forward::framed;
use crate::processors::{self, Local};
use crate::server::{Asker, Now, Server, Via};

/// How long a connection may be silent (RFC 7766 asks for seconds).
const IDLE: Duration = Duration::from_secs(10);
/// Connections of one listener.
const CONNECTIONS: usize = 256;
/// How long a listener rests when the host has nothing to give.
pub(crate) const REST: Duration = Duration::from_millis(50);
/// How many ports are tried for one that is free for both transports.
const ATTEMPTS: u16 = 100;

/// A port of the host, for both transports. No runtime knows its sockets before it serves.
pub struct HostListeners {
    udp: Vec<Local>,
    tcp: std::net::TcpListener,
}

impl HostListeners {
    /// Binds exactly this address; port 0 is any port that is free for both.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let attempts = if address.port() == 0 { ATTEMPTS } else { 1 };
        let mut failure = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..attempts {
            let tcp = TcpListener::bind(address).await?;
            match processors::bind(tcp.local_addr()?) {
                Ok(udp) => {
                    let tcp = tcp.into_std()?;
                    return Ok(Self { udp, tcp });
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Answers for ever; connections and questions under way end with it.
    pub async fn serve(self, server: Arc<Server>) {
        let begun = TcpListener::from_std(self.tcp).and_then(|tcp| {
            let (datagrams, later) = Datagrams::start(self.udp, &server)?;
            Ok((tcp, datagrams, later))
        });
        match begun {
            Ok((tcp, datagrams, later)) => {
                tokio::join!(
                    datagrams.answer_later(later, server.clone()),
                    streams(tcp, server)
                );
            }
            Err(error) => tracing::error!(%error, "DNS cannot serve the host"),
        }
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

pub(crate) fn is_v6(peer: SocketAddr) -> bool {
    peer.ip().to_canonical().is_ipv6()
}
