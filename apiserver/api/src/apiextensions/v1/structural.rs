//! Structural schemas: every field has one type, and says it outside of `allOf`, `anyOf`, `oneOf` and `not`.

use serde_json::{Map, Value, json};

use crate::field_errors::ErrorType;
use crate::{At, FieldErrors};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Reports where a schema is not structural; `true` when it is not. A schema with what OpenAPI's part refuses is no
/// structural one anyway, and not looked at.
pub(super) fn check(root: &At<'_>, errors: &mut FieldErrors) -> bool {
    let mut found = FieldErrors::default();
    if !convertible(root) {
        return false;
    }
    invariants(root, Level::Root, &mut found);
    let mut sorted: Vec<_> = found.iter().cloned().collect();
    sorted.sort_by_cached_key(ToString::to_string);
    for error in &sorted {
        let (field, detail) = (error.field.as_str(), error.detail.as_str());
        errors.push(error.kind, field, error.value.clone(), detail);
    }
    !sorted.is_empty()
}

fn convertible(at: &At<'_>) -> bool {
    let items = at.key("items");
    let several = items.value().is_some_and(Value::is_array) && !items.is_empty();
    let mut fine = !several && !at.key("$ref").exists();
    super::schema::below(at, &mut |schema| fine &= convertible(schema));
    fine
}

fn invariants(at: &At<'_>, level: Level, errors: &mut FieldErrors) {
    let kind = at.key("type");
    let flag = |name: &str| at.key(name).is_true();
    let items = at.key("items");
    if items.value().is_some_and(Value::is_object) {
        invariants(&items, Level::Item, errors);
    }
    let properties = at.key("properties");
    for (_, property) in properties.entries() {
        invariants(&property, Level::Field, errors);
    }
    let more = at.key("additionalProperties");
    if more.exists() && level == Level::Root {
        errors.forbidden(&more, "must not be used at the root");
    }
    if more.value().is_some_and(Value::is_object) {
        invariants(&more, Level::Field, errors);
    }
    value_validation(at, errors);
    let (embedded, keep) = (
        flag("x-kubernetes-embedded-resource"),
        flag("x-kubernetes-preserve-unknown-fields"),
    );
    let int_or_string = flag("x-kubernetes-int-or-string");
    if embedded && kind.str() != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        match kind.is_empty() {
            true => errors.required(&kind, detail),
            false => errors.invalid(&kind, detail),
        }
    } else if kind.is_empty() && !int_or_string && !keep {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.required(&kind, detail);
    }
    if int_or_string && !kind.is_empty() {
        errors.forbidden(&kind, "must be empty if x-kubernetes-int-or-string is true");
    }
    if embedded && more.exists() {
        errors.forbidden(
            &more,
            "must not be used if x-kubernetes-embedded-resource is set",
        );
    }
    if level == Level::Root && !kind.is_empty() && kind.str() != "object" {
        errors.invalid(&kind, "must be object at the root");
    }
    if kind.str() == "array" && !items.value().is_some_and(Value::is_object) {
        errors.required(&items, "must be specified");
    }
    if level == Level::Root || embedded {
        for name in ["kind", "apiVersion"] {
            let property = properties.entry(name);
            if property.exists() && property.key("type").str() != "string" {
                errors.invalid(&property.key("type"), "must be string");
            }
        }
        metadata(&properties.entry("metadata"), level, errors);
    }
    if embedded && !keep && properties.is_empty() {
        errors.required(
            &properties,
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        );
    }
}

/// The metadata of an object is Kubernetes' business, but for the two fields that name it.
fn metadata(at: &At<'_>, level: Level, errors: &mut FieldErrors) {
    if !at.exists() {
        return;
    }
    let kind = at.key("type");
    if kind.str() != "object" {
        errors.invalid(&kind, "must be object");
    }
    let said = at.value().and_then(Value::as_object).is_some_and(|map| {
        map.iter().any(|(field, value)| match field.as_str() {
            "type" | "description" => false,
            "properties" => value.as_object().is_some_and(|properties| {
                properties
                    .keys()
                    .any(|name| name != "name" && name != "generateName")
            }),
            _ => !At::root(value, "").is_empty(),
        })
    });
    if level == Level::Root && said {
        errors.forbidden(
            at,
            "must not specify anything other than name and generateName, but metadata is implicitly specified",
        );
    }
}

/// Inside `allOf` and its like only values are judged.
fn value_validation(at: &At<'_>, errors: &mut FieldErrors) {
    let int_or_string = at.key("x-kubernetes-int-or-string").is_true();
    for field in ["allOf", "anyOf", "oneOf"] {
        let list = at.key(field);
        if int_or_string && field == "anyOf" && is_either(&list) {
            continue;
        }
        for schema in list.items() {
            let first = int_or_string
                && field == "allOf"
                && is_either(&schema.key("anyOf"))
                && schema.value().and_then(Value::as_object).map(Map::len) == Some(1);
            if !first {
                nested(&schema, errors);
            }
        }
    }
    if at.key("not").exists() {
        nested(&at.key("not"), errors);
    }
}

/// The one pattern in which types may stand there: an integer or a string.
fn is_either(list: &At<'_>) -> bool {
    list.value() == Some(&json!([{"type": "integer"}, {"type": "string"}]))
}

fn nested(at: &At<'_>, errors: &mut FieldErrors) {
    const EMPTY: &[&str] = &["type", "title", "description"];
    const UNDEFINED: &[&str] = &["default", "additionalProperties"];
    const FALSE: &[&str] = &[
        "nullable",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-embedded-resource",
        "x-kubernetes-int-or-string",
    ];
    let groups = [
        (EMPTY, "must be empty to be structural"),
        (UNDEFINED, "must be undefined to be structural"),
        (FALSE, "must be false to be structural"),
    ];
    for (fields, detail) in groups {
        for field in fields {
            let place = at.key(field);
            if !place.is_empty() {
                errors.forbidden(&place, detail);
            }
        }
    }
    if at.key("items").value().is_some_and(Value::is_object) {
        nested(&at.key("items"), errors);
    }
    let properties = at.key("properties");
    for (_, property) in properties.entries() {
        nested(&property, errors);
    }
    value_validation(at, errors);
}

/// Reports defaults of another type than the schema's, and those that are not among the values that it lists.
pub(super) fn defaults(at: &At<'_>, errors: &mut FieldErrors) {
    let (default, listed) = (at.key("default"), at.key("enum"));
    if let Some(value) = default.value() {
        if let Some(wanted) = another_type(at, value) {
            // Upstream names the place within the value before this, and a default is the whole of it.
            let found = type_of(value);
            let detail = format!(" in body must be of type {wanted}: {found:?}");
            let shown = Some(Value::from(found));
            errors.push(ErrorType::Invalid, default.path(), shown, detail);
        }
        let list = listed.value().and_then(Value::as_array);
        if let Some(list) = list.filter(|list| !list.is_empty() && !list.contains(value)) {
            let quoted = |listed: &Value| match listed {
                Value::String(text) => format!("{text:?}"),
                other => format!("{:?}", other.to_string()),
            };
            let supported: Vec<String> = list.iter().map(quoted).collect();
            let detail = format!("supported values: {}", supported.join(", "));
            let shown = Some(value.clone());
            errors.push(ErrorType::NotSupported, default.path(), shown, detail);
        }
    }
    super::schema::below(at, &mut |schema| defaults(schema, errors));
}

/// The type that a value should have, if it has another one.
fn another_type(schema: &At<'_>, value: &Value) -> Option<&'static str> {
    let wanted = match schema.key("type").as_str() {
        _ if schema.key("x-kubernetes-int-or-string").is_true() => "integer,string",
        Some("array") => "array",
        Some("boolean") => "boolean",
        Some("integer") => "integer",
        Some("number") => "number",
        Some("object") => "object",
        Some("string") => "string",
        // No type, or none that there is, which is reported elsewhere.
        _ => return None,
    };
    let fits = |found: &str| wanted.split(',').any(|wanted| wanted == found);
    let found = type_of(value);
    (!(fits(found) || found == "integer" && fits("number"))).then_some(wanted)
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
