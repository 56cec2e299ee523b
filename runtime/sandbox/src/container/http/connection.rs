//! One connection of an http container: HTTP/1.1, HTTP/2 by prior knowledge or by upgrade; no TLS.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use coracle_network::TcpStream;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::body::AnswerBody;
use super::traffic::{Look, Traffic};
use super::{Handler, upgrade};

/// How long a client that is changing to HTTP/2 may take to send what that begins with.
pub(super) const UPGRADE_PATIENCE: Duration = Duration::from_secs(60);
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

/// How connections of a container are served, whose clients have `head` for the head of a request.
pub(super) fn protocol(spawner: Spawner, head: Option<Duration>) -> Protocol {
    let mut protocol = auto::Builder::new(spawner);
    protocol
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .max_buf_size(READ_BUFFER);
    protocol
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(READ_BUFFER as u32)
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
        let stream = Patient::new(stream, self.settings.idle, &self.spawner.threads);
        let handler = self.clone();
        self.spawner.spawn(async move {
            let io = TokioIo::new(stream);
            handler.serve_io(&handler.protocol, io).await;
        });
    }

    /// Serves what comes over `io` until the end of the connection, until a drain has had its last
    /// answer, or until the client has stood still for too long.
    pub(super) async fn serve_io<I>(self: &Arc<Self>, protocol: &Protocol, io: I)
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let clock = self.guest.cpu.clock();
        let traffic = Traffic::new(clock.clone(), self.settings.head, self.settings.idle);
        let service = service_fn(|request: Request<Incoming>| {
            let (handler, traffic) = (self.clone(), traffic.clone());
            async move { Ok::<_, Infallible>(handler.route(request, &traffic).await) }
        });
        let mut connection = pin!(protocol.serve_connection_with_upgrades(io, service));
        let mut leaving = None;
        loop {
            let verdict = tokio::select! {
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection of an http guest ended");
                    }
                    return;
                }
                () = self.drain.cancelled(), if leaving.is_none() => Look::Leave,
                verdict = traffic.verdict(leaving) => verdict,
            };
            if verdict == Look::Cut {
                tracing::debug!("connection of an http guest was cut off: its client stood still");
                return;
            }
            leaving = Some(clock.monotonic());
            connection.as_mut().graceful_shutdown();
        }
    }

    async fn route(
        self: Arc<Self>,
        request: Request<Incoming>,
        traffic: &Arc<Traffic>,
    ) -> Response<AnswerBody> {
        let open = traffic.open();
        // In HTTP/1.1 one that stands still holds the connection up, which is noticed there.
        let may_stand = request.version() == Version::HTTP_2;
        let first = upgrade::asked(&request).filter(|_| !self.drain.is_cancelled());
        let response = match first {
            Some(first) => upgrade::switch(&self, request, first),
            None => self.answer(request).await,
        };
        response.map(|body| body.counted(open, may_stand))
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
