//! Audit: who asked for what, and what became of it, as JSON lines (`audit.k8s.io/v1`).
//!
//! ```text
//! request ─▶ Trail ── identified ─▶ Policy: level, stages ── each stage ─▶ Sink
//! ```
//!
//! Bodies of Secrets and tokens are never recorded.

mod policy;
mod trail;

use std::net::IpAddr;
use std::sync::Arc;

use coracle_clock::Clock;
use http::header::{HeaderMap, HeaderName, HeaderValue};

pub use policy::{Level, Policy, Stage, Verdict};
pub(crate) use trail::Trail;

use crate::request_info::RequestInfo;

/// The header that names a request.
pub(crate) const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// The longest name that a client may give its request, as upstream's.
const MAX_AUDIT_ID: usize = 64;

/// The name of a request: the client's, or a new one.
#[derive(Clone, Debug)]
pub(crate) struct AuditId(HeaderValue);

impl AuditId {
    pub(crate) fn of(headers: &HeaderMap, clock: &Clock) -> Self {
        let theirs = headers.get(AUDIT_ID);
        let theirs = theirs.filter(|id| !id.is_empty() && id.len() <= MAX_AUDIT_ID);
        let new = || HeaderValue::from_str(&clock.uuid()).expect("a UUID is a legal header value");
        Self(theirs.cloned().unwrap_or_else(new))
    }

    /// The value of [`AUDIT_ID`].
    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// Takes events. Requests wait for it, so it must not wait for a disk or a network.
pub trait Sink: Send + Sync {
    /// Takes one event: a line of JSON.
    fn append(&self, line: Vec<u8>);

    /// Events that were taken and not kept, since the start.
    fn lost(&self) -> u64;
}

/// The address that a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source(pub(crate) IpAddr);

/// Where a request comes from, the first sender first: what proxies say, then the connection itself. As upstream's
/// `SourceIPs`, of which only the last is to be trusted.
fn sources(headers: &HeaderMap, from: Option<Source>) -> Vec<IpAddr> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let told = text("x-forwarded-for")
        .into_iter()
        .flat_map(|list| list.split(','));
    let mut sources: Vec<IpAddr> = told.filter_map(|word| word.trim().parse().ok()).collect();
    let real = text("x-real-ip").and_then(|word| word.trim().parse().ok());
    sources.extend(real.filter(|real| !sources.contains(real)));
    let from = from.map(|Source(address)| address.to_canonical());
    sources.extend(from.filter(|from| sources.last() != Some(from)));
    sources
}

/// A policy, and where its events go.
pub struct Audit {
    policy: Policy,
    sink: Arc<dyn Sink>,
}

impl Audit {
    /// Records in `sink` what `policy` asks for.
    pub fn new(policy: Policy, sink: Arc<dyn Sink>) -> Self {
        Self { policy, sink }
    }

    /// A request arrived.
    pub(crate) fn begin(
        self: &Arc<Self>,
        clock: &Clock,
        info: &RequestInfo,
        headers: &HeaderMap,
        id: &AuditId,
        from: Option<Source>,
    ) -> Arc<Trail> {
        let sources = sources(headers, from);
        Trail::new(
            Arc::clone(self),
            clock.clone(),
            info.clone(),
            headers,
            id,
            &sources,
        )
    }

    /// What `/metrics` says of it.
    pub(crate) fn metrics(&self) -> String {
        let name = "apiserver_audit_error_total";
        let help = "Audit events that were not written.";
        let lost = self.sink.lost();
        format!("# HELP {name} {help}\n# TYPE {name} counter\n{name}{{plugin=\"log\"}} {lost}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connections_own_address_comes_after_what_proxies_tell() {
        let of = |pairs: &[(&'static str, &str)], from: &str| -> Vec<String> {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, value.parse().expect("a header"));
            }
            let from = from.parse().ok().map(Source);
            let found = sources(&headers, from);
            found.iter().map(ToString::to_string).collect()
        };
        assert!(of(&[], "").is_empty());
        assert_eq!(of(&[], "::ffff:10.0.0.9"), ["10.0.0.9"]);
        let proxied = [
            ("x-forwarded-for", "10.0.0.1, nonsense,10.0.0.2"),
            ("x-real-ip", "10.0.0.1"),
        ];
        assert_eq!(
            of(&proxied, "10.0.0.9"),
            ["10.0.0.1", "10.0.0.2", "10.0.0.9"]
        );
        assert_eq!(of(&proxied, "10.0.0.2"), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(
            of(&[("x-real-ip", "10.0.0.3")], "10.0.0.9"),
            ["10.0.0.3", "10.0.0.9"]
        );
    }
}
