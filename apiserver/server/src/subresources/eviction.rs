//! `pods/eviction`: a deletion that the pod's disruption budget may refuse.
//!
//! ```text
//! pod ended, pending or going ───────────────────────────────┐
//! no budget selects it ──────────────────────────────────────┤
//! unready, and the budget lets such pods go ─────────────────┼──▶ DisruptionTarget condition ──▶ DELETE
//! the budget allows a disruption ──▶ one less, pod noted ────┘
//! it allows none ──▶ 429
//! ```

use std::sync::Arc;

use bytes::Bytes;
use coracle_api::validation::selectors;
use coracle_api::{Object, Resource, schema};
use http::StatusCode;
use serde_json::{Value, json};

use crate::admission::{Attributes, Operation};
use crate::answer::Answer;
use crate::call::Call;
use crate::decode::{self, Expected};
use crate::metadata;
use crate::negotiate::{self, Input};
use crate::options::{DeleteOptions, WriteOptions};
use crate::request_info::Query;
use crate::server::Server;
use crate::status::{ApiError, Result, success};
use crate::storage::{self, WriteError};
use crate::verbs::delete;

const EVICTION: Expected = Expected {
    group: "policy",
    version: "v1",
    kind: "Eviction",
};

/// How often a write is tried again when the object changed meanwhile.
const MAX_RETRIES: usize = 20;

/// Most evicted pods that a budget notes before its controller has seen them go.
const MOST_DISRUPTED: usize = 2000;

const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// Evicts the pod that the path names.
pub(crate) async fn create(server: &Server, call: &Call, body: Bytes) -> Result<Answer> {
    let options = WriteOptions::parse(&call.info.query, "CreateOptions")?;
    let decode::Body {
        object: mut eviction,
        warnings,
    } = read(call, &body, &options)?;
    call.warn(warnings);
    crate::verbs::create::check_namespace(call, &eviction)?;
    let name = call.name();
    let attributes = Attributes {
        operation: Operation::Create,
        resource: call.resource,
        subresource: "eviction",
        namespace: call.namespace(),
        name,
        identity: &call.identity,
        dry_run: options.dry_run,
        old: None,
        server,
    };
    server
        .admission
        .admit(&attributes, Some(&mut eviction))
        .await?;
    if eviction.name() != name {
        return Err(ApiError::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    server
        .admission
        .verify(&attributes, Some(&eviction))
        .await?;
    let asked = eviction.at("deleteOptions").value().cloned();
    let asked = asked.and_then(Object::from_value).unwrap_or_default();
    let mut deletion = DeleteOptions::parse(&Query::default(), Some(&asked))?;
    deletion.dry_run |= options.dry_run;
    if let Some(status) = evict(server, call, &deletion).await? {
        return Ok(Answer::value(StatusCode::CREATED, call.output, &status));
    }
    let mut status = success(None);
    status["code"] = json!(201);
    Ok(Answer::value(StatusCode::CREATED, call.output, &status))
}

/// Reads the body; the older version is the same but for its name.
fn read(call: &Call, body: &Bytes, options: &WriteOptions) -> Result<decode::Body> {
    let input = negotiate::input(&call.headers)?;
    let parsed = match input {
        Input::Json => schema::parse_json(body).ok(),
        _ => None,
    };
    if let Some(mut value) = parsed
        && value.get("apiVersion").and_then(Value::as_str) == Some("policy/v1beta1")
        && value.get("kind").and_then(Value::as_str) == Some("Eviction")
    {
        value["apiVersion"] = EVICTION.api_version().into();
        return decode::value(value, EVICTION, options.field_validation);
    }
    decode::body(body, input, EVICTION, options.field_validation)
}

/// What the budgets say of a pod.
enum Verdict {
    /// It may go; with `true`, only as it is now.
    Go(bool),
    /// It is covered by a budget that allows a disruption or not.
    Ask(Object),
    /// It is covered by several.
    Unclear,
}

/// Evicts, or answers with a status that says why nobody can tell.
async fn evict(server: &Server, call: &Call, options: &DeleteOptions) -> Result<Option<Value>> {
    let pods = call.resource;
    for attempt in 0..=MAX_RETRIES {
        let pod = server.storage.get(pods, &call.key()).await?;
        let pod = pod
            .ok_or_else(|| ApiError::not_found(pods, call.name()))?
            .object();
        let (ended, free) = (has_ended(&pod), needs_no_budget(&pod));
        let verdict = if free {
            Verdict::Go(!ended)
        } else {
            judge(&pod, &budgets(server, &pod).await?)
        };
        let (pinned, budget) = match verdict {
            Verdict::Unclear => {
                let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does \
                               not support.";
                return Ok(Some(json!({
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
                    "code": 500,
                })));
            }
            Verdict::Go(pinned) => (pinned, None),
            Verdict::Ask(budget) => {
                decrement(server, &budget, &pod, options.dry_run).await?;
                (false, Some(budget))
            }
        };
        let mut options = options.clone();
        let own_pin = pinned && options.resource_version.is_none();
        if own_pin {
            options.resource_version = Some(pod.resource_version().to_owned());
        }
        match remove(server, call, options).await {
            Ok(()) => return Ok(None),
            // Someone else changed the pod: look again, unless the client said which one it meant.
            Err(error)
                if error.reason() == "Conflict"
                    && own_pin
                    && budget.is_none()
                    && attempt < MAX_RETRIES => {}
            Err(error) => return Err(error),
        }
    }
    unreachable!("the last attempt returns")
}

fn phase(pod: &Object) -> &str {
    pod.at("status.phase").str()
}

fn has_ended(pod: &Object) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed") || pod.is_terminating()
}

/// Whether the pod is no loss to anybody.
fn needs_no_budget(pod: &Object) -> bool {
    has_ended(pod) || phase(pod) == "Pending"
}

fn is_ready(pod: &Object) -> bool {
    pod.at("status.conditions").items().any(|condition| {
        condition.key("type").str() == "Ready" && condition.key("status").str() == "True"
    })
}

/// The budgets that select the pod.
async fn budgets(server: &Server, pod: &Object) -> Result<Vec<Object>> {
    let selects = |budget: &Object| {
        let selector = budget.at("spec.selector");
        !selectors::is_empty(&selector) && selectors::matches(&selector, &pod.at("metadata.labels"))
    };
    let mut budgets = server
        .all("policy", "poddisruptionbudgets", pod.namespace())
        .await?;
    budgets.retain(selects);
    Ok(budgets)
}

fn budget_resource(server: &Server) -> Option<&'static Resource> {
    server
        .registry
        .by_plural("policy", "v1", "poddisruptionbudgets")
}

fn judge(pod: &Object, budgets: &[Object]) -> Verdict {
    let budget = match budgets {
        [] => return Verdict::Go(false),
        [one] => one,
        _ => return Verdict::Unclear,
    };
    if !is_ready(pod) {
        let count = |field: &str| budget.at("status").key(field).as_i64().unwrap_or(0);
        let always = budget.at("spec.unhealthyPodEvictionPolicy").str() == "AlwaysAllow";
        let healthy =
            count("currentHealthy") >= count("desiredHealthy") && count("desiredHealthy") > 0;
        if always || healthy {
            return Verdict::Go(true);
        }
    }
    Verdict::Ask(budget.clone())
}

/// Takes one disruption from the budget, or says why not.
async fn decrement(server: &Server, budget: &Object, pod: &Object, dry_run: bool) -> Result<()> {
    let Some(resource) = budget_resource(server) else {
        return Ok(());
    };
    let key = storage::key(resource, budget.namespace(), budget.name());
    for _ in 0..=MAX_RETRIES {
        let entry = server.storage.get(resource, &key).await?;
        let entry = entry.ok_or_else(|| ApiError::not_found(resource, budget.name()))?;
        let mut budget = entry.object();
        check(&budget)?;
        if dry_run {
            return Ok(());
        }
        take(
            &mut budget,
            pod.name(),
            metadata::time_stamp(server.clock()),
        );
        let written = server
            .storage
            .update(resource, &key, &Arc::new(budget), entry.revision, None)
            .await;
        match written {
            Ok(_) => return Ok(()),
            Err(WriteError::Conflict) => {}
            Err(WriteError::Other(error)) => return Err(error),
        }
    }
    let name = budget.name();
    Err(ApiError::new(
        504,
        "Timeout",
        format!("Timeout: couldn't update PodDisruptionBudget {name:?} due to conflicts"),
    ))
}

/// Whether the budget allows a disruption.
fn check(budget: &Object) -> Result<()> {
    let (name, status) = (budget.name(), budget.at("status"));
    let count = |field: &str| status.key(field).as_i64().unwrap_or(0);
    let generation = budget.at("metadata.generation").as_i64().unwrap_or(0);
    if count("observedGeneration") < generation {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(ApiError::too_many(REFUSED, 10).with_cause("DisruptionBudget", why, ""));
    }
    let forbidden = |why: &str| {
        let message = format!("poddisruptionbudget.policy {name:?} is forbidden: {why}");
        let error = ApiError::new(403, "Forbidden", message);
        Err(error.with_plain_details("policy", "poddisruptionbudget", name))
    };
    if count("disruptionsAllowed") < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    if status.key("disruptedPods").len() > MOST_DISRUPTED {
        return forbidden(
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        );
    }
    if count("disruptionsAllowed") > 0 {
        return Ok(());
    }
    let conditions = status.key("conditions");
    let failed = conditions.items().find(|condition| {
        condition.key("type").str() == "DisruptionAllowed"
            && condition.key("status").str() == "False"
            && condition.key("reason").str() == "SyncFailed"
    });
    let why = match failed {
        Some(condition) => format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {}",
            condition
                .key("message")
                .value()
                .and_then(Value::as_str)
                .unwrap_or_default()
        ),
        None => format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            count("desiredHealthy"),
            count("currentHealthy")
        ),
    };
    Err(ApiError::too_many(REFUSED, 0).with_cause("DisruptionBudget", why, ""))
}

/// Notes that the pod is about to go.
fn take(budget: &mut Object, pod: &str, now: Value) {
    let allowed = budget.at("status.disruptionsAllowed").as_i64().unwrap_or(0) - 1;
    budget.set("status.disruptionsAllowed", allowed);
    if allowed == 0 {
        let condition = json!({
            "type": "DisruptionAllowed", "status": "False",
            "observedGeneration": budget.at("status.observedGeneration").as_i64().unwrap_or(0),
            "lastTransitionTime": now, "reason": "InsufficientPods", "message": "",
        });
        set_condition(budget, condition);
    }
    budget
        .map_mut("status.disruptedPods")
        .insert(pod.to_owned(), now);
}

/// Deletes the pod, after it has been told why.
async fn remove(server: &Server, call: &Call, mut options: DeleteOptions) -> Result<()> {
    if !options.dry_run {
        let revision = mark(server, call, &options).await?;
        if options.resource_version.is_some() {
            options.resource_version = Some(revision);
        }
    }
    delete::delete_one(server, call, call.namespace(), call.name(), &options)
        .await
        .map(|_| ())
}

/// Writes the condition that tells a pod's owner what happens; the answer is the pod's new revision.
async fn mark(server: &Server, call: &Call, options: &DeleteOptions) -> Result<String> {
    let pods = call.resource;
    for _ in 0..=MAX_RETRIES {
        let entry = server.storage.get(pods, &call.key()).await?;
        let entry = entry.ok_or_else(|| ApiError::not_found(pods, call.name()))?;
        let before = entry.object();
        delete::check_preconditions(pods, &before, options)?;
        let mut pod = before.clone();
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "lastProbeTime": null,
            "lastTransitionTime": metadata::time_stamp(server.clock()),
            "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
        });
        set_condition(&mut pod, condition);
        if metadata::same(&pod, &before) {
            return Ok(before.resource_version().to_owned());
        }
        let written = server
            .storage
            .update(pods, &call.key(), &Arc::new(pod), entry.revision, None)
            .await;
        match written {
            Ok(entry) => return Ok(entry.revision.to_string()),
            Err(WriteError::Conflict) => {}
            Err(WriteError::Other(error)) => return Err(error),
        }
    }
    Err(ApiError::modified(pods, call.name()))
}

/// Puts a condition over the one of its type, whose time of transition stays while its status does.
fn set_condition(object: &mut Object, mut condition: Value) {
    let conditions = object
        .map_mut("status")
        .entry("conditions")
        .or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(list) = conditions.as_array_mut() else {
        return;
    };
    match list
        .iter_mut()
        .find(|had| had.get("type") == condition.get("type"))
    {
        Some(had) => {
            if had.get("status") == condition.get("status")
                && let Some(time) = had.get("lastTransitionTime")
            {
                condition["lastTransitionTime"] = time.clone();
            }
            *had = condition;
        }
        None => list.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Object {
        Object::from_value(value).expect("an object")
    }

    #[test]
    fn a_budget_counts_what_it_allowed() {
        let mut budget = object(json!({
            "metadata": {"name": "b", "generation": 1}, "status": {"observedGeneration": 1, "disruptionsAllowed": 1},
        }));
        check(&budget).expect("one is allowed");
        take(&mut budget, "x", json!("2030-01-01T00:00:00Z"));
        assert!(budget.at("status.disruptedPods").entry("x").exists());
        assert_eq!(
            check(&budget).expect_err("none is left").reason(),
            "TooManyRequests"
        );
        assert_eq!(
            budget.at("status.conditions").index(0).key("reason").str(),
            "InsufficientPods"
        );
    }

    #[test]
    fn unready_pods_go_when_the_budget_is_healthy_or_says_so() {
        let pod = object(json!({"status": {"phase": "Running"}}));
        let budget = |policy: &str, current: i64| {
            object(json!({
                "spec": {"unhealthyPodEvictionPolicy": policy},
                "status": {"currentHealthy": current, "desiredHealthy": 1},
            }))
        };
        assert!(matches!(
            judge(&pod, &[budget("AlwaysAllow", 0)]),
            Verdict::Go(true)
        ));
        assert!(matches!(
            judge(&pod, &[budget("IfHealthyBudget", 1)]),
            Verdict::Go(true)
        ));
        assert!(matches!(
            judge(&pod, &[budget("IfHealthyBudget", 0)]),
            Verdict::Ask(_)
        ));
        let two = [budget("", 1), budget("", 1)];
        assert!(matches!(judge(&pod, &two), Verdict::Unclear));
    }
}
