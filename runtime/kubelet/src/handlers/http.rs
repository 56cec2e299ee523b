//! GET requests of probes and hooks, plain or in TLS that nobody verifies, as upstream.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{HTTPGetAction, HTTPHeader};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;

use super::{Failure, Place};

/// Redirects that are followed.
const MOST_REDIRECTS: usize = 10;

/// A request as the spec has it.
#[derive(Clone, Debug)]
pub(crate) struct Get {
    tls: bool,
    /// Replaces the pod's address in the URL. The request goes to the pod's own network all the same.
    host: Option<String>,
    port: u16,
    path: String,
    headers: HeaderMap,
}

/// What came of one request.
struct Answer {
    status: u16,
    location: Option<String>,
}

/// Why a request was not answered.
struct Unanswered {
    failure: Failure,
    /// The server answered the offer of TLS with something else.
    speaks_no_tls: bool,
}

impl From<Failure> for Unanswered {
    fn from(failure: Failure) -> Self {
        let speaks_no_tls = false;
        Self {
            failure,
            speaks_no_tls,
        }
    }
}

impl From<Unanswered> for Failure {
    fn from(unanswered: Unanswered) -> Self {
        unanswered.failure
    }
}

impl Get {
    pub(super) fn probe(action: &HTTPGetAction, port: u16) -> Self {
        Self::new(action, port, "kube-probe/1.36")
    }

    pub(super) fn hook(action: &HTTPGetAction, port: u16) -> Self {
        Self::new(action, port, "kube-lifecycle/1.36")
    }

    fn new(action: &HTTPGetAction, port: u16, agent: &'static str) -> Self {
        let path = action.path.as_deref().unwrap_or_default();
        let host = action.host.clone().filter(|host| !host.is_empty());
        Self {
            tls: action.scheme.as_deref() == Some("HTTPS"),
            host,
            port,
            path: format!("/{}", path.strip_prefix('/').unwrap_or(path)),
            headers: headers(action.http_headers.iter().flatten(), agent),
        }
    }

    /// The URL of a pod with that address.
    pub(super) fn url(&self, address: &str) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority(address), self.path)
    }

    fn host<'a>(&'a self, address: &'a str) -> &'a str {
        self.host.as_deref().unwrap_or(address)
    }

    fn authority(&self, address: &str) -> String {
        let host = self.host(address);
        if host.contains(':') {
            format!("[{host}]:{}", self.port)
        } else {
            format!("{host}:{}", self.port)
        }
    }

    /// As a probe: 2xx and 3xx pass. Redirects within the host are followed.
    pub(super) async fn probe_once(&self, place: &Place<'_>, address: &str) -> Result<(), Failure> {
        let mut get = self.clone();
        for _ in 0..=MOST_REDIRECTS {
            let answer = get.once(place, address).await?;
            let next = answer.location.as_deref();
            if let Some(location) = next.filter(|_| (300..400).contains(&answer.status)) {
                match get.follow(location, address) {
                    Some(next) => get = next,
                    // It leads elsewhere: upstream warns, and takes it as passed.
                    None => return Ok(()),
                }
            } else if (200..400).contains(&answer.status) {
                return Ok(());
            } else {
                let status = answer.status;
                let message = format!("HTTP probe failed with statuscode: {status}");
                return Err(Failure::Failed(message));
            }
        }
        let message = format!(
            "Get {:?}: stopped after {MOST_REDIRECTS} redirects",
            get.url(address)
        );
        Err(Failure::Failed(message))
    }

    /// As a hook: any answer will do, and a server that speaks no TLS is asked without (and without what is
    /// only for the eyes of a server behind TLS), as in pkg/kubelet/lifecycle/handlers.go.
    pub(super) async fn hook_once(&self, place: &Place<'_>, address: &str) -> Result<(), Failure> {
        let first = self.once(place, address).await;
        match first {
            Err(unanswered) if unanswered.speaks_no_tls => {
                let mut plain = self.clone();
                plain.tls = false;
                plain.headers.remove(header::AUTHORIZATION);
                Ok(plain.once(place, address).await.map(drop)?)
            }
            first => Ok(first.map(drop)?),
        }
    }

    /// Where `location` leads, unless that is another host.
    fn follow(&self, location: &str, address: &str) -> Option<Self> {
        let uri: Uri = location.parse().ok()?;
        let mut next = self.clone();
        if let Some(host) = uri.host() {
            if host != self.host(address) {
                return None;
            }
            next.tls = uri.scheme_str() == Some("https");
            let default = if next.tls { 443 } else { 80 };
            next.port = uri.port_u16().unwrap_or(default);
        }
        let path = uri
            .path_and_query()
            .map_or("/", http::uri::PathAndQuery::as_str);
        next.path = if path.starts_with('/') {
            path.to_owned()
        } else {
            let folder = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{folder}/{path}")
        };
        Some(next)
    }

    async fn once(&self, place: &Place<'_>, address: &str) -> Result<Answer, Unanswered> {
        let url = self.url(address);
        let stream = place.dial(address, self.port).await.map_err(|failure| {
            let Failure::Refused(why) = failure else {
                return failure;
            };
            Failure::Refused(format!("Get {url:?}: {why}"))
        })?;
        let mut headers = self.headers.clone();
        if let (false, Ok(host)) = (
            headers.contains_key(header::HOST),
            HeaderValue::from_str(&self.authority(address)),
        ) {
            headers.insert(header::HOST, host);
        }
        let mut speaks_no_tls = false;
        let answer = if self.tls {
            let host = self.host(address).to_owned();
            let name = ServerName::try_from(host);
            let name = name.map_err(|error| Failure::Errored(format!("Get {url:?}: {error}")))?;
            let connector = tokio_rustls::TlsConnector::from(TLS.clone());
            match connector.connect(name, stream).await {
                Ok(stream) => request(stream, &self.path, &headers).await,
                Err(error) => {
                    speaks_no_tls = is_no_tls(&error);
                    Err(error.to_string())
                }
            }
        } else {
            request(stream, &self.path, &headers).await
        };
        answer.map_err(|error| Unanswered {
            failure: Failure::Failed(format!("Get {url:?}: {error}")),
            speaks_no_tls,
        })
    }
}

/// Whether a handshake failed because what came is no message of TLS.
fn is_no_tls(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(inner, Some(rustls::Error::InvalidMessage(_)))
}

/// Asks for `path` and reads the head of the answer.
async fn request<S>(stream: S, path: &str, headers: &HeaderMap) -> Result<Answer, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let failed = |error: hyper::Error| {
        if error.is_incomplete_message() {
            "EOF".to_owned()
        } else {
            error.to_string()
        }
    };
    let stream = TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
        .await
        .map_err(failed)?;
    let mut request = Request::get(path)
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    *request.headers_mut() = headers.clone();
    // Both in this task: when the time is up, dropping it closes the connection.
    let mut answer = std::pin::pin!(sender.send_request(request));
    let answer = tokio::select! {
        answer = &mut answer => answer,
        // It may have ended with the answer, and without the end that TLS wants.
        ended = connection => match (answer.await, ended) {
            (Err(_), Err(error)) => Err(error),
            (answer, _) => answer,
        }
    };
    let answer = answer.map_err(failed)?;
    let location = answer.headers().get(header::LOCATION);
    Ok(Answer {
        status: answer.status().as_u16(),
        location: location
            .and_then(|location| location.to_str().ok())
            .map(str::to_owned),
    })
}

fn headers<'a>(given: impl Iterator<Item = &'a HTTPHeader>, agent: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for header in given {
        // The API has checked them; what it let through and HTTP does not allow is left out.
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(header.name.as_bytes()),
            HeaderValue::from_str(&header.value),
        ) {
            headers.append(name, value);
        }
    }
    for (name, value) in [(header::USER_AGENT, agent), (header::ACCEPT, "*/*")] {
        // A header that is given as nothing is not sent.
        match headers.get(&name) {
            None => drop(headers.insert(name, HeaderValue::from_static(value))),
            Some(given) if given.is_empty() => drop(headers.remove(name)),
            Some(_) => {}
        }
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers
}

/// Believes every server: a probe asks whether the pod answers, not who it is, and pods' certificates are rarely made for
/// addresses. One for all: its tables take longer to make than a probe. Nothing of one server helps with another, so no
/// session is kept.
static TLS: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let mut config = coracle_tls::client_of_anybody().with_no_client_auth();
    config.resumption = Resumption::disabled();
    Arc::new(config)
});

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn get(action: serde_json::Value) -> Get {
        let action: HTTPGetAction = serde_json::from_value(action).expect("valid");
        Get::probe(&action, 8080)
    }

    async fn answered(reply: &'static [u8]) -> Result<u16, String> {
        let (near, mut far) = tokio::io::duplex(1024);
        let server = tokio::spawn(async move {
            let mut request = [0; 512];
            let count = far.read(&mut request).await.expect("a request");
            far.write_all(reply).await.expect("read");
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        let get = get(json!({"port": 8080, "path": "/healthz"}));
        let answer = request(near, &get.path, &get.headers).await;
        let request = server.await.expect("no panic");
        assert!(
            request.starts_with("GET /healthz HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(request.contains("kube-probe/"), "{request}");
        answer.map(|answer| answer.status)
    }

    #[tokio::test]
    async fn the_status_is_the_answer() {
        let teapot = answered(b"HTTP/1.1 418 Teapot\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(teapot, Ok(418));
        assert!(answered(b"").await.is_err(), "a server that hangs up");
        assert!(answered(b"not http\r\n\r\n").await.is_err());
    }

    #[test]
    fn headers_of_the_spec_win_and_empty_ones_are_not_sent() {
        let given = json!([{"name": "Accept", "value": ""}, {"name": "Host", "value": "shop"},
                           {"name": "X-A", "value": "1"}, {"name": "X-A", "value": "2"}]);
        let get = get(json!({"port": 8080, "httpHeaders": given}));
        assert!(!get.headers.contains_key("accept"));
        assert_eq!(get.headers["host"], "shop");
        assert_eq!(get.headers.get_all("x-a").iter().count(), 2);
        assert_eq!(get.headers["user-agent"], "kube-probe/1.36");
    }

    #[test]
    fn redirects_are_followed_within_the_host() {
        let get = get(json!({"port": 8080, "path": "/a/b", "scheme": "HTTPS"}));
        for (location, url) in [
            ("/c?x=1", Some("https://10.0.0.2:8080/c?x=1")),
            ("http://10.0.0.2/c", Some("http://10.0.0.2:80/c")),
            ("https://10.0.0.2:9/c", Some("https://10.0.0.2:9/c")),
            ("https://example.org/", None),
        ] {
            let next = get.follow(location, "10.0.0.2");
            let found = next.map(|next| next.url("10.0.0.2"));
            assert_eq!(found.as_deref(), url, "{location}");
        }
    }
}
