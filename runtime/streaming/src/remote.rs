//! Exec and attach: a session, and a client that sees it.
//!
//! ```text
//! client ─ stdin, sizes ─▶ Session ─ stdout, stderr ─▶ client
//!                             └─ its end ─▶ a Status on the client's error stream
//! ```

mod client;
mod status;

use std::io;

use coracle_cri::{BoxedReader, BoxedWriter, ExecError, Session, Streams, TerminalSize};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use crate::idle::Limits;
use crate::negotiate::RemoteProtocol;
use client::Client;

/// Most bytes of a message with the size of a terminal.
const MAX_SIZE: usize = 4096;

/// Which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// A command of its own.
    Exec,
    /// What the container runs.
    Attach,
}

/// Why there is no session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The node refused the request, and the client is told in the stream because its protocol has no
    /// other place: in `v5.channel.k8s.io` the connection changes its protocol before the node is asked.
    Refused(String),
    /// The runtime could not start it.
    Runtime(ExecError),
}

/// A request that was agreed on.
#[derive(Clone, Copy, Debug)]
pub struct Remote {
    /// How the client speaks.
    pub protocol: RemoteProtocol,
    /// What it wants.
    pub verb: Verb,
    /// Which streams it wants.
    pub streams: Streams,
    /// Time-outs.
    pub limits: Limits,
}

/// Serves a client on `io` from after the answer 101 until the session has ended or the client is gone.
/// The session begins with `start`, once the client's streams are there.
pub async fn serve_remote<S>(
    io: S,
    remote: Remote,
    start: impl Future<Output = Result<Session, Failure>>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Some(mut client) = Client::accept(io, &remote).await else {
        tracing::debug!("a client did not open the streams that it asked for");
        return;
    };
    let gone = client.gone();
    tokio::select! {
        () = gone.cancelled() => {}
        () = client.serve(remote.verb, start) => {}
    }
    client.close().await;
}

impl Client {
    async fn serve(&mut self, verb: Verb, start: impl Future<Output = Result<Session, Failure>>) {
        let end = match start.await {
            Ok(session) => self.carry(session).await.map_err(Failure::Runtime),
            Err(failure) => Err(failure),
        };
        if let Err(Failure::Runtime(error)) = &end
            && error.exit_code().is_some()
            && let Some(output) = self.stderr.as_mut().or(self.stdout.as_mut())
        {
            // As a shell would say it; without a reader there is nobody to tell.
            let _ = output.write_all(format!("{error}\r\n").as_bytes()).await;
        }
        for output in [&mut self.stdout, &mut self.stderr].into_iter().flatten() {
            let _ = output.shutdown().await;
        }
        let text = status::text(verb, &end, self.version);
        let told = async {
            self.error.write_all(text.as_bytes()).await?;
            self.error.shutdown().await
        };
        if let Err(error) = told.await {
            tracing::debug!(%error, "a client did not hear how its command ended");
        }
    }

    /// Moves bytes until the session has ended and everything it wrote was handed on.
    async fn carry(&mut self, session: Session) -> Result<i32, ExecError> {
        let inputs = async {
            let stdin = feed(self.stdin.take(), session.stdin);
            tokio::join!(stdin, resize(self.resize.take(), session.resize));
            std::future::pending::<()>().await;
        };
        let outputs = async {
            let (exited, (), ()) = tokio::join!(
                session.exited,
                show(session.stdout, self.stdout.as_mut()),
                show(session.stderr, self.stderr.as_mut()),
            );
            exited
        };
        tokio::select! {
            exited = outputs => exited,
            () = inputs => unreachable!("it waits for ever"),
        }
    }
}

/// Feeds standard input. What nobody reads is dropped, so that it holds nothing up.
async fn feed(client: Option<BoxedReader>, stdin: Option<BoxedWriter>) {
    let Some(mut client) = client else { return };
    if let Some(mut stdin) = stdin
        && pump(&mut client, &mut stdin).await.is_ok()
    {
        // A guest that closed it does not care about its end.
        let _ = stdin.shutdown().await;
        return;
    }
    let _ = tokio::io::copy(&mut client, &mut tokio::io::sink()).await;
}

/// Hands an output on. It is read to its end even when the client does not take it any more.
async fn show(output: Option<BoxedReader>, client: Option<&mut BoxedWriter>) {
    let Some(mut output) = output else { return };
    if let Some(client) = client
        && pump(&mut output, client).await.is_ok()
    {
        return;
    }
    let _ = tokio::io::copy(&mut output, &mut tokio::io::sink()).await;
}

/// Copies up to the end of `from`, and hands on at once what there is.
pub(crate) async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let mut buffer = vec![0; crate::outbox::PIECE];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..length]).await?;
        to.flush().await?;
    }
}

/// A size as clients write it.
#[derive(Deserialize)]
struct Size {
    #[serde(alias = "Width", default)]
    width: u16,
    #[serde(alias = "Height", default)]
    height: u16,
}

/// Follows the sizes of the client's terminal: JSON objects, one after another.
async fn resize(client: Option<BoxedReader>, sizes: Option<watch::Sender<Option<TerminalSize>>>) {
    let Some(mut client) = client else { return };
    let (mut text, mut buffer) = (Vec::new(), [0; 512]);
    while let Ok(length @ 1..) = client.read(&mut buffer).await {
        text.extend_from_slice(&buffer[..length]);
        for size in take_sizes(&mut text) {
            if let Some(sizes) = &sizes {
                sizes.send_replace(Some(size));
            }
        }
    }
}

/// Takes the sizes that are complete out of `text`. What can't become one is dropped.
fn take_sizes(text: &mut Vec<u8>) -> Vec<TerminalSize> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<Size>();
    let mut sizes = Vec::new();
    let mut broken = false;
    for value in values.by_ref() {
        match value {
            Ok(Size { width, height }) => sizes.push(TerminalSize { width, height }),
            Err(error) => {
                broken = !error.is_eof();
                break;
            }
        }
    }
    let taken = values.byte_offset();
    text.drain(..taken);
    if broken || text.len() > MAX_SIZE {
        text.clear();
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_taken_however_they_are_cut() {
        let size = |width, height| TerminalSize { width, height };
        let all = b"{\"Width\":80,\"Height\":24}\n{\"Width\":100,\"Height\":40}";
        for cut in 1..all.len() {
            let (mut text, mut sizes) = (Vec::new(), Vec::new());
            for piece in all.chunks(cut) {
                text.extend_from_slice(piece);
                sizes.extend(take_sizes(&mut text));
            }
            assert_eq!(sizes, [size(80, 24), size(100, 40)], "in pieces of {cut}");
        }
        let mut nonsense = b"nonsense {\"Width\":1,\"Height\":1}".to_vec();
        assert!(take_sizes(&mut nonsense).is_empty() && nonsense.is_empty());
        let mut endless = b"{\"Width\":".to_vec();
        endless.resize(MAX_SIZE + 1, b' ');
        assert!(take_sizes(&mut endless).is_empty() && endless.is_empty());
    }
}
