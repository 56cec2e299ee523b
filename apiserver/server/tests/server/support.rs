//! A server in memory, and requests that read like what they are.

use std::sync::Arc;

use bytes::Bytes;
use coracle_api::schema::from_kept_json;
use coracle_clock::Clock;
use coracle_server::{ApiServer, Body, Config, Identity};
use coracle_store::MemoryStore;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

/// A server with its system namespaces, and an administrator's identity.
pub(crate) struct TestServer {
    pub(crate) api: ApiServer,
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        from_kept_json(&self.body).unwrap_or_else(|error| {
            panic!("{error} in {}", String::from_utf8_lossy(&self.body));
        })
    }

    /// The body as JSON, of an answer that is a success.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert!(
            self.status.is_success(),
            "{}: {}",
            self.status,
            String::from_utf8_lossy(&self.body)
        );
        self.json()
    }

    /// Status, reason and message of a failure.
    #[track_caller]
    pub(crate) fn failure(&self) -> (u16, String, String) {
        assert!(
            !self.status.is_success(),
            "{}: {}",
            self.status,
            String::from_utf8_lossy(&self.body)
        );
        let status = self.json();
        let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
        (self.status.as_u16(), text("reason"), text("message"))
    }

    /// The texts of `Warning` headers.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let values = self.headers.get_all(http::header::WARNING);
        values
            .iter()
            .map(|value| value.to_str().expect("text").to_owned())
            .collect()
    }
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let clock = Clock::fake(1);
        let mut config = Config::new(Arc::new(MemoryStore::new(clock.clone())), clock);
        change(&mut config);
        let api = ApiServer::start(config).await.expect("an empty store");
        api.bootstrap_namespaces()
            .await
            .expect("namespaces are made");
        api.bootstrap_roles().await.expect("roles are made");
        let server = Self { api };
        let account = json!({"metadata": {"name": "default"}});
        server
            .post("/api/v1/namespaces/default/serviceaccounts", account)
            .await
            .ok();
        server
    }

    /// Sends a request as an administrator in the same process.
    pub(crate) async fn send(&self, mut request: Request<Full<Bytes>>) -> Answer {
        request
            .extensions_mut()
            .insert(Identity::new("admin", ["system:masters"]));
        self.send_as_is(request).await
    }

    /// Sends a request without adding an identity.
    pub(crate) async fn send_as_is(&self, request: Request<Full<Bytes>>) -> Answer {
        let (parts, body) = self.api.handle(request).await.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(request("GET", path, "", None)).await
    }

    pub(crate) async fn get_accepting(&self, path: &str, accept: &str) -> Answer {
        let mut request = request("GET", path, "", None);
        request
            .headers_mut()
            .insert("accept", accept.parse().expect("a header"));
        self.send(request).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(request("POST", path, "application/json", Some(body)))
            .await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(request("PUT", path, "application/json", Some(body)))
            .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(request("DELETE", path, "", None)).await
    }

    pub(crate) async fn delete_with(&self, path: &str, options: Value) -> Answer {
        self.send(request("DELETE", path, "application/json", Some(options)))
            .await
    }

    pub(crate) async fn merge(&self, path: &str, body: Value) -> Answer {
        self.send(request(
            "PATCH",
            path,
            "application/merge-patch+json",
            Some(body),
        ))
        .await
    }

    pub(crate) async fn patch(&self, path: &str, media_type: &str, body: Value) -> Answer {
        self.send(request("PATCH", path, media_type, Some(body)))
            .await
    }

    /// Makes a ConfigMap in `default`.
    pub(crate) async fn config_map(&self, name: &str, labels: Value) -> Value {
        let body = json!({"metadata": {"name": name, "labels": labels}, "data": {"a": "1"}});
        self.post(CONFIG_MAPS, body).await.ok()
    }

    /// Makes a pod with one container in `default`.
    pub(crate) async fn pod(&self, name: &str, node: Option<&str>) -> Value {
        let mut spec = json!({"containers": [{"name": "a", "image": "example.com/app:1"}]});
        if let Some(node) = node {
            spec["nodeName"] = node.into();
        }
        self.post(PODS, json!({"metadata": {"name": name}, "spec": spec}))
            .await
            .ok()
    }

    /// Opens a watch.
    pub(crate) async fn watch(&self, path: &str) -> Watch {
        self.watch_by(request("GET", path, "", None)).await
    }

    /// Opens a watch by that request.
    pub(crate) async fn watch_by(&self, mut request: Request<Full<Bytes>>) -> Watch {
        request
            .extensions_mut()
            .insert(Identity::new("admin", ["system:masters"]));
        let response = self.api.handle(request).await;
        assert_eq!(response.status(), StatusCode::OK);
        Watch {
            body: response.into_body(),
            buffer: Vec::new(),
        }
    }
}

pub(crate) const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";

pub(crate) fn request(
    method: &str,
    path: &str,
    media_type: &str,
    body: Option<Value>,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path);
    if !media_type.is_empty() {
        request = request.header("content-type", media_type);
    }
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    request
        .body(Full::new(Bytes::from(body)))
        .expect("a request")
}

/// An open watch.
pub(crate) struct Watch {
    body: Body,
    buffer: Vec<u8>,
}

impl Watch {
    /// The next event; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(from_kept_json(&line).expect("a JSON line"));
            }
            let frame = self.body.frame().await?.expect("a readable body");
            self.buffer
                .extend_from_slice(&frame.into_data().expect("data"));
        }
    }

    /// Type and name of the next event.
    pub(crate) async fn event(&mut self) -> (String, String) {
        let event = self.next().await.expect("the watch goes on");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (
            text(&event["type"]),
            text(&event["object"]["metadata"]["name"]),
        )
    }
}

/// A pair of texts, for comparisons with [`Watch::event`].
pub(crate) fn event(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

/// Sends these bytes as an administrator.
pub(crate) async fn send(
    server: &TestServer,
    method: &str,
    path: &str,
    media: &str,
    body: impl Into<Bytes>,
) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", media)
        .body(Full::new(body.into()))
        .expect("a request");
    server.send(request).await
}

/// Sends a request as `identity`; a PATCH is a merge patch.
pub(crate) async fn send_as(
    server: &TestServer,
    identity: &Identity,
    method: &str,
    path: &str,
    body: Option<Value>,
) -> Answer {
    let media_type = match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    let mut request = request(method, path, media_type, body);
    request.extensions_mut().insert(identity.clone());
    server.send_as_is(request).await
}
