//! One attempt of one probe.

use std::fmt;

use bytes::Bytes;
use coracle_cri::{PodRuntime, SandboxId};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::kubelet::Kubelet;

/// What is tried.
pub(super) enum Target {
    /// A connection is enough.
    Tcp {
        /// The port of the pod.
        port: u16,
    },
    /// A request is answered with a status of 2xx or 3xx.
    Http {
        /// The port of the pod.
        port: u16,
        /// What is sent.
        path: String,
        /// Its headers.
        headers: HeaderMap,
    },
}

/// Why an attempt did not pass.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing listens.
    Refused(String),
    /// Anything else.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Refused(message) | Self::Other(message)) = self;
        f.write_str(message)
    }
}

impl Target {
    /// What `probe` of `container` tries; `None` for what this node cannot: other handlers, and
    /// HTTPS. A `host` other than the pod is ignored but for the header, since the probe goes
    /// through the pod's own network namespace.
    pub(super) fn of(probe: &Probe, container: &Container) -> Option<Self> {
        if let Some(action) = &probe.tcp_socket {
            return Some(Self::Tcp {
                port: port(&action.port, container),
            });
        }
        let action = probe.http_get.as_ref()?;
        if action
            .scheme
            .as_deref()
            .is_some_and(|scheme| scheme != "HTTP")
        {
            return None;
        }
        let path = action
            .path
            .as_deref()
            .filter(|path| !path.is_empty())
            .unwrap_or("/");
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        Some(Self::Http {
            port: port(&action.port, container),
            path,
            headers: headers(action),
        })
    }

    /// Tries once; the caller bounds the time.
    pub(super) async fn try_once(
        &self,
        kubelet: &Kubelet,
        sandbox: &SandboxId,
    ) -> Result<(), Failure> {
        let runtime: &dyn PodRuntime = kubelet.0.runtime.as_ref();
        let (Self::Tcp { port } | Self::Http { port, .. }) = self;
        let stream = runtime.connect(sandbox, *port).await;
        let stream = stream.map_err(|error| Failure::Refused(error.to_string()))?;
        match self {
            Self::Tcp { .. } => Ok(()),
            Self::Http { path, headers, .. } => {
                let status = get(TokioIo::new(stream), path, headers)
                    .await
                    .map_err(Failure::Other)?;
                if (200..400).contains(&status) {
                    Ok(())
                } else {
                    Err(Failure::Other(format!(
                        "HTTP probe failed with statuscode: {status}"
                    )))
                }
            }
        }
    }
}

/// The status that a GET is answered with; redirects are not followed.
async fn get<S>(stream: S, path: &str, headers: &HeaderMap) -> Result<u16, String>
where
    S: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let failed = |error: hyper::Error| format!("Get {path:?}: {error}");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
        .await
        .map_err(failed)?;
    let mut request = Request::get(path)
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("Get {path:?}: {error}"))?;
    *request.headers_mut() = headers.clone();
    // Both in this task: when the time is up, dropping it closes the connection.
    let mut answer = std::pin::pin!(sender.send_request(request));
    let answer = tokio::select! {
        answer = &mut answer => answer,
        ended = connection => {
            ended.map_err(failed)?;
            // It may have ended with the answer.
            answer.await
        }
    };
    answer
        .map(|answer| answer.status().as_u16())
        .map_err(failed)
}

fn headers(action: &HTTPGetAction) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(
        http::header::USER_AGENT,
        HeaderValue::from_static("kube-probe/1.36"),
    );
    headers.insert(http::header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    let host = action
        .host
        .as_deref()
        .filter(|host| !host.is_empty())
        .unwrap_or("localhost");
    if let Ok(host) = HeaderValue::from_str(host) {
        headers.insert(http::header::HOST, host);
    }
    for header in action.http_headers.iter().flatten() {
        // The API has checked them; what it let through and HTTP does not allow is left out.
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(header.name.as_bytes()),
            HeaderValue::from_str(&header.value),
        ) {
            headers.insert(name, value);
        }
    }
    headers
}

/// A port by number, or by the name that the container gives it; 0, where nothing listens, when
/// there is none.
fn port(port: &IntOrString, container: &Container) -> u16 {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|port| port.name.as_deref() == Some(name.as_str()));
            named
                .map(|port| port.container_port)
                .or_else(|| name.parse().ok())
                .unwrap_or(0)
        }
    };
    u16::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container(probe: serde_json::Value) -> Container {
        let container = json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}],
                               "livenessProbe": probe});
        serde_json::from_value(container).expect("valid")
    }

    fn target(probe: serde_json::Value) -> Option<Target> {
        let container = container(probe);
        Target::of(
            container.liveness_probe.as_ref().expect("a probe"),
            &container,
        )
    }

    #[test]
    fn ports_are_found_by_name() {
        let http = target(json!({"httpGet": {"port": "web", "path": "healthz"}}));
        let Some(Target::Http { port, path, .. }) = http else {
            panic!("an HTTP probe")
        };
        assert_eq!((port, path.as_str()), (8080, "/healthz"));
        assert!(matches!(
            target(json!({"tcpSocket": {"port": 81}})),
            Some(Target::Tcp { port: 81 })
        ));
    }

    #[test]
    fn other_handlers_are_not_known() {
        assert!(target(json!({"exec": {"command": ["true"]}})).is_none());
        assert!(target(json!({"httpGet": {"port": 1, "scheme": "HTTPS"}})).is_none());
    }

    async fn answered(reply: &'static [u8]) -> Result<u16, String> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (near, mut far) = tokio::io::duplex(1024);
        let server = tokio::spawn(async move {
            let mut request = [0; 512];
            let count = far.read(&mut request).await.expect("a request");
            far.write_all(reply).await.expect("read");
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        let headers = headers(&HTTPGetAction::default());
        let status = get(TokioIo::new(near), "/healthz", &headers).await;
        let request = server.await.expect("no panic");
        assert!(
            request.starts_with("GET /healthz HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(request.contains("kube-probe/"), "{request}");
        status
    }

    #[tokio::test]
    async fn the_status_is_the_answer() {
        let teapot = answered(b"HTTP/1.1 418 Teapot\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(teapot, Ok(418));
        assert!(answered(b"").await.is_err(), "a server that hangs up");
        assert!(answered(b"not http\r\n\r\n").await.is_err());
    }
}
