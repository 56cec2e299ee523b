//! Makes the default schemas and levels, puts them back, and writes which schemas name a level that is not there.
//!
//! Upstream looks once a minute whether a default object is gone or was changed
//! (`pkg/registry/flowcontrol/rest/storage_flowcontrol.go`); so does this, after a change. An idle cluster is not looked
//! at.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use coracle_api::Object;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::defaults::{self, DefaultObject, Step};
use super::{GROUP, Part};
use crate::bootstrap::BootstrapError;
use crate::metadata;
use crate::server::Server;
use crate::service::ApiServer;

/// How long after a change the default objects are put back, if it was one of them that changed.
const PUT_BACK_AFTER: Duration = Duration::from_secs(60);
/// How long statuses wait after a write of one failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl ApiServer {
    /// Makes the default FlowSchemas and PriorityLevelConfigurations that are missing, puts back what is missing of the
    /// others, and keeps them for as long as the server lives. Call it once.
    pub async fn bootstrap_flow_control(&self) -> Result<(), BootstrapError> {
        let (levels, schemas): (Vec<_>, Vec<_>) = defaults::all()
            .into_iter()
            .partition(|default| default.part == Part::Levels);
        for part in [levels, schemas] {
            self.together(part.iter().map(|default| self.ensure_flow_control(default)))
                .await?;
        }
        tokio::spawn(run(Arc::downgrade(&self.server)));
        Ok(())
    }

    async fn ensure_flow_control(&self, default: &DefaultObject) -> Result<(), BootstrapError> {
        let path = path(default.part);
        let own = format!("{path}/{}", default.name);
        let found = self
            .server
            .find(GROUP, default.part.plural(), "", default.name);
        let found = found
            .await
            .map_err(|error| BootstrapError::new(&own, error))?;
        let existing = found.map(|entry| entry.object());
        let (method, path, object) = match defaults::reconcile(default, existing.as_ref()) {
            Step::Keep => return Ok(()),
            Step::Create => (Method::POST, &path, default.object()),
            Step::Update(object) => (Method::PUT, &own, object.into_value()),
        };
        let (status, message) = self.send(method, path, &object).await;
        // Somebody else may be faster; a later round sees it.
        match status.is_success() || status == StatusCode::CONFLICT {
            true => Ok(()),
            false => Err(BootstrapError::new(&own, message)),
        }
    }

    /// Deletes what was a default of another version and still follows it.
    async fn remove_outdated(&self) -> Result<(), BootstrapError> {
        let all = defaults::all();
        for part in [Part::Schemas, Part::Levels] {
            let names: Vec<&str> = all
                .iter()
                .filter(|default| default.part == part)
                .map(|default| default.name)
                .collect();
            let found = self.server.all(GROUP, part.plural(), "").await;
            for object in found.map_err(|error| BootstrapError::new(&path(part), error))? {
                if defaults::is_outdated(&object, &names) {
                    let own = format!("{}/{}", path(part), object.name());
                    let preconditions = json!({"resourceVersion": object.resource_version()});
                    let options = json!({
                        "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions,
                    });
                    self.send(Method::DELETE, &own, &options).await;
                }
            }
        }
        Ok(())
    }

    /// Writes the statuses that are not as they should be; whether all could be.
    async fn write_flow_statuses(&self) -> bool {
        let all = async |part: Part| self.server.all(GROUP, part.plural(), "").await;
        let (Ok(levels), Ok(schemas)) = (all(Part::Levels).await, all(Part::Schemas).await) else {
            return false;
        };
        let mut settled = true;
        let now = metadata::time_stamp(self.server.clock());
        let exists: HashSet<&str> = levels.iter().map(|level| level.name()).collect();
        for schema in schemas {
            let level = schema.at("spec.priorityLevelConfiguration.name");
            let exists = exists.contains(level.str());
            let Some(wanted) = with_status(&schema, exists, &now) else {
                continue;
            };
            let own = format!("{}/{}/status", path(Part::Schemas), schema.name());
            let (status, _) = self.send(Method::PUT, &own, &wanted.into_value()).await;
            settled &= status.is_success() || status == StatusCode::NOT_FOUND;
        }
        settled
    }
}

fn path(part: Part) -> String {
    format!("/apis/{GROUP}/v1/{}", part.plural())
}

/// Looks after every change, until the server is gone.
async fn run(server: Weak<Server>) {
    let mut put_back_at: Option<Duration> = None;
    loop {
        let Some(server) = server.upgrade() else {
            return;
        };
        let (clock, stop) = (server.clock.clone(), server.stop.clone());
        let api = ApiServer { server };
        let settled = api.write_flow_statuses().await;
        let now = clock.monotonic();
        if put_back_at.is_some_and(|at| at <= now) {
            put_back_at = match put_back(&api).await {
                true => None,
                false => Some(now + PUT_BACK_AFTER),
            };
        }
        let flow = Arc::clone(&api.server.flow);
        drop(api);
        let wake = match settled {
            true => put_back_at.map(|at| at.saturating_sub(now)),
            false => Some(RETRY_AFTER),
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = flow.changed.notified() => {
                put_back_at.get_or_insert(clock.monotonic() + PUT_BACK_AFTER);
            }
            () = clock.sleep(wake.unwrap_or_default()), if wake.is_some() => {}
        }
    }
}

/// Whether all could be put back.
async fn put_back(api: &ApiServer) -> bool {
    let mut settled = true;
    for default in defaults::all() {
        if let Err(error) = api.ensure_flow_control(&default).await {
            settled = false;
            tracing::warn!(%error, "could not put back a default of priority and fairness");
        }
    }
    if let Err(error) = api.remove_outdated().await {
        settled = false;
        tracing::warn!(%error, "could not remove old defaults of priority and fairness");
    }
    settled
}

/// The schema with the condition that says whether its level is there; `None`: it says so already.
fn with_status(schema: &Object, exists: bool, now: &Value) -> Option<Object> {
    let level = schema.at("spec.priorityLevelConfiguration.name");
    let begin = format!(
        "This FlowSchema references the PriorityLevelConfiguration object named {:?}",
        level.str()
    );
    let (status, reason, message) = match exists {
        true => ("False", "Found", format!("{begin} and it exists")),
        false => (
            "True",
            "NotFound",
            format!("{begin} but there is no such object"),
        ),
    };
    let mut conditions = Vec::new();
    for condition in schema.at("status.conditions").items() {
        let text = |field: &str| condition.key(field).str();
        if text("type") != "Dangling" {
            conditions.extend(condition.value().cloned());
        } else if (text("status"), text("reason"), text("message")) == (status, reason, &message) {
            return None;
        }
    }
    conditions.push(json!({
        "type": "Dangling", "status": status, "lastTransitionTime": now, "reason": reason, "message": message,
    }));
    let mut schema = schema.clone();
    schema
        .map_mut("status")
        .insert("conditions".to_owned(), Value::Array(conditions));
    Some(schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_say_whether_their_level_is_there() {
        let schema = json!({
            "metadata": {"name": "s"}, "spec": {"priorityLevelConfiguration": {"name": "x"}},
            "status": {"conditions": [{"type": "Other"}]},
        });
        let schema = Object::from_value(schema).expect("an object");
        let found = with_status(&schema, true, &"t1".into()).expect("it says nothing yet");
        assert_eq!(with_status(&found, true, &"t2".into()), None);
        let lost = with_status(&found, false, &"t2".into()).expect("the level is gone");
        assert_eq!(
            lost.at("status.conditions").value(),
            Some(&json!([{"type": "Other"}, {
                "type": "Dangling", "status": "True", "lastTransitionTime": "t2", "reason": "NotFound",
                "message": "This FlowSchema references the PriorityLevelConfiguration object named \"x\" but there is no such object",
            }]))
        );
    }
}
