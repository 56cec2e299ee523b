//! Values as Go prints the structs that upstream validates.

use serde_json::{Map, Value};

use super::{SchemaKind, SchemaRef, zero};

/// `value` as upstream's findings show a struct: every field, under its Go name, with the zero of what is absent.
///
/// Upstream validates types of its own, which have no JSON names, while types of `apimachinery` (selectors, times)
/// keep theirs.
pub fn go_form(value: &Value, schema: &SchemaRef) -> Value {
    match (schema.kind(), value) {
        (SchemaKind::Struct, Value::Object(map)) if !has_json_names(schema) => {
            let fields = schema.fields().map(|field| {
                let below = field.schema();
                let form = match map.get(field.name()) {
                    Some(given) if !given.is_null() => go_form(given, &below),
                    _ if below.kind() == SchemaKind::Struct && field.is_value() => {
                        go_form(&Value::Object(Map::new()), &below)
                    }
                    _ if field.is_value() => zero(&below),
                    _ => Value::Null,
                };
                (go_name(field.name()), form)
            });
            Value::Object(fields.collect())
        }
        (SchemaKind::List, Value::Array(items)) => match schema.elem() {
            Some(elem) => items.iter().map(|item| go_form(item, &elem)).collect(),
            None => value.clone(),
        },
        (SchemaKind::Map, Value::Object(map)) => match schema.elem() {
            Some(elem) => {
                let entries = map
                    .iter()
                    .map(|(key, value)| (key.clone(), go_form(value, &elem)));
                Value::Object(entries.collect())
            }
            None => value.clone(),
        },
        _ => value.clone(),
    }
}

fn has_json_names(schema: &SchemaRef) -> bool {
    schema
        .definition_name()
        .is_some_and(|name| name.starts_with("io.k8s.apimachinery."))
}

/// `apiGroups` is `APIGroups` in Go, `hostIPC` is `HostIPC`.
fn go_name(name: &str) -> String {
    const INITIALISMS: &[&str] = &[
        "api", "cidr", "csi", "dns", "fc", "fs", "gce", "gmsa", "http", "id", "ip", "iscsi", "nfs",
        "os", "rbd", "se", "tcp", "tls", "tty", "uid", "uri", "url",
    ];
    if name == "cidrs" {
        return "CIDRs".to_owned();
    }
    let word = name
        .find(|c: char| !c.is_ascii_lowercase())
        .unwrap_or(name.len());
    let (first, rest) = name.split_at(word);
    // A word that is all there is (`ip`) or that another one follows (`apiGroup`), not `apiserver`.
    if INITIALISMS.contains(&first) {
        return format!("{}{rest}", first.to_ascii_uppercase());
    }
    let mut letters = name.chars();
    match letters.next() {
        Some(letter) => letter.to_ascii_uppercase().to_string() + letters.as_str(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_field_shows_under_its_go_name() {
        let schema = SchemaRef::builtin("io.k8s.api.flowcontrol.v1.FlowSchemaSpec").expect("known");
        let spec = json!({
            "priorityLevelConfiguration": {"name": "x"},
            "rules": [{"subjects": [{"kind": "User", "user": {"name": "jane"}}], "resourceRules": [{"apiGroups": [""]}]}],
        });
        assert_eq!(
            go_form(&spec, &schema).to_string(),
            "{\"PriorityLevelConfiguration\":{\"Name\":\"x\"},\"MatchingPrecedence\":0,\"DistinguisherMethod\":null,\
             \"Rules\":[{\"Subjects\":[{\"Kind\":\"User\",\"User\":{\"Name\":\"jane\"},\"Group\":null,\
             \"ServiceAccount\":null}],\"ResourceRules\":[{\"Verbs\":null,\"APIGroups\":[\"\"],\"Resources\":null,\
             \"ClusterScope\":false,\"Namespaces\":null}],\"NonResourceRules\":null}]}"
        );
    }
}
