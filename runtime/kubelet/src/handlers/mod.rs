//! What probes and hooks do: one request, connection or command, in the pod's own network or container.
//!
//! [`Target`] is read from the spec once; each attempt goes through the pod runtime. Messages are those
//! of upstream's pkg/probe, addresses included.

mod grpc;
mod http;

use std::fmt;
use std::time::Duration;

use coracle_cri::{BoxedStream, ContainerId, ExecError, ExecRequest, SandboxId, Streams};
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::kubelet::Kubelet;

/// Most of a command's output that an Event shows.
const MOST_OUTPUT: usize = 10 << 10;

/// What is tried.
#[derive(Debug)]
pub(crate) enum Target {
    /// A connection is enough.
    Tcp {
        /// The port of the pod.
        port: u16,
    },
    /// A request is answered with a status of 2xx or 3xx.
    Http(http::Get),
    /// A server answers the gRPC health protocol with `SERVING`.
    Grpc {
        /// The port of the pod.
        port: u16,
        /// The service that is asked for.
        service: String,
    },
    /// A command in the container exits with 0.
    Exec {
        /// The program and its arguments.
        command: Vec<String>,
    },
}

/// Why an attempt did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing listens.
    Refused(String),
    /// It is not as it should be.
    Failed(String),
    /// The attempt itself went wrong, which says nothing about the container.
    Errored(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Refused(message) | Self::Failed(message) | Self::Errored(message)) = self;
        f.write_str(message)
    }
}

/// Where an attempt is made.
pub(crate) struct Place<'a> {
    pub(crate) kubelet: &'a Kubelet,
    pub(crate) sandbox: &'a SandboxId,
    pub(crate) container: &'a str,
}

impl Target {
    /// What `probe` of `container` tries. The error says what is wrong with its port, or that it has
    /// no handler.
    pub(crate) fn of_probe(probe: &Probe, container: &Container) -> Result<Self, String> {
        if let Some(action) = &probe.exec {
            let command = action.command.clone().unwrap_or_default();
            Ok(Self::Exec { command })
        } else if let Some(action) = &probe.http_get {
            let port = port(&action.port, container)?;
            Ok(Self::Http(http::Get::probe(action, port)))
        } else if let Some(action) = &probe.tcp_socket {
            let port = port(&action.port, container)?;
            Ok(Self::Tcp { port })
        } else if let Some(action) = &probe.grpc {
            let port = u16::try_from(action.port)
                .map_err(|_| format!("invalid port number: {}", action.port))?;
            let service = action.service.clone().unwrap_or_default();
            Ok(Self::Grpc { port, service })
        } else {
            let name = &container.name;
            Err(format!("missing probe handler for container {name}"))
        }
    }

    /// What a hook of `container` calls. Upstream knows `tcpSocket` here only to refuse it.
    pub(crate) fn of_hook(
        handler: &LifecycleHandler,
        container: &Container,
    ) -> Result<Self, String> {
        if let Some(action) = &handler.exec {
            let command = action.command.clone().unwrap_or_default();
            Ok(Self::Exec { command })
        } else if let Some(action) = &handler.http_get {
            let port = match &action.port {
                IntOrString::String(name) if name.is_empty() => 80,
                given => port(given, container)?,
            };
            Ok(Self::Http(http::Get::hook(action, port)))
        } else {
            Err("invalid handler: use httpGet, exec or sleep".to_owned())
        }
    }

    /// Tries once, for at most `timeout`.
    pub(crate) async fn attempt(
        &self,
        place: &Place<'_>,
        timeout: Duration,
    ) -> Result<(), Failure> {
        let address = place.address();
        let attempt = async {
            match self {
                Self::Tcp { port } => place.dial(&address, *port).await.map(drop),
                Self::Http(get) => get.probe_once(place, &address).await,
                Self::Grpc { port, service } => {
                    let stream = place.dial(&address, *port).await?;
                    grpc::check(stream, &address, *port, service).await
                }
                Self::Exec { command } => place.exec(command).await,
            }
        };
        match tokio::time::timeout(timeout, attempt).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::Failed(self.timed_out(&address, timeout))),
        }
    }

    /// Calls it as a hook: whatever a server answers, it was called.
    pub(crate) async fn call(&self, place: &Place<'_>) -> Result<(), String> {
        let outcome = match self {
            Self::Http(get) => get.hook_once(place, &place.address()).await,
            Self::Exec { command } => place.exec(command).await,
            Self::Tcp { .. } | Self::Grpc { .. } => {
                Err(Failure::Errored("not a handler of hooks".to_owned()))
            }
        };
        outcome.map_err(|failure| failure.to_string())
    }

    fn timed_out(&self, address: &str, timeout: Duration) -> String {
        let seconds = timeout.as_secs();
        match self {
            Self::Tcp { port } => format!("dial tcp {address}:{port}: i/o timeout"),
            Self::Http(get) => format!(
                "Get {:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
                get.url(address)
            ),
            Self::Grpc { .. } => {
                format!("timeout: health rpc did not complete within {seconds}s")
            }
            Self::Exec { command } => {
                let command = command.join(" ");
                format!("command timed out: {command:?} timed out after {seconds}s")
            }
        }
    }
}

impl Place<'_> {
    /// The address of the pod, for messages and headers.
    fn address(&self) -> String {
        let address = self
            .kubelet
            .with(&self.sandbox.0, |observed| observed.address);
        address
            .flatten()
            .map_or_else(|| "localhost".to_owned(), |address| address.to_string())
    }

    async fn dial(&self, address: &str, port: u16) -> Result<BoxedStream, Failure> {
        let stream = self.kubelet.0.runtime.reach(self.sandbox, port).await;
        stream.map_err(|_| {
            let message = format!("dial tcp {address}:{port}: connect: connection refused");
            Failure::Refused(message)
        })
    }

    async fn exec(&self, command: &[String]) -> Result<(), Failure> {
        let id = ContainerId {
            sandbox: self.sandbox.clone(),
            name: self.container.to_owned(),
        };
        let request = ExecRequest {
            command: command.to_vec(),
            streams: Streams {
                stdout: true,
                stderr: true,
                ..Streams::default()
            },
            waits: true,
        };
        let errored = |error: ExecError| Failure::Errored(error.to_string());
        let session = self.kubelet.0.runtime.exec(&id, request).await;
        let session = session.map_err(errored)?;
        match session.output(MOST_OUTPUT).await.map_err(errored)? {
            (0, _) => Ok(()),
            (_, output) => {
                let output = String::from_utf8_lossy(&output).into_owned();
                Err(Failure::Failed(output))
            }
        }
    }
}

/// A port by number, or by the name that the container gives it.
fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|port| port.name.as_deref() == Some(name.as_str()));
            named
                .map(|port| port.container_port)
                .or_else(|| name.parse().ok())
                .ok_or_else(|| format!("port {name} not found"))?
        }
    };
    let valid = u16::try_from(number).ok().filter(|port| *port > 0);
    valid.ok_or_else(|| format!("invalid port number: {number}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn target(probe: serde_json::Value) -> Result<Target, String> {
        let container = json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}],
                               "livenessProbe": probe});
        let container: Container = serde_json::from_value(container).expect("valid");
        let probe = container.liveness_probe.as_ref().expect("a probe");
        Target::of_probe(probe, &container)
    }

    #[test]
    fn ports_are_found_by_name_or_said_to_be_missing() {
        let http = target(json!({"httpGet": {"port": "web", "path": "healthz"}}));
        let Ok(Target::Http(get)) = http else {
            panic!("an HTTP probe")
        };
        assert_eq!(get.url("10.0.0.2"), "http://10.0.0.2:8080/healthz");
        assert!(matches!(
            target(json!({"tcpSocket": {"port": 81}})),
            Ok(Target::Tcp { port: 81 })
        ));
        for (port, error) in [
            (json!("api"), "port api not found"),
            (json!(0), "invalid port number: 0"),
            (json!(65536), "invalid port number: 65536"),
        ] {
            let found = target(json!({"tcpSocket": {"port": port}}));
            assert_eq!(found.err().as_deref(), Some(error));
        }
        assert!(target(json!({})).is_err());
    }
}
