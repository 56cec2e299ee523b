//! GET of one object: a copy of cached bytes.

use http::StatusCode;

use crate::answer::{Answer, Shown};
use crate::call::Call;
use crate::options::parse_revision;
use crate::server::Server;
use crate::status::{ApiError, Result};

/// Answers with the object. `resourceVersion` asks for a state not older than it.
pub(crate) async fn get(server: &Server, call: &Call) -> Result<Answer> {
    if let Some(revision) =
        parse_revision(call.info.query.get("resourceVersion").unwrap_or_default())?
    {
        super::list::reach(server, revision).await?;
    }
    let entry = server.storage.get(call.resource, &call.key()).await?;
    let entry = entry.ok_or_else(|| ApiError::not_found(call.resource, call.name()))?;
    Ok(Answer::object(
        call,
        StatusCode::OK,
        Shown::Entry(&entry),
        server.clock().now(),
    ))
}
