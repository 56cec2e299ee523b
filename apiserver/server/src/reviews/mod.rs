//! Questions to the server: kinds that are answered and not stored.
//!
//! ```text
//! decode ▶ default ▶ validate ▶ answer (authenticators, authorizers) ▶ 201 with the status filled in
//! ```

mod access;
mod identity;

use async_trait::async_trait;
use bytes::Bytes;
use coracle_api::{FieldErrors, Object};
use http::StatusCode;

use crate::answer::{Answer, Shown};
use crate::call::Call;
use crate::decode;
use crate::negotiate;
use crate::options::WriteOptions;
use crate::server::Server;
use crate::status::{ApiError, Result};
use crate::verbs::{create, expected, set_defaults};

/// Answers the questions of one kind.
#[async_trait]
trait Review: Send + Sync {
    /// Fills in the answer.
    async fn answer(&self, server: &Server, call: &Call, question: &mut Object) -> Result<()>;
}

/// Who answers questions of a kind.
fn reviewer(kind: &str) -> Option<&'static dyn Review> {
    Some(match kind {
        "LocalSubjectAccessReview" | "SubjectAccessReview" => &access::Of::Subject,
        "SelfSubjectAccessReview" => &access::Of::Asker,
        "SelfSubjectRulesReview" => &access::Rules,
        "SelfSubjectReview" => &identity::OfAsker,
        "TokenReview" => &identity::OfToken,
        _ => return None,
    })
}

/// Answers the question in `body`.
pub(crate) async fn create(server: &Server, call: &Call, body: Bytes) -> Result<Answer> {
    let reviewer = reviewer(call.resource.kind).ok_or_else(ApiError::method_not_allowed)?;
    let options = WriteOptions::parse(&call.info.query, "CreateOptions")?;
    let input = negotiate::input(&call.headers)?;
    let decode::Body { object, warnings } =
        decode::body(&body, input, expected(call), options.field_validation)?;
    call.warn(warnings);
    create::check_namespace(call, &object)?;
    answer(server, call, reviewer, object).await
}

async fn answer(
    server: &Server,
    call: &Call,
    reviewer: &dyn Review,
    mut question: Object,
) -> Result<Answer> {
    let resource = call.resource;
    set_defaults(&mut question, resource);
    question.remove("status");
    if resource.namespaced {
        question.set("metadata.namespace", call.namespace());
    }
    let mut errors = FieldErrors::default();
    resource.strategy.validate(&question, &mut errors);
    if !errors.is_empty() {
        // Upstream names no kind here.
        let qualified = format!(".{}", resource.group);
        let error = ApiError::invalid_as(resource.group, "", &qualified, "", &errors);
        return Err(error);
    }
    reviewer.answer(server, call, &mut question).await?;
    let now = server.clock().now();
    Ok(Answer::object(
        call,
        StatusCode::CREATED,
        Shown::Object(&question),
        now,
    ))
}
