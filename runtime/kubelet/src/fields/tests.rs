use std::path::Path;

use coracle_api::schema::SchemaRef;
use serde_json::json;

use super::*;

fn spec() -> SchemaRef {
    let pod = SchemaRef::for_kind("", "v1", "Pod").expect("the kind");
    pod.field("spec").expect("a spec").schema()
}

fn all_paths() -> Vec<&'static str> {
    FIELDS.iter().flat_map(|row| row.paths).copied().collect()
}

/// The fields at and below `path` that no row speaks of.
fn unspoken(schema: &SchemaRef, path: &str, rows: &[&str], found: &mut Vec<String>) {
    let inside = |prefix: String| rows.iter().any(|row| row.starts_with(&prefix));
    let is_list = inside(format!("{path}[]"));
    if !is_list && !inside(format!("{path}.")) {
        if !rows.contains(&path) {
            found.push(path.to_owned());
        }
        return;
    }
    let (schema, path) = if is_list {
        let elements = schema.elem().expect("a list");
        (elements, format!("{path}[]"))
    } else {
        (schema.clone(), path.to_owned())
    };
    for field in schema.fields() {
        unspoken(
            &field.schema(),
            &format!("{path}.{}", field.name()),
            rows,
            found,
        );
    }
}

#[test]
fn every_field_is_in_the_table() {
    let rows = all_paths();
    let mut found = Vec::new();
    for field in spec().fields() {
        unspoken(&field.schema(), field.name(), &rows, &mut found);
    }
    assert!(found.is_empty(), "no row says what these do: {found:#?}");
}

#[test]
fn every_row_is_about_a_field() {
    for path in all_paths() {
        let mut schema = spec();
        for part in path.split('.') {
            let name = part.trim_end_matches("[]");
            let field = schema.field(name);
            schema = field
                .unwrap_or_else(|| panic!("{path} is no field"))
                .schema();
            if part.ends_with("[]") {
                schema = schema.elem().expect("a list");
            }
        }
        let times = all_paths().iter().filter(|other| **other == path).count();
        assert_eq!(times, 1, "{path} is in the table twice");
    }
}

#[test]
fn the_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/fields.md");
    if std::env::var_os("CORACLE_BLESS").is_some() {
        std::fs::write(&path, page()).expect("written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == page(),
        "docs/fields.md is stale: run this test with CORACLE_BLESS=1"
    );
}

#[test]
fn what_has_no_effect_is_named_once_and_the_rest_is_not() {
    let read = |spec: serde_json::Value| {
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).expect("a pod");
        ignored(&pod, None, false)
    };
    let hardened = json!({"runAsNonRoot": true, "allowPrivilegeEscalation": false, "privileged": false,
                          "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}});
    let container = json!({"name": "a", "securityContext": hardened});
    assert_eq!(
        read(json!({"containers": [container], "hostPID": false})),
        None
    );
    let attached = json!({"name": "a", "stdin": true, "stdinOnce": true, "tty": true});
    let secrets = json!([{"name": "login"}]);
    assert_eq!(
        read(json!({"containers": [attached], "imagePullSecrets": secrets})),
        None
    );
    let eager = json!({"name": "a", "securityContext": {"privileged": true, "runAsUser": 0}});
    let said = read(
        json!({"containers": [{"name": "b"}], "initContainers": [eager, eager], "hostPID": true}),
    );
    assert_eq!(
        said.as_deref(),
        Some(
            "without effect on this node (docs/fields.md says why): hostPID, \
              containers[].securityContext.privileged, containers[].securityContext.runAsUser"
        )
    );
}
