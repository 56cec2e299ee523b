//! The access log: a line per request, in the file that the flags name and of the target `coracle::access`; off unless it
//! is asked for.

use std::net::SocketAddr;
use std::time::Duration;

use coracle_client::ObjectKey;
use coracle_clock::Clock;
use coracle_services::AccessLog;
use http::{Method, Request, Version};
use serde_json::json;

use crate::proxy::Entrance;

/// What one line tells; written when it is dropped, which is after the answer.
pub(crate) struct Entry {
    clock: Clock,
    log: AccessLog,
    /// The Ingress does not mind.
    pub(crate) is_wanted: bool,
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
        log: &AccessLog,
    ) -> Option<Self> {
        if !log.is_read() {
            return None;
        }
        let host = crate::proxy::host(request).map_or_else(|_| String::new(), |host| host.name);
        Some(Self {
            clock: clock.clone(),
            log: log.clone(),
            is_wanted: true,
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
        if !self.is_wanted {
            return;
        }
        let took = self.clock.monotonic().saturating_sub(self.began);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let scheme = if self.is_tls { "https" } else { "http" };
        let ingress = self.ingress.as_ref().map(ToString::to_string);
        let endpoint = self.endpoint.map(|endpoint| endpoint.to_string());
        self.log.write(
            "request",
            json!({
                "ingress": ingress,
                "client": self.client.to_string(),
                "method": self.method.as_str(),
                "scheme": scheme,
                "version": format!("{:?}", self.version),
                "host": self.host,
                "path": self.path,
                "status": self.status,
                "endpoint": endpoint,
                "sentBytes": self.bytes,
                "whole": self.is_whole,
                "durationMicros": micros,
                "error": self.error,
            }),
        );
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        tracing::info!(
            target: "coracle::access",
            client = %self.client,
            method = %self.method,
            scheme,
            version = ?self.version,
            host = self.host,
            path = self.path,
            status = self.status,
            bytes = self.bytes,
            whole = self.is_whole,
            micros,
            ingress = or_none(ingress),
            endpoint = or_none(endpoint),
            error = or_none(self.error.take()),
            "ingress"
        );
    }
}
