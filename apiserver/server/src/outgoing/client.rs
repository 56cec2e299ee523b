//! The client: calls within bounds, over connections that are kept.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_clock::Clock;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use super::{Outside, TlsError, tls};

/// Connections of one client at once; who comes later waits, within its own time.
const PLACES: usize = 64;
/// Connections to one host that are kept for the next call.
const KEPT: usize = 8;

/// Where calls go: `https://host[:port]/path[?query]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
    path: String,
}

/// Why a text is no place to call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It cannot be read.
    #[error("{0:?} is no URL")]
    Url(String),
    /// It is not encrypted.
    #[error("{0:?} is not https")]
    NotHttps(String),
}

impl Target {
    /// Reads an address. User names in it are refused.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let wrong = || TargetError::Url(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        if uri.scheme_str() != Some("https") {
            return Err(TargetError::NotHttps(text.to_owned()));
        }
        let authority = uri.authority().ok_or_else(wrong)?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(wrong());
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(443),
            path: path.to_owned(),
        })
    }

    /// What the `Host` header says.
    fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match self.port {
            443 => host,
            port => format!("{host}:{port}"),
        }
    }
}

impl std::fmt::Display for Target {
    /// Without the query.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "https://{}{path}", self.authority())
    }
}

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    /// How.
    pub method: Method,
    /// What is sent, and as which media type.
    pub body: Option<(&'static str, Bytes)>,
    /// What the `Authorization` header says. Never shown.
    pub authorization: Option<HeaderValue>,
    /// How long all of it may take.
    pub within: Duration,
    /// Most bytes of the answer.
    pub most: usize,
}

/// An answer, read whole.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
    /// When to try again, in seconds, if it says so.
    pub retry_after: Option<u64>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nobody is there.
    #[error("{at}: {why}")]
    Connect {
        /// Where.
        at: String,
        /// Why.
        why: String,
    },
    /// Who is there is not to be believed.
    #[error("{at}: tls: {why}")]
    Tls {
        /// Where.
        at: String,
        /// Why.
        why: String,
    },
    /// It took too long.
    #[error("{at}: no answer within {} s", .within.as_secs_f64())]
    Timeout {
        /// Where.
        at: String,
        /// How long it might take.
        within: Duration,
    },
    /// The connection broke.
    #[error("{at}: {why}")]
    Broken {
        /// Where.
        at: String,
        /// Why.
        why: String,
    },
    /// The answer is larger than it may be.
    #[error("{at}: the answer has more than {most} bytes")]
    TooLarge {
        /// Where.
        at: String,
        /// The most.
        most: usize,
    },
}

type Sender = SendRequest<Full<Bytes>>;

/// Calls hosts that the same authorities vouch for. Clones are not needed: share it.
pub struct Client {
    outside: Arc<dyn Outside>,
    tls: TlsConnector,
    /// The name that certificates must have, if it is not the host's.
    name: Option<ServerName<'static>>,
    places: Semaphore,
    kept: Mutex<HashMap<(String, u16), Vec<Sender>>>,
    clock: Clock,
}

impl Client {
    /// Believes `roots`, or with `None` whom the system trusts.
    pub fn new(
        outside: Arc<dyn Outside>,
        roots: Option<RootCertStore>,
        clock: Clock,
    ) -> Result<Self, TlsError> {
        let roots = match roots {
            Some(roots) => Arc::new(roots),
            None => outside.roots().map_err(TlsError::NoRoots)?,
        };
        Ok(Self::with(outside, tls::config(roots, None)?, None, clock))
    }

    pub(super) fn with(
        outside: Arc<dyn Outside>,
        config: ClientConfig,
        name: Option<ServerName<'static>>,
        clock: Clock,
    ) -> Self {
        Self {
            outside,
            tls: TlsConnector::from(Arc::new(config)),
            name,
            places: Semaphore::new(PLACES),
            kept: Mutex::default(),
            clock,
        }
    }

    /// The only clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Calls, and reads the answer. Any status is an answer.
    pub async fn send(&self, target: &Target, call: Call) -> Result<Reply, CallError> {
        let (at, within) = (target.to_string(), call.within);
        let late = CallError::Timeout { at, within };
        let sent = tokio::time::timeout(within, self.sent(target, call));
        sent.await.unwrap_or(Err(late))
    }

    async fn sent(&self, target: &Target, call: Call) -> Result<Reply, CallError> {
        // Never closed.
        let _place = self.places.acquire().await;
        let most = call.most;
        let key = (target.host.clone(), target.port);
        let mut kept = self.kept.lock().get_mut(&key).and_then(Vec::pop);
        loop {
            let was_kept = kept.is_some();
            let mut sender = match kept.take() {
                Some(sender) => sender,
                None => self.connect(target).await?,
            };
            let request = request(target, &call)?;
            let sent = match sender.ready().await {
                Ok(()) => sender.try_send_request(request).await,
                // A connection that was kept may have ended meanwhile.
                Err(_) if was_kept => continue,
                Err(error) => return Err(broken(target, &error)),
            };
            let response = match sent {
                Ok(response) => response,
                // Nothing of the request went out, so it may go out again.
                Err(error) if was_kept && error.message().is_some() => continue,
                Err(error) => return Err(broken(target, error.error())),
            };
            let (parts, body) = response.into_parts();
            let body = match Limited::new(body, most).collect().await {
                Ok(body) => body.to_bytes(),
                Err(error) if error.is::<LengthLimitError>() => {
                    let at = target.to_string();
                    return Err(CallError::TooLarge { at, most });
                }
                Err(error) => {
                    return Err(CallError::Broken {
                        at: target.to_string(),
                        why: error.to_string(),
                    });
                }
            };
            self.keep(key, sender);
            let retry_after = parts.headers.get(RETRY_AFTER);
            let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
            return Ok(Reply {
                status: parts.status,
                body,
                retry_after,
            });
        }
    }

    fn keep(&self, key: (String, u16), sender: Sender) {
        if sender.is_closed() {
            return;
        }
        let mut kept = self.kept.lock();
        let of_host = kept.entry(key).or_default();
        of_host.retain(|sender| !sender.is_closed());
        if of_host.len() < KEPT {
            of_host.push(sender);
        }
    }

    async fn connect(&self, target: &Target) -> Result<Sender, CallError> {
        let at = || target.to_string();
        let stream = self.outside.connect(&target.host, target.port).await;
        let stream = stream.map_err(|error| CallError::Connect {
            at: at(),
            why: error.to_string(),
        })?;
        let wrong = |why: String| CallError::Tls { at: at(), why };
        let name = match &self.name {
            Some(name) => name.clone(),
            None => ServerName::try_from(target.host.clone())
                .map_err(|error| wrong(error.to_string()))?,
        };
        let stream = self.tls.connect(name, stream).await;
        let stream = stream.map_err(|error| wrong(error.to_string()))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(target, &error))?;
        // Ends with the connection, which ends when its sender is dropped.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to another server broke");
            }
        });
        Ok(sender)
    }
}

fn broken(target: &Target, error: &hyper::Error) -> CallError {
    CallError::Broken {
        at: target.to_string(),
        why: error.to_string(),
    }
}

fn request(target: &Target, call: &Call) -> Result<Request<Full<Bytes>>, CallError> {
    let mut request = Request::builder()
        .method(call.method.clone())
        .uri(&target.path)
        .header(HOST, target.authority())
        .header("accept", "application/json")
        .header("user-agent", "coracle");
    if let Some(authorization) = &call.authorization {
        request = request.header(AUTHORIZATION, authorization.clone());
    }
    let mut bytes = Bytes::new();
    if let Some((media_type, body)) = &call.body {
        request = request.header(CONTENT_TYPE, *media_type);
        bytes = body.clone();
    }
    request
        .body(Full::new(bytes))
        .map_err(|_| CallError::Broken {
            at: target.to_string(),
            why: "the request cannot be written".to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_is_called_and_names_are_shown_without_secrets() {
        let target = Target::parse("https://example.com/a?token=secret").expect("a URL");
        assert_eq!(target.to_string(), "https://example.com/a");
        let target = Target::parse("https://[::1]:8443").expect("a URL");
        assert_eq!((target.host.as_str(), target.port), ("::1", 8443));
        assert_eq!(target.to_string(), "https://[::1]:8443/");
        for wrong in [
            "http://a/",
            "a",
            "https://",
            "https://user:secret@a/",
            "ftp://a",
        ] {
            assert!(Target::parse(wrong).is_err(), "{wrong}");
        }
    }
}
