//! `scale`: the number of replicas, as `autoscaling/v1`.

use bytes::Bytes;
use coracle_api::field_errors::ErrorType;
use coracle_api::{At, FieldErrors, Object};
use http::StatusCode;
use serde_json::{Value, json};

use crate::answer::{Answer, Shown};
use crate::call::Call;
use crate::decode;
use crate::negotiate;
use crate::options::{FieldValidation, WriteOptions};
use crate::server::Server;
use crate::status::{ApiError, Result};
use crate::verbs::{apply, patch, update};

/// Answers with the object's scale.
pub(crate) async fn get(server: &Server, call: &Call) -> Result<Answer> {
    let entry = server.storage.get(call.resource, &call.key()).await?;
    let entry = entry.ok_or_else(|| ApiError::not_found(call.resource, call.name()))?;
    Ok(answer(server, call, &entry.object()))
}

/// Replaces the scale.
pub(crate) async fn put(server: &Server, call: &Call, body: Bytes) -> Result<Answer> {
    let options = WriteOptions::parse(&call.info.query, "UpdateOptions")?;
    let input = negotiate::input(&call.headers)?;
    let expected = crate::verbs::expected(call);
    let decode::Body {
        object: scale,
        warnings,
    } = decode::body(&body, input, expected, options.field_validation)?;
    call.warn(warnings);
    update::check_name(call, &scale)?;
    crate::verbs::create::check_namespace(call, &scale)?;
    write(server, call, &options, true, &|_| Ok(scale.clone())).await
}

/// Patches the scale.
pub(crate) async fn patch(server: &Server, call: &Call, body: Bytes) -> Result<Answer> {
    if apply::is_apply(call) {
        return apply_scale(server, call, body).await;
    }
    let (options, change) = patch::parse(call, &body)?;
    let manager = apply::field_manager(call);
    let make = |old: &Object| {
        let mut scale = scale_of(old);
        if let Some(owners) = manager.owners_of_scale(old) {
            // What a patch is made of names the owners; answers do not.
            scale.set("metadata.managedFields", owners);
        }
        let patched = patch::apply(call, &change, &scale)?;
        let scale = patch::decode_patched(call, &change, patched, &options)?;
        update::check_name(call, &scale)?;
        Ok(scale)
    };
    write(server, call, &options, false, &make).await
}

/// Applies a configuration of the scale: the object's replicas alone.
async fn apply_scale(server: &Server, call: &Call, body: Bytes) -> Result<Answer> {
    let options = WriteOptions::parse_apply(&call.info.query)?;
    let config = apply::Config::read(&body)?;
    let manager = apply::field_manager(call);
    let change = update::Change {
        part: update::Part::Main,
        uid_precondition: false,
        make: &|old| {
            let replicas = manager.of_scale(&config.value)?;
            let (manager_name, force) = (&options.field_manager, options.force);
            // Upstream leaves the time out of what it carries over from a scale.
            let applied = manager.apply(Some(old), &replicas, manager_name, force, "")?;
            call.warn(config.findings(&options)?);
            let expected = decode::Expected::of(call.resource);
            let body = decode::value(applied.object, expected, FieldValidation::Ignore)?;
            update::check_name(call, &body.object)?;
            crate::verbs::create::check_namespace(call, &body.object)?;
            validate(call, &body.object)?;
            Ok(body.object)
        },
    };
    let outcome = update::apply(server, call, &options, &change).await?;
    let outcome = outcome.ok_or_else(|| ApiError::not_found(call.resource, call.name()))?;
    Ok(answer(server, call, &outcome.object()))
}

type MakeScale<'a> = dyn Fn(&Object) -> Result<Object> + Sync + 'a;

async fn write(
    server: &Server,
    call: &Call,
    options: &WriteOptions,
    uid_precondition: bool,
    make: &MakeScale<'_>,
) -> Result<Answer> {
    let change = update::Change {
        part: update::Part::Main,
        uid_precondition,
        make: &|old| {
            let scale = make(old)?;
            validate(call, &scale)?;
            let mut object = old.clone();
            object.set(
                "spec.replicas",
                scale.at("spec.replicas").as_i64().unwrap_or(0),
            );
            for field in ["resourceVersion", "uid"] {
                match scale.at("metadata").key(field).value() {
                    Some(value) => object
                        .metadata_mut()
                        .insert(field.to_owned(), value.clone()),
                    None => object.metadata_mut().shift_remove(field),
                };
            }
            Ok(object)
        },
    };
    let outcome = update::apply(server, call, options, &change).await?;
    let outcome = outcome.ok_or_else(|| ApiError::not_found(call.resource, call.name()))?;
    Ok(answer(server, call, &outcome.object()))
}

fn validate(call: &Call, scale: &Object) -> Result<()> {
    let replicas = scale.at("spec.replicas").as_i64().unwrap_or(0);
    if replicas >= 0 {
        return Ok(());
    }
    let mut errors = FieldErrors::default();
    let detail = "must be greater than or equal to 0";
    errors.push(
        ErrorType::Invalid,
        "spec.replicas",
        Some(replicas.into()),
        detail,
    );
    Err(ApiError::invalid_as(
        "autoscaling",
        "Scale",
        "Scale.autoscaling",
        call.name(),
        &errors,
    ))
}

fn answer(server: &Server, call: &Call, object: &Object) -> Answer {
    let scale = scale_of(object);
    let now = server.clock().now();
    Answer::object(call, StatusCode::OK, Shown::Object(&scale), now)
}

/// The scale of an object with `spec.replicas` and `spec.selector`.
fn scale_of(object: &Object) -> Object {
    let mut metadata = serde_json::Map::new();
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        if let Some(value) = object.at("metadata").key(field).value() {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let mut spec = serde_json::Map::new();
    if let Some(replicas) = object
        .at("spec.replicas")
        .as_i64()
        .filter(|replicas| *replicas != 0)
    {
        spec.insert("replicas".to_owned(), replicas.into());
    }
    let mut status = json!({"replicas": object.at("status.replicas").as_i64().unwrap_or(0)});
    let selector = selector_text(object);
    if !selector.is_empty() {
        status["selector"] = Value::from(selector);
    }
    let scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status,
    });
    Object::from_value(scale).expect("an object")
}

/// A label selector in its query form, as upstream writes it: sorted by key.
fn selector_text(object: &Object) -> String {
    let selector = object.at("spec.selector");
    let mut parts: Vec<(String, String)> = Vec::new();
    if object.at("kind").str() == "ReplicationController" {
        // Its selector is a map of labels.
        let label =
            |(key, value): (&str, At<'_>)| (key.to_owned(), format!("{key}={}", value.str()));
        parts.extend(selector.entries().map(label));
    }
    for (key, value) in selector.key("matchLabels").entries() {
        parts.push((key.to_owned(), format!("{key}={}", value.str())));
    }
    for expression in selector.key("matchExpressions").items() {
        let key = expression.key("key").str().to_owned();
        let values = expression.key("values");
        let mut values: Vec<&str> = values
            .items()
            .map(|value| value.value().and_then(Value::as_str).unwrap_or(""))
            .collect();
        values.sort_unstable();
        let list = values.join(",");
        let text = match expression.key("operator").str() {
            "In" => format!("{key} in ({list})"),
            "NotIn" => format!("{key} notin ({list})"),
            "Exists" => key.clone(),
            _ => format!("!{key}"),
        };
        parts.push((key, text));
    }
    parts.sort_by(|a, b| a.0.cmp(&b.0));
    parts
        .into_iter()
        .map(|(_, text)| text)
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_shows_replicas_and_selector() {
        let object = Object::from_value(json!({
            "metadata": {"name": "web", "namespace": "kt", "uid": "u", "resourceVersion": "3", "labels": {"x": "y"}},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"b": "1", "a": "2"}}},
            "status": {"replicas": 1},
        }))
        .expect("an object");
        let scale = scale_of(&object);
        assert_eq!(scale.at("spec.replicas").as_i64(), Some(2));
        assert_eq!(scale.at("status.selector").str(), "a=2,b=1");
        assert!(!scale.at("metadata.labels").exists());
    }
}
