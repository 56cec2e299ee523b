//! Answers that no backend has given.

use http::{HeaderValue, Response, StatusCode, header};

use super::body::Body;

/// An answer of the proxy's own: a status, and what is missing in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) text: String,
    /// The client may try again in a moment.
    pub(crate) passes: bool,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
            passes: false,
        }
    }

    /// 503, for something that comes by itself.
    pub(crate) fn later(text: impl Into<String>) -> Self {
        Self {
            passes: true,
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, text)
        }
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        let status = self.status;
        let reason = status.canonical_reason().unwrap_or_default();
        let text = format!("{} {reason}: {}\n", status.as_u16(), self.text);
        let mut response = Response::new(Body::text(text));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("text/plain; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, kind);
        // What is missing now may be there in a moment.
        let no_store = HeaderValue::from_static("no-store");
        headers.insert(header::CACHE_CONTROL, no_store);
        if self.passes {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
