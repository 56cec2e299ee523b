//! Port-forward: connections of a client, carried to ports of a pod.
//!
//! Over SPDY, in WebSocket or not, each connection is two streams, `data` and `error`, of one request id. Over
//! WebSocket channels there is one connection per port of the request, and no half-close: the end of what
//! the pod sends is the end of the connection.

use std::collections::HashMap;

use coracle_cri::BoxedStream;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::idle::Limits;
use crate::negotiate::{Encoding, ForwardProtocol};
use crate::remote::pump;
use crate::spdy::{Connection, Headers, Stream, header};
use crate::websocket::{Framing, WebSocket};

/// A request that was agreed on.
#[derive(Clone, Debug)]
pub struct Forwarding {
    /// How the client speaks.
    pub protocol: ForwardProtocol,
    /// The ports of the request, which count in WebSocket channels alone; at most 127.
    pub ports: Vec<u16>,
    /// The pod's name and UID, for messages.
    pub pod: (String, String),
    /// Time-outs.
    pub limits: Limits,
}

impl Forwarding {
    fn failure(&self, port: u16, why: &str) -> String {
        let (pod, uid) = &self.pod;
        format!("error forwarding port {port} to pod {pod}, uid {uid}: {why}")
    }
}

/// Serves a client on `io` from after the answer 101 until it is gone. `dial` connects to a port of the pod,
/// or says why it can't.
pub async fn serve_forward<S, D, F>(io: S, forwarding: Forwarding, dial: D)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    D: Fn(u16) -> F,
    F: Future<Output = Result<BoxedStream, String>> + Send + 'static,
{
    match forwarding.protocol {
        ForwardProtocol::Spdy => streams(io, &forwarding, dial).await,
        ForwardProtocol::WebSocket(encoding) => channels(io, encoding, &forwarding, dial).await,
        ForwardProtocol::Tunnel => {
            let mut tunnel = WebSocket::start(io, Framing::Raw, &[true], forwarding.limits);
            let reader = tunnel.reader(0).expect("the one channel, taken once");
            let inner = tokio::io::join(reader, tunnel.writer(0));
            streams(inner, &forwarding, dial).await;
            tunnel.close().await;
        }
    }
}

/// Whether a stream may be opened: it names its kind and a port.
fn is_forwardable(headers: &Headers) -> bool {
    let kind = header(headers, "streamtype").unwrap_or_default();
    matches!(kind, "data" | "error") && port(headers).is_some()
}

fn port(headers: &Headers) -> Option<u16> {
    let port = header(headers, "port")?.parse().ok()?;
    (port > 0).then_some(port)
}

/// What the two streams of a connection have in common. Clients that don't say it open the error stream
/// first.
fn request_id(stream: &Stream) -> String {
    let guess = match stream.header("streamtype") {
        Some("error") => stream.number,
        _ => stream.number.saturating_sub(2),
    };
    let named = stream.header("requestid").filter(|id| !id.is_empty());
    named.map_or_else(|| guess.to_string(), str::to_owned)
}

async fn streams<S, D, F>(io: S, forwarding: &Forwarding, dial: D)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    D: Fn(u16) -> F,
    F: Future<Output = Result<BoxedStream, String>> + Send + 'static,
{
    let mut connection = Connection::start(io, forwarding.limits, is_forwardable);
    // Of each connection the stream that came first, until the other one comes.
    let mut halves: HashMap<String, Stream> = HashMap::new();
    let mut timers = FuturesUnordered::new();
    let mut running = JoinSet::new();
    let patience = forwarding.limits.creation;
    loop {
        tokio::select! {
            stream = connection.next() => {
                let Some(stream) = stream else { break };
                let id = request_id(&stream);
                let Some(other) = halves.remove(&id) else {
                    let number = stream.number;
                    halves.insert(id.clone(), stream);
                    timers.push(async move {
                        tokio::time::sleep(patience).await;
                        (id, number)
                    });
                    continue;
                };
                let (data, error) = match stream.header("streamtype") {
                    Some("data") => (stream, other),
                    _ => (other, stream),
                };
                let port = port(&data.headers).expect("others are not accepted");
                let dialled = dial(port);
                let forwarding = forwarding.clone();
                running.spawn(async move {
                    pair(data, error, dialled, |why| forwarding.failure(port, why)).await;
                });
            }
            Some(_) = running.join_next() => {}
            Some((id, number)) = timers.next(), if !timers.is_empty() => {
                if halves.get(&id).is_some_and(|half| half.number == number)
                    && let Some(half) = halves.remove(&id)
                {
                    give_up(half, &id).await;
                }
            }
        }
    }
    // The client is gone: what it had opened ends now.
    running.shutdown().await;
    connection.close().await;
}

/// Ends a stream whose other half did not come; dropping it takes it back.
async fn give_up(mut half: Stream, id: &str) {
    if half.header("streamtype") == Some("error") {
        let text = format!("(request={id}) timed out waiting for streams");
        // The client may have given up too.
        let _ = half.writer.write_all(text.as_bytes()).await;
        let _ = half.writer.shutdown().await;
    }
}

/// Carries one connection, both ways, each to its own end.
async fn pair(
    data: Stream,
    error: Stream,
    dialled: impl Future<Output = Result<BoxedStream, String>>,
    failure: impl Fn(&str) -> String,
) {
    let Stream {
        mut reader,
        mut writer,
        ..
    } = data;
    let mut error = error.writer;
    match dialled.await {
        Ok(stream) => {
            let (mut from, mut to) = tokio::io::split(stream);
            let up = async {
                if pump(&mut reader, &mut to).await.is_ok() {
                    // A pod that is gone needs no end.
                    let _ = to.shutdown().await;
                }
                // What the client still sends has no reader any more.
                drop(reader);
            };
            let down = async {
                // After a failure the stream is taken back, so that the client sees one too.
                if pump(&mut from, &mut writer).await.is_ok() {
                    let _ = writer.shutdown().await;
                }
                drop(writer);
            };
            tokio::join!(up, down);
        }
        Err(why) => {
            let _ = error.write_all(failure(&why).as_bytes()).await;
            let _ = writer.shutdown().await;
        }
    }
    let _ = error.shutdown().await;
}

async fn channels<S, D, F>(io: S, encoding: Encoding, forwarding: &Forwarding, dial: D)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    D: Fn(u16) -> F,
    F: Future<Output = Result<BoxedStream, String>> + Send + 'static,
{
    let readable: Vec<bool> = forwarding
        .ports
        .iter()
        .flat_map(|_| [true, false])
        .collect();
    let framing = encoding.framing(false);
    let mut connection = WebSocket::start(io, framing, &readable, forwarding.limits);
    let gone = connection.gone().clone();
    let mut running = JoinSet::new();
    for (index, port) in forwarding.ports.iter().copied().enumerate() {
        let channel = index as u8 * 2;
        let mut reader = connection.reader(channel.into()).expect("taken once");
        let mut writer = connection.writer(channel);
        let mut error = connection.writer(channel + 1);
        let dialled = dial(port);
        let forwarding = forwarding.clone();
        running.spawn(async move {
            // Each channel begins with its port, so that clients know what it is.
            let _ = writer.write_all(&port.to_le_bytes()).await;
            let _ = error.write_all(&port.to_le_bytes()).await;
            match dialled.await {
                Ok(stream) => {
                    let (mut from, mut to) = tokio::io::split(stream);
                    let up = async {
                        let _ = pump(&mut reader, &mut to).await;
                        std::future::pending::<()>().await;
                    };
                    tokio::select! {
                        // How it ended can't be told.
                        _ = pump(&mut from, &mut writer) => {}
                        () = up => {}
                    }
                }
                Err(why) => {
                    let text = forwarding.failure(port, &why);
                    let _ = error.write_all(text.as_bytes()).await;
                }
            }
        });
    }
    let ended = async { while running.join_next().await.is_some() {} };
    tokio::select! {
        () = ended => {}
        () = gone.cancelled() => {}
    }
    running.shutdown().await;
    connection.close().await;
}
