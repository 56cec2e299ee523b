//! What a file may have in it.

use serde_json::Value;

/// The form of a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// Text.
    Text,
    /// `true` or `false`.
    Bool,
    /// An object with these fields.
    Object(&'static [(&'static str, Shape)]),
    /// A list of such values.
    List(&'static Shape),
}

/// Adds fields that the form does not have to `strict`; a value of a wrong type is an error.
pub(super) fn check(
    value: &Value,
    fields: &[(&str, Shape)],
    strict: &mut Vec<String>,
) -> Result<(), String> {
    object(value, fields, "", strict)
}

fn object(
    value: &Value,
    fields: &[(&str, Shape)],
    path: &str,
    strict: &mut Vec<String>,
) -> Result<(), String> {
    let Value::Object(map) = value else {
        return Err(mismatch(value, path, "an object"));
    };
    for (name, value) in map {
        let at = match path {
            "" => name.clone(),
            path => format!("{path}.{name}"),
        };
        match fields.iter().find(|(known, _)| known == name) {
            Some((_, shape)) => one(value, *shape, &at, strict)?,
            None => strict.push(format!("unknown field \"{at}\"")),
        }
    }
    Ok(())
}

fn one(value: &Value, shape: Shape, path: &str, strict: &mut Vec<String>) -> Result<(), String> {
    match (shape, value) {
        (_, Value::Null) => Ok(()),
        (Shape::Text, Value::String(_)) | (Shape::Bool, Value::Bool(_)) => Ok(()),
        (Shape::Object(fields), value) => object(value, fields, path, strict),
        (Shape::List(item), Value::Array(items)) => {
            let mut items = items.iter().enumerate();
            items.try_for_each(|(index, value)| {
                one(value, *item, &format!("{path}[{index}]"), strict)
            })
        }
        (Shape::Text, _) => Err(mismatch(value, path, "a string")),
        (Shape::Bool, _) => Err(mismatch(value, path, "a boolean")),
        (Shape::List(_), _) => Err(mismatch(value, path, "a list")),
    }
}

fn mismatch(value: &Value, path: &str, wanted: &str) -> String {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    match path {
        "" => format!("cannot read a {found} as {wanted}"),
        path => format!("{path}: cannot read a {found} as {wanted}"),
    }
}
