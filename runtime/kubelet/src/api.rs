//! The kubelet's own API, as the API server asks it of a node.
//!
//! Plain requests and responses: the wiring carries them in process or over TLS. What goes on with another
//! protocol is in [`streams`](crate::streams).

use std::io;

use bytes::Bytes;
use coracle_client::ObjectKey;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::{Method, Request, Response, StatusCode, header};
use k8s_openapi::api::core::v1::ContainerStatus;

use crate::actions::find;
use crate::kubelet::Kubelet;
use crate::logs::{LogOptions, PodLogs, decode};
use crate::step::{self, Run};

/// The body of an answer.
pub type Body = BoxStream<'static, io::Result<Bytes>>;

/// A refusal: its status and upstream's words.
pub(crate) type Refused = (StatusCode, String);

impl Kubelet {
    /// Answers one request to the node: `/containerLogs/{namespace}/{pod}/{container}`, with the
    /// options of [`LogOptions`], `/healthz`, and what the pods use: `/stats/summary`, `/net`,
    /// `/metrics`, `/metrics/resource`, `/metrics/cadvisor` and `/metrics/probes`. Who may ask was decided by the
    /// caller.
    pub fn serve(&self, request: Request<Bytes>) -> Response<Body> {
        if request.method() != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed");
        }
        let path: Vec<String> = request
            .uri()
            .path()
            .split('/')
            .skip(1)
            .map(decode)
            .collect();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let query = request.uri().query().unwrap_or_default();
        if let Some(figures) = self.figures(&path, query) {
            return figures;
        }
        match path.as_slice() {
            ["healthz"] => text(StatusCode::OK, "ok"),
            ["containerLogs", namespace, pod, container] => {
                let key = ObjectKey::new(*namespace, *pod);
                match self.logs(&key, container, query) {
                    Ok(lines) => respond(StatusCode::OK, lines),
                    Err((status, message)) => text(status, message),
                }
            }
            _ => text(StatusCode::NOT_FOUND, "404 page not found"),
        }
    }

    fn logs(&self, key: &ObjectKey, container: &str, query: &str) -> Result<Body, Refused> {
        let invalid = |error: &dyn std::fmt::Display| (StatusCode::BAD_REQUEST, error.to_string());
        let options = LogOptions::parse(query).map_err(|error| invalid(&error))?;
        let now = self.0.ctx.clock().now();
        let (uid, run) = {
            let state = self.0.state.lock();
            let entry = state.live(key).ok_or_else(|| {
                (
                    StatusCode::NOT_FOUND,
                    format!("pod {:?} does not exist", key.name),
                )
            })?;
            find(&entry.pod, container).ok_or_else(|| {
                let message = format!("container {container:?} not found in pod {:?}", key.name);
                (StatusCode::NOT_FOUND, message)
            })?;
            let host_ip = self.0.config.node_address().to_string();
            let status = step::status(&entry.pod, &entry.observed, &host_ip, now);
            let mut all = status
                .container_statuses
                .iter()
                .chain(&status.init_container_statuses)
                .chain(&status.ephemeral_container_statuses)
                .flatten();
            let status = all.find(|status| status.name == container);
            let run = run(status, container, &key.name, options.previous)
                .map_err(|error| invalid(&error))?;
            (coracle_client::uid(entry.pod.as_ref()).to_owned(), run)
        };
        let folder = self.0.config.defaults.log_directory(&uid).join(container);
        let (kubelet, name) = (self.clone(), container.to_owned());
        let logs = PodLogs {
            path: folder.join(format!("{run}.log")),
            is_running: Box::new(move || kubelet.is_running(&uid, &name, run)),
            stop: self.0.ctx.stop().clone(),
        };
        Ok(logs.read(&options, now))
    }

    fn is_running(&self, uid: &str, container: &str, run: u32) -> bool {
        let is_running = self.with(uid, |observed| {
            let record = observed.container(container);
            record.restart_count == run && !matches!(record.run, Run::Never | Run::Exited(_))
        });
        is_running.unwrap_or(false)
    }
}

/// The number of the run whose log is meant (upstream's `validateContainerLogStatus`).
fn run(
    status: Option<&ContainerStatus>,
    name: &str,
    pod: &str,
    previous: bool,
) -> Result<u32, String> {
    let status =
        status.ok_or_else(|| format!("container {name:?} in pod {pod:?} is not available"))?;
    let state = status.state.as_ref();
    let number = |id: Option<&str>| id.and_then(|id| id.rsplit('/').next()?.parse::<u32>().ok());
    let last = status
        .last_state
        .as_ref()
        .and_then(|state| state.terminated.as_ref());
    let last = number(last.and_then(|last| last.container_id.as_deref()));
    if previous {
        return last.ok_or_else(|| {
            format!("previous terminated container {name:?} in pod {pod:?} not found")
        });
    }
    if state.is_some_and(|state| state.running.is_some() || state.terminated.is_some()) {
        let current = number(status.container_id.as_deref());
        return current.ok_or_else(|| format!("container {name:?} in pod {pod:?} is terminated"));
    }
    if let Some(last) = last {
        return Ok(last);
    }
    let waiting = state
        .and_then(|state| state.waiting.as_ref())
        .and_then(|waiting| waiting.reason.as_deref());
    let why = match waiting {
        Some("ErrImagePull") => ": image can't be pulled".to_owned(),
        Some("ImagePullBackOff") => ": trying and failing to pull image".to_owned(),
        Some(reason) => format!(": {reason}"),
        None => " - no logs yet".to_owned(),
    };
    Err(format!(
        "container {name:?} in pod {pod:?} is waiting to start{why}"
    ))
}

pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let line = Bytes::from(text.into());
    respond(status, futures::stream::iter([Ok(line)]).boxed())
}

pub(crate) fn respond(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
