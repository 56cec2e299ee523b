//! Version v1 of the group.

pub mod ingress;
pub mod ingress_class;
pub mod ip_address;
pub mod network_policy;
pub mod service_cidr;

#[cfg(test)]
mod tests;

use crate::validation::names;
use crate::{At, FieldErrors};

/// Reports a text that is missing or cannot stand in a path.
fn segment(at: &At<'_>, errors: &mut FieldErrors) {
    if at.is_empty() {
        errors.required(at, "");
    } else {
        errors.text(at, |text| names::path_segment(text, false));
    }
}
