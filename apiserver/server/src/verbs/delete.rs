//! DELETE of one object or a collection: now, gracefully, or when the finalizers are gone.
//!
//! ```text
//!                     ┌── grace period > 0 or finalizers ──▶ marked: deletionTimestamp, the object stays
//! DELETE ──▶ decide ──┤                                          │ last finalizer removed / grace 0
//!                     └── neither ───────────────────────────────┴──▶ removed from the store
//! ```

use std::sync::Arc;

use bytes::Bytes;
use coracle_api::schema::SchemaRef;
use coracle_api::{Object, Resource};
use coracle_clock::{Clock, Timestamp};
use http::StatusCode;
use serde_json::{Value, json};

use super::{MAX_RETRIES, list, time_to_live};
use crate::admission::{Attributes, Operation};
use crate::answer::{Answer, Shown};
use crate::cache::Entry;
use crate::call::Call;
use crate::metadata::{self, FOREGROUND, ORPHAN};
use crate::negotiate::{self, Input};
use crate::options::{DeleteOptions, ListOptions, Propagation};
use crate::selection::Selection;
use crate::server::Server;
use crate::status::{ApiError, Result, success};
use crate::storage::{self, WriteError};

/// Kinds whose deletion answers with the object; the others answer with a `Status`.
const RETURN_DELETED: &[&str] = &[
    "csidrivers",
    "csinodes",
    "deviceclasses",
    "persistentvolumeclaims",
    "persistentvolumes",
    "pods",
    "podtemplates",
    "resourceclaims",
    "resourceclaimtemplates",
    "resourcequotas",
    "resourceslices",
    "serviceaccounts",
    "services",
    "storageclasses",
    "volumeattachments",
    "volumeattributesclasses",
];

/// Deletes the object that the path names.
pub(crate) async fn delete(server: &Server, call: &Call, body: Bytes) -> Result<Answer> {
    let options = options(call, &body)?;
    if let Some(why) = call.resource.strategy.refuse_deletion(call.name()) {
        return Err(ApiError::forbidden(call.resource, call.name(), why));
    }
    let resource = call.resource;
    call.warn(unsaid(resource, &options));
    let deleted = delete_one(server, call, call.namespace(), call.name(), &options).await?;
    if deleted.gone && !RETURN_DELETED.contains(&resource.plural) {
        let mut details = json!({"name": call.name()});
        if !resource.group.is_empty() {
            details["group"] = resource.group.into();
        }
        details["kind"] = resource.plural.into();
        details["uid"] = deleted.object.uid().into();
        let status = success(Some(details));
        return Ok(Answer::value(StatusCode::OK, call.output, &status));
    }
    // As upstream: the older option, spelled out, tells the client that the deletion goes on.
    let accepted = !deleted.gone && options.orphan_dependents == Some(false);
    let status = if accepted {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    Ok(Answer::object(
        call,
        status,
        Shown::Object(&deleted.object),
        server.clock().now(),
    ))
}

/// What a kind warns of when the client doesn't say what becomes of the dependents.
fn unsaid(resource: &Resource, options: &DeleteOptions) -> Option<String> {
    let unsaid = options.orphan_dependents.is_none() && options.propagation.is_none();
    let warning = resource.strategy.deletion_warning().filter(|_| unsaid);
    warning.map(str::to_owned)
}

/// Deletes every object that the path and the selectors name.
pub(crate) async fn delete_collection(server: &Server, call: &Call, body: Bytes) -> Result<Answer> {
    let list_options = ListOptions::parse(&call.info.query, false)?;
    let selection = Selection::parse(&call.info.query, call.resource)?;
    let options = options(call, &body)?;
    call.warn(unsaid(call.resource, &options));
    let page = list::page(server, call, &list_options, &selection).await?;
    for entry in &page.entries {
        match delete_one(server, call, entry.namespace(), entry.name(), &options).await {
            Ok(_) => {}
            Err(error) if error.reason() == "NotFound" => {}
            Err(error) => return Err(error),
        }
    }
    let (metadata, now) = (list::metadata(&page), server.clock().now());
    Ok(Answer::list(call, metadata, page.entries, now).await)
}

/// The options in the body, or those in the query.
fn options(call: &Call, body: &Bytes) -> Result<DeleteOptions> {
    if body.is_empty() {
        return DeleteOptions::parse(&call.info.query, None);
    }
    let bad = |error: String| ApiError::bad_request(error);
    let value = match negotiate::input(&call.headers)? {
        Input::Json => coracle_api::schema::parse_json(body).map_err(|error| {
            bad(format!(
                "couldn't get version/kind; json parse error: {error}"
            ))
        })?,
        Input::Yaml => {
            coracle_api::schema::decode_yaml(body, &SchemaRef::any())
                .map_err(|error| bad(error.to_string()))?
                .value
        }
        Input::Protobuf => crate::decode::protobuf_value(body, &options_schema())?,
    };
    let found = crate::decode::type_of(&value).and_then(crate::decode::well_formed);
    let (kind, api_version) = found.map_err(bad)?;
    if !matches!(kind.as_str(), "" | "DeleteOptions") {
        return Err(ApiError::bad_request(format!(
            "no kind {kind:?} is registered for version {api_version:?} in scheme \
             \"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27\""
        )));
    }
    let value = if value.is_null() { json!({}) } else { value };
    let decoded = coracle_api::schema::decode_value(value, &options_schema())
        .map_err(|error| bad(error.to_string()))?;
    let object = Object::from_value(decoded.value).unwrap_or_default();
    DeleteOptions::parse(&call.info.query, Some(&object))
}

fn options_schema() -> SchemaRef {
    SchemaRef::for_kind("", "v1", "DeleteOptions").unwrap_or_else(SchemaRef::any)
}

/// What a deletion came to.
pub(crate) struct Deleted {
    object: Object,
    gone: bool,
}

/// Deletes one object of the call's resource.
pub(crate) async fn delete_one(
    server: &Server,
    call: &Call,
    namespace: &str,
    name: &str,
    options: &DeleteOptions,
) -> Result<Deleted> {
    let resource = call.resource;
    let key = storage::key(resource, namespace, name);
    // What this deletion showed the watchers last: who sees that may remove the object first.
    let mut shown: Option<Object> = None;
    for attempt in 0..=MAX_RETRIES {
        let entry = server.storage.get(resource, &key).await?;
        let found = entry.map(|entry| (entry.object(), entry));
        let is_another = |object: &Object| shown.as_ref().is_some_and(|s| s.uid() != object.uid());
        let (object, entry) = match (found, &shown) {
            (Some((object, entry)), _) if !is_another(&object) => (object, entry),
            (_, Some(last)) => {
                return Ok(Deleted {
                    object: last.clone(),
                    gone: true,
                });
            }
            (_, None) => return Err(ApiError::not_found(resource, name)),
        };
        check_preconditions(resource, &object, options)?;
        let attributes = Attributes {
            operation: Operation::Delete,
            resource,
            subresource: "",
            namespace,
            name,
            identity: &call.identity,
            dry_run: options.dry_run,
            old: Some(&object),
            server,
        };
        server.admission.admit(&attributes, None).await?;
        server.admission.verify(&attributes, None).await?;
        let written = match decide(resource, &object, options, server.clock()) {
            Decision::Stay => {
                return Ok(Deleted {
                    object,
                    gone: false,
                });
            }
            Decision::Mark(mut marked) => {
                if options.dry_run {
                    marked.metadata_mut().insert(
                        "resourceVersion".to_owned(),
                        object.resource_version().into(),
                    );
                    return Ok(Deleted {
                        object: marked,
                        gone: false,
                    });
                }
                let update = server
                    .storage
                    .update(
                        resource,
                        &key,
                        &Arc::new(marked),
                        entry.revision,
                        time_to_live(resource),
                    )
                    .await;
                update.map(|entry| Deleted {
                    object: entry.object(),
                    gone: false,
                })
            }
            Decision::Remove(last) => {
                let entry = match show_last(server, resource, &entry, &last, options.dry_run).await
                {
                    Ok(written) => {
                        if written.revision != entry.revision {
                            shown = Some(written.object());
                        }
                        written
                    }
                    Err(WriteError::Conflict) if attempt < MAX_RETRIES => continue,
                    Err(WriteError::Conflict) => return Err(ApiError::modified(resource, name)),
                    Err(WriteError::Other(error)) => return Err(error),
                };
                remove(server, call, &entry, &last, options.dry_run)
                    .await
                    .map(|object| Deleted { object, gone: true })
            }
        };
        match written {
            Ok(deleted) => return Ok(deleted),
            Err(WriteError::Conflict) if attempt < MAX_RETRIES => continue,
            Err(WriteError::Conflict) => return Err(ApiError::modified(resource, name)),
            Err(WriteError::Other(error)) => return Err(error),
        }
    }
    unreachable!("the last attempt returns")
}

/// Kinds that are deleted gracefully show their watchers the end of the grace period before they go.
async fn show_last(
    server: &Server,
    resource: &'static Resource,
    entry: &Arc<Entry>,
    last: &Object,
    dry_run: bool,
) -> Result<Arc<Entry>, WriteError> {
    if dry_run || !last.is_terminating() || metadata::same(last, &entry.object()) {
        return Ok(Arc::clone(entry));
    }
    server
        .storage
        .update(
            resource,
            &entry.key,
            &Arc::new(last.clone()),
            entry.revision,
            time_to_live(resource),
        )
        .await
}

pub(crate) fn check_preconditions(
    resource: &Resource,
    object: &Object,
    options: &DeleteOptions,
) -> Result<()> {
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != object.uid()) {
        let why = format!(
            "the UID in the precondition ({uid}) does not match the UID in record ({}). The object might have been \
             deleted and then recreated",
            object.uid()
        );
        return Err(ApiError::precondition(resource, object.name(), why));
    }
    let version = object.resource_version();
    if let Some(wanted) = options
        .resource_version
        .as_deref()
        .filter(|wanted| *wanted != version)
    {
        let why = format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record ({version}). \
             The object might have been modified"
        );
        return Err(ApiError::precondition(resource, object.name(), why));
    }
    Ok(())
}

/// What a deletion does to an object.
#[derive(Debug, PartialEq)]
enum Decision {
    /// Nothing: it is being deleted already.
    Stay,
    /// It is marked and stays for a while.
    Mark(Object),
    /// It goes; this is how it looked last.
    Remove(Object),
}

fn decide(
    resource: &Resource,
    object: &Object,
    options: &DeleteOptions,
    clock: &Clock,
) -> Decision {
    let now = clock.now();
    if resource.group.is_empty() && resource.plural == "namespaces" {
        if !object.is_terminating() {
            let mut marked = object.clone();
            metadata::set_deletion(&mut marked, stamp(now), None);
            marked.set("status.phase", "Terminating");
            set_propagation(resource, &mut marked, options);
            return Decision::Mark(marked);
        }
        if !object.at("spec.finalizers").is_empty() {
            return Decision::Stay;
        }
    }
    let mut next = object.clone();
    set_propagation(resource, &mut next, options);
    let grace = resource
        .strategy
        .grace_period_seconds(object, options.grace_period_seconds);
    let held = !metadata::finalizers(&next).is_empty();
    if object.is_terminating() {
        let before = object
            .at("metadata.deletionGracePeriodSeconds")
            .as_i64()
            .unwrap_or(0);
        if let Some(seconds) = grace.filter(|seconds| *seconds < before) {
            let started = object
                .metadata("deletionTimestamp")
                .parse::<Timestamp>()
                .map_or(now.as_second(), |t| t.as_second().saturating_sub(before));
            metadata::set_deletion(
                &mut next,
                stamp_seconds(started.saturating_add(seconds)),
                Some(seconds),
            );
            if seconds > 0 || held {
                return Decision::Mark(next);
            }
            return Decision::Remove(next);
        }
        if before > 0 || held {
            return if metadata::same(&next, object) {
                Decision::Stay
            } else {
                Decision::Mark(next)
            };
        }
        return Decision::Remove(next);
    }
    match grace {
        Some(seconds) => {
            metadata::set_deletion(
                &mut next,
                stamp_seconds(now.as_second().saturating_add(seconds)),
                Some(seconds),
            );
            count_change(&mut next);
            if seconds > 0 || held {
                Decision::Mark(next)
            } else {
                Decision::Remove(next)
            }
        }
        None if held => {
            metadata::set_deletion(&mut next, stamp(now), Some(0));
            count_change(&mut next);
            Decision::Mark(next)
        }
        None => Decision::Remove(next),
    }
}

fn count_change(object: &mut Object) {
    if let Some(generation) = object
        .at("metadata.generation")
        .as_i64()
        .filter(|generation| *generation > 0)
    {
        object
            .metadata_mut()
            .insert("generation".to_owned(), (generation + 1).into());
    }
}

fn stamp(time: Timestamp) -> Value {
    Value::from(metadata::seconds(time))
}

fn stamp_seconds(seconds: i64) -> Value {
    stamp(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
}

/// Turns the propagation policy into finalizers, as the garbage collector reads them.
fn set_propagation(resource: &Resource, object: &mut Object, options: &DeleteOptions) {
    // Events have no dependents, and upstream's collector does not look at them.
    if resource.plural == "events" {
        return;
    }
    let mut finalizers = metadata::finalizers(object);
    let had = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    let (orphan, foreground) = match (options.orphan_dependents, options.propagation) {
        (Some(orphan), _) => (orphan, false),
        (None, Some(Propagation::Orphan)) => (true, false),
        (None, Some(Propagation::Foreground)) => (false, true),
        (None, Some(Propagation::Background)) => (false, false),
        // What the object itself asks for, then what its kind does.
        (None, None) => (
            had(ORPHAN) || !had(FOREGROUND) && resource.strategy.orphans_by_default(),
            had(FOREGROUND),
        ),
    };
    finalizers.retain(|finalizer| finalizer != ORPHAN && finalizer != FOREGROUND);
    finalizers.extend(orphan.then(|| ORPHAN.to_owned()));
    finalizers.extend(foreground.then(|| FOREGROUND.to_owned()));
    if finalizers != metadata::finalizers(object) {
        metadata::set_finalizers(object, &finalizers);
    }
}

/// Whether an updated object has nothing left to wait for and goes.
pub(crate) fn finished(resource: &Resource, object: &Object) -> bool {
    let namespace = resource.group.is_empty() && resource.plural == "namespaces";
    object.is_terminating()
        && object.at("metadata.finalizers").is_empty()
        && object
            .at("metadata.deletionGracePeriodSeconds")
            .as_i64()
            .unwrap_or(0)
            == 0
        && (!namespace || object.at("spec.finalizers").is_empty())
}

/// Removes an object from the store and gives back what it had allocated; the answer is how it looked last.
pub(crate) async fn remove(
    server: &Server,
    call: &Call,
    entry: &Entry,
    last: &Object,
    dry_run: bool,
) -> Result<Object, WriteError> {
    let mut last = last.clone();
    if dry_run {
        last.metadata_mut().insert(
            "resourceVersion".to_owned(),
            entry.revision.to_string().into(),
        );
        return Ok(last);
    }
    let revision = server
        .storage
        .delete(call.resource, &entry.key, entry.revision)
        .await?;
    server
        .allocators
        .release(server, call.resource, &last)
        .await;
    last.metadata_mut()
        .insert("resourceVersion".to_owned(), revision.to_string().into());
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::Registry;

    fn config_maps() -> &'static Resource {
        Registry::builtin()
            .by_plural("", "v1", "configmaps")
            .expect("config maps are served")
    }

    fn object(value: Value) -> Object {
        Object::from_value(value).expect("an object")
    }

    #[tokio::test]
    async fn finalizers_keep_an_object() {
        let clock = Clock::fake(1);
        let held = object(json!({"metadata": {"name": "x", "finalizers": ["example.com/f"]}}));
        let Decision::Mark(marked) =
            decide(config_maps(), &held, &DeleteOptions::default(), &clock)
        else {
            panic!("the object is kept")
        };
        assert_eq!(marked.metadata("deletionTimestamp"), "2030-01-01T00:00:00Z");
        assert_eq!(
            decide(config_maps(), &marked, &DeleteOptions::default(), &clock),
            Decision::Stay
        );
        let free = object(json!({"metadata": {"name": "x"}}));
        assert!(matches!(
            decide(config_maps(), &free, &DeleteOptions::default(), &clock),
            Decision::Remove(_)
        ));
    }

    #[tokio::test]
    async fn policies_become_finalizers() {
        let free = object(json!({"metadata": {"name": "x"}}));
        let options = DeleteOptions {
            propagation: Some(Propagation::Foreground),
            ..Default::default()
        };
        let Decision::Mark(marked) = decide(config_maps(), &free, &options, &Clock::fake(1)) else {
            panic!("the object is kept")
        };
        assert_eq!(metadata::finalizers(&marked), [FOREGROUND]);
    }

    #[tokio::test]
    async fn namespaces_wait_for_their_content() {
        let namespaces = Registry::builtin()
            .by_plural("", "v1", "namespaces")
            .expect("namespaces are served");
        let active =
            object(json!({"metadata": {"name": "x"}, "spec": {"finalizers": ["kubernetes"]}}));
        let Decision::Mark(marked) = decide(
            namespaces,
            &active,
            &DeleteOptions::default(),
            &Clock::fake(1),
        ) else {
            panic!("the namespace is kept")
        };
        assert_eq!(marked.at("status.phase").str(), "Terminating");
        assert!(!finished(namespaces, &marked));
        let mut empty = marked;
        empty.remove("spec.finalizers");
        assert!(finished(namespaces, &empty));
    }
}
