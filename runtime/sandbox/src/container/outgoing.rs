//! Requests that guests send with `wasi:http`: through their pod's network and nothing else.

mod pool;
#[cfg(test)]
mod tests;

pub(crate) use pool::Pool;

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use coracle_network::{NetError, ResolveError, SocketScope, TcpStream};
use http::uri::Scheme;
use http::{HeaderValue, Request, Response, Uri, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use self::pool::{Connection, Server};
use crate::logs::LogQueue;
use crate::tls::{TlsError, TlsTrust};

/// Time-outs of guests that set none, as in wasmtime.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

/// The outgoing side of one instance.
#[derive(Clone)]
pub(crate) struct OutgoingHttp {
    scope: SocketScope,
    trust: Arc<TlsTrust>,
    logs: Arc<LogQueue>,
    pool: Arc<Pool>,
}

/// A connection to a server, encrypted or not.
trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipe for T {}

/// What happens to the connection beside the response.
type Driver = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl OutgoingHttp {
    /// Connections come from `pool` and go back to it.
    pub(crate) fn new(
        scope: SocketScope,
        trust: Arc<TlsTrust>,
        logs: Arc<LogQueue>,
        pool: Arc<Pool>,
    ) -> Self {
        Self {
            scope,
            trust,
            logs,
            pool,
        }
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
        let this = self.clone();
        Box::new(async move {
            let target = shown(request.uri());
            let result = this.send(request, options.unwrap_or_default()).await;
            // Guests tend to swallow the reason, and are told less of it than there is to say.
            result.map_err(|Failed { error, why }| {
                let why = why.unwrap_or_else(|| error.to_string());
                this.logs
                    .note(&format!("request to {target} failed: {why}"));
                error
            })
        })
    }
}

/// The request once more, if a server may get it twice (RFC 9110, 9.2.2) and it has no body.
fn repeatable(request: &Request<WasiBody>) -> Option<Request<WasiBody>> {
    if !request.method().is_idempotent() || !request.body().is_end_stream() {
        return None;
    }
    let body = Empty::new().map_err(|never: Infallible| match never {});
    let mut again = Request::new(body.boxed_unsync());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.version_mut() = request.version();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

/// Whether a connection ended without an answer.
fn is_gone(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error);
    error.is_incomplete_message()
        || error.is_canceled()
        || error.is_closed()
        || cause.is_some_and(|cause| cause.is::<std::io::Error>())
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

impl OutgoingHttp {
    async fn send(
        &self,
        mut request: Request<WasiBody>,
        options: RequestOptions,
    ) -> Result<(Response<WasiBody>, Driver), Failed> {
        let uri = request.uri();
        let encrypted = uri.scheme() == Some(&Scheme::HTTPS);
        let host = uri.host().ok_or(Error::HttpRequestUriInvalid)?;
        let server = Server {
            encrypted,
            host: host.to_ascii_lowercase(),
            port: uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 }),
        };
        // Only a proxy is told scheme and host in the request line.
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path
            .parse::<Uri>()
            .map_err(|_| Error::HttpRequestUriInvalid)?;
        // Servers of HTTP/1.1 send trailers only to those who say that they read them; all guests can.
        let headers = request.headers_mut();
        headers
            .entry(header::TE)
            .or_insert(HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));

        let first_byte = options.first_byte_timeout.unwrap_or(DEFAULT_TIMEOUT);
        // One that was kept is used as if it were opened now: what forbids that, or moves the Service on, counts for it, too.
        let mut connection = loop {
            match self.pool.take(&server) {
                Some(kept) if !self.scope.could_connect(&kept.path) => {}
                taken => break taken,
            }
        };
        let (connection, response) = loop {
            let (mut open, is_new) = match connection.take() {
                Some(open) => (open, false),
                None => (self.connect(&server, &options).await?, true),
            };
            let again = if is_new { None } else { repeatable(&request) };
            let sent = open.sender.try_send_request(request);
            let sent = tokio::time::timeout(first_byte, sent)
                .await
                .map_err(|_| Error::ConnectionReadTimeout)?;
            match sent {
                Ok(response) => break (open, response),
                // The server closed it while it waited: nothing was sent.
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) if !is_new => request = unsent,
                    // Or it closed it just then, and may not have seen the request.
                    _ => match again.filter(|_| is_gone(failed.error())) {
                        Some(again) => request = again,
                        None => return Err(failed.into_error().into()),
                    },
                },
            }
        };
        let (end, at_end) = oneshot::channel();
        let timeout = options.between_bytes_timeout.unwrap_or(DEFAULT_TIMEOUT);
        let exchange = Exchange {
            server,
            connection,
            pool: self.pool.clone(),
            _end: end,
        };
        let response = response.map(|body| {
            let mut body = TimedBody::new(body, timeout, exchange);
            body.end_if_read();
            body.boxed_unsync()
        });
        let driver = async move {
            // An error of the connection is one of the body too.
            let _ = at_end.await;
            Ok::<_, Error>(())
        };
        Ok((response, Box::new(driver)))
    }

    async fn connect(
        &self,
        server: &Server,
        options: &RequestOptions,
    ) -> Result<Connection, Failed> {
        let connecting = async {
            let stream = connect(&self.scope, &server.host, server.port).await?;
            let path = stream.path();
            let stream: Box<dyn Pipe> = match server.encrypted {
                true => {
                    let encrypted = self.trust.connect(&server.host, stream).await;
                    Box::new(encrypted.map_err(untrusted)?)
                }
                false => Box::new(stream),
            };
            let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
            Ok::<_, Failed>((path, sender, driver))
        };
        let timeout = options.connect_timeout.unwrap_or(DEFAULT_TIMEOUT);
        let (path, sender, driver) = tokio::time::timeout(timeout, connecting)
            .await
            .map_err(|_| Error::ConnectionTimeout)??;
        let driver = async move { driver.await.map_err(Error::from) };
        Ok(Connection::new(path, sender, driver))
    }
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

/// A connection in use, for as long as its answer is read.
struct Exchange {
    server: Server,
    connection: Connection,
    pool: Arc<Pool>,
    /// Tells by its end that the exchange is over.
    _end: oneshot::Sender<()>,
}

/// A body that fails when its next frame takes too long, and gives its connection back at the end.
struct TimedBody {
    body: Incoming,
    timeout: Duration,
    deadline: Option<Pin<Box<tokio::time::Sleep>>>,
    exchange: Option<Exchange>,
}

impl TimedBody {
    fn new(body: Incoming, timeout: Duration, exchange: Exchange) -> Self {
        Self {
            body,
            timeout,
            deadline: None,
            exchange: Some(exchange),
        }
    }

    fn end(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.pool.put(exchange.server, exchange.connection);
        }
    }

    fn end_if_read(&mut self) {
        if self.body.is_end_stream() {
            self.end();
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
            this.deadline = None;
            match &frame {
                None => this.end(),
                Some(Ok(_)) => this.end_if_read(),
                // Dropped with what went wrong.
                Some(Err(_)) => this.exchange = None,
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Error::from)));
        }
        let timeout = this.timeout;
        let sleep = || Box::pin(tokio::time::sleep(timeout));
        let deadline = this.deadline.get_or_insert_with(sleep);
        ready!(deadline.as_mut().poll(context));
        this.exchange = None;
        Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
