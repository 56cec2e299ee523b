//! Version v1 of the group.

pub mod csi_driver;
pub mod csi_node;
pub mod csi_storage_capacity;
pub mod storage_class;
pub mod volume_attachment;
pub mod volume_attributes_class;

#[cfg(test)]
mod tests;

use crate::field_errors::ErrorType;
use crate::validation::names;
use crate::{At, FieldErrors, Object};

/// Most parameters that a class may have, and most bytes of all of them together.
const MOST_PARAMETERS: usize = 512;
const MOST_PARAMETER_BYTES: usize = 256 * 1024;

/// Reports what is wrong with the name of what makes or changes volumes.
fn driver(at: &At<'_>, errors: &mut FieldErrors) {
    if at.is_empty() {
        return errors.required(at, "");
    }
    for message in names::qualified_name(&at.str().to_lowercase()) {
        errors.invalid_as(at, at.str().to_lowercase().into(), message);
    }
}

/// Reports what is wrong with the name of a CSI driver.
fn csi_driver_name(at: &At<'_>, errors: &mut FieldErrors) {
    let name = at.str();
    if name.is_empty() {
        return errors.required(at, "");
    }
    if name.len() > 63 {
        errors.too_long(at, 63);
    }
    for message in names::dns1123_subdomain(&name.to_lowercase()) {
        errors.invalid_as(at, name.into(), message);
    }
}

/// Reports what is wrong with the parameters of a class, which only its driver understands.
fn parameters(at: &At<'_>, errors: &mut FieldErrors) {
    if at.len() > MOST_PARAMETERS {
        return errors.too_long(at, MOST_PARAMETERS);
    }
    let mut bytes = 0;
    for (key, value) in at.entries() {
        if key.is_empty() {
            errors.push(
                ErrorType::Invalid,
                at.path(),
                Some(key.into()),
                "field can not be empty.",
            );
        }
        bytes += key.len() + value.str().len();
    }
    if bytes > MOST_PARAMETER_BYTES {
        errors.too_long(at, MOST_PARAMETER_BYTES);
    }
}

/// Reports each of `fields` that an update changes; an empty value is the same as none.
fn forbid_updates(new: &Object, old: &Object, fields: &[&str], errors: &mut FieldErrors) {
    for field in fields {
        let (now, before) = (new.at(field), old.at(field));
        let both_empty = now.is_empty() && before.is_empty();
        if !both_empty && now.value() != before.value() {
            errors.forbidden(&now, format!("updates to {field} are forbidden."));
        }
    }
}
