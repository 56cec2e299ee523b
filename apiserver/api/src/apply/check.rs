//! Whether a configuration fits the schema, in the words of `structured-merge-diff`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

use super::element::Element;
use super::walk::elem;
use crate::schema::{ListType, SchemaKind, SchemaRef};

/// How many findings are reported at most.
const MAX_FINDINGS: usize = 100;

/// Checks a configuration; the error lists all findings as upstream does.
pub(super) fn check(config: &Value, schema: &SchemaRef) -> Result<(), String> {
    let mut checker = Checker {
        path: String::new(),
        findings: Vec::new(),
    };
    checker.value(config, schema);
    match &checker.findings[..] {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

struct Checker {
    path: String,
    findings: Vec<String>,
}

impl Checker {
    fn report(&mut self, what: String) {
        if self.findings.len() < MAX_FINDINGS {
            let path = if self.path.is_empty() { "" } else { &self.path };
            let colon = if path.is_empty() { "" } else { ": " };
            self.findings.push(format!("{path}{colon}{what}"));
        }
    }

    fn below(&mut self, step: &Element, value: &Value, schema: &SchemaRef) {
        let length = self.path.len();
        write!(self.path, "{step}").expect("writing to a string works");
        self.value(value, schema);
        self.path.truncate(length);
    }

    fn value(&mut self, value: &Value, schema: &SchemaRef) {
        if value.is_null() {
            return;
        }
        match schema.kind() {
            SchemaKind::String | SchemaKind::Bytes | SchemaKind::Duration if !value.is_string() => {
                let shown = go_syntax(value);
                self.report(format!(
                    "expected string, got &value.valueUnstructured{{Value:{shown}}}"
                ));
            }
            SchemaKind::Bool if !value.is_boolean() => {
                self.report(format!("expected boolean, got {value}"));
            }
            SchemaKind::Int32 | SchemaKind::Int64 | SchemaKind::Double if !value.is_number() => {
                self.report(format!(
                    "expected numeric (int or float), got {}",
                    go_type(value)
                ));
            }
            SchemaKind::Quantity
            | SchemaKind::IntOrString
            | SchemaKind::Time
            | SchemaKind::MicroTime
                if value.is_array() || value.is_object() =>
            {
                self.report(format!("expected any scalar, got {value}"));
            }
            SchemaKind::List => self.list(value, schema),
            SchemaKind::Map => match value {
                Value::Object(map) => {
                    let elem = elem(schema);
                    for (key, value) in map {
                        self.below(&Element::field(key), value, &elem);
                    }
                }
                other => self.report(format!("expected map, got {other}")),
            },
            SchemaKind::Struct => match value {
                Value::Object(map) => {
                    for (key, value) in map {
                        let step = Element::field(key);
                        match schema.field(key) {
                            Some(field) => self.below(&step, value, &field.schema()),
                            None if schema.preserves_unknown() => {}
                            None => {
                                let length = self.path.len();
                                write!(self.path, "{step}").expect("writing to a string works");
                                self.report("field not declared in schema".to_owned());
                                self.path.truncate(length);
                            }
                        }
                    }
                }
                other => self.report(format!("expected map, got {other}")),
            },
            _ => {}
        }
    }

    fn list(&mut self, value: &Value, schema: &SchemaRef) {
        let Value::Array(items) = value else {
            return self.report(format!("expected list, got {value}"));
        };
        let elem = elem(schema);
        let mut seen = BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            let step = match schema.list_type() {
                ListType::Atomic => Element::Index(index as i64),
                _ => match Element::of_item(item, schema) {
                    Ok(step) => step,
                    Err(error) => {
                        self.report(format!("element {index}: {error}"));
                        return;
                    }
                },
            };
            self.below(&step, item, &elem);
            if !seen.insert(step.clone()) {
                self.report(format!("duplicate entries for key {step}"));
            }
        }
    }
}

/// A value as Go's `%#v` prints it.
fn go_syntax(value: &Value) -> String {
    let mut text = String::new();
    write_syntax(&mut text, value);
    text
}

fn write_syntax(text: &mut String, value: &Value) {
    match value {
        Value::Array(items) => {
            text.push_str("[]interface {}{");
            for (at, item) in items.iter().enumerate() {
                text.push_str(if at > 0 { ", " } else { "" });
                write_syntax(text, item);
            }
            text.push('}');
        }
        Value::Object(map) => {
            let entries = map.iter().map(|(key, value)| (format!("{key:?}:"), value));
            let mut entries: Vec<_> = entries.collect();
            entries.sort_unstable_by(|(one, _), (two, _)| one.cmp(two));
            text.push_str("map[string]interface {}{");
            for (at, (key, value)) in entries.into_iter().enumerate() {
                text.push_str(if at > 0 { ", " } else { "" });
                text.push_str(&key);
                write_syntax(text, value);
            }
            text.push('}');
        }
        Value::Null => text.push_str("interface {}(nil)"),
        other => text.push_str(&other.to_string()),
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
        Value::Number(_) | Value::Null => "number",
    }
}
