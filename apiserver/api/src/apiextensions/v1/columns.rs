//! What refers into objects of the kind by path: columns, the scale subresource, selectable fields.

use serde_json::Value;

use crate::{At, FieldErrors};

const TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];
const FORMATS: &[&str] = &[
    "byte",
    "date",
    "date-time",
    "double",
    "float",
    "int32",
    "int64",
    "password",
];
/// Most fields of a kind that selectors may name.
const MOST_SELECTABLE: usize = 8;

/// A path such as `.spec.replicas`; whether it is one.
fn simple_path(at: &At<'_>, errors: &mut FieldErrors) -> bool {
    match at.str() {
        "" => errors.invalid(at, "must not be empty"),
        path if !path.starts_with('.') => {
            errors.invalid(at, "must be a simple json path starting with .");
        }
        _ => return true,
    }
    false
}

/// Columns that `kubectl get` prints; the field of the path has another name in upstream's own type.
pub(super) fn printed(at: &At<'_>, errors: &mut FieldErrors) {
    for column in at.items() {
        if column.key("name").is_empty() {
            errors.required(&column.key("name"), "");
        }
        let (kind, format) = (column.key("type"), column.key("format"));
        if kind.is_empty() {
            errors.required(&kind, format!("must be one of {}", TYPES.join(",")));
        } else if !TYPES.contains(&kind.str()) {
            errors.invalid(&kind, format!("must be one of {}", TYPES.join(",")));
        }
        if !format.is_empty() && !FORMATS.contains(&format.str()) {
            errors.invalid(&format, format!("must be one of {}", FORMATS.join(",")));
        }
        let path = At::maybe(
            column.key("jsonPath").value(),
            column.key("JSONPath").path(),
        );
        if path.is_empty() {
            errors.required(&path, "");
        } else {
            simple_path(&path, errors);
        }
    }
}

/// Where `scale` finds its numbers.
pub(super) fn subresources(at: &At<'_>, errors: &mut FieldErrors) {
    let scale = at.key("scale");
    if !scale.exists() {
        return;
    }
    for (field, under) in [
        ("specReplicasPath", ".spec"),
        ("statusReplicasPath", ".status"),
    ] {
        let path = scale.key(field);
        if path.is_empty() {
            errors.required(&path, "");
        } else if simple_path(&path, errors) && !path.str().starts_with(&format!("{under}.")) {
            errors.invalid(&path, format!("should be a json path under {under}"));
        }
    }
    let selector = scale.key("labelSelectorPath");
    let known = [".spec.", ".status."];
    if !selector.is_empty()
        && simple_path(&selector, errors)
        && !known
            .iter()
            .any(|prefix| selector.str().starts_with(prefix))
    {
        errors.invalid(
            &selector,
            "should be a json path under either .spec or .status",
        );
    }
}

/// Fields that selectors may name, in the schema `root`.
pub(super) fn selectable(at: &At<'_>, root: &At<'_>, errors: &mut FieldErrors) {
    if at.is_empty() {
        return;
    }
    if !root.exists() {
        let detail = "may only be set when `version.schema.openAPIV3Schema` is not included";
        let shown = Value::from("");
        errors.invalid(&At::root(&shown, at.path()), detail);
        return;
    }
    let mut seen: Vec<&str> = Vec::new();
    for field in at.items() {
        let path = field.key("jsonPath");
        if path.is_empty() {
            errors.required(&path, "");
            continue;
        }
        let mut place = Some(root.clone());
        for segment in path.str().trim_start_matches('.').split('.') {
            place = place
                .map(|place| place.key("properties").key(segment))
                .filter(At::exists);
        }
        let Some(place) = place.filter(|_| path.str().starts_with('.')) else {
            errors.invalid(&path, "is an invalid path: does not refer to a valid field");
            continue;
        };
        if path.str().starts_with(".metadata.") {
            errors.invalid(&path, "must not point to fields in metadata");
        }
        if !matches!(place.key("type").str(), "string" | "boolean" | "integer") {
            errors.invalid(
                &path,
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats \
                 are allowed.",
            );
        }
        if seen.contains(&path.str()) {
            errors.duplicate(&path);
        }
        seen.push(path.str());
    }
    if seen.len() > MOST_SELECTABLE {
        errors.too_many(at, MOST_SELECTABLE);
    }
}
