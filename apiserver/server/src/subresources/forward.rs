//! One request carried to a port of the cluster's network, and its answer back (upstream's `UpgradeAwareHandler`).
//!
//! Redirections and the links of HTML [pages](super::pages) stay in the proxy.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::connect::{handed_on, relay, wants_upgrade};
use super::pages::{self, Links};
use crate::answer::Answer;
use crate::body::{Body, BoxError};
use crate::call::Call;
use crate::dialer::{Connection, Upgraded};
use crate::server::Server;
use crate::status::{ApiError, Result};

/// What is about one connection only and doesn't go on.
const HOP_BY_HOP: &[HeaderName] = &[
    header::CONNECTION,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What upstream takes off every answer that it hands on (`removeCORSHeaders`).
const CORS: &[HeaderName] = &[
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
];

/// Where a request goes.
pub(super) struct Target {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    /// Whether TLS is spoken there.
    pub(super) tls: bool,
}

impl Target {
    fn authority(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

/// Sends the request to an address of the cluster's network, and answers as it is answered there.
pub(super) async fn forward(
    server: &Server,
    call: &Call,
    body: Body,
    target: Target,
) -> Result<Answer> {
    let uri = match path(call) {
        Ok(uri) => uri,
        Err(redirect) => return Ok(*redirect),
    };
    let mut headers = forwarded(call);
    if wants_upgrade(&call.headers) {
        for name in [header::CONNECTION, header::UPGRADE] {
            if let Some(value) = call.headers.get(&name) {
                headers.insert(name, value.clone());
            }
        }
    }
    let authority = target.authority().to_string();
    if let Ok(host) = HeaderValue::try_from(&authority) {
        headers.insert(header::HOST, host);
    }
    let request = handed_on(call, &uri, &headers, body)?;
    let stream = connect(server, &target).await?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(unreachable_service)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a proxied connection failed");
        }
    });
    let sent = sender.send_request(request).await;
    let mut response = sent.map_err(unreachable_service)?;
    let stream: Option<Box<dyn Connection>> = match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => {
            let upgraded = hyper::upgrade::on(&mut response).await;
            let upgraded = upgraded.map_err(unreachable_service)?;
            Some(Box::new(TokioIo::new(upgraded)))
        }
        _ => None,
    };
    if stream.is_none() {
        for name in HOP_BY_HOP {
            response.headers_mut().remove(name);
        }
    }
    let response = response.map(|body| body.map_err(BoxError::from).boxed_unsync());
    let response = seen_through(call, &target, response);
    relay(server, call.upgrade.clone(), Upgraded { response, stream })
}

/// The answer of a pod as the proxy shows it.
fn seen_through(call: &Call, target: &Target, response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    // Whose pages may read the answers of the API server is not for pods to say.
    for name in CORS {
        parts.headers.remove(name);
    }
    let outer = call.headers.get(header::HOST);
    let outer = outer
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let links = Links::new(prefix(call), target.authority(), target.tls, outer);
    let Some(location) = parts.headers.get(header::LOCATION) else {
        let body = pages::seen_through(links, &mut parts.headers, body);
        return Response::from_parts(parts, body);
    };
    let seen = location.to_str().ok().and_then(|link| links.seen(link));
    if let Some(Ok(seen)) = seen.map(HeaderValue::try_from) {
        parts.headers.insert(header::LOCATION, seen);
    }
    Response::from_parts(parts, body)
}

async fn connect(server: &Server, target: &Target) -> Result<Box<dyn Connection>> {
    let dialer = &server.cluster_dialer;
    let stream = dialer.connect(target.address, target.port).await;
    let stream = stream.map_err(unreachable_service)?;
    if !target.tls {
        return Ok(stream);
    }
    // As upstream's proxy (`InsecureSkipVerify`): pods are reached by address, and sign for themselves.
    let mut config = coracle_tls::client_of_anybody().with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::IpAddress(target.address.into());
    let stream = connector.connect(name, stream).await;
    Ok(Box::new(stream.map_err(unreachable_service)?))
}

/// Path and query of the request as it goes on; or the way to the root, which ends in a slash.
pub(super) fn path(call: &Call) -> Result<String, Box<Answer>> {
    let query = call.query_text();
    let question = if query.is_empty() {
        String::new()
    } else {
        format!("?{query}")
    };
    let path = &call.info.rest_path;
    if path.is_empty()
        && matches!(call.method, Method::GET | Method::HEAD)
        && !wants_upgrade(&call.headers)
    {
        let mut answer = Answer::bytes(StatusCode::MOVED_PERMANENTLY, "", Bytes::new());
        let location = format!("{}/{question}", call.info.path);
        if let Ok(location) = HeaderValue::try_from(location) {
            answer.headers.push((header::LOCATION, location));
        }
        return Err(Box::new(answer));
    }
    let path = if path.is_empty() { "/" } else { path };
    Ok(format!("{path}{question}"))
}

/// The part of the path that leads to the proxy.
fn prefix(call: &Call) -> &str {
    let path = call.info.path.as_str();
    path.strip_suffix(call.info.rest_path.as_str())
        .unwrap_or(path)
}

/// The headers as they go on.
pub(super) fn forwarded(call: &Call) -> HeaderMap {
    let mut headers = call.headers.clone();
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove(header::CONTENT_LENGTH);
    if let Ok(uri) = HeaderValue::try_from(call.info.path.as_str()) {
        headers.insert("x-forwarded-uri", uri);
    }
    if let Some(host) = call.headers.get(header::HOST) {
        headers.insert("x-forwarded-host", host.clone());
    }
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    headers
}

pub(super) fn unreachable_service(why: impl std::fmt::Display) -> ApiError {
    ApiError::unavailable(format!("error trying to reach service: {why}"))
}
