//! One HTTPS connection that stays open: the least a client can do, so that the figures are the
//! server's.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::access::Access;

/// Which HTTP to speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Protocol {
    /// HTTP/1.1: one request at a time on each connection.
    #[default]
    Http1,
    /// HTTP/2, as kubectl and client libraries speak; here too one request at a time.
    Http2,
}

impl Protocol {
    /// Its name in the TLS handshake.
    pub(crate) fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A connection to one server.
pub(crate) struct Connection {
    sender: Sender,
    authority: Arc<str>,
    authorization: Option<String>,
}

impl Connection {
    /// Connects and shakes hands.
    pub(crate) async fn open(access: &Access, protocol: Protocol) -> Result<Self> {
        let stream = TcpStream::connect(&access.authority)
            .await
            .with_context(|| format!("failed to connect to {}", access.authority))?;
        stream
            .set_nodelay(true)
            .context("failed to set up a connection")?;
        let host = access
            .authority
            .rsplit_once(':')
            .map_or(&*access.authority, |(host, _)| host);
        let host = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
        let stream = TlsConnector::from(access.tls(protocol))
            .connect(host, stream)
            .await
            .context("the TLS handshake failed")?;
        let io = TokioIo::new(stream);
        let sender = match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(io).await?;
                tokio::spawn(connection);
                Sender::Http1(sender)
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(connection);
                Sender::Http2(sender)
            }
        };
        Ok(Self {
            sender,
            authority: access.authority.as_str().into(),
            authorization: access.token.as_ref().map(|token| format!("Bearer {token}")),
        })
    }

    /// Sends a request and returns its answer once the head is there, whatever its status.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .header("accept", "application/json");
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let body = Full::new(body);
        let answer = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender
                    .send_request(
                        request
                            .uri(path)
                            .header("host", &*self.authority)
                            .body(body)?,
                    )
                    .await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                let uri = format!("https://{}{path}", self.authority);
                sender.send_request(request.uri(uri).body(body)?).await?
            }
        };
        Ok(answer)
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes)> {
        let answer = self.send(method, path, body).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }

    /// The same; an answer outside 2xx is an error.
    pub(crate) async fn call(&mut self, method: Method, path: &str, body: Bytes) -> Result<Bytes> {
        let (status, answer) = self.exchange(method.clone(), path, body).await?;
        if !status.is_success() {
            bail!(
                "{method} {path} was answered {status}: {}",
                String::from_utf8_lossy(&answer)
            );
        }
        Ok(answer)
    }

    /// Creates `object` in the collection at `path`.
    pub(crate) async fn create(&mut self, path: &str, object: &Value) -> Result<Value> {
        let answer = self
            .call(Method::POST, path, object.to_string().into())
            .await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// The object or list at `path`.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Value> {
        Ok(serde_json::from_slice(
            &self.call(Method::GET, path, Bytes::new()).await?,
        )?)
    }

    /// Deletes the object at `path` without a grace period; one that is gone already is fine.
    pub(crate) async fn delete(&mut self, path: &str) -> Result<()> {
        let options = r#"{"apiVersion":"v1","kind":"DeleteOptions","gracePeriodSeconds":0}"#;
        let (status, answer) = self
            .exchange(Method::DELETE, path, Bytes::from_static(options.as_bytes()))
            .await?;
        if !status.is_success() && status != StatusCode::NOT_FOUND {
            bail!(
                "DELETE {path} was answered {status}: {}",
                String::from_utf8_lossy(&answer)
            );
        }
        Ok(())
    }
}

/// The events of one watch, which has a connection of its own.
pub(crate) struct Watch {
    // Kept, because dropping the sender ends the connection.
    _connection: Connection,
    body: Incoming,
    lines: Lines,
}

impl Watch {
    /// Watches the collection at `path` from now on.
    pub(crate) async fn open(access: &Access, path: &str) -> Result<Self> {
        let mut connection = Connection::open(access, Protocol::Http1).await?;
        let list = connection.get(&format!("{path}?limit=1")).await?;
        let revision = list["metadata"]["resourceVersion"]
            .as_str()
            .context("a list has no resourceVersion")?;
        let uri = format!("{path}?watch=true&timeoutSeconds=3600&resourceVersion={revision}");
        let answer = connection.send(Method::GET, &uri, Bytes::new()).await?;
        if answer.status() != StatusCode::OK {
            bail!("the watch of {path} was answered {}", answer.status());
        }
        Ok(Self {
            _connection: connection,
            body: answer.into_body(),
            lines: Lines::default(),
        })
    }

    /// The next event.
    pub(crate) async fn next(&mut self) -> Result<Value> {
        Ok(serde_json::from_slice(&self.line().await?)?)
    }

    /// The next event as it came.
    pub(crate) async fn line(&mut self) -> Result<Bytes> {
        loop {
            if let Some(line) = self.lines.take() {
                return Ok(line);
            }
            let frame = self
                .body
                .frame()
                .await
                .context("the server ended the watch")??;
            if let Ok(data) = frame.into_data() {
                self.lines.push(&data);
            }
        }
    }
}

impl Watch {
    /// Reads events and throws them away, for as long as they come.
    pub(crate) async fn drain(&mut self) -> Result<()> {
        while let Some(frame) = self.body.frame().await {
            frame?;
        }
        bail!("the server ended the watch")
    }
}

/// Puts lines together again that arrive in pieces.
#[derive(Default)]
struct Lines(BytesMut);

impl Lines {
    fn push(&mut self, data: &[u8]) {
        self.0.extend_from_slice(data);
    }

    fn take(&mut self) -> Option<Bytes> {
        let end = self.0.iter().position(|byte| *byte == b'\n')?;
        let line = self.0.split_to(end + 1);
        Some(line.freeze().slice(..end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_from_pieces() {
        let mut lines = Lines::default();
        lines.push(b"{\"a\":");
        assert_eq!(lines.take(), None);
        lines.push(b"1}\n{}\n{");
        assert_eq!(lines.take().as_deref(), Some(&b"{\"a\":1}"[..]));
        assert_eq!(lines.take().as_deref(), Some(&b"{}"[..]));
        assert_eq!(lines.take(), None);
    }
}
