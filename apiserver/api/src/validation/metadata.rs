//! Labels and annotations, of objects and of pod templates.

use serde_json::Value;

use super::names;
use crate::field_errors::ErrorType;
use crate::{At, FieldErrors};

/// Most bytes that all annotations of an object may have together.
const MOST_ANNOTATION_BYTES: usize = 256 * 1024;

/// Reports label keys and values that are not legal; findings name the map, not the entry.
pub fn labels(at: &At<'_>, errors: &mut FieldErrors) {
    for (key, value) in at.entries() {
        for message in names::qualified_name(key) {
            errors.push(
                ErrorType::Invalid,
                at.path(),
                Some(Value::from(key)),
                message,
            );
        }
        for message in names::label_value(value.str()) {
            errors.push(
                ErrorType::Invalid,
                at.path(),
                Some(Value::from(value.str())),
                message,
            );
        }
    }
}

/// Reports annotation keys that are not legal, and annotations that are too large together.
pub fn annotations(at: &At<'_>, errors: &mut FieldErrors) {
    let mut bytes = 0;
    for (key, value) in at.entries() {
        // Upstream checks the lower-cased key: upper case is fine in annotations' prefixes.
        for message in names::qualified_name(&key.to_lowercase()) {
            errors.push(
                ErrorType::Invalid,
                at.path(),
                Some(Value::from(key)),
                message,
            );
        }
        bytes += key.len() + value.str().len();
    }
    if bytes > MOST_ANNOTATION_BYTES {
        let detail = format!("may not be more than {MOST_ANNOTATION_BYTES} bytes");
        errors.push(ErrorType::TooLong, at.path(), None, detail);
    }
}
