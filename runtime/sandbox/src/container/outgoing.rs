//! Requests that guests send with `wasi:http`: through their pod's network and nothing else.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use coracle_network::{NetError, ResolveError, SocketScope, TcpStream};
use http::uri::Scheme;
use http::{Request, Response, Uri};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::logs::LogQueue;
use crate::tls::{TlsError, TlsTrust};

/// Time-outs of guests that set none, as in wasmtime.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

/// The outgoing side of one instance.
pub(crate) struct OutgoingHttp {
    scope: SocketScope,
    trust: Arc<TlsTrust>,
    logs: Arc<LogQueue>,
}

/// A connection to a server, encrypted or not.
trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipe for T {}

/// What happens to the connection beside the response.
type Driver = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl OutgoingHttp {
    pub(crate) fn new(scope: SocketScope, trust: Arc<TlsTrust>, logs: Arc<LogQueue>) -> Self {
        Self { scope, trust, logs }
    }
}

impl WasiHttpHooks for OutgoingHttp {
    fn default_scheme(&mut self) -> Option<Scheme> {
        Some(Scheme::HTTP)
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Driver), Error>> + Send> {
        let (scope, trust, logs) = (self.scope.clone(), self.trust.clone(), self.logs.clone());
        Box::new(async move {
            let target = shown(request.uri());
            let result = send(&scope, &trust, request, options.unwrap_or_default()).await;
            // Guests tend to swallow the reason, and are told less of it than there is to say.
            result.map_err(|Failed { error, why }| {
                let why = why.unwrap_or_else(|| error.to_string());
                logs.note(&format!("request to {target} failed: {why}"));
                error
            })
        })
    }
}

/// What a log may say of a request's target: passwords and tokens are in front of the host and in the query.
fn shown(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or("http");
    let host = uri.host().unwrap_or_default();
    let port = uri.port().map(|port| format!(":{port}"));
    let (port, path) = (port.unwrap_or_default(), uri.path());
    format!("{scheme}://{host}{port}{path}")
}

/// Why a request was not answered: for the guest, and for the log where that says more.
struct Failed {
    error: Error,
    why: Option<String>,
}

impl<E: Into<Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        let (error, why) = (error.into(), None);
        Self { error, why }
    }
}

async fn send(
    scope: &SocketScope,
    trust: &TlsTrust,
    mut request: Request<WasiBody>,
    options: RequestOptions,
) -> Result<(Response<WasiBody>, Driver), Failed> {
    let uri = request.uri();
    let encrypted = uri.scheme() == Some(&Scheme::HTTPS);
    let host = uri.host().ok_or(Error::HttpRequestUriInvalid)?.to_owned();
    let port = uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
    let connecting = async {
        let stream = connect(scope, &host, port).await?;
        let stream: Box<dyn Pipe> = match encrypted {
            true => Box::new(trust.connect(&host, stream).await.map_err(untrusted)?),
            false => Box::new(stream),
        };
        Ok::<_, Failed>(http1::handshake(TokioIo::new(stream)).await?)
    };
    let connect_timeout = options.connect_timeout.unwrap_or(DEFAULT_TIMEOUT);
    let (mut sender, connection) = tokio::time::timeout(connect_timeout, connecting)
        .await
        .map_err(|_| Error::ConnectionTimeout)??;
    // Only a proxy is told scheme and host in the request line.
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    *request.uri_mut() = path
        .parse::<Uri>()
        .map_err(|_| Error::HttpRequestUriInvalid)?;

    let driver = AbortOnDrop(tokio::spawn(async move {
        connection.await.map_err(Error::from)
    }));
    let first_byte = options.first_byte_timeout.unwrap_or(DEFAULT_TIMEOUT);
    let response = tokio::time::timeout(first_byte, sender.send_request(request))
        .await
        .map_err(|_| Error::ConnectionReadTimeout)??;
    let timeout = options.between_bytes_timeout.unwrap_or(DEFAULT_TIMEOUT);
    let response = response.map(|body| TimedBody::new(body, timeout).boxed_unsync());
    Ok((response, Box::new(driver)))
}

/// Tries the addresses of `host` in turn.
async fn connect(scope: &SocketScope, host: &str, port: u16) -> Result<TcpStream, Error> {
    let literal = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    let addresses = match literal {
        Ok(address) => vec![address],
        Err(_) => scope.lookup(host).await.map_err(unresolved)?,
    };
    let mut last = Error::DestinationNotFound;
    for address in addresses {
        match scope.connect_tcp(SocketAddr::new(address, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = unconnected(error),
        }
    }
    Err(last)
}

fn untrusted(error: TlsError) -> Failed {
    let why = Some(error.to_string());
    let error = match error {
        TlsError::Certificate(_) => Error::TlsCertificateError,
        TlsError::Alert { id, text } => Error::TlsAlertReceived {
            alert_id: Some(id),
            alert_message: Some(text),
        },
        TlsError::Protocol(_) => Error::TlsProtocolError,
        TlsError::Closed(_) => Error::ConnectionTerminated,
        TlsError::Trust(text) => Error::InternalError(Some(text)),
    };
    Failed { error, why }
}

fn unresolved(error: ResolveError) -> Error {
    match error {
        ResolveError::NotFound(_) | ResolveError::InvalidName(_) => Error::DnsError {
            rcode: Some("NXDOMAIN".to_owned()),
            info_code: None,
        },
        ResolveError::Again(_) => Error::DnsTimeout,
        ResolveError::Failed(_) => Error::DnsError {
            rcode: Some("SERVFAIL".to_owned()),
            info_code: None,
        },
    }
}

fn unconnected(error: NetError) -> Error {
    match error {
        NetError::ConnectionRefused(_) => Error::ConnectionRefused,
        NetError::ConnectionReset | NetError::BrokenPipe => Error::ConnectionTerminated,
        NetError::HostUnreachable(_) => Error::DestinationIpUnroutable,
        NetError::TimedOut(_) => Error::ConnectionTimeout,
        NetError::Denied { .. } => Error::DestinationIpProhibited,
        NetError::SocketLimit(_) | NetError::PortsExhausted => Error::ConnectionLimitReached,
        other => Error::InternalError(Some(other.to_string())),
    }
}

/// A task that ends with the response that it feeds.
struct AbortOnDrop(tokio::task::JoinHandle<Result<(), Error>>);

impl Future for AbortOnDrop {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let joined = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(joined.unwrap_or(Err(Error::ConnectionTerminated)))
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A body that fails when its next frame takes too long.
struct TimedBody {
    body: Incoming,
    timeout: Duration,
    deadline: Pin<Box<tokio::time::Sleep>>,
}

impl TimedBody {
    fn new(body: Incoming, timeout: Duration) -> Self {
        Self {
            body,
            timeout,
            deadline: Box::pin(tokio::time::sleep(timeout)),
        }
    }
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.deadline = Box::pin(tokio::time::sleep(this.timeout));
            return Poll::Ready(frame.map(|frame| frame.map_err(Error::from)));
        }
        ready!(this.deadline.as_mut().poll(context));
        Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_a_target_are_not_shown() {
        for (uri, text) in [
            (
                "https://jane:secret@api:8443/a/b?token=secret",
                "https://api:8443/a/b",
            ),
            ("http://[::1]/?q", "http://[::1]/"),
            ("/path?secret", "http:///path"),
        ] {
            assert_eq!(shown(&uri.parse().unwrap()), text);
        }
    }
}
