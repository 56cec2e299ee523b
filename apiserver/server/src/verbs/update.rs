//! PUT, and the part that patches share: read, change, check, compare and swap.

use std::sync::Arc;

use bytes::Bytes;
use coracle_api::{FieldErrors, Object, Resource, gated, strategy};
use http::StatusCode;
use serde_json::{Map, Value};

use super::{
    MAX_RETRIES, apply as server_side, create, delete, expected, requester, set_defaults,
    time_to_live,
};
use crate::admission::{Attributes, Operation};
use crate::answer::{Answer, Shown};
use crate::authz::rbac::escalation;
use crate::cache::Entry;
use crate::call::Call;
use crate::decode;
use crate::metadata;
use crate::negotiate;
use crate::options::{WriteOptions, parse_uint};
use crate::server::Server;
use crate::status::{ApiError, Result, qualified_kind};
use crate::storage::{self, WriteError};
use crate::versions::Versions;

/// Replaces the object that the path names by the one in `body`.
pub(crate) async fn update(server: &Server, call: &Call, body: Bytes) -> Result<Answer> {
    let options = WriteOptions::parse(&call.info.query, "UpdateOptions")?;
    let input = negotiate::input(&call.headers)?;
    let decode::Body {
        mut object,
        warnings,
    } = decode::body(&body, input, expected(call), options.field_validation)?;
    call.warn(warnings);
    check_name(call, &object)?;
    create::check_namespace(call, &object)?;
    call.warn(metadata::dedup_owners(&mut object, false));
    server.flow.breathe().await;
    let change = Change {
        part: Part::of(call),
        uid_precondition: true,
        make: &|_old| Ok(object.clone()),
    };
    match apply(server, call, &options, &change).await? {
        Some(outcome) => Ok(outcome.answer(server, call)),
        None if call.resource.create_on_update && call.subresource.is_none() => {
            if !object.uid().is_empty() {
                return Err(wrong_uid(call, object.uid(), ""));
            }
            // A revision of an object that is gone says nothing about the new one.
            object.remove("metadata.resourceVersion");
            create::store(server, call, &options, object, StatusCode::CREATED).await
        }
        None => Err(ApiError::not_found(call.resource, call.name())),
    }
}

/// Refuses an object whose name is not that of the path.
pub(crate) fn check_name(call: &Call, object: &Object) -> Result<()> {
    match object.name() {
        "" => Err(ApiError::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            call.name()
        ))),
        name if name == call.name() => Ok(()),
        name => Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.name()
        ))),
    }
}

/// Which part of the object a request may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything but the status, if that is a subresource.
    Main,
    /// The status and the metadata that clients own.
    Status,
    /// Everything but the status: a namespace's `spec.finalizers`, which nothing else changes.
    Finalize,
    /// What the kind's own rules say of a subresource that carries the object itself, such as `approval`.
    Other(&'static str),
}

impl Part {
    /// The part that the path names.
    pub(crate) fn of(call: &Call) -> Self {
        match call.subresource.map(|subresource| subresource.name) {
            Some("status") => Self::Status,
            Some("finalize") => Self::Finalize,
            Some(name @ ("approval" | "ephemeralcontainers" | "resize")) => Self::Other(name),
            _ => Self::Main,
        }
    }
}

/// How the new object is made of the old one.
pub(crate) struct Change<'a> {
    /// What may change.
    pub part: Part,
    /// Whether a uid in the object is a precondition (PUT) or just a field (PATCH).
    pub uid_precondition: bool,
    /// Makes the new object; called again when someone else was faster.
    pub make: &'a (dyn Fn(&Object) -> Result<Object> + Sync),
}

/// What an update came to.
pub(crate) enum Outcome {
    /// What is stored now.
    Entry(Arc<Entry>),
    /// What is shown and stored otherwise or not at all.
    Object(Object),
}

impl Outcome {
    /// A stored object, in the version that is served.
    fn of(entry: Arc<Entry>, versions: Versions) -> Self {
        if versions.differ() {
            Self::Object(versions.serve(entry.object()))
        } else {
            Self::Entry(entry)
        }
    }

    /// The object afterwards.
    pub(crate) fn object(&self) -> Object {
        match self {
            Self::Entry(entry) => entry.object(),
            Self::Object(object) => object.clone(),
        }
    }

    /// The answer that shows the object.
    pub(crate) fn answer(self, server: &Server, call: &Call) -> Answer {
        let shown = match &self {
            Self::Entry(entry) => Shown::Entry(entry),
            Self::Object(object) => Shown::Object(object),
        };
        Answer::object(call, StatusCode::OK, shown, server.clock().now())
    }
}

/// Applies `change` to the object that the path names; `None` when it is absent.
pub(crate) async fn apply(
    server: &Server,
    call: &Call,
    options: &WriteOptions,
    change: &Change<'_>,
) -> Result<Option<Outcome>> {
    let versions = Versions::of(server, call);
    let (resource, key) = (versions.stored, call.key());
    let owners = server_side::field_manager(call);
    let manager = options.manager(&call.headers);
    for attempt in 0..=MAX_RETRIES {
        let Some(entry) = server.storage.get(resource, &key).await? else {
            return Ok(None);
        };
        let stored = entry.object();
        let served = versions.differ().then(|| versions.serve(stored.clone()));
        let old = served.as_ref().unwrap_or(&stored);
        let mut new = (change.make)(old)?;
        let pinned = check_version(call, &new, old, change)?;
        call.warn(metadata::dedup_owners(&mut new, true));
        restrict(call, change.part, &mut new, old);
        set_defaults(&mut new, versions.served);
        metadata::prepare_update(&mut new, old);
        if !options.applied {
            let now = metadata::seconds(server.clock().now());
            owners.update(Some(old), &mut new, &manager, &now);
        }
        let old = stored;
        if versions.differ() {
            // The older form may not show all that this request leaves alone.
            new = versions.store(new);
            restrict(call, change.part, &mut new, &old);
        }
        let attributes = Attributes {
            operation: Operation::Update,
            resource: versions.served,
            subresource: call.subresource.map_or("", |subresource| subresource.name),
            namespace: call.namespace(),
            name: call.name(),
            identity: &call.identity,
            dry_run: options.dry_run,
            old: Some(&old),
            server,
        };
        server.admission.admit(&attributes, Some(&mut new)).await?;
        escalation::check(server, call, &new, Some(&old)).await?;
        prepare(resource, change.part, &mut new, &old);
        let now = metadata::seconds(server.clock().now());
        let request = requester(call, &now);
        resource
            .strategy
            .record_request(&mut new, Some(&old), &request);
        if change.part == Part::Main {
            let allocators = &server.allocators;
            allocators.settle_families(server, resource, &mut new, Some(&old), options.dry_run)?;
        }
        check(versions, call, change.part, &new, &old)?;
        if change.part == Part::Main {
            call.warn(resource.strategy.warnings(&new, Some(&old)));
        }
        let allocation = match change.part {
            Part::Main => {
                let allocators = &server.allocators;
                allocators
                    .allocate(server, resource, &mut new, Some(&old), options.dry_run)
                    .await?
            }
            _ => Default::default(),
        };
        if let Err(refusal) = server.admission.verify(&attributes, Some(&new)).await {
            allocation.undo(server).await;
            return Err(refusal);
        }
        if delete::finished(resource, &new) {
            return match delete::remove(server, call, &entry, &new, options.dry_run).await {
                Ok(mut gone) => {
                    allocation.keep(server).await;
                    // An update shows the revision that it was made of, even if it was the last.
                    gone.metadata_mut()
                        .insert("resourceVersion".to_owned(), old.resource_version().into());
                    Ok(Some(Outcome::Object(versions.serve(gone))))
                }
                Err(error) => {
                    allocation.undo(server).await;
                    match error {
                        WriteError::Conflict if !pinned && attempt < MAX_RETRIES => continue,
                        WriteError::Conflict => Err(ApiError::modified(resource, call.name())),
                        WriteError::Other(error) => Err(error),
                    }
                }
            };
        }
        // Upstream forgets when a scale was written last, so that each write of one is a change.
        let scaled = attributes.subresource == "scale" && !options.applied && !options.dry_run;
        if metadata::same(&new, &old) && !scaled && entry.settled {
            return Ok(Some(Outcome::of(entry, versions)));
        }
        if options.dry_run {
            new.metadata_mut()
                .insert("resourceVersion".to_owned(), old.resource_version().into());
            return Ok(Some(Outcome::Object(versions.serve(new))));
        }
        match server
            .storage
            .update(
                resource,
                &key,
                &Arc::new(new),
                entry.revision,
                time_to_live(resource),
            )
            .await
        {
            Ok(entry) => {
                allocation.keep(server).await;
                return Ok(Some(Outcome::of(entry, versions)));
            }
            Err(error) => {
                allocation.undo(server).await;
                match error {
                    WriteError::Conflict if !pinned && attempt < MAX_RETRIES => {}
                    WriteError::Conflict => {
                        return Err(ApiError::modified(resource, call.name()));
                    }
                    WriteError::Other(error) => return Err(error),
                }
            }
        }
    }
    unreachable!("the last attempt returns")
}

/// Compares the revision and identity that the client sent; `true` when it named a revision.
fn check_version(call: &Call, new: &Object, old: &Object, change: &Change<'_>) -> Result<bool> {
    let resource = call.resource;
    let uid = new.uid();
    if change.uid_precondition && !uid.is_empty() && uid != old.uid() {
        return Err(wrong_uid(call, uid, old.uid()));
    }
    let version = new.resource_version();
    if matches!(version, "" | "0") {
        if !resource.unconditional_update {
            let mut errors = FieldErrors::default();
            let kind = coracle_api::field_errors::ErrorType::Invalid;
            errors.push(
                kind,
                "metadata.resourceVersion",
                Some(Value::from(0)),
                "must be specified for an update",
            );
            let qualified = resource.qualified();
            return Err(ApiError::invalid_as(
                resource.group,
                resource.plural,
                &qualified,
                call.name(),
                &errors,
            ));
        }
        return Ok(false);
    }
    if let Err(detail) = parse_uint(version) {
        let mut errors = FieldErrors::default();
        let kind = coracle_api::field_errors::ErrorType::Invalid;
        errors.push(
            kind,
            "metadata.resourceVersion",
            Some(Value::from(version)),
            detail,
        );
        return Err(ApiError::invalid_as(
            resource.group,
            resource.kind,
            &qualified_kind(resource),
            call.name(),
            &errors,
        ));
    }
    if version != old.resource_version() {
        return Err(ApiError::modified(resource, call.name()));
    }
    // A patched object carries the version it was made of; only a version in the patch itself pins it.
    Ok(change.uid_precondition)
}

fn wrong_uid(call: &Call, asked: &str, found: &str) -> ApiError {
    let path = storage::upstream_key(call.resource, call.namespace(), call.name());
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: {path}, ResourceVersion: 0, AdditionalErrorMsg: Precondition \
         failed: UID in precondition: {asked}, UID in object meta: {found}"
    );
    ApiError::conflict(call.resource, call.name(), why)
}

/// Puts back the parts that this path does not change.
fn restrict(call: &Call, part: Part, new: &mut Object, old: &Object) {
    match part {
        Part::Main => {
            let resource = call.resource;
            if resource.subresource("status").is_some() && !resource.strategy.main_takes_status() {
                copy(new, old, "status");
            }
        }
        Part::Status => {
            with_rest_of(new, old);
            restore_metadata(call.resource.strategy.status_metadata(), new, old);
        }
        Part::Other(name @ ("ephemeralcontainers" | "resize")) => {
            let strategy = call.resource.strategy;
            strategy.prepare_for_subresource_update(name, new, old);
            restore_metadata(strategy::ALL_METADATA, new, old);
        }
        Part::Other(_) => {
            with_rest_of(new, old);
        }
        Part::Finalize => copy(new, old, "status"),
    }
}

/// Puts back everything but the metadata and the status.
fn with_rest_of(new: &mut Object, old: &Object) {
    let own = std::mem::take(new.root_mut());
    let mut rest = Map::with_capacity(old.root().len() + 1);
    // In the old order, without a copy of what is not kept.
    for (field, value) in old.root() {
        let value = match field.as_str() {
            "metadata" | "status" => Value::Null,
            _ => value.clone(),
        };
        rest.insert(field.clone(), value);
    }
    rest.insert("metadata".to_owned(), Value::Null);
    let mut has_status = false;
    for (field, value) in own {
        has_status |= field == "status";
        if matches!(field.as_str(), "metadata" | "status") {
            rest.insert(field, value);
        }
    }
    if !has_status {
        rest.shift_remove("status");
    }
    *new = Object::new(rest).with_empties(old.empties().to_vec());
}

/// Puts back the metadata that this path does not change.
fn restore_metadata(fields: &[&str], new: &mut Object, old: &Object) {
    for field in fields {
        new.restore(old, &format!("metadata.{field}"));
    }
}

fn copy(new: &mut Object, old: &Object, field: &str) {
    match old.at(field).value() {
        Some(value) => new.set(field, value.clone()),
        None => {
            new.remove(field);
        }
    }
}

fn prepare(resource: &Resource, part: Part, new: &mut Object, old: &Object) {
    let strategy = resource.strategy;
    match part {
        Part::Main => {
            gated::forget(resource, new, Some(old));
            strategy.prepare_for_update(new, old);
        }
        Part::Other(name) => strategy.prepare_for_subresource_update(name, new, old),
        Part::Status => return strategy.prepare_for_status_update(new, old),
        Part::Finalize => return,
    }
    let emptied = || strategy.empty_is_change() && gives_empties(new);
    if resource.generation && (!metadata::same_spec(new, old) || emptied()) {
        let generation = old.at("metadata.generation").as_i64().unwrap_or(0) + 1;
        new.metadata_mut()
            .insert("generation".to_owned(), generation.into());
    }
}

/// Whether the request gave an empty list or map outside the metadata and status.
fn gives_empties(new: &Object) -> bool {
    new.empties().iter().any(|(place, _)| {
        let field = place.split(['.', '[']).next().unwrap_or_default();
        !matches!(field, "metadata" | "status")
    })
}

fn check(versions: Versions, call: &Call, part: Part, new: &Object, old: &Object) -> Result<()> {
    let resource = versions.stored;
    let mut errors = FieldErrors::default();
    // Upstream looks at the metadata of an update once for all kinds and once for the kind, and reports findings twice.
    let times = match resource.strategy.validates_metadata() || versions.differ() {
        true => 2,
        false => 1,
    };
    for _ in 0..times {
        metadata::validate_update(new, old, &mut errors);
        metadata::validate(new, resource, &mut errors);
    }
    match part {
        Part::Main => {
            resource
                .strategy
                .validate_replacement(new, old, &mut errors);
            versions.validate(new, Some(old), &mut errors);
        }
        Part::Status => resource
            .strategy
            .validate_status_update(new, old, &mut errors),
        Part::Other(name) => {
            resource
                .strategy
                .validate_subresource_update(name, new, old, &mut errors);
        }
        Part::Finalize => {
            resource
                .strategy
                .validate_subresource_update("finalize", new, old, &mut errors);
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        errors.show_empties(new);
        Err(ApiError::invalid(resource, call.name(), &errors))
    }
}
