//! OpenAPI documents: `/openapi/v3`, `/openapi/v2`.

use http::request::Parts;

use crate::answer::Answer;
use crate::request_info::RequestInfo;
use crate::server::Server;

/// Answers an OpenAPI path; `None` for other paths.
pub fn answer(_server: &Server, _parts: &Parts, _info: &RequestInfo) -> Option<Answer> {
    None
}
