//! TLS and HTTP on any byte stream: a host socket, or a guest's connection through the Fabric.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use crate::audit::{AUDIT_ID, AuditId};
use crate::authn::{Identity, PeerIdentity, identity_from_certificate};
use crate::service::ApiServer;

/// How long a TLS handshake or the head of a request may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most HTTP/2 streams of one connection at once.
const MAX_STREAMS: u32 = 250;
/// Most bytes of the head of a request.
const MAX_HEADER_BYTES: u32 = 256 * 1024;

/// Why a connection ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The handshake did not finish in time.
    #[error("the TLS handshake took too long")]
    Slow,
    /// The handshake failed.
    #[error("the TLS handshake failed")]
    Handshake(#[source] std::io::Error),
    /// HTTP failed: mostly that the client went away.
    #[error("the connection failed: {0}")]
    Connection(String),
}

impl ApiServer {
    /// Serves one connection until it ends, or until the requests under way when [`stop`](Self::stop) was called are
    /// answered. With `tls`, a client certificate that its verifier accepted names the user.
    pub async fn serve<S>(
        &self,
        stream: S,
        tls: Option<Arc<ServerConfig>>,
    ) -> Result<(), ServeError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(tls) = tls else {
            return self.serve_http(stream, None).await;
        };
        let handshake = TlsAcceptor::from(tls).accept(stream);
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await;
        let stream = stream
            .map_err(|_| ServeError::Slow)?
            .map_err(ServeError::Handshake)?;
        let certificates = stream.get_ref().1.peer_certificates();
        let peer = certificates
            .and_then(|chain| identity_from_certificate(chain.first()?))
            .map(Arc::new);
        self.serve_http(stream, peer).await
    }

    async fn serve_http<S>(&self, stream: S, peer: Option<Arc<Identity>>) -> Result<(), ServeError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let server = self.clone();
        let service = hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
            let server = server.clone();
            // An identity in the extensions is for callers in this process; the network brings none.
            request.extensions_mut().remove::<Identity>();
            if let Some(peer) = &peer {
                request
                    .extensions_mut()
                    .insert(PeerIdentity(Arc::clone(peer)));
            }
            async move {
                let id = AuditId::of(request.headers(), server.server.clock());
                let header = id.header();
                if server.server.audit.is_some() {
                    request.extensions_mut().insert(id);
                }
                let mut response = server.handle(request).await;
                response.headers_mut().insert(AUDIT_ID, header);
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HANDSHAKE_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADER_BYTES)
            .keep_alive_interval(Some(Duration::from_secs(30)));
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let stopped = self.stopped();
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = stopped.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        result.map_err(|error| ServeError::Connection(error.to_string()))
    }
}
