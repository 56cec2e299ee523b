//! The server as clients reach it, in this process or over a socket, with failures as values.

use bytes::Bytes;
use coracle_server::{ApiServer, Identity};
use http::Request;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::Value;

use crate::support::request;

/// The token that a server in another process knows an administrator by.
pub(super) const TOKEN: &str = "administrator";

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, Failure>;

/// A server.
pub(super) enum Api {
    /// In this process.
    Here(ApiServer),
    /// In another one, at an address.
    There(String, Box<Client<HttpConnector, Full<Bytes>>>),
}

/// An answer, read to its end.
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) body: Value,
}

impl Api {
    /// Sends a request and reads the answer; `None` when the connection broke before its end.
    pub(super) async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Option<Answer> {
        let media_type = body.as_ref().map_or("", |_| "application/json");
        let response = self.send(request(method, path, media_type, body)).await?;
        read(response).await
    }

    /// Opens a watch; the inner error is the answer that refuses it.
    pub(super) async fn watch(&self, path: &str) -> Option<Result<Lines, Answer>> {
        let response = self.send(request("GET", path, "", None)).await?;
        if !response.status().is_success() {
            return read(response).await.map(Err);
        }
        let (body, buffer) = (response.into_body(), Vec::new());
        Some(Ok(Lines { body, buffer }))
    }

    /// Reads a page of text, such as that of a health check.
    pub(super) async fn text(&self, path: &str) -> Option<(u16, String)> {
        let response = self.send(request("GET", path, "", None)).await?;
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.ok()?.to_bytes();
        Some((code, String::from_utf8_lossy(&body).into_owned()))
    }

    async fn send(&self, mut request: Request<Full<Bytes>>) -> Option<http::Response<Body>> {
        match self {
            Self::Here(api) => {
                let admin = Identity::new("admin", ["system:masters"]);
                request.extensions_mut().insert(admin);
                let response = api.handle(request).await;
                Some(response.map(|body| body.map_err(Failure::from).boxed_unsync()))
            }
            Self::There(address, client) => {
                let uri = format!("http://{address}{}", request.uri());
                *request.uri_mut() = uri.parse().expect("an address");
                let token = format!("Bearer {TOKEN}").parse().expect("a header");
                request.headers_mut().insert("authorization", token);
                let response = client.request(request).await.ok()?;
                Some(response.map(|body| body.map_err(Failure::from).boxed_unsync()))
            }
        }
    }
}

async fn read(response: http::Response<Body>) -> Option<Answer> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    Some(Answer {
        code: parts.status.as_u16(),
        body: serde_json::from_slice(&body).unwrap_or_else(|error| {
            panic!("{error} in {}", String::from_utf8_lossy(&body));
        }),
    })
}

/// The lines of an open watch.
pub(super) struct Lines {
    body: Body,
    buffer: Vec<u8>,
}

impl Lines {
    /// The next event; `None` at the end, wherever it came. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("a JSON line"));
            }
            let frame = self.body.frame().await?.ok()?;
            self.buffer
                .extend_from_slice(&frame.into_data().expect("data"));
        }
    }
}
