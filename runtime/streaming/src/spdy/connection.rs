//! One SPDY connection, from the side that is connected to.
//!
//! ```text
//! peer ─frames─▶ read ─▶ a bounded pipe per stream ─▶ StreamReader
//!      ◀─frames─ Outbox ◀───────────────────────────── StreamWriter
//! ```

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::codec::FramedRead;
use tokio_util::sync::{CancellationToken, PollSender};

use super::frame::{Frame, FrameDecoder, FrameEncoder, Headers, Reset, SpdyError};
use crate::idle::{Activity, LINGER, Limits, SIGN_OF_LIFE};
use crate::outbox::{Outbox, PIECE, Then, WeakOutbox, outbox};

/// Bytes that wait for the reader of one stream; no less than the window that peers take for granted.
const BUFFER: usize = 64 << 10;
/// Streams at once.
const MAX_STREAMS: usize = 1024;
/// Bytes that are reported as read together.
const REPORT: u32 = 32 << 10;

/// A connection that was accepted. Dropping it lets its streams go on and then ends it.
pub(crate) struct Connection {
    incoming: mpsc::Receiver<Stream>,
    outbox: Outbox<Frame>,
    gone: CancellationToken,
    task: JoinHandle<()>,
}

/// A stream that the peer opened.
pub(crate) struct Stream {
    pub(crate) number: u32,
    pub(crate) headers: Headers,
    pub(crate) reader: StreamReader,
    pub(crate) writer: StreamWriter,
}

impl Stream {
    /// The value of a header; names are in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

/// The value of a header; names are in lower case.
pub(crate) fn header<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    let found = headers.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value.as_str())
}

impl Connection {
    /// Speaks SPDY on `io`, within a task of its own. Streams that `accept` refuses never come.
    pub(crate) fn start<S>(
        io: S,
        limits: Limits,
        accept: impl Fn(&Headers) -> bool + Send + Sync + 'static,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, incoming) = mpsc::channel(MAX_STREAMS);
        let (outbox, outgoing) = outbox();
        let gone = CancellationToken::new();
        let activity = Activity::default();
        let (read, write) = tokio::io::split(io);
        let reading = Reading {
            streams: HashMap::new(),
            last: 0,
            incoming: sender,
            outbox: outbox.downgrade(),
            activity: activity.clone(),
            accept,
        };
        let (ending, busy) = (gone.clone(), activity.clone());
        let task = tokio::spawn(async move {
            let _gone = ending.drop_guard();
            let mut encoder = FrameEncoder::default();
            let mut reading = std::pin::pin!(reading.run(read));
            let writing = outgoing.write(write, |frame, buffer| {
                if matches!(frame, Frame::Data { .. }) {
                    busy.touch();
                }
                let last = matches!(frame, Frame::GoAway { .. });
                encoder.encode(&frame, buffer)?;
                Ok(if last { Then::Stop } else { Then::GoOn })
            });
            let ended = tokio::select! {
                read = reading.as_mut() => read,
                written = writing => match written {
                    // All is said; what the peer still sends is of no use, but must not be refused
                    // before it has read everything.
                    Ok(()) => tokio::time::timeout(LINGER, reading).await.unwrap_or(Ok(())),
                    Err(error) => Err(error),
                },
                () = activity.idle(limits.idle) => Err(io::ErrorKind::TimedOut.into()),
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a SPDY connection ended");
            }
        });
        Self {
            incoming,
            outbox,
            gone,
            task,
        }
    }

    /// The next stream; `None` once the peer is gone.
    pub(crate) async fn next(&mut self) -> Option<Stream> {
        self.incoming.recv().await
    }

    /// Cancelled once nothing can be sent or received any more.
    pub(crate) fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    /// Ends the connection after everything that was written, and waits for that.
    pub(crate) async fn close(self) {
        self.outbox.send(Frame::GoAway { last: 0, status: 0 }).await;
        drop(self.outbox);
        // A panic in it is on record already.
        let _ = self.task.await;
    }
}

/// What is known of a stream to whoever reads frames.
struct Inbound {
    /// Where its bytes go; none when it was ended or nobody reads.
    pipe: Option<DuplexStream>,
    state: Arc<State>,
}

/// What both sides of a stream know.
#[derive(Default)]
struct State {
    /// The peer took it back.
    reset: AtomicBool,
    /// Nothing more is sent.
    finished: AtomicBool,
}

struct Reading<A> {
    streams: HashMap<u32, Inbound>,
    /// The latest stream of the peer.
    last: u32,
    incoming: mpsc::Sender<Stream>,
    outbox: WeakOutbox<Frame>,
    activity: Activity,
    accept: A,
}

impl<A: Fn(&Headers) -> bool> Reading<A> {
    async fn run(mut self, read: impl AsyncRead + Unpin) -> io::Result<()> {
        let mut frames = FramedRead::with_capacity(read, FrameDecoder::default(), BUFFER);
        while let Some(frame) = frames.next().await {
            match frame? {
                Frame::SynStream {
                    stream,
                    fin,
                    headers,
                } => self.open(stream, fin, headers)?,
                Frame::Data { stream, fin, bytes } => self.data(stream, fin, bytes).await?,
                Frame::Headers { stream, fin, .. } if fin => {
                    self.data(stream, true, Bytes::new()).await?;
                }
                Frame::RstStream { stream, .. } => {
                    if let Some(inbound) = self.streams.remove(&stream) {
                        inbound.state.reset.store(true, Ordering::Relaxed);
                    }
                }
                // Odd numbers are the peer's questions, even ones its answers.
                Frame::Ping(number) if number % 2 == 1 => self.owe(Frame::Ping(number))?,
                _ => {}
            }
        }
        Ok(())
    }

    fn owe(&self, frame: Frame) -> io::Result<()> {
        self.outbox.owe(frame).map_err(io::Error::other)
    }

    fn open(&mut self, number: u32, fin: bool, headers: Headers) -> io::Result<()> {
        if number.is_multiple_of(2) || number <= self.last {
            return Err(SpdyError::Protocol("opens a stream with a number out of order").into());
        }
        self.last = number;
        if self.streams.len() >= MAX_STREAMS {
            self.streams.retain(|_, stream| {
                stream.pipe.is_some() || !stream.state.finished.load(Ordering::Relaxed)
            });
        }
        let reset = |reason: Reset| Frame::RstStream {
            stream: number,
            status: reason as u32,
        };
        let outbox = self.outbox.upgrade();
        let Some(outbox) =
            outbox.filter(|_| self.streams.len() < MAX_STREAMS && (self.accept)(&headers))
        else {
            return self.owe(reset(Reset::Refused));
        };
        let (pipe, near) = duplex(BUFFER);
        let state = Arc::<State>::default();
        let stream = Stream {
            number,
            headers,
            reader: StreamReader {
                number,
                pipe: near,
                unreported: 0,
                outbox: self.outbox.clone(),
            },
            writer: StreamWriter {
                number,
                queue: outbox.queue(),
                outbox,
                state: state.clone(),
            },
        };
        if let Err(refused) = self.incoming.try_send(stream) {
            // Nobody takes streams any more.
            refused
                .into_inner()
                .writer
                .state
                .finished
                .store(true, Ordering::Relaxed);
            return self.owe(reset(Reset::Refused));
        }
        self.owe(Frame::SynReply {
            stream: number,
            fin: false,
            headers: Headers::new(),
        })?;
        let pipe = (!fin).then_some(pipe);
        self.streams.insert(number, Inbound { pipe, state });
        Ok(())
    }

    async fn data(&mut self, number: u32, fin: bool, bytes: Bytes) -> io::Result<()> {
        self.activity.touch();
        let Some(inbound) = self.streams.get_mut(&number) else {
            if number > self.last {
                return Err(SpdyError::Protocol("sends to a stream that it did not open").into());
            }
            // What was on its way when the stream ended.
            return Ok(());
        };
        if let Some(pipe) = &mut inbound.pipe {
            let mut written = std::pin::pin!(pipe.write_all(&bytes));
            let written = loop {
                tokio::select! {
                    written = written.as_mut() => break written,
                    // Shows both sides whether the other one is there while nothing is read.
                    () = tokio::time::sleep(SIGN_OF_LIFE) => {
                        self.outbox.owe(Frame::Ping(0)).map_err(io::Error::other)?;
                    }
                }
            };
            if written.is_err() {
                inbound.pipe = None;
            }
        }
        if fin {
            inbound.pipe = None;
            if inbound.state.finished.load(Ordering::Relaxed) {
                self.streams.remove(&number);
            }
        }
        Ok(())
    }
}

/// What a peer sends on a stream, up to its end.
pub(crate) struct StreamReader {
    number: u32,
    pipe: DuplexStream,
    /// Bytes that were read and of which the peer does not know.
    unreported: u32,
    outbox: WeakOutbox<Frame>,
}

impl AsyncRead for StreamReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.pipe).poll_read(context, buffer))?;
        self.unreported += (buffer.filled().len() - before) as u32;
        if self.unreported >= REPORT {
            for stream in [self.number, 0] {
                let delta = self.unreported;
                let merged = self
                    .outbox
                    .owe_or_merge(Frame::WindowUpdate { stream, delta }, merge);
                merged.map_err(io::Error::other)?;
            }
            self.unreported = 0;
        }
        Poll::Ready(Ok(()))
    }
}

/// Adds one report to another.
fn merge(waiting: &mut Frame, new: &Frame) -> bool {
    match (waiting, new) {
        (
            Frame::WindowUpdate { stream, delta },
            Frame::WindowUpdate {
                stream: same,
                delta: more,
            },
        ) if stream == same => {
            *delta = delta.saturating_add(*more).min(0x7fff_ffff);
            true
        }
        _ => false,
    }
}

/// What is sent on a stream. Shutting it down is its end; dropping it before takes the stream back.
pub(crate) struct StreamWriter {
    number: u32,
    queue: PollSender<Frame>,
    outbox: Outbox<Frame>,
    state: Arc<State>,
}

impl StreamWriter {
    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
        fin: bool,
    ) -> Poll<io::Result<()>> {
        if self.state.reset.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.queue.poll_reserve(context)).map_err(gone)?;
        let frame = Frame::Data {
            stream: self.number,
            fin,
            bytes: Bytes::copy_from_slice(bytes),
        };
        Poll::Ready(self.queue.send_item(frame).map_err(gone))
    }
}

impl AsyncWrite for StreamWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let length = bytes.len().min(PIECE);
        let sent = ready!(self.poll_send(context, &bytes[..length], false));
        Poll::Ready(sent.map(|()| length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.state.finished.load(Ordering::Relaxed) {
            ready!(self.poll_send(context, &[], true))?;
            self.state.finished.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        let over = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        if !over(&self.state.finished) && !over(&self.state.reset) {
            self.state.finished.store(true, Ordering::Relaxed);
            let (stream, status) = (self.number, Reset::Cancel as u32);
            // Without room for it, the connection is about to end.
            let _ = self.outbox.owe(Frame::RstStream { stream, status });
        }
    }
}
