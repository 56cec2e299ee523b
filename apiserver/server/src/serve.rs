//! TLS and HTTP on any byte stream: a host socket, or a guest's connection through the Fabric.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use coracle_awake::awake;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::answer::Unhurried;
use crate::audit::{AUDIT_ID, AuditId, Source};
use crate::authn::{Connected, Identity};
use crate::connection::{ActiveBody, Transport};
use crate::held::Cut;
use crate::service::ApiServer;

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often an HTTP/2 client is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Most HTTP/2 streams of one connection at once.
const MAX_STREAMS: u32 = 250;
/// Most bytes of the head of a request; in HTTP/1.1 also of what is buffered of its body.
const MAX_HEADER_BYTES: usize = 256 * 1024;
/// Most fields of the head of an HTTP/1.1 request.
const MAX_HEADERS: usize = 100;
/// Most bytes that one HTTP/2 stream has waiting for its client.
const MAX_SEND_BUFFER: usize = 64 * 1024;
/// Most HTTP/2 streams that a client took back and that are still to be looked at: past it, it is sent away.
const MAX_RESET_STREAMS: usize = 20;

/// Why a connection ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The handshake did not finish in time.
    #[error("the TLS handshake took too long")]
    Slow,
    /// The handshake failed.
    #[error("the TLS handshake failed")]
    Handshake(#[source] std::io::Error),
    /// No request came in time.
    #[error("the client said nothing that is HTTP in time")]
    Silent,
    /// The client left unread what it had asked for.
    #[error("the client does not read what it asked for")]
    Unread,
    /// HTTP failed: mostly that the client went away.
    #[error("the connection failed: {0}")]
    Connection(String),
}

impl ApiServer {
    /// Serves one connection until it ends, or until the requests under way when [`stop`](Self::stop) was called are
    /// answered. With `tls`, a client certificate may name the user. `from` is where the client is, for the audit.
    pub async fn serve<S>(
        &self,
        stream: S,
        tls: Option<Arc<ServerConfig>>,
        from: Option<IpAddr>,
    ) -> Result<(), ServeError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(tls) = tls else {
            return self.serve_http(stream, None, from).await;
        };
        let handshake = TlsAcceptor::from(tls).accept(stream);
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await;
        let stream = stream
            .map_err(|_| ServeError::Slow)?
            .map_err(ServeError::Handshake)?;
        let certificates = stream.get_ref().1.peer_certificates();
        let server = &self.server;
        let now = server.clock().now();
        let peer = certificates
            .filter(|chain| !chain.is_empty())
            .map(|chain| Arc::new(server.authentication.connected(chain, now)));
        self.serve_http(stream, peer, from).await
    }

    async fn serve_http<S>(
        &self,
        stream: S,
        peer: Option<Arc<Connected>>,
        from: Option<IpAddr>,
    ) -> Result<(), ServeError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(stream) = Transport::detect(stream, self.server.clock()).await else {
            return Err(ServeError::Silent);
        };
        let (server, patience) = (self.clone(), stream.patience());
        let (activity, is_http2) = (stream.activity(), stream.is_http2());
        let cut = CancellationToken::new();
        let (own_activity, own_cut) = (Arc::clone(&activity), cut.clone());
        let service = hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
            let (server, patience) = (server.clone(), Arc::clone(&patience));
            let active = own_activity.begin();
            request.extensions_mut().insert(Cut(own_cut.clone()));
            // An identity in the extensions is for callers in this process; the network brings none.
            request.extensions_mut().remove::<Identity>();
            request.extensions_mut().remove::<Arc<Connected>>();
            if let Some(peer) = &peer {
                request.extensions_mut().insert(Arc::clone(peer));
            }
            async move {
                let id = AuditId::of(request.headers(), server.server.clock());
                let header = id.header();
                if server.server.audit.is_some() {
                    request.extensions_mut().insert(id);
                }
                if let Some(from) = from {
                    request.extensions_mut().insert(Source(from));
                }
                let mut response = server.handle(request).await;
                response.headers_mut().insert(AUDIT_ID, header);
                if response.extensions_mut().remove::<Unhurried>().is_some() {
                    patience.store(true, Ordering::Relaxed);
                }
                let response = response.map(|body| ActiveBody::new(body, active));
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let (io, stopped) = (TokioIo::new(stream), self.stopped());
        let ends = async {
            tokio::select! {
                () = stopped.cancelled() => {}
                () = activity.idle() => {}
            }
        };
        let served = async {
            if is_http2 {
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder
                    .timer(TokioTimer::new())
                    .max_concurrent_streams(MAX_STREAMS)
                    .max_header_list_size(MAX_HEADER_BYTES as u32)
                    .max_send_buf_size(MAX_SEND_BUFFER)
                    .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
                    .keep_alive_interval(Some(KEEP_ALIVE));
                let mut connection = std::pin::pin!(builder.serve_connection(io, service));
                tokio::select! {
                    result = connection.as_mut() => result,
                    () = ends => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                }
            } else {
                let mut builder = http1::Builder::new();
                builder
                    .timer(TokioTimer::new())
                    .header_read_timeout(None::<Duration>)
                    .max_headers(MAX_HEADERS)
                    .max_buf_size(MAX_HEADER_BYTES);
                let connection = builder.serve_connection(io, service).with_upgrades();
                let mut connection = std::pin::pin!(connection);
                tokio::select! {
                    result = connection.as_mut() => result,
                    () = ends => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                }
            }
        };
        let served = async {
            tokio::select! {
                result = served => Some(result),
                () = cut.cancelled() => None,
            }
        };
        let Some(result) = awake(served).await else {
            return Err(ServeError::Unread);
        };
        result.map_err(|error| ServeError::Connection(error.to_string()))
    }
}
