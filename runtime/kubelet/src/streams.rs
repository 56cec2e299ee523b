//! The part of the kubelet's API that goes on with another protocol: exec, attach and port-forward.
//!
//! ```text
//! /exec/{namespace}/{pod}/{container}?command=…&input=1&output=1&error=1&tty=1
//! /attach/{namespace}/{pod}/{container}?input=1…          /portForward/{namespace}/{pod}?port=…
//!    │ 101, or a refusal
//!    ▼
//! coracle-streaming ⇄ PodRuntime: exec, attach, connect
//! ```

use bytes::Bytes;
use coracle_client::ObjectKey;
use coracle_cri::{AttachRequest, ContainerId, ExecRequest, SandboxId, Streams};
use coracle_streaming::{
    Failure, ForwardProtocol, Forwarding, Limits, Refusal, Remote, RemoteProtocol, Verb, Version,
    serve_forward, serve_remote,
};
use futures::StreamExt;
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::io::{DuplexStream, duplex};

use crate::actions::find;
use crate::api::{Body, Refused, text};
use crate::kubelet::Kubelet;
use crate::logs::decode;
use crate::step::{Run, SandboxState};

/// Bytes that wait between the API server and the protocol.
const BUFFER: usize = 64 << 10;
/// Most ports of a request: there is one byte for the number of a channel, and two channels each.
const MAX_PORTS: usize = 127;

/// What came of a request to go on with another protocol.
pub struct Upgraded {
    /// The answer; 101 when the protocol changes.
    pub response: Response<Body>,
    /// What follows the answer, if it does.
    pub stream: Option<DuplexStream>,
}

impl From<Refusal> for Upgraded {
    fn from(refusal: Refusal) -> Self {
        let mut response = text(refusal.status, refusal.message);
        response.headers_mut().extend(refusal.headers);
        Self {
            response,
            stream: None,
        }
    }
}

impl From<Refused> for Upgraded {
    fn from((status, message): Refused) -> Self {
        Self {
            response: text(status, message),
            stream: None,
        }
    }
}

impl Kubelet {
    /// Answers a request to the node that asks to go on with another protocol. Who may ask was decided by
    /// the caller. Must be called within a tokio runtime: what follows the answer is served there, until
    /// the client is gone or the kubelet stops.
    pub fn upgrade(&self, request: &Request<Bytes>) -> Upgraded {
        let path: Vec<String> = request.uri().path().split('/').map(decode).collect();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let answer = match path.as_slice() {
            ["", "exec", namespace, pod, container] => {
                let key = ObjectKey::new(*namespace, *pod);
                self.remote(request, Verb::Exec, &key, container, &query)
            }
            ["", "attach", namespace, pod, container] => {
                let key = ObjectKey::new(*namespace, *pod);
                self.remote(request, Verb::Attach, &key, container, &query)
            }
            ["", "portForward", namespace, pod] => {
                self.forward(request, &ObjectKey::new(*namespace, *pod), &query)
            }
            _ => {
                let missing = "404 page not found".to_owned();
                Err((StatusCode::NOT_FOUND, missing).into())
            }
        };
        answer.unwrap_or_else(|refused| *refused)
    }

    fn remote(
        &self,
        request: &Request<Bytes>,
        verb: Verb,
        key: &ObjectKey,
        container: &str,
        query: &Query,
    ) -> Result<Upgraded, Box<Upgraded>> {
        let bad = |message: &str| (StatusCode::BAD_REQUEST, message.to_owned());
        let streams = query.streams();
        if !(streams.stdin || streams.stdout || streams.stderr) {
            return Err(bad("you must specify at least 1 of stdin, stdout, stderr").into());
        }
        let command = query.all("command");
        if verb == Verb::Exec && command.is_empty() {
            return Err(bad("you must specify the command to run").into());
        }
        let agreed = coracle_streaming::remote_command(request)?;
        let container = match self.running(key, container) {
            Ok(container) => Ok(container),
            // There the client hears of it in the stream, as from an API server that translates.
            Err((_, why))
                if matches!(agreed.protocol, RemoteProtocol::WebSocket(Version::V5, _)) =>
            {
                Err(Failure::Refused(why))
            }
            Err(refused) => return Err(refused.into()),
        };
        let remote = Remote {
            protocol: agreed.protocol,
            verb,
            streams,
            limits: Limits::default(),
        };
        let runtime = self.0.runtime.clone();
        let start = async move {
            let container = container?;
            let session = match verb {
                Verb::Exec => {
                    let request = ExecRequest {
                        command,
                        streams,
                        waits: false,
                    };
                    runtime.exec(&container, request).await
                }
                Verb::Attach => runtime.attach(&container, AttachRequest { streams }).await,
            };
            session.map_err(Failure::Runtime)
        };
        let (near, far) = duplex(BUFFER);
        Ok(self.switch(agreed.headers, near, serve_remote(far, remote, start)))
    }

    fn forward(
        &self,
        request: &Request<Bytes>,
        key: &ObjectKey,
        query: &Query,
    ) -> Result<Upgraded, Box<Upgraded>> {
        let agreed = coracle_streaming::port_forward(request)?;
        let ports = match agreed.protocol {
            ForwardProtocol::WebSocket(_) => query
                .ports()
                .map_err(|why| (StatusCode::BAD_REQUEST, why))?,
            ForwardProtocol::Spdy | ForwardProtocol::Tunnel => Vec::new(),
        };
        let sandbox = self.sandbox(key)?;
        let forwarding = Forwarding {
            protocol: agreed.protocol,
            ports,
            pod: (key.name.clone(), sandbox.0.clone()),
            limits: Limits::default(),
        };
        let (runtime, namespace) = (
            self.0.runtime.clone(),
            format!("{}/{}", key.namespace, key.name),
        );
        let dial = move |port: u16| {
            let (runtime, sandbox, namespace) =
                (runtime.clone(), sandbox.clone(), namespace.clone());
            async move {
                let dialled = runtime.connect(&sandbox, port).await;
                dialled.map_err(|error| {
                    format!("failed to connect to localhost:{port} inside namespace {namespace:?}: {error}")
                })
            }
        };
        let (near, far) = duplex(BUFFER);
        Ok(self.switch(agreed.headers, near, serve_forward(far, forwarding, dial)))
    }

    /// Changes the protocol: `serving` goes on by itself until the kubelet stops.
    fn switch(
        &self,
        headers: HeaderMap,
        near: DuplexStream,
        serving: impl Future<Output = ()> + Send + 'static,
    ) -> Upgraded {
        let stop = self.0.ctx.stop().clone();
        tokio::spawn(async move {
            tokio::select! {
                () = serving => {}
                () = stop.cancelled() => {}
            }
        });
        let mut response = Response::new(futures::stream::empty().boxed());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = headers;
        Upgraded {
            response,
            stream: Some(near),
        }
    }

    /// The container, if it runs.
    fn running(&self, key: &ObjectKey, container: &str) -> Result<ContainerId, Refused> {
        let missing = || {
            let message = format!("container not found ({container:?})");
            (StatusCode::INTERNAL_SERVER_ERROR, message)
        };
        let state = self.0.state.lock();
        let entry = state.live(key).ok_or_else(no_pod)?;
        find(&entry.pod, container).ok_or_else(missing)?;
        match entry.observed.container(container).run {
            Run::Running { .. } | Run::Stopping { .. } => Ok(ContainerId {
                sandbox: SandboxId(coracle_client::uid(entry.pod.as_ref()).to_owned()),
                name: container.to_owned(),
            }),
            Run::Never | Run::Starting | Run::Exited(_) => Err(missing()),
        }
    }

    /// The pod's sandbox, if it is there.
    fn sandbox(&self, key: &ObjectKey) -> Result<SandboxId, Refused> {
        let state = self.0.state.lock();
        let entry = state.live(key).ok_or_else(no_pod)?;
        if entry.observed.sandbox != SandboxState::Ready {
            let message = format!("pod not found (\"{}_{}\")", key.name, key.namespace);
            return Err((StatusCode::INTERNAL_SERVER_ERROR, message));
        }
        Ok(SandboxId(
            coracle_client::uid(entry.pod.as_ref()).to_owned(),
        ))
    }
}

fn no_pod() -> Refused {
    (StatusCode::NOT_FOUND, "pod does not exist".to_owned())
}

impl From<Refusal> for Box<Upgraded> {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.into())
    }
}

impl From<Refused> for Box<Upgraded> {
    fn from(refused: Refused) -> Self {
        Self::new(refused.into())
    }
}

/// Names and values, in order.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(query: &str) -> Self {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (decode(name), decode(value)))
                .collect(),
        )
    }

    fn all(&self, name: &str) -> Vec<String> {
        let values = self.0.iter().filter(|(key, _)| key == name);
        values.map(|(_, value)| value.clone()).collect()
    }

    fn streams(&self) -> Streams {
        let wants = |name: &str| self.all(name).first().is_some_and(|value| value == "1");
        let tty = wants("tty");
        Streams {
            stdin: wants("input"),
            stdout: wants("output"),
            // A terminal has one output.
            stderr: wants("error") && !tty,
            tty,
        }
    }

    /// The ports, as upstream reads them.
    fn ports(&self) -> Result<Vec<u16>, String> {
        let values = self.all("port");
        if values.is_empty() {
            return Err("query parameter \"port\" is required".to_owned());
        }
        let mut ports = Vec::new();
        for value in &values {
            if value.is_empty() {
                return Err("query parameter \"port\" cannot be empty".to_owned());
            }
            for part in value.split(',') {
                match part.parse() {
                    Ok(0) => return Err(format!("port {value:?} must be > 0")),
                    Ok(port) => ports.push(port),
                    Err(error) => {
                        return Err(format!("unable to parse {value:?} as a port: {error}"));
                    }
                }
            }
        }
        if ports.len() > MAX_PORTS {
            return Err(format!(
                "at most {MAX_PORTS} ports can be forwarded at once"
            ));
        }
        Ok(ports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_a_kubelet_reads_them() {
        let query =
            Query::parse("command=sh&command=-c&command=echo%20a+b&input=1&output=1&error=1&tty=1");
        assert_eq!(query.all("command"), ["sh", "-c", "echo a b"]);
        let streams = Streams {
            stdin: true,
            stdout: true,
            stderr: false,
            tty: true,
        };
        assert_eq!(query.streams(), streams);
        assert_eq!(Query::parse("output=true").streams(), Streams::default());
        for (query, ports) in [
            ("port=80&port=81,82", Ok(vec![80, 81, 82])),
            ("", Err("query parameter \"port\" is required")),
            ("port=", Err("query parameter \"port\" cannot be empty")),
            ("port=0", Err("port \"0\" must be > 0")),
        ] {
            assert_eq!(Query::parse(query).ports(), ports.map_err(str::to_owned));
        }
        assert!(Query::parse("port=70000").ports().is_err());
        assert!(
            Query::parse(&format!("port={}1", "1,".repeat(127)))
                .ports()
                .is_err()
        );
    }
}
