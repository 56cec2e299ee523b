//! The access log: a line per request, of the target `coracle::access`, off unless it is asked for.

use std::net::SocketAddr;
use std::time::Duration;

use coracle_client::ObjectKey;
use coracle_clock::Clock;
use http::{Method, Request, Version};

use crate::proxy::Entrance;

/// What one line tells; written when it is dropped, which is after the answer.
pub(crate) struct Entry {
    clock: Clock,
    began: Duration,
    client: SocketAddr,
    is_tls: bool,
    method: Method,
    version: Version,
    host: String,
    /// Without its query, which may hold what is nobody's business.
    path: String,
    pub(crate) status: u16,
    pub(crate) ingress: Option<ObjectKey>,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) bytes: u64,
    /// The client has got all of it.
    pub(crate) is_whole: bool,
    pub(crate) error: Option<String>,
}

impl Entry {
    /// For a request that begins now; none if nobody reads it.
    pub(crate) fn begin<B>(
        request: &Request<B>,
        entrance: &Entrance,
        clock: &Clock,
    ) -> Option<Self> {
        if !tracing::enabled!(target: "coracle::access", tracing::Level::INFO) {
            return None;
        }
        let host = crate::proxy::host(request).map_or_else(|_| String::new(), |host| host.name);
        Some(Self {
            clock: clock.clone(),
            began: clock.monotonic(),
            client: entrance.client,
            is_tls: entrance.is_tls,
            method: request.method().clone(),
            version: request.version(),
            host,
            path: request.uri().path().to_owned(),
            status: 0,
            ingress: None,
            endpoint: None,
            bytes: 0,
            is_whole: false,
            error: None,
        })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let took = self.clock.monotonic().saturating_sub(self.began);
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        tracing::info!(
            target: "coracle::access",
            client = %self.client,
            method = %self.method,
            scheme = if self.is_tls { "https" } else { "http" },
            version = ?self.version,
            host = self.host,
            path = self.path,
            status = self.status,
            bytes = self.bytes,
            whole = self.is_whole,
            micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            ingress = or_none(self.ingress.as_ref().map(ToString::to_string)),
            endpoint = or_none(self.endpoint.map(|endpoint| endpoint.to_string())),
            error = or_none(self.error.take()),
            "ingress"
        );
    }
}
