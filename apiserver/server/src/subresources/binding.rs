//! `pods/binding` and `POST bindings`: the scheduler's decision, written into the pod.

use std::sync::Arc;

use bytes::Bytes;
use coracle_api::field_errors::ErrorType;
use coracle_api::{FieldErrors, Object};
use http::StatusCode;
use serde_json::{Value, json};

use crate::admission::{Attributes, Operation};
use crate::answer::Answer;
use crate::call::Call;
use crate::decode::{self, Expected};
use crate::metadata;
use crate::negotiate;
use crate::options::WriteOptions;
use crate::server::Server;
use crate::status::{ApiError, Result, success};
use crate::storage::{self, WriteError};

const BINDING: Expected = Expected {
    group: "",
    version: "v1",
    kind: "Binding",
};

/// How often a binding is tried again when the pod changed meanwhile.
const MAX_RETRIES: usize = 5;

/// Binds the pod that the path (or, for `POST bindings`, the body) names to a node.
pub(crate) async fn create(server: &Server, call: &Call, body: Bytes) -> Result<Answer> {
    let options = WriteOptions::parse(&call.info.query, "CreateOptions")?;
    let input = negotiate::input(&call.headers)?;
    let decode::Body {
        object: mut binding,
        warnings,
    } = decode::body(&body, input, BINDING, options.field_validation)?;
    call.warn(warnings);
    crate::verbs::create::check_namespace(call, &binding)?;
    let in_path = call.name();
    let name = if in_path.is_empty() {
        binding.name().to_owned()
    } else {
        in_path.to_owned()
    };
    if !in_path.is_empty() && !binding.name().is_empty() && binding.name() != in_path {
        return Err(ApiError::bad_request(
            "name in URL does not match name in Binding object",
        ));
    }
    let attributes = Attributes {
        operation: Operation::Create,
        resource: call.resource,
        subresource: "binding",
        namespace: call.namespace(),
        name: &name,
        identity: &call.identity,
        dry_run: options.dry_run,
        old: None,
        server,
    };
    let admission = &server.admission;
    admission.admit(&attributes, Some(&mut binding)).await?;
    validate(&binding)?;
    admission.verify(&attributes, Some(&binding)).await?;
    for _ in 0..=MAX_RETRIES {
        match bind(server, call, &options, &name, &binding).await {
            Err(WriteError::Conflict) => continue,
            Err(WriteError::Other(error)) => return Err(error),
            Ok(()) => {
                let mut status = success(None);
                status["code"] = json!(201);
                return Ok(Answer::value(StatusCode::CREATED, call.output, &status));
            }
        }
    }
    Err(ApiError::modified(call.resource, &name))
}

/// Upstream answers 500 with the bare findings here.
fn validate(binding: &Object) -> Result<()> {
    let mut errors = FieldErrors::default();
    let target = binding.at("target");
    if !matches!(target.key("kind").str(), "" | "Node") {
        errors.not_supported(&target.key("kind"), &["Node", "<empty>"]);
    }
    if target.key("name").is_empty() {
        errors.push(ErrorType::Required, "target.name", None, "");
    }
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    match texts.as_slice() {
        [] => Ok(()),
        [one] => Err(ApiError::unclassified(one.clone())),
        many => Err(ApiError::unclassified(format!("[{}]", many.join(", ")))),
    }
}

async fn bind(
    server: &Server,
    call: &Call,
    options: &WriteOptions,
    name: &str,
    binding: &Object,
) -> Result<(), WriteError> {
    let other = WriteError::Other;
    let pods = call.resource;
    let key = storage::key(pods, call.namespace(), name);
    let entry = server.storage.get(pods, &key).await.map_err(other)?;
    let entry = entry.ok_or_else(|| other(ApiError::not_found(pods, name)))?;
    let mut pod = entry.object();
    let version = binding.resource_version();
    if !version.is_empty() && version != pod.resource_version() {
        let path = storage::upstream_key(pods, call.namespace(), name);
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: {path}, ResourceVersion: 0, AdditionalErrorMsg: Precondition \
             failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {}",
            pod.resource_version()
        );
        return Err(other(ApiError::conflict(pods, name, why)));
    }
    let refuse = |why: String| Err(other(refusal(name, &why)));
    if pod.is_terminating() {
        return refuse(format!(
            "pod {name} is being deleted, cannot be assigned to a host"
        ));
    }
    let node = pod.at("spec.nodeName").str();
    if !node.is_empty() {
        return refuse(format!("pod {name} is already assigned to node {node:?}"));
    }
    if !pod.at("spec.schedulingGates").is_empty() {
        return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    pod.set("spec.nodeName", binding.at("target.name").str());
    for field in ["annotations", "labels"] {
        for (key, value) in binding.at("metadata").key(field).entries() {
            let value = value.value().cloned().unwrap_or_default();
            pod.map_mut(&format!("metadata.{field}"))
                .insert(key.to_owned(), value);
        }
    }
    set_scheduled(&mut pod, metadata::time_stamp(server.clock()));
    if options.dry_run {
        return Ok(());
    }
    server
        .storage
        .update(pods, &key, &Arc::new(pod), entry.revision, None)
        .await
        .map(|_| ())
}

/// Upstream names the subresource here.
fn refusal(name: &str, why: &str) -> ApiError {
    let message = format!("Operation cannot be fulfilled on pods/binding {name:?}: {why}");
    ApiError::new(409, "Conflict", message).with_plain_details("", "pods/binding", name)
}

fn set_scheduled(pod: &mut Object, now: Value) {
    let condition = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    let conditions = pod
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
        .find(|c| c.get("type").and_then(Value::as_str) == Some("PodScheduled"))
    {
        Some(found) => *found = condition,
        None => list.push(condition),
    }
}
