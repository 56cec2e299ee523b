//! Server-side apply: who owns which fields of an object, and what an applied configuration makes of it.
//!
//! ```text
//! create, update, patch ──▶ FieldManager::update ─▶ compare(old, new) ─▶ the manager owns what changed
//! apply                 ──▶ FieldManager::apply  ─▶ merge(live, config) ─▶ drop what nobody wants any more
//!                                                   ─▶ conflicts with other managers, or theirs by force
//! ```
//!
//! Everything is a function of the live object, the request and the schema: [`FieldSet`] is a set of paths with the form
//! that `fieldsV1` has; the walks follow `sigs.k8s.io/structured-merge-diff`, the bookkeeping follows
//! `k8s.io/apimachinery/pkg/util/managedfields`, both in behaviour and in words. Objects are of one version: ownership
//! under other versions of a kind is kept as it is, but not converted.

mod check;
mod element;
mod entries;
mod error;
mod manager;
mod merge;
mod prune;
mod set;
mod walk;
mod writable;

pub use element::Element;
pub use error::{ApplyError, Conflict};
pub use manager::{Applied, FieldManager};
pub use set::{FieldSet, FieldsError};

/// The annotation in which `kubectl apply` without server-side apply keeps what was applied last.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

#[cfg(test)]
mod tests;
