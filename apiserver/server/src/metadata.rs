//! The rules about `metadata` that all kinds share.
//!
//! Follows `rest.BeforeCreate`, `rest.BeforeUpdate` and `validation.ValidateObjectMeta` of `k8s.io/apiserver` and
//! `k8s.io/apimachinery`.

use coracle_api::field_errors::ErrorType;
use coracle_api::validation::{metadata, names};
use coracle_api::{FieldErrors, Object, Resource};
use coracle_clock::Clock;
use serde_json::{Map, Value, json};

/// Characters of a generated name that are kept before the suffix.
const MAX_GENERATED_BASE: usize = 58;

/// The finalizers that stand for a way of treating dependents.
pub(crate) const ORPHAN: &str = "orphan";
/// See [`ORPHAN`].
pub(crate) const FOREGROUND: &str = "foregroundDeletion";

/// A time stamp as objects carry it: whole seconds in UTC.
pub(crate) fn time_stamp(clock: &Clock) -> Value {
    Value::from(seconds(clock.now()))
}

/// `time` in whole seconds, as RFC 3339.
pub(crate) fn seconds(time: coracle_clock::Timestamp) -> String {
    let whole = coracle_clock::Timestamp::from_second(time.as_second()).unwrap_or(time);
    whole.to_string()
}

/// Fills in what a new object starts with, and takes off what a client may not set.
pub(crate) fn prepare_create(
    object: &mut Object,
    resource: &Resource,
    namespace: &str,
    clock: &Clock,
) {
    let (uid, now) = (clock.uuid(), time_stamp(clock));
    let metadata = object.metadata_mut();
    for field in [
        "selfLink",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "resourceVersion",
    ] {
        metadata.shift_remove(field);
    }
    let text = |field: &str| {
        metadata
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (name, base) = (text("name"), text("generateName"));
    if name.is_empty() && !base.is_empty() {
        metadata.insert("name".to_owned(), generated_name(&base, clock).into());
    }
    if resource.namespaced {
        metadata.insert("namespace".to_owned(), namespace.into());
    } else {
        metadata.shift_remove("namespace");
    }
    metadata.insert("uid".to_owned(), uid.into());
    metadata.insert("creationTimestamp".to_owned(), now);
    if resource.generation {
        metadata.insert("generation".to_owned(), 1.into());
    }
    order(object);
}

/// A name made of `base` and five random characters.
pub(crate) fn generated_name(base: &str, clock: &Clock) -> String {
    let kept: String = base.chars().take(MAX_GENERATED_BASE).collect();
    format!("{kept}{}", clock.name_suffix(5))
}

/// Puts back what an update may not change.
pub(crate) fn prepare_update(new: &mut Object, old: &Object) {
    let old_metadata = old
        .root()
        .get("metadata")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let metadata = new.metadata_mut();
    metadata.shift_remove("selfLink");
    let mut keep = |field: &str, always: bool| match old_metadata.get(field) {
        Some(value) if always || !metadata.contains_key(field) => {
            metadata.insert(field.to_owned(), value.clone());
        }
        None if always => {
            metadata.shift_remove(field);
        }
        _ => {}
    };
    keep("uid", false);
    keep("namespace", false);
    keep("generation", true);
    keep("creationTimestamp", true);
    keep("generateName", false);
    if old.is_terminating() {
        keep("deletionTimestamp", true);
        keep("deletionGracePeriodSeconds", false);
    }
    order(new);
}

/// Sorts the fields of `metadata` as Go's struct has them.
fn order(object: &mut Object) {
    const ORDER: &[&str] = &[
        "name",
        "generateName",
        "namespace",
        "selfLink",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "labels",
        "annotations",
        "ownerReferences",
        "finalizers",
        "managedFields",
    ];
    let position = |key: &str| ORDER.iter().position(|k| *k == key).unwrap_or(ORDER.len());
    let metadata = object.metadata_mut();
    let mut fields: Vec<(String, Value)> = std::mem::take(metadata).into_iter().collect();
    fields.sort_by_key(|(key, _)| position(key));
    metadata.extend(fields);
}

/// Removes owner references that occur twice; the answer is the warning about it.
pub(crate) fn dedup_owners(object: &mut Object, patch_or_mutated: bool) -> Option<String> {
    let owners = object.get_mut("metadata.ownerReferences")?.as_array_mut()?;
    let mut kept: Vec<Value> = Vec::with_capacity(owners.len());
    let mut repeated: Vec<String> = Vec::new();
    for owner in owners.drain(..) {
        if kept.contains(&owner) {
            let uid = owner
                .get("uid")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned();
            if !repeated.contains(&uid) {
                repeated.push(uid);
            }
        } else {
            kept.push(owner);
        }
    }
    *owners = kept;
    if repeated.is_empty() {
        return None;
    }
    let when = if patch_or_mutated {
        " after mutating admission happens"
    } else {
        ""
    };
    Some(format!(
        ".metadata.ownerReferences contains duplicate entries{when}; API server dedups owner references in 1.20+, and \
         may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
        repeated.join(", ")
    ))
}

/// Reports what is wrong with the metadata of any object.
pub(crate) fn validate(object: &Object, resource: &Resource, errors: &mut FieldErrors) {
    let at = |field: &str| object.at("metadata").key(field);
    let generate_name = at("generateName");
    if !generate_name.is_empty() {
        for message in names::object_name(resource.name_rule, generate_name.str(), true) {
            errors.invalid(&generate_name, message);
        }
    }
    let name = at("name");
    if name.is_empty() {
        errors.required(&name, "name or generateName is required");
    } else {
        for message in names::object_name(resource.name_rule, name.str(), false) {
            errors.invalid(&name, message);
        }
    }
    let generation = at("generation");
    if generation.as_i64().is_some_and(|generation| generation < 0) {
        errors.invalid(&generation, "must be greater than or equal to 0");
    }
    metadata::labels(&at("labels"), errors);
    metadata::annotations(&at("annotations"), errors);
    validate_owners(object, errors);
    validate_finalizers(object, errors);
}

fn validate_owners(object: &Object, errors: &mut FieldErrors) {
    let owners = object.at("metadata.ownerReferences");
    let mut controller: Option<String> = None;
    for owner in owners.items() {
        // Upstream leaves the index out of these paths.
        let mut bad = |field: &str, value: &str, detail: &str| {
            let path = format!("metadata.ownerReferences.{field}");
            errors.push(ErrorType::Invalid, &path, Some(Value::from(value)), detail);
        };
        let text = |field: &str| owner.key(field).str();
        let (group, version) = match text("apiVersion").split('/').collect::<Vec<_>>()[..] {
            [version] => ("", version),
            [group, version] => (group, version),
            _ => ("", ""),
        };
        if version.is_empty() {
            bad(
                "apiVersion",
                text("apiVersion"),
                "version must not be empty",
            );
        }
        for field in ["kind", "name", "uid"] {
            if text(field).is_empty() {
                bad(field, "", "must not be empty");
            }
        }
        if text("kind") == "Event"
            && matches!(
                (group, version),
                ("", "v1") | ("events.k8s.io", "v1" | "v1beta1")
            )
        {
            let detail = format!("{group}/{version}, Kind=Event is disallowed from being an owner");
            let value = owner.value().cloned();
            errors.push(ErrorType::Invalid, owners.path(), value, detail);
        }
        if owner.key("controller").is_true() {
            if let Some(first) = &controller {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {}/{}",
                    text("kind"),
                    text("name")
                );
                errors.push(
                    ErrorType::Invalid,
                    owners.path(),
                    owners.value().cloned(),
                    detail,
                );
            }
            controller.get_or_insert_with(|| format!("{}/{}", text("kind"), text("name")));
        }
    }
}

fn validate_finalizers(object: &Object, errors: &mut FieldErrors) {
    let finalizers = object.at("metadata.finalizers");
    let list: Vec<&str> = finalizers
        .items()
        .map(|item| item.value().and_then(Value::as_str).unwrap_or(""))
        .collect();
    for finalizer in &list {
        for message in names::qualified_name(finalizer) {
            errors.push(
                ErrorType::Invalid,
                finalizers.path(),
                Some(Value::from(*finalizer)),
                message,
            );
        }
    }
    if list.contains(&ORPHAN) && list.contains(&FOREGROUND) {
        errors.invalid(
            &finalizers,
            "finalizer orphan and foregroundDeletion cannot be both set",
        );
    }
    for item in finalizers.items() {
        if !item.str().contains('/') && !matches!(item.str(), ORPHAN | FOREGROUND | "kubernetes") {
            errors.invalid(
                &item,
                "name is neither a standard finalizer name nor is it fully qualified",
            );
        }
    }
}

/// Reports changes of metadata that an update may not make.
pub(crate) fn validate_update(new: &Object, old: &Object, errors: &mut FieldErrors) {
    const IMMUTABLE: &[&str] = &[
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ];
    if old.is_terminating() {
        let had: Vec<&Value> = old
            .at("metadata.finalizers")
            .items()
            .filter_map(|item| item.value())
            .collect();
        let finalizers = new.at("metadata.finalizers");
        let added: Vec<String> = finalizers
            .items()
            .filter(|item| item.value().is_some_and(|value| !had.contains(&value)))
            .map(|item| format!("{:?}", item.str()))
            .collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.forbidden(&finalizers, detail);
        }
    }
    metadata::labels(&new.at("metadata.labels"), errors);
    metadata::annotations(&new.at("metadata.annotations"), errors);
    validate_owners(new, errors);
    for field in IMMUTABLE {
        let (new_at, old_at) = (new.at("metadata").key(field), old.at("metadata").key(field));
        if new_at.value() != old_at.value() {
            errors.invalid(&new_at, "field is immutable");
        }
    }
}

/// Whether everything but metadata and status is the same.
pub(crate) fn same_spec(new: &Object, old: &Object) -> bool {
    same_but(new.root(), old.root(), |key, new, old| {
        matches!(key, "metadata" | "status") || new == old
    })
}

/// Whether the objects are equal but for `resourceVersion` and the times at which fields changed owners.
pub(crate) fn same(new: &Object, old: &Object) -> bool {
    same_but(new.root(), old.root(), |key, new, old| {
        match (key, new, old) {
            ("metadata", Some(Value::Object(new)), Some(Value::Object(old))) => {
                same_but(new, old, |key, new, old| match key {
                    "resourceVersion" => true,
                    "managedFields" => new == old || same_owners(new, old),
                    _ => new == old,
                })
            }
            _ => new == old,
        }
    })
}

/// Whether `same` holds for every key of two maps.
fn same_but(
    new: &Map<String, Value>,
    old: &Map<String, Value>,
    same: impl Fn(&str, Option<&Value>, Option<&Value>) -> bool,
) -> bool {
    new.iter()
        .all(|(key, value)| same(key, Some(value), old.get(key)))
        && old
            .iter()
            .all(|(key, value)| new.contains_key(key) || same(key, None, Some(value)))
}

/// Whether `managedFields` are equal but for their times.
fn same_owners(new: Option<&Value>, old: Option<&Value>) -> bool {
    let (Some(Value::Array(new)), Some(Value::Array(old))) = (new, old) else {
        return false;
    };
    new.len() == old.len()
        && new.iter().zip(old).all(|pair| match pair {
            (Value::Object(new), Value::Object(old)) => {
                same_but(new, old, |key, new, old| key == "time" || new == old)
            }
            (new, old) => new == old,
        })
}

/// The finalizers of an object.
pub(crate) fn finalizers(object: &Object) -> Vec<String> {
    object
        .at("metadata.finalizers")
        .items()
        .map(|item| item.str().to_owned())
        .collect()
}

/// Replaces the finalizers; none removes the field.
pub(crate) fn set_finalizers(object: &mut Object, finalizers: &[String]) {
    if finalizers.is_empty() {
        object.metadata_mut().shift_remove("finalizers");
    } else {
        object
            .metadata_mut()
            .insert("finalizers".to_owned(), json!(finalizers));
    }
    order(object);
}

/// Marks an object as being deleted.
pub(crate) fn set_deletion(object: &mut Object, when: Value, grace: Option<i64>) {
    object
        .metadata_mut()
        .insert("deletionTimestamp".to_owned(), when);
    if let Some(seconds) = grace {
        object
            .metadata_mut()
            .insert("deletionGracePeriodSeconds".to_owned(), seconds.into());
    }
    order(object);
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::Registry;

    fn object(value: Value) -> Object {
        Object::from_value(value).expect("an object")
    }

    fn config_maps() -> &'static Resource {
        Registry::builtin()
            .by_plural("", "v1", "configmaps")
            .expect("config maps are served")
    }

    fn findings(value: Value) -> Vec<String> {
        let mut errors = FieldErrors::default();
        validate(&object(value), config_maps(), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn new_objects_get_an_identity_and_lose_what_clients_may_not_set() {
        let mut new = object(
            json!({"metadata": {"generateName": "g-", "selfLink": "/x", "deletionTimestamp": "x"}}),
        );
        prepare_create(&mut new, config_maps(), "kt", &Clock::fake(1));
        assert!(new.name().starts_with("g-") && new.name().len() == 7);
        assert_eq!((new.namespace(), new.uid().len()), ("kt", 36));
        assert!(!new.is_terminating() && !new.at("metadata.selfLink").exists());
        assert_eq!(new.metadata("creationTimestamp"), "2030-01-01T00:00:00Z");
    }

    #[test]
    fn findings_are_worded_as_upstream_words_them() {
        assert_eq!(
            findings(json!({})),
            ["metadata.name: Required value: name or generateName is required"]
        );
        assert_eq!(
            findings(json!({"metadata": {"name": "x", "finalizers": ["plain"]}})),
            [
                "metadata.finalizers[0]: Invalid value: \"plain\": name is neither a standard finalizer name nor is it fully qualified"
            ]
        );
        assert_eq!(
            findings(
                json!({"metadata": {"name": "x", "ownerReferences": [{"apiVersion": "v1", "name": "p", "uid": "1"}]}})
            ),
            ["metadata.ownerReferences.kind: Invalid value: \"\": must not be empty"]
        );
    }

    #[test]
    fn identity_cannot_be_changed() {
        let old = object(json!({"metadata": {"name": "x", "uid": "1", "creationTimestamp": "t"}}));
        let mut new =
            object(json!({"metadata": {"name": "x", "uid": "2", "creationTimestamp": "u"}}));
        prepare_update(&mut new, &old);
        let mut errors = FieldErrors::default();
        validate_update(&new, &old, &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            ["metadata.uid: Invalid value: \"2\": field is immutable"]
        );
        assert_eq!(new.metadata("creationTimestamp"), "t");
    }
}
