//! Selectors: which objects a request, a Service or a controller means, by labels or by fields.
//!
//! Texts are parsed, and refused, as upstream's parsers do; a selector's display form parses to the same selector.
//! Which fields of a kind may be selected by isn't known here.

mod field;
mod label;
mod parser;

pub use field::{FieldRequirement, FieldSelector};
pub use label::{LabelSelector, Operator, Requirement};

/// A selector that can't be understood; displayed in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub(crate) String);

#[cfg(test)]
mod tests;
