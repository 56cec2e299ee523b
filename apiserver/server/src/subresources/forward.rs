//! One request carried to a port of the cluster's network, and its answer back (upstream's `UpgradeAwareHandler`).
//!
//! Redirections and the links of HTML [pages](super::pages) stay in the proxy.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::connect::{handed_on, relay};
use super::onward::{forwarded, path, prefix, strip};
use super::pages::{self, Links};
use crate::answer::Answer;
use crate::body::{Body, BoxError};
use crate::call::Call;
use crate::dialer::{Connection, Upgraded};
use crate::server::Server;
use crate::status::{ApiError, Result};

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
    let authority = target.authority().to_string();
    if let (false, Ok(host)) = (
        headers.contains_key(header::HOST),
        HeaderValue::try_from(&authority),
    ) {
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
        strip(response.headers_mut());
    }
    let response = response.map(|body| body.map_err(BoxError::from).boxed_unsync());
    let response = seen_through(call, &authority, target.tls, response);
    relay(server, call.upgrade.clone(), Upgraded { response, stream })
}

/// The answer of what is at `authority` as the proxy shows it.
pub(super) fn seen_through(
    call: &Call,
    authority: &str,
    tls: bool,
    response: Response<Body>,
) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    // Whose pages may read the answers of the API server is not for pods to say.
    for name in CORS {
        parts.headers.remove(name);
    }
    let outer = call.host.as_ref().and_then(|host| host.to_str().ok());
    let links = Links::new(prefix(call), authority, tls, outer.unwrap_or_default());
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

pub(super) fn unreachable_service(why: impl std::fmt::Display) -> ApiError {
    ApiError::unavailable(format!("error trying to reach service: {why}"))
}
