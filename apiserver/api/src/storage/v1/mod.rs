//! Version v1 of the group.

pub mod storage_class;

#[cfg(test)]
mod tests;

use crate::{At, FieldErrors};

/// Most parameters that a class may have, and most bytes of all of them together.
const MOST_PARAMETERS: usize = 512;
const MOST_PARAMETER_BYTES: usize = 256 * 1024;

/// Reports what is wrong with the parameters of a class, which only its driver understands.
fn parameters(at: &At<'_>, errors: &mut FieldErrors) {
    if at.len() > MOST_PARAMETERS {
        return errors.too_long(at, MOST_PARAMETERS);
    }
    let mut bytes = 0;
    for (key, value) in at.entries() {
        if key.is_empty() {
            let kind = crate::field_errors::ErrorType::Invalid;
            errors.push(kind, at.path(), Some(key.into()), "field can not be empty.");
        }
        bytes += key.len() + value.str().len();
    }
    if bytes > MOST_PARAMETER_BYTES {
        errors.too_long(at, MOST_PARAMETER_BYTES);
    }
}
