//! The client's streams, whatever protocol they come by.

use coracle_cri::{BoxedReader, BoxedWriter, Streams};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Remote;
use crate::idle::Limits;
use crate::negotiate::{Encoding, RemoteProtocol, Version};
use crate::spdy::{Connection, Stream, header};
use crate::websocket::WebSocket;

/// Numbers of the channels in WebSocket.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// A client and the streams that it asked for.
pub(super) struct Client {
    pub(super) version: Version,
    pub(super) stdin: Option<BoxedReader>,
    pub(super) stdout: Option<BoxedWriter>,
    pub(super) stderr: Option<BoxedWriter>,
    pub(super) resize: Option<BoxedReader>,
    /// Where the end is told.
    pub(super) error: BoxedWriter,
    /// Directions that nobody uses: dropping them would take their streams back.
    _unused: Vec<BoxedWriter>,
    connection: Either,
}

enum Either {
    WebSocket(WebSocket),
    Spdy(Connection),
}

impl Client {
    /// Takes the client's streams; `None` when it does not open them in time.
    pub(super) async fn accept<S>(io: S, remote: &Remote) -> Option<Self>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Remote {
            mut streams,
            limits,
            ..
        } = *remote;
        // A terminal has one output.
        streams.stderr &= !streams.tty;
        match remote.protocol {
            RemoteProtocol::WebSocket(version, encoding) => {
                Some(websocket(io, version, encoding, streams, limits).await)
            }
            RemoteProtocol::Spdy(version) => {
                timeout(limits.creation, spdy(io, version, streams, limits))
                    .await
                    .ok()?
            }
        }
    }

    /// Cancelled once the client is gone.
    pub(super) fn gone(&self) -> CancellationToken {
        match &self.connection {
            Either::WebSocket(connection) => connection.gone().clone(),
            Either::Spdy(connection) => connection.gone().clone(),
        }
    }

    /// Ends the connection once everything was sent.
    pub(super) async fn close(self) {
        let Self {
            stdin,
            stdout,
            stderr,
            resize,
            error,
            connection,
            ..
        } = self;
        drop((stdin, stdout, stderr, resize, error));
        match connection {
            Either::WebSocket(connection) => connection.close().await,
            Either::Spdy(connection) => connection.close().await,
        }
    }
}

async fn websocket<S>(
    io: S,
    version: Version,
    encoding: Encoding,
    streams: Streams,
    limits: Limits,
) -> Client
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let framing = encoding.framing(version >= Version::V5);
    let readable = [streams.stdin, false, false, false, streams.tty];
    let mut connection = WebSocket::start(io, framing, &readable, limits);
    let mut reader = |channel: u8| -> Option<BoxedReader> {
        let reader = connection.reader(channel.into())?;
        Some(Box::pin(reader))
    };
    let (stdin, resize) = (reader(STDIN), reader(RESIZE));
    let writer = |channel| -> BoxedWriter { Box::pin(connection.writer(channel)) };
    let client = Client {
        version,
        stdin,
        resize,
        stdout: streams.stdout.then(|| writer(STDOUT)),
        stderr: streams.stderr.then(|| writer(STDERR)),
        error: writer(ERROR),
        _unused: Vec::new(),
        connection: Either::WebSocket(connection),
    };
    if version >= Version::V5
        && let Either::WebSocket(connection) = &client.connection
    {
        connection.settle().await;
    }
    // Clients take the first message for the proof that they are connected.
    let greeted = match streams {
        Streams { stdout: true, .. } => STDOUT,
        Streams { stderr: true, .. } => STDERR,
        _ => ERROR,
    };
    if let Either::WebSocket(connection) = &client.connection {
        connection.greet(greeted).await;
    }
    client
}

async fn spdy<S>(io: S, version: Version, streams: Streams, limits: Limits) -> Option<Client>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut connection = Connection::start(io, limits, |headers| {
        let kind = header(headers, "streamtype").unwrap_or_default();
        matches!(kind, "error" | "stdin" | "stdout" | "stderr" | "resize")
    });
    let mut opened = Opened::default();
    let sizes = streams.tty && version >= Version::V3;
    let complete = |opened: &Opened| {
        opened.error.is_some()
            && (opened.stdin.is_some() || !streams.stdin)
            && (opened.stdout.is_some() || !streams.stdout)
            && (opened.stderr.is_some() || !streams.stderr)
            && (opened.resize.is_some() || !sizes)
    };
    while !complete(&opened) {
        opened.add(connection.next().await?);
    }
    Some(Client {
        version,
        stdin: opened.stdin,
        stdout: opened.stdout,
        stderr: opened.stderr,
        resize: opened.resize,
        error: opened.error?,
        _unused: opened.unused,
        connection: Either::Spdy(connection),
    })
}

/// The streams that a SPDY client has opened.
#[derive(Default)]
struct Opened {
    stdin: Option<BoxedReader>,
    stdout: Option<BoxedWriter>,
    stderr: Option<BoxedWriter>,
    resize: Option<BoxedReader>,
    error: Option<BoxedWriter>,
    unused: Vec<BoxedWriter>,
}

impl Opened {
    fn add(&mut self, stream: Stream) {
        let kind = stream.header("streamtype").unwrap_or_default().to_owned();
        let (reader, writer) = (Box::pin(stream.reader), Box::pin(stream.writer));
        match kind.as_str() {
            "stdin" => {
                self.stdin = Some(reader);
                self.unused.push(writer);
            }
            "resize" => {
                self.resize = Some(reader);
                self.unused.push(writer);
            }
            "stdout" => self.stdout = Some(writer),
            "stderr" => self.stderr = Some(writer),
            _ => self.error = Some(writer),
        }
    }
}
