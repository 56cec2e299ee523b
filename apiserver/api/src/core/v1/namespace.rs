//! Namespace: a scope for names, deleted with everything in it.

use coracle_clock::Timestamp;
use serde_json::{Value, json};

use crate::kinds::{AGE, Column, FINALIZE, NAME, NameRule, STATUS, Storage, age};
use crate::object::default_text;
use crate::validation::names;
use crate::{At, FieldErrors, Object, Resource, Strategy};

/// What holds a Namespace until everything in it is gone.
pub const FINALIZER: &str = "kubernetes";

/// The finalizers whose names need no domain.
const STANDARD_FINALIZERS: [&str; 3] = [FINALIZER, "orphan", "foregroundDeletion"];

/// What the pipeline knows of namespaces.
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    categories: &[],
    namespaced: false,
    verbs: &[
        "create", "delete", "get", "list", "patch", "update", "watch",
    ],
    subresources: &[FINALIZE, STATUS],
    columns: COLUMNS,
    name_rule: NameRule::Label,
    generation: false,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &Namespace,
};

/// Namespace: a scope for names, deleted with everything in it.
pub struct Namespace;

impl Strategy for Namespace {
    fn default(&self, object: &mut Object) {
        label_with_name(object);
        default_text(object.map_mut("status"), "phase", "Active");
    }

    fn prepare_for_create(&self, new: &mut Object) {
        // Only now is a generated name there.
        label_with_name(new);
        new.set("status", json!({"phase": "Active"}));
        let finalizers = new
            .map_mut("spec")
            .entry("finalizers")
            .or_insert_with(|| json!([]));
        match finalizers.as_array_mut() {
            Some(list) if !list.contains(&json!(FINALIZER)) => list.push(json!(FINALIZER)),
            Some(_) => {}
            None => *finalizers = json!([FINALIZER]),
        }
    }

    fn prepare_for_update(&self, new: &mut Object, old: &Object) {
        // `finalize` is the only way to change them.
        match old.at("spec.finalizers").value() {
            Some(finalizers) => new.set("spec.finalizers", finalizers.clone()),
            None => drop(new.remove("spec.finalizers")),
        }
    }

    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let finalizers = new.at("spec.finalizers");
        for finalizer in finalizers.items() {
            // Upstream does not say here which one it is.
            validate_finalizer(&At::maybe(finalizer.value(), finalizers.path()), errors);
        }
    }

    fn validate_subresource_update(
        &self,
        _subresource: &str,
        new: &Object,
        _old: &Object,
        errors: &mut FieldErrors,
    ) {
        for finalizer in new.at("spec.finalizers").items() {
            validate_finalizer(&finalizer, errors);
        }
    }

    fn validate_status_update(&self, new: &Object, _old: &Object, errors: &mut FieldErrors) {
        let phase = At::maybe(new.at("status.phase").value(), "status.Phase");
        if new.is_terminating() && phase.str() != "Terminating" {
            errors.invalid(
                &phase,
                "may only be 'Terminating' if `deletionTimestamp` is not empty",
            );
        }
        if !new.is_terminating() && phase.str() != "Active" {
            errors.invalid(
                &phase,
                "may only be 'Active' if `deletionTimestamp` is empty",
            );
        }
    }

    fn selectable_fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        vec![("status.phase", object.at("status.phase").str().to_owned())]
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![
            object.name().into(),
            object.at("status.phase").str().into(),
            age(object, now),
        ]
    }
}

fn validate_finalizer(finalizer: &At<'_>, errors: &mut FieldErrors) {
    errors.text(finalizer, names::qualified_name);
    if !finalizer.str().contains('/') && !STANDARD_FINALIZERS.contains(&finalizer.str()) {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        errors.invalid(finalizer, detail);
    }
}

/// Every Namespace can be selected by its name.
fn label_with_name(object: &mut Object) {
    let name = object.name().to_owned();
    if !name.is_empty() {
        object
            .map_mut("metadata.labels")
            .insert("kubernetes.io/metadata.name".to_owned(), name.into());
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string("Status", "The status of the namespace"),
    AGE,
];
