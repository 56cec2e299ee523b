//! POST: a new object.

use std::sync::Arc;

use bytes::Bytes;
use coracle_api::{FieldErrors, Object, gated};
use http::StatusCode;

use super::{NAME_ATTEMPTS, apply, expected, requester, set_defaults, time_to_live};
use crate::admission::{Attributes, Operation};
use crate::answer::{Answer, Shown};
use crate::authz::rbac::escalation;
use crate::authz::{self, Attributes as Access, Decision};
use crate::call::Call;
use crate::decode;
use crate::metadata;
use crate::negotiate;
use crate::options::WriteOptions;
use crate::server::Server;
use crate::status::{ApiError, Result};
use crate::storage::{self, WriteError};
use crate::versions::Versions;

/// Creates the object in `body`.
pub(crate) async fn create(server: &Server, call: &Call, body: Bytes) -> Result<Answer> {
    let options = WriteOptions::parse(&call.info.query, "CreateOptions")?;
    let input = negotiate::input(&call.headers)?;
    let decode::Body { object, warnings } =
        decode::body(&body, input, expected(call), options.field_validation)?;
    call.warn(warnings);
    check_namespace(call, &object)?;
    server.flow.breathe().await;
    store(server, call, &options, object, StatusCode::CREATED).await
}

/// Refuses who may not `create` what the path names: applied configurations and PUT create what is not there yet, and
/// streams go through a GET, too (upstream's `withAuthorization` and `ensureAuthorizedForVerb`).
pub(crate) async fn may_create(server: &Server, call: &Call) -> Result<()> {
    let mut asked = Access::of(&call.identity, &call.info);
    if asked.verb == "create" {
        return Ok(());
    }
    asked.verb = "create";
    match server.authorization.decide(&asked).await {
        Decision::Allow(_) => Ok(()),
        Decision::Deny(why) | Decision::NoOpinion(why) => {
            Err(ApiError::forbidden(call.resource, call.name(), why))
        }
        failed @ Decision::Failed { .. } => authz::settle(&asked, failed),
    }
}

/// Refuses an object whose namespace is not that of the path.
pub(crate) fn check_namespace(call: &Call, object: &Object) -> Result<()> {
    let namespace = object.namespace();
    if namespace.is_empty() || !call.resource.namespaced || namespace == call.namespace() {
        return Ok(());
    }
    Err(ApiError::bad_request(
        "the namespace of the provided object does not match the namespace sent on the request",
    ))
}

/// Runs a decoded object through the pipeline and stores it.
pub(crate) async fn store(
    server: &Server,
    call: &Call,
    options: &WriteOptions,
    mut object: Object,
    status: StatusCode,
) -> Result<Answer> {
    let versions = Versions::of(server, call);
    let (resource, namespace) = (versions.stored, call.namespace());
    if !matches!(object.resource_version(), "" | "0") {
        return Err(ApiError::unclassified(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    call.warn(metadata::dedup_owners(&mut object, false));
    set_defaults(&mut object, versions.served);
    if !options.applied {
        let now = metadata::seconds(server.clock().now());
        let manager = options.manager(&call.headers);
        apply::field_manager(call).update(None, &mut object, &manager, &now);
    }
    object = versions.store(object);
    let name = object.name().to_owned();
    let attributes = Attributes {
        operation: Operation::Create,
        resource: versions.served,
        subresource: "",
        namespace,
        name: &name,
        identity: &call.identity,
        dry_run: options.dry_run,
        old: None,
        server,
    };
    server
        .admission
        .admit(&attributes, Some(&mut object))
        .await?;
    escalation::check(server, call, &object, None).await?;
    call.warn(metadata::dedup_owners(&mut object, true));
    call.warn(resource.strategy.early_warnings(&object));
    let generated = name.is_empty() && !object.at("metadata.generateName").is_empty();
    let attempts = if generated { NAME_ATTEMPTS - 1 } else { 0 };
    let mut template = Some(object);
    for attempt in 0..=attempts {
        let copy = match attempt == attempts {
            true => template.take(),
            false => template.clone(),
        };
        let mut object = copy.expect("taken by the last attempt only");
        metadata::prepare_create(&mut object, resource, namespace, server.clock());
        gated::forget(resource, &mut object, None);
        resource.strategy.prepare_for_create(&mut object);
        let now = metadata::seconds(server.clock().now());
        let request = requester(call, &now);
        resource
            .strategy
            .record_request(&mut object, None, &request);
        let allocators = &server.allocators;
        allocators.settle_families(server, resource, &mut object, None, options.dry_run)?;
        let mut errors = FieldErrors::default();
        let of_kind = resource.strategy.validates_metadata();
        if of_kind {
            metadata::validate(&object, resource, &mut errors);
        }
        resource.strategy.validate(&object, &mut errors);
        resource.strategy.validate_create(&object, &mut errors);
        if !of_kind && (versions.differ() || errors.is_empty()) {
            metadata::validate(&object, versions.served, &mut errors);
        }
        versions.validate(&object, None, &mut errors);
        if !errors.is_empty() {
            errors.show_empties(&object);
            return Err(ApiError::invalid(resource, object.name(), &errors));
        }
        call.warn(resource.strategy.warnings(&object, None));
        may_create(server, call).await?;
        let allocation = allocators
            .allocate(server, resource, &mut object, None, options.dry_run)
            .await?;
        if let Err(refusal) = server.admission.verify(&attributes, Some(&object)).await {
            allocation.undo(server).await;
            return Err(refusal);
        }
        let key = storage::key(resource, namespace, object.name());
        if options.dry_run {
            if let Some(read_back) = resource.strategy.read_back() {
                read_back(&mut object);
            }
            if let Some(existing) = server.storage.get(resource, &key).await? {
                return Err(taken(call, &existing.object()));
            }
            let shown = versions.serve(object);
            let now = server.clock().now();
            return Ok(Answer::object(call, status, Shown::Object(&shown), now));
        }
        let object = Arc::new(object);
        match server
            .storage
            .create(resource, &key, &object, time_to_live(resource))
            .await
        {
            Ok(entry) => {
                allocation.keep(server).await;
                let now = server.clock().now();
                return Ok(if versions.differ() {
                    let shown = versions.serve(entry.object());
                    Answer::object(call, status, Shown::Object(&shown), now)
                } else {
                    Answer::object(call, status, Shown::Entry(&entry), now)
                });
            }
            Err(WriteError::Conflict) if attempt < attempts => {
                allocation.undo(server).await;
            }
            Err(WriteError::Conflict) => {
                allocation.undo(server).await;
                let existing = server.storage.get(resource, &key).await?;
                let existing = existing.map(|entry| entry.object());
                let existing = existing.unwrap_or_else(|| Arc::unwrap_or_clone(object));
                if generated {
                    let name = existing.name();
                    return Err(ApiError::generated_name_taken(call.resource, name));
                }
                return Err(taken(call, &existing));
            }
            Err(WriteError::Other(error)) => {
                allocation.undo(server).await;
                return Err(error);
            }
        }
    }
    unreachable!("the last attempt returns")
}

fn taken(call: &Call, existing: &Object) -> ApiError {
    let error = ApiError::already_exists(call.resource, existing.name());
    if existing.is_terminating() {
        error.with_prefix("object is being deleted: ")
    } else {
        error
    }
}
