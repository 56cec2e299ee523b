//! One connection of an http container: HTTP/1.1, HTTP/2 by prior knowledge or by upgrade; no TLS.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use coracle_network::TcpStream;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::body::AnswerBody;
use super::{Handler, upgrade};

/// How long a client may take to send the head of a request, and keep a connection without one.
pub(super) const HEAD_PATIENCE: Duration = Duration::from_secs(60);
/// The longest head of a request, and what is read ahead of a body.
const READ_BUFFER: usize = 64 << 10;
/// What is sent ahead of the client, per stream of HTTP/2.
const SEND_BUFFER: usize = 64 << 10;
/// What a client may send ahead of the guest: per stream, and per connection.
const STREAM_WINDOW: u32 = 128 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Requests at once on one connection of HTTP/2; others wait at the client.
const STREAMS: u32 = 256;

/// Speaks HTTP/1.1 and HTTP/2.
pub(super) type Protocol = auto::Builder<Spawner>;

/// How connections of a container are served.
pub(super) fn protocol(spawner: Spawner) -> Protocol {
    let mut protocol = auto::Builder::new(spawner);
    protocol
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(READ_BUFFER);
    protocol
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_send_buf_size(SEND_BUFFER)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    protocol
}

/// Runs what belongs to a container on the threads of guests, until it is killed.
#[derive(Clone)]
pub(super) struct Spawner {
    pub(super) threads: Handle,
    /// Guests and connections that are not finished.
    pub(super) work: TaskTracker,
    /// Drops all of them.
    pub(super) kill: CancellationToken,
}

impl Spawner {
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let work = self.kill.clone().run_until_cancelled_owned(work);
        self.work.spawn_on(work, &self.threads);
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Spawner {
    fn execute(&self, work: F) {
        self.spawn(work);
    }
}

impl Handler {
    /// Serves one connection.
    pub(super) fn serve(self: &Arc<Self>, stream: TcpStream) {
        let Some(watcher) = self.watcher() else {
            return; // a drain has begun
        };
        let stream = Patient::new(stream, self.settings.idle, &self.spawner.threads);
        let handler = self.clone();
        self.spawner.spawn(async move {
            let io = TokioIo::new(stream);
            handler.serve_io(&handler.protocol, io, watcher).await;
        });
    }

    /// Serves what comes over `io` until the end of the connection, or until a drain has had its
    /// last answer.
    pub(super) async fn serve_io<I>(self: &Arc<Self>, protocol: &Protocol, io: I, watcher: Watcher)
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let handler = self.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let handler = handler.clone();
            async move { Ok::<_, Infallible>(handler.route(request).await) }
        });
        let connection = protocol.serve_connection_with_upgrades(io, service);
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%error, "connection of an http guest ended");
        }
    }

    async fn route(self: Arc<Self>, request: Request<Incoming>) -> Response<AnswerBody> {
        match upgrade::asked(&request).zip(self.watcher()) {
            Some((first, watcher)) => upgrade::switch(&self, request, first, watcher),
            None => self.answer(request).await,
        }
    }

    /// Tells a connection when a drain begins; none when it has.
    fn watcher(&self) -> Option<Watcher> {
        let connections = self.connections.lock();
        connections.as_ref().map(GracefulShutdown::watcher)
    }
}

/// A connection that fails when its peer takes nothing for too long.
struct Patient {
    stream: TcpStream,
    patience: Option<Duration>,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn new(stream: TcpStream, patience: Option<Duration>, threads: &Handle) -> Self {
        Self {
            stream: stream.driven_by(threads),
            patience,
            stalled: None,
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = Pin::new(&mut this.stream).poll_write(context, data);
        if written.is_ready() {
            this.stalled = None;
            return written;
        }
        let Some(patience) = this.patience else {
            return Poll::Pending;
        };
        let sleep = || Box::pin(tokio::time::sleep(patience));
        let stalled = this.stalled.get_or_insert_with(sleep);
        std::task::ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
