//! Discovery: `/api`, `/apis` and the documents below them.

use http::request::Parts;

use crate::answer::Answer;
use crate::request_info::RequestInfo;
use crate::server::Server;

/// Answers a discovery path; `None` for other paths.
pub fn answer(_server: &Server, _parts: &Parts, _info: &RequestInfo) -> Option<Answer> {
    None
}
