//! One HTTP request to one place, with bounds for every wait. Connections are not kept: a pull makes a
//! handful of them, and an idle node has none.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::error::RegistryError;
use super::hosts::Trust;
use super::tls::TlsConfigs;

/// What is sent.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// How long a registry is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a connection, its TLS included.
    pub connect: Duration,
    /// For the head of an answer, from when 16 KiB of what is sent last went.
    pub answer: Duration,
    /// Within this time at least 16 KiB have to come.
    pub progress: Duration,
    /// Longest pause that a registry may ask for before the pull is given up for now.
    pub longest_pause: Duration,
    /// First pause after a failure; doubled with each further one.
    pub first_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            answer: Duration::from_secs(60),
            // The `--image-pull-progress-deadline` of upstream's kubelets.
            progress: Duration::from_secs(60),
            longest_pause: Duration::from_secs(60),
            first_pause: Duration::from_millis(500),
        }
    }
}

/// Bytes per [`Patience::progress`], or [`Patience::answer`], below which a body counts as stalled.
const LEAST_PROGRESS: u64 = 16 << 10;

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) tls: bool,
    /// Host and perhaps port.
    pub(crate) authority: String,
    pub(crate) trust: Trust,
}

/// Sends requests; holds no connection and, between pulls, no certificates.
pub(crate) struct Http {
    pub(crate) patience: Patience,
    tls: TlsConfigs,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Http {
    pub(crate) fn new(patience: Patience) -> Self {
        Self {
            patience,
            tls: TlsConfigs::default(),
        }
    }

    /// Sends `request`, whose URI is a path, and waits for the head of the answer.
    pub(crate) async fn send(
        &self,
        place: &Place,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, RegistryError> {
        let host = &place.authority;
        let unreachable = |problem: String| RegistryError::Unreachable {
            host: host.clone(),
            problem,
        };
        let value = http::HeaderValue::from_str(host)
            .map_err(|_| unreachable("is no name of a host".to_owned()))?;
        request.headers_mut().insert(http::header::HOST, value);
        let connect = tokio::time::timeout(self.patience.connect, self.connect(place)).await;
        let stream = connect.map_err(|_| unreachable("connect: timed out".to_owned()))??;
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(256 << 10)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(chain(&error)))?;
        // Ends with the body of the answer, or when nobody waits for it any more.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::trace!(%error, "connection to a registry ended");
            }
        });
        let (request, sent) = counted(request);
        let mut answer = pin!(sender.send_request(request));
        let mut before = 0;
        loop {
            if let Ok(answer) = tokio::time::timeout(self.patience.answer, &mut answer).await {
                return answer.map_err(|error| unreachable(chain(&error)));
            }
            // A large blob on a slow line takes its time; what counts is that it moves.
            let now = sent.load(Ordering::Relaxed);
            if now < before + LEAST_PROGRESS {
                return Err(RegistryError::Stalled {
                    host: host.clone(),
                    after: self.patience.answer,
                });
            }
            before = now;
        }
    }

    async fn connect(&self, place: &Place) -> Result<Pin<Box<dyn Stream>>, RegistryError> {
        let host = &place.authority;
        let unreachable = |problem: String| RegistryError::Unreachable {
            host: host.clone(),
            problem,
        };
        let default = if place.tls { 443 } else { 80 };
        let (name, port) = split_authority(host, default)
            .ok_or_else(|| unreachable("is no name of a host with a port".to_owned()))?;
        let stream = TcpStream::connect((name, port))
            .await
            .map_err(|error| unreachable(format!("connect: {error}")))?;
        let _ = stream.set_nodelay(true);
        if !place.tls {
            return Ok(Box::pin(stream));
        }
        let untrusted = |problem: String| RegistryError::Untrusted {
            host: host.clone(),
            problem,
        };
        let config = self.tls.get(&place.trust).await.map_err(untrusted)?;
        let server = ServerName::try_from(name.to_owned())
            .map_err(|_| untrusted("is no name that a certificate can have".to_owned()))?;
        match TlsConnector::from(config).connect(server, stream).await {
            Ok(stream) => Ok(Box::pin(stream)),
            Err(error) => match tls_problem(&error) {
                Some(problem) => Err(untrusted(problem)),
                None => Err(unreachable(format!("TLS: {error}"))),
            },
        }
    }

    /// The next bytes of a body; `None` at its end. `window` is kept between the calls of one body.
    pub(crate) async fn next(
        &self,
        host: &str,
        body: &mut Incoming,
        window: &mut Window,
    ) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                () = &mut window.end => {
                    return Err(RegistryError::Stalled {
                        host: host.to_owned(),
                        after: self.patience.progress,
                    });
                }
            };
            match frame {
                None => return Ok(None),
                Some(Err(error)) => {
                    return Err(RegistryError::Unreachable {
                        host: host.to_owned(),
                        problem: chain(&error),
                    });
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        window.seen += data.len() as u64;
                        if window.seen >= LEAST_PROGRESS {
                            *window = self.window();
                        }
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The time in which the next bytes have to come.
    pub(crate) fn window(&self) -> Window {
        Window {
            end: Box::pin(tokio::time::sleep(self.patience.progress)),
            seen: 0,
        }
    }

    /// A whole body of at most `limit` bytes.
    pub(crate) async fn read(
        &self,
        host: &str,
        mut body: Incoming,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let (mut all, mut window) = (Vec::new(), self.window());
        while let Some(data) = self.next(host, &mut body, &mut window).await? {
            if (all.len() + data.len()) as u64 > limit {
                return Err(RegistryError::TooLarge(format!(
                    "{host}: the answer is larger than {limit} bytes"
                )));
            }
            all.extend_from_slice(&data);
        }
        Ok(all)
    }
}

/// See [`Http::next`].
pub(crate) struct Window {
    end: Pin<Box<tokio::time::Sleep>>,
    seen: u64,
}

/// The request, and how many bytes of its body the connection has taken so far.
fn counted(request: Request<Body>) -> (Request<Body>, Arc<AtomicU64>) {
    let sent = Arc::new(AtomicU64::new(0));
    let counter = sent.clone();
    let request = request.map(|body| {
        body.map_frame(move |frame| {
            let length = frame.data_ref().map_or(0, Bytes::len);
            counter.fetch_add(length as u64, Ordering::Relaxed);
            frame
        })
        .boxed_unsync()
    });
    (request, sent)
}

/// A body without bytes.
pub(crate) fn empty() -> Body {
    full(Bytes::new())
}

/// A body that is there.
pub(crate) fn full(bytes: Bytes) -> Body {
    http_body_util::Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Host without brackets, and port.
pub(crate) fn split_authority(authority: &str, default: u16) -> Option<(&str, u16)> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
        _ => (authority, default),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((host, port)).filter(|(host, _)| !host.is_empty())
}

/// What is wrong with the other side's certificate or its speech; `None` for what may pass.
fn tls_problem(error: &io::Error) -> Option<String> {
    let tls = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    match tls {
        rustls::Error::InvalidMessage(_) => Some(
            "does not speak TLS; if it is meant to have none, say so with server = \"http://…\" in \
             its hosts.toml"
                .to_owned(),
        ),
        rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => Some(
            "its certificate is signed by an unknown authority; name its authority with ca = \
             \"…\" in its hosts.toml"
                .to_owned(),
        ),
        other => Some(format!("TLS: {other}")),
    }
}

/// The texts of an error and of its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// Shared, because a pull asks several times.
pub(crate) type SharedHttp = Arc<Http>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_told_apart() {
        assert_eq!(split_authority("r.io", 443), Some(("r.io", 443)));
        assert_eq!(split_authority("r.io:80", 443), Some(("r.io", 80)));
        assert_eq!(split_authority("[::1]:80", 443), Some(("::1", 80)));
        assert_eq!(split_authority("[::1]", 443), Some(("::1", 443)));
        assert_eq!(split_authority("r.io:x", 443), None);
        assert_eq!(split_authority(":80", 443), None);
    }
}
