//! Load of plain HTTP/1.1: a few connections that stay open, each with one request at a time. It reads no
//! more of an answer than it must, so that the processor is left to the server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// How long one answer may take.
const LIMIT: Duration = Duration::from_secs(30);
/// The longest answer that is understood.
const LONGEST: usize = 64 << 10;

/// Asks `path` at `server` over `connections` connections for `time`; how many answers there were.
pub(crate) async fn load(
    server: SocketAddr,
    path: &str,
    connections: usize,
    time: Duration,
) -> Result<u64> {
    let request: Arc<str> = format!("GET {path} HTTP/1.1\r\nhost: {server}\r\n\r\n").into();
    let (answers, over) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut clients = Vec::with_capacity(connections);
    for _ in 0..connections {
        let (request, answers, over) = (request.clone(), answers.clone(), over.clone());
        clients.push(tokio::spawn(async move {
            let mut client = Client::open(server).await?;
            while !over.load(Ordering::Relaxed) {
                let answer = timeout(LIMIT, client.ask(&request)).await;
                answer.with_context(|| format!("{server} did not answer"))??;
                answers.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        }));
    }
    sleep(time).await;
    let counted = answers.load(Ordering::Relaxed);
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await??;
    }
    Ok(counted)
}

/// One connection.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// The length of the first answer; all are equally long, as only their dates differ.
    length: Option<usize>,
}

impl Client {
    async fn open(server: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(server)
            .await
            .with_context(|| format!("failed to connect to {server}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; LONGEST],
            length: None,
        })
    }

    async fn ask(&mut self, request: &str) -> Result<()> {
        self.stream.write_all(request.as_bytes()).await?;
        let mut read = 0;
        loop {
            ensure!(read < LONGEST, "an answer is longer than {LONGEST} bytes");
            let more = self.stream.read(&mut self.buffer[read..]).await?;
            ensure!(more > 0, "the server closed the connection");
            read += more;
            let answer = &self.buffer[..read];
            let whole = match self.length {
                Some(length) => Some(length),
                None => length(answer)?,
            };
            let Some(whole) = whole else { continue };
            ensure!(read <= whole, "an answer is longer than the one before");
            if read == whole {
                ensure!(
                    answer.starts_with(b"HTTP/1.1 200 "),
                    "an answer was not 200: {}",
                    String::from_utf8_lossy(&answer[..answer.len().min(200)])
                );
                self.length = self.length.or(Some(whole));
                return Ok(());
            }
        }
    }
}

/// How long an answer is that begins like this, as soon as that can be said.
fn length(answer: &[u8]) -> Result<Option<usize>> {
    let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let body = head + 4;
    let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
    let header = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    if let Some(length) = header("content-length") {
        return Ok(Some(body + length.parse::<usize>()?));
    }
    if header("transfer-encoding") != Some("chunked") {
        bail!("an answer says nothing of its length:\n{text}");
    }
    // Every chunk is a line with its length, its bytes and an empty line; the last has none.
    let mut at = body;
    loop {
        let Some(line) = answer[at..].windows(2).position(|two| two == b"\r\n") else {
            return Ok(None);
        };
        let size = std::str::from_utf8(&answer[at..at + line])?;
        let size = usize::from_str_radix(size, 16).context("a chunk without a length")?;
        at += line + 2 + size + 2;
        if size == 0 {
            return Ok(Some(at));
        }
        if at > answer.len() {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_an_answer_is_found_by_either_way_to_say_it() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(length(whole).unwrap(), Some(whole.len()));
        assert_eq!(length(&whole[..30]).unwrap(), None);
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n2\r\nyo\r\n0\r\n\r\n";
        for end in 0..chunked.len() - 4 {
            assert_eq!(length(&chunked[..end]).unwrap(), None, "{end}");
        }
        assert_eq!(length(chunked).unwrap(), Some(chunked.len()));
        assert!(length(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
