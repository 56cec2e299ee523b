//! Audit: who asked for what, and what became of it, as JSON lines (`audit.k8s.io/v1`).
//!
//! ```text
//! request ─▶ Trail ── identified ─▶ Policy: level, stages ── each stage ─▶ Sink
//! ```
//!
//! Bodies of Secrets and tokens are never recorded.

mod policy;
mod trail;

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
    ) -> Arc<Trail> {
        Trail::new(Arc::clone(self), clock.clone(), info.clone(), headers, id)
    }

    /// What `/metrics` says of it.
    pub(crate) fn metrics(&self) -> String {
        let name = "apiserver_audit_error_total";
        let help = "Audit events that were not written.";
        let lost = self.sink.lost();
        format!("# HELP {name} {help}\n# TYPE {name} counter\n{name}{{plugin=\"log\"}} {lost}\n")
    }
}
