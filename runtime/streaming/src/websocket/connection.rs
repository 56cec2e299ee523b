//! One WebSocket connection, as several pipes.
//!
//! ```text
//! client ─messages─▶ read ─▶ a bounded pipe per channel ─▶ readers
//!        ◀─messages─ Outbox ◀──────────────────────────── ChannelWriter
//! ```

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio_util::codec::FramedRead;
use tokio_util::sync::{CancellationToken, PollSender};

use super::frame::{Event, Frame, FrameDecoder, Role};
use crate::idle::{Activity, LINGER, Limits, SIGN_OF_LIFE};
use crate::outbox::{Outbox, PIECE, Then, WeakOutbox, outbox};

/// Bytes that wait for the reader of one channel.
const BUFFER: usize = 64 << 10;
/// In place of a channel's number: the end of the channel whose number follows.
const CLOSE_CHANNEL: u8 = 255;

/// How long a client that says nothing is waited for before it is sent anything.
const UNHEARD: Duration = Duration::from_millis(100);

/// How long a client that reads may take to make its channels.
const SETTLES: Duration = Duration::from_millis(5);

/// How bytes are put into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// The number of a channel, then bytes; with `half_close`, a channel can be ended.
    Binary {
        /// Whether channels can be ended by the client.
        half_close: bool,
    },
    /// A digit for the channel, then base64.
    Base64,
    /// Messages are pieces of one stream.
    Raw,
}

/// A connection that was accepted.
pub(crate) struct WebSocket {
    framing: Framing,
    readers: Vec<Option<DuplexStream>>,
    outbox: Outbox<Frame>,
    /// Cancelled once the client has sent anything.
    heard: CancellationToken,
    gone: CancellationToken,
    task: JoinHandle<()>,
}

impl WebSocket {
    /// Speaks WebSocket on `io`, within a task of its own. `readable` says of each channel whether the
    /// client may send on it; what it sends on others is dropped.
    pub(crate) fn start<S>(io: S, framing: Framing, readable: &[bool], limits: Limits) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (pipes, readers): (Vec<_>, Vec<_>) = readable
            .iter()
            .map(|readable| readable.then(|| duplex(BUFFER)).unzip())
            .unzip();
        let (outbox, outgoing) = outbox();
        let (heard, gone) = (CancellationToken::new(), CancellationToken::new());
        let activity = Activity::default();
        let (read, write) = tokio::io::split(io);
        let reading = Reading {
            framing,
            pipes,
            outbox: outbox.downgrade(),
            heard: heard.clone(),
            activity: activity.clone(),
            target: Target::Nothing,
        };
        let (ending, busy) = (gone.clone(), activity.clone());
        let task = tokio::spawn(async move {
            let _gone = ending.clone().drop_guard();
            let mut reading = std::pin::pin!(reading.run(read));
            let mut writing = std::pin::pin!(outgoing.write(write, |frame, buffer| {
                if matches!(frame, Frame::Binary(_) | Frame::Text(_)) {
                    busy.touch();
                }
                frame.encode(None, buffer);
                let last = matches!(frame, Frame::Close(..));
                Ok(if last { Then::Stop } else { Then::GoOn })
            }));
            let ended = tokio::select! {
                read = reading.as_mut() => {
                    // Whoever waits for the client need not wait for the end of the farewell.
                    ending.cancel();
                    if read.as_ref().is_ok_and(|ended| *ended == Ended::Farewell) {
                        let _ = tokio::time::timeout(LINGER, writing).await;
                    }
                    read.map(drop)
                }
                written = writing.as_mut() => match written {
                    // All is said; what the client still sends is of no use, but must not be refused
                    // before it has read everything.
                    Ok(()) => {
                        let rest = tokio::time::timeout(LINGER, reading).await;
                        rest.map_or(Ok(()), |rest| rest.map(drop))
                    }
                    Err(error) => Err(error),
                },
                () = activity.idle(limits.idle) => Err(io::ErrorKind::TimedOut.into()),
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a WebSocket connection ended");
            }
        });
        Self {
            framing,
            readers,
            outbox,
            heard,
            gone,
            task,
        }
    }

    /// What the client sends on a channel, up to its end; once.
    pub(crate) fn reader(&mut self, channel: usize) -> Option<DuplexStream> {
        self.readers.get_mut(channel)?.take()
    }

    /// A way to send on a channel. Shutting it down says nothing to the client.
    pub(crate) fn writer(&self, channel: u8) -> ChannelWriter {
        ChannelWriter {
            channel,
            framing: self.framing,
            queue: self.outbox.queue(),
        }
    }

    /// Waits until the client is ready for what it asked for.
    ///
    /// kubectl up to 1.33 reads while it is still making its channels, and drops what comes for one that is not there
    /// yet (kubernetes/kubernetes#131189); our commands answer faster than it makes them. Its answer to a ping says
    /// that it reads, and the channels follow within microseconds.
    pub(crate) async fn settle(&self) {
        self.outbox.send(Frame::Ping(Bytes::new())).await;
        tokio::select! {
            () = self.gone.cancelled() => return,
            () = self.heard.cancelled() => {}
            // Not every client answers pings.
            () = tokio::time::sleep(UNHEARD) => {}
        }
        tokio::time::sleep(SETTLES).await;
    }

    /// Sends an empty message on a channel.
    pub(crate) async fn greet(&self, channel: u8) {
        self.outbox.send(message(self.framing, channel, &[])).await;
    }

    /// Cancelled once nothing can be sent or received any more.
    pub(crate) fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    /// Ends the connection after everything that was written, and waits for that.
    pub(crate) async fn close(self) {
        self.outbox.send(Frame::Close(1000, "")).await;
        drop((self.outbox, self.readers));
        // A panic in it is on record already.
        let _ = self.task.await;
    }
}

/// Where the rest of a message goes.
enum Target {
    /// Its first byte is still to come.
    Unknown,
    /// Nowhere.
    Nothing,
    /// To a channel; with base64, up to three digits wait for their fourth.
    Channel(usize, Vec<u8>),
    /// The channel that its next byte names is ended.
    Closing,
}

struct Reading {
    framing: Framing,
    pipes: Vec<Option<DuplexStream>>,
    outbox: WeakOutbox<Frame>,
    heard: CancellationToken,
    activity: Activity,
    target: Target,
}

/// How reading ended.
#[derive(PartialEq)]
enum Ended {
    /// The client is gone.
    Gone,
    /// A last frame is owed to it.
    Farewell,
}

impl Reading {
    /// Reads to the client's end.
    async fn run(mut self, read: impl AsyncRead + Unpin) -> io::Result<Ended> {
        let mut events = FramedRead::with_capacity(read, FrameDecoder::new(Role::Server), BUFFER);
        while let Some(event) = events.next().await {
            self.heard.cancel();
            match event {
                Ok(Event::Data { first, bytes, .. }) => {
                    self.activity.touch();
                    if first {
                        self.target = match self.framing {
                            Framing::Raw => Target::Channel(0, Vec::new()),
                            _ => Target::Unknown,
                        };
                    }
                    self.data(bytes).await?;
                }
                Ok(Event::Ping(bytes)) => self.owe(Frame::Pong(bytes))?,
                Ok(Event::Pong(_)) => {}
                Ok(Event::Close(code)) => {
                    // Without a code there was none to echo.
                    self.owe(Frame::Close(code.unwrap_or(1000), ""))?;
                    return Ok(Ended::Farewell);
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::debug!(%error, "a client does not speak WebSocket");
                    self.owe(Frame::Close(1002, "protocol error"))?;
                    return Ok(Ended::Farewell);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Ended::Gone)
    }

    fn owe(&self, frame: Frame) -> io::Result<()> {
        self.outbox.owe(frame).map_err(io::Error::other)
    }

    /// Takes the next piece of a message to where it belongs.
    async fn data(&mut self, mut bytes: Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            match &mut self.target {
                Target::Unknown => {
                    let first = bytes.split_to(1)[0];
                    self.target = self.aim(first);
                }
                Target::Closing => {
                    let channel = usize::from(bytes.split_to(1)[0]);
                    if let Some(pipe) = self.pipes.get_mut(channel) {
                        *pipe = None;
                    }
                    self.target = Target::Nothing;
                }
                Target::Nothing => return Ok(()),
                Target::Channel(channel, digits) => {
                    let channel = *channel;
                    if self.framing == Framing::Base64 {
                        bytes = decode(digits, &bytes)?;
                    }
                    return self.deliver(channel, &bytes).await;
                }
            }
        }
        Ok(())
    }

    fn aim(&self, first: u8) -> Target {
        let channel = match self.framing {
            Framing::Binary { half_close: true } if first == CLOSE_CHANNEL => {
                return Target::Closing;
            }
            Framing::Base64 => usize::from(first.wrapping_sub(b'0')),
            _ => usize::from(first),
        };
        match self.pipes.get(channel) {
            Some(Some(_)) => Target::Channel(channel, Vec::new()),
            _ => Target::Nothing,
        }
    }

    async fn deliver(&mut self, channel: usize, bytes: &[u8]) -> io::Result<()> {
        let Some(pipe) = &mut self.pipes[channel] else {
            return Ok(());
        };
        let mut written = std::pin::pin!(pipe.write_all(bytes));
        let written = loop {
            tokio::select! {
                written = written.as_mut() => break written,
                // Its pings wait behind what is not read; without an answer it would give up, and
                // without sending we would not see that it is gone.
                () = tokio::time::sleep(SIGN_OF_LIFE) => {
                    self.outbox.owe(Frame::Pong(Bytes::new())).map_err(io::Error::other)?;
                }
            }
        };
        if written.is_err() {
            // Nobody reads it any more.
            self.pipes[channel] = None;
        }
        Ok(())
    }
}

/// The bytes of as many digits as make whole bytes; the rest waits in `digits`.
fn decode(digits: &mut Vec<u8>, more: &[u8]) -> io::Result<Bytes> {
    digits.extend_from_slice(more);
    let whole = digits.len() / 4 * 4;
    let decoded = STANDARD
        .decode(&digits[..whole])
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    digits.drain(..whole);
    Ok(decoded.into())
}

/// Sends on a channel.
pub(crate) struct ChannelWriter {
    channel: u8,
    framing: Framing,
    queue: PollSender<Frame>,
}

impl AsyncWrite for ChannelWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.queue.poll_reserve(context)).map_err(gone)?;
        let length = bytes.len().min(PIECE);
        let message = message(self.framing, self.channel, &bytes[..length]);
        self.queue.send_item(message).map_err(gone)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn message(framing: Framing, channel: u8, bytes: &[u8]) -> Frame {
    match framing {
        Framing::Raw => Frame::Binary(Bytes::copy_from_slice(bytes)),
        Framing::Binary { .. } => {
            let mut message = BytesMut::with_capacity(bytes.len() + 1);
            message.put_u8(channel);
            message.extend_from_slice(bytes);
            Frame::Binary(message.freeze())
        }
        Framing::Base64 => {
            let digit = char::from(b'0'.wrapping_add(channel));
            let mut message = String::from(digit);
            STANDARD.encode_string(bytes, &mut message);
            Frame::Text(message.into())
        }
    }
}
