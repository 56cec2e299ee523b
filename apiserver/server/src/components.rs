//! ComponentStatus: whether the parts of the control plane do their work, asked anew for every answer.

use coracle_api::Object;
use http::StatusCode;
use serde_json::{Value, json};

use crate::answer::{Answer, Shown};
use crate::call::Call;
use crate::options::ListOptions;
use crate::selection::Selection;
use crate::server::Server;
use crate::status::{ApiError, Result};

/// The plural name of the kind.
pub(crate) const PLURAL: &str = "componentstatuses";

/// Answers with one component.
pub(crate) fn get(server: &Server, call: &Call) -> Result<Answer> {
    let all = server.health.components();
    let found = all.into_iter().find(|(name, _)| name == call.name());
    // Upstream's words, which name neither group nor reason of their own.
    let (name, outcome) = found.ok_or_else(|| ApiError::not_found(call.resource, call.name()))?;
    let shown = shown(call, &name, &outcome);
    let now = server.clock.now();
    Ok(Answer::object(
        call,
        StatusCode::OK,
        Shown::Object(&shown),
        now,
    ))
}

/// Answers with all components that the selectors mean.
pub(crate) fn list(server: &Server, call: &Call) -> Result<Answer> {
    ListOptions::parse(&call.info.query, false)?;
    let selection = Selection::parse(&call.info.query, call.resource)?;
    let all = server.health.components().into_iter();
    let chosen = all.filter(|(name, _)| selection.matches_bare(name));
    let shown: Vec<Object> = chosen
        .map(|(name, outcome)| shown(call, &name, &outcome))
        .collect();
    let now = server.clock.now();
    Ok(Answer::list_of(call, json!({}), shown, now))
}

fn shown(call: &Call, name: &str, outcome: &std::result::Result<(), String>) -> Object {
    let mut condition = json!({"type": "Healthy", "status": "True", "message": "ok"});
    if let Err(why) = outcome {
        condition = json!({"type": "Healthy", "status": "False", "error": why});
    }
    let object: Value = json!({
        "kind": call.resource.kind,
        "apiVersion": call.resource.api_version(),
        "metadata": {"name": name},
        "conditions": [condition],
    });
    Object::from_value(object).expect("it is a map with metadata")
}
