//! What one kind adds to the generic request pipeline.
//!
//! ```text
//! create: decode ▶ schema defaults ▶ default ▶ prepare_for_create ▶ validate ▶ (admission, allocation) ▶ store
//! update: decode ▶ schema defaults ▶ default ▶ prepare_for_update ▶ validate_replacement ▶ store
//! status: decode ▶ schema defaults ▶ default ▶ prepare_for_status_update ▶ validate_status_update ▶ store
//! ```
//!
//! The order and the meaning of the steps follow `k8s.io/apiserver/pkg/registry/rest`.

use coracle_clock::Timestamp;
use serde_json::{Map, Value};

use crate::{FieldErrors, Object};

/// Who asks, and when: what [`Strategy::record_request`] may write down.
#[derive(Clone, Copy, Debug)]
pub struct Requester<'a> {
    /// User name.
    pub user: &'a str,
    /// Stable identifier of the user; mostly empty.
    pub uid: &'a str,
    /// Groups.
    pub groups: &'a [String],
    /// Further facts about the user.
    pub extra: &'a [(String, Vec<String>)],
    /// The time of the request, in whole seconds as RFC 3339.
    pub now: &'a str,
    /// The name of the subresource that is written, or empty.
    pub subresource: &'a str,
}

/// The metadata that upstream's `ResetObjectMetaForStatus` puts back.
pub const ALL_METADATA: &[&str] = &[
    "deletionTimestamp",
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
];

/// The rules of one kind. Every method has a default that fits a kind without rules.
///
/// Generic rules are not repeated here: names, labels, annotations, owner references, finalizers,
/// immutable metadata, `metadata.generation` and the split of `spec` and `status` are the
/// pipeline's, driven by the [`Resource`](crate::Resource) descriptor.
pub trait Strategy: Send + Sync + 'static {
    /// Fills in the values that the schema table cannot express, such as those that depend on
    /// another field. Runs on every decode of a write, after the schema's own defaults.
    fn default(&self, _object: &mut Object) {}

    /// What is warned of in a new object as it was given, before anything is cleared or set.
    fn early_warnings(&self, _new: &Object) -> Vec<String> {
        Vec::new()
    }

    /// Clears what a client may not set and sets what a new object starts with.
    fn prepare_for_create(&self, _new: &mut Object) {}

    /// Restores what an update may not change silently.
    fn prepare_for_update(&self, _new: &mut Object, _old: &Object) {}

    /// Whether an update of the object itself takes over its status, too, although there is a status subresource. Upstream
    /// puts the old one back in all kinds but one.
    fn main_takes_status(&self) -> bool {
        false
    }

    /// Fields of the metadata that an update of the status subresource leaves as they were. Upstream has no rule for all
    /// kinds: most let go through what comes with a status.
    fn status_metadata(&self) -> &'static [&'static str] {
        &[]
    }

    /// Restores what an update of the status subresource may not touch; the pipeline has already
    /// put back everything but `status` and the metadata that may change with it.
    fn prepare_for_status_update(&self, _new: &mut Object, _old: &Object) {}

    /// Restores what an update of another subresource, such as `approval`, may not touch; the pipeline has already put
    /// back everything but `status` and metadata.
    fn prepare_for_subresource_update(&self, _subresource: &str, _new: &mut Object, _old: &Object) {
    }

    /// Records who asks, and when, in the few kinds that keep it; runs after the `prepare` methods on every write.
    fn record_request(&self, _new: &mut Object, _old: Option<&Object>, _request: &Requester<'_>) {}

    /// Whether the kind's own rules look at the metadata. Where they do not, as upstream's for a few kinds, findings
    /// about the metadata of a new object are reported only when there are no others.
    fn validates_metadata(&self) -> bool {
        true
    }

    /// What fills in what reading an object from the store fills in, because it was created without, and says whether that
    /// was anything; for the few kinds that have such a thing. Until the object is written again, an update is a change even
    /// if it says nothing new.
    fn read_back(&self) -> Option<fn(&mut Object) -> bool> {
        None
    }

    /// Whether an empty list or map counts as a change of what was absent. Upstream compares most kinds so that the two
    /// are the same, but a few as Go sees them.
    fn empty_is_change(&self) -> bool {
        false
    }

    /// Reports what is wrong with an object by itself.
    fn validate(&self, _new: &Object, _errors: &mut FieldErrors) {}

    /// Reports what is wrong with a new object only; [`validate`](Self::validate) has run on it before.
    fn validate_create(&self, _new: &Object, _errors: &mut FieldErrors) {}

    /// Reports what is wrong with a change; [`validate`](Self::validate) has run on `new` before.
    fn validate_update(&self, _new: &Object, _old: &Object, _errors: &mut FieldErrors) {}

    /// Reports what is wrong with an update as a whole: the object by itself, then the change. Kinds whose
    /// findings come in another order, or whose new objects have stricter rules, have their own.
    fn validate_replacement(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        self.validate(new, errors);
        self.validate_update(new, old, errors);
    }

    /// Reports what is wrong with a change of the status subresource.
    fn validate_status_update(&self, _new: &Object, _old: &Object, _errors: &mut FieldErrors) {}

    /// Reports what is wrong with a change of another subresource, such as `approval`.
    fn validate_subresource_update(
        &self,
        _subresource: &str,
        _new: &Object,
        _old: &Object,
        _errors: &mut FieldErrors,
    ) {
    }

    /// The object in the stored version, when this one is served from another's storage
    /// ([`Storage::SharedWith`](crate::kinds::Storage)). All rules but defaults are then those of the stored version.
    fn to_stored(&self, object: Object) -> Object {
        object
    }

    /// The object in this version, from the stored one.
    fn to_served(&self, object: Object) -> Object {
        object
    }

    /// Reports what this served version asks beyond the rules of the stored one; both objects are in stored form.
    fn validate_served(&self, _new: &Object, _old: Option<&Object>, _errors: &mut FieldErrors) {}

    /// Why the object of this name may never be deleted by its name, if so.
    fn refuse_deletion(&self, _name: &str) -> Option<&'static str> {
        None
    }

    /// Texts for `Warning` headers about an accepted object.
    fn warnings(&self, _new: &Object, _old: Option<&Object>) -> Vec<String> {
        Vec::new()
    }

    /// Fields that field selectors may name, besides `metadata.name` and `metadata.namespace`.
    fn selectable_fields(&self, _object: &Object) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// What to say of a field that selectors may not name, for kinds with [`selectable_fields`](Self::selectable_fields).
    fn unknown_field(&self, field: &str) -> String {
        format!("field label not supported: {field}")
    }

    /// The cells of a table row, in the order of the descriptor's columns. `now` is for ages.
    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        vec![Value::from(object.name()), crate::kinds::age(object, now)]
    }

    /// Takes out of the metadata what is shown with the whole object only.
    fn metadata_form(&self, _metadata: &mut Map<String, Value>) {}

    /// Conditions of the table row, such as `Completed` for what has ended.
    fn row_conditions(&self, _object: &Object) -> Vec<Value> {
        Vec::new()
    }

    /// Whether a deletion that doesn't say what becomes of the dependents leaves them.
    fn orphans_by_default(&self) -> bool {
        false
    }

    /// The text of a `Warning` header about a deletion that doesn't say what becomes of the dependents.
    fn deletion_warning(&self) -> Option<&'static str> {
        None
    }

    /// The grace period in seconds of a deletion, when the kind is deleted gracefully.
    /// `requested` is what the client asked for. `None` deletes at once.
    fn grace_period_seconds(&self, _object: &Object, _requested: Option<i64>) -> Option<i64> {
        None
    }
}
