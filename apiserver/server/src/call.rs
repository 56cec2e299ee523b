//! One request for a resource, on its way through the pipeline.

use std::net::IpAddr;
use std::sync::Arc;

use coracle_api::Resource;
use coracle_api::kinds::Subresource;
use http::{HeaderMap, HeaderValue, Method};
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;

use crate::audit::Trail;
use crate::authn::Identity;
use crate::encoded::Encoded;
use crate::items::Form;
use crate::negotiate::Output;
use crate::request_info::RequestInfo;
use crate::storage;

/// What the handlers of verbs need to know of a request.
pub(crate) struct Call {
    /// What the path and query say.
    pub info: RequestInfo,
    /// Who asks.
    pub identity: Identity,
    /// The method as sent.
    pub method: Method,
    /// The connection itself, for requests that ask to go on with another protocol.
    pub upgrade: Option<OnUpgrade>,
    /// Headers.
    pub headers: HeaderMap,
    /// Where the client is, if it came over a network.
    pub from: Option<IpAddr>,
    /// The host that was asked, of requests that are handed on.
    pub host: Option<HeaderValue>,
    /// How the answer is written.
    pub output: Output,
    /// What is shown of objects.
    pub form: Form,
    /// The resource.
    pub resource: &'static Resource,
    /// The subresource, if the path names one.
    pub subresource: Option<&'static Subresource>,
    /// Protobuf messages made before.
    pub encoded: Arc<Encoded>,
    /// What is recorded of it.
    pub trail: Option<Arc<Trail>>,
    /// What its client is warned of.
    pub warnings: Arc<Warnings>,
}

/// Texts of `Warning` headers, as they turn up while a request is carried out. Whatever comes of it, its answer has them:
/// so upstream's recorder, which writes headers at once.
#[derive(Default)]
pub(crate) struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    /// All that there are.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl Call {
    /// Namespace; empty for cluster-scoped kinds.
    pub(crate) fn namespace(&self) -> &str {
        if self.resource.namespaced {
            &self.info.namespace
        } else {
            ""
        }
    }

    /// Warns the client.
    pub(crate) fn warn(&self, texts: impl IntoIterator<Item = String>) {
        self.warnings.0.lock().extend(texts);
    }

    /// Name in the path.
    pub(crate) fn name(&self) -> &str {
        &self.info.name
    }

    /// The key of the object that the path names.
    pub(crate) fn key(&self) -> String {
        storage::key(self.resource, self.namespace(), self.name())
    }

    /// The query as sent.
    pub(crate) fn query_text(&self) -> &str {
        &self.info.query_text
    }

    /// What the keys of the listed objects begin with.
    pub(crate) fn scope(&self) -> String {
        if self.namespace().is_empty() {
            String::new()
        } else {
            format!("{}/", self.namespace())
        }
    }
}
