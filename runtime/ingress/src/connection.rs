//! One connection of a client: TLS, then HTTP/1.1 or HTTP/2, with its bounds.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coracle_awake::awake;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::activity::{Activity, End, IDLE};
use crate::proxy::{Entrance, Proxy};

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection that is to end has for what is under way.
const LAST: Duration = Duration::from_secs(10);
/// The most bytes of a head, and of what is read ahead of a body.
const HEAD: usize = 64 << 10;
/// The most fields of the head of an HTTP/1.1 request.
const FIELDS: usize = 100;
/// Requests at once on a connection of HTTP/2.
const STREAMS: u32 = 128;
/// What is sent ahead of a client of HTTP/2, on each stream.
const SEND_BUFFER: usize = 32 << 10;
/// What a client of HTTP/2 may send ahead: on a stream, and on its connection.
const STREAM_WINDOW: u32 = 128 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Streams that a client took back and that are still to be looked at.
const RESET_STREAMS: usize = 20;
/// How often a client of HTTP/2 is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// What serves connections.
pub(crate) struct Door {
    pub(crate) proxy: Arc<Proxy>,
    /// The configuration of TLS, for the port where it is spoken.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    /// The port that clients ask.
    pub(crate) port: u16,
    /// No more requests are taken from now on.
    pub(crate) stop: CancellationToken,
}

impl Door {
    /// Serves one connection to its end.
    pub(crate) async fn serve<S>(&self, stream: S, client: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.proxy.metrics().connected(self.tls.is_some());
        let Some(tls) = &self.tls else {
            return self.serve_http(stream, client).await;
        };
        let handshake = TlsAcceptor::from(tls.clone()).accept(stream);
        match tokio::time::timeout(HANDSHAKE, handshake).await {
            Ok(Ok(stream)) => self.serve_http(stream, client).await,
            Ok(Err(error)) => tracing::debug!(%client, %error, "a TLS handshake failed"),
            Err(_) => tracing::debug!(%client, "a TLS handshake took too long"),
        }
    }

    async fn serve_http<S>(&self, stream: S, client: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let activity = Activity::new(self.proxy.clock());
        let entrance = Entrance {
            client,
            port: self.port,
            is_tls: self.tls.is_some(),
        };
        let (proxy, requests) = (self.proxy.clone(), activity.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (proxy, active) = (proxy.clone(), requests.begin());
            async move { Ok::<_, Infallible>(proxy.handle(request, entrance, active).await) }
        });
        let protocol = protocol();
        let connection = protocol.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let served = async {
            let mut connection = std::pin::pin!(connection);
            tokio::select! {
                ended = connection.as_mut() => ended,
                end = activity.end() => match end {
                    End::Unread => {
                        tracing::debug!(%client, "a client does not read its answer");
                        Ok(())
                    }
                    End::Idle => {
                        connection.as_mut().graceful_shutdown();
                        tokio::time::timeout(LAST, connection).await.unwrap_or(Ok(()))
                    }
                },
                () = self.stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        };
        // An answer's parts wake the task that they are read in.
        if let Err(error) = awake(served).await {
            tracing::debug!(%client, %error, "a connection ended");
        }
    }
}

/// Speaks HTTP/1.1, and HTTP/2 with who begins with it.
fn protocol() -> auto::Builder<TokioExecutor> {
    let mut protocol = auto::Builder::new(TokioExecutor::new());
    protocol
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_headers(FIELDS)
        .max_buf_size(HEAD);
    protocol
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD as u32)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESET_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(KEEP_ALIVE);
    protocol
}
