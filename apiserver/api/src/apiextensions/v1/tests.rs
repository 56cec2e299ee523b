use serde_json::{Value, json};

use super::custom_resource_definition::RESOURCE;
use crate::{FieldErrors, Object};

fn findings(schema: Value) -> Vec<String> {
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
    let object = json!({
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [version],
        },
    });
    let mut object = Object::from_value(object).expect("an object");
    RESOURCE.strategy.default(&mut object);
    RESOURCE.strategy.prepare_for_create(&mut object);
    let mut errors = FieldErrors::default();
    RESOURCE.strategy.validate(&object, &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn formats_that_nobody_checks_are_warned_of_once_they_are_new() {
    let definition = |formats: &[&str]| {
        let texts = formats
            .iter()
            .map(|format| json!({"type": "string", "format": format}));
        let names = formats.iter().map(|format| (*format).to_owned());
        let properties: serde_json::Map<String, Value> = names.zip(texts).collect();
        let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
            "a": {"type": "array", "items": {"type": "object", "properties": properties}},
            "n": {"type": "integer", "format": "int24"},
        }}});
        Object::from_value(json!({"spec": {"versions": [{"schema": schema}]}})).expect("an object")
    };
    let warned = |formats: &[&str], old: Option<&Object>| {
        RESOURCE.strategy.warnings(&definition(formats), old)
    };
    assert!(warned(&["date-time", "k8s-short-name", "uuid"], None).is_empty());
    let made = ["colour", "date"];
    assert_eq!(warned(&made, None), [r#"unrecognized format "colour""#]);
    let old = definition(&made);
    assert_eq!(
        warned(&["colour", "int32"], Some(&old)),
        [r#"unrecognized format "int32""#]
    );
}

#[test]
fn every_field_of_a_schema_says_its_type() {
    let spec = json!({"type": "object", "properties": {"a": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}}});
    assert!(findings(json!({"type": "object", "properties": {"spec": spec}})).is_empty());
    assert_eq!(
        findings(
            json!({"type": "object", "properties": {"a": {}, "b": {"type": "array"}, "c": {"type": "array", "items": {}}}})
        ),
        [
            "spec.validation.openAPIV3Schema.properties[a].type: Required value: must not be empty for specified object fields",
            "spec.validation.openAPIV3Schema.properties[b].items: Required value: must be specified",
            "spec.validation.openAPIV3Schema.properties[c].items.type: Required value: must not be empty for specified array items",
        ]
    );
}

#[test]
fn a_list_of_type_map_has_keys() {
    let list = |more: Value| {
        let mut list = json!({
            "type": "array",
            "x-kubernetes-list-type": "map",
            "items": {"type": "object", "properties": {"n": {"type": "string"}}},
        });
        let fields = more.as_object().expect("an object").clone();
        list.as_object_mut().expect("an object").extend(fields);
        findings(json!({"type": "object", "properties": {"l": list}}))
    };
    assert_eq!(
        list(json!({})),
        [
            "spec.validation.openAPIV3Schema.properties[l].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map"
        ]
    );
    assert_eq!(
        list(json!({"x-kubernetes-list-map-keys": ["n"]})),
        [
            "spec.validation.openAPIV3Schema.properties[l].items.properties[n].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
        ]
    );
}

#[test]
fn a_default_is_of_the_schemas_type_and_among_its_values() {
    let default = |schema: Value| {
        let found = findings(json!({"type": "object", "properties": {"a": schema}}));
        let at = "spec.validation.openAPIV3Schema.properties[a].default: ";
        let texts = found.iter().map(|text| text.replacen(at, "", 1));
        texts.collect::<Vec<_>>()
    };
    let either = json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]});
    for (schema, value) in [
        (json!({"type": "string", "enum": ["a"]}), json!("a")),
        (json!({"type": "number"}), json!(1)),
        (either.clone(), json!("a")),
    ] {
        let mut schema = schema;
        schema["default"] = value;
        assert_eq!(default(schema), [""; 0]);
    }
    assert_eq!(
        default(json!({"type": "string", "enum": ["a", 1], "default": 42})),
        [
            r#"Invalid value: "integer":  in body must be of type string: "integer""#,
            r#"Unsupported value: 42: supported values: "a", "1""#,
        ]
    );
    assert_eq!(
        default(json!({"type": "integer", "default": 1.5})),
        [r#"Invalid value: "number":  in body must be of type integer: "number""#]
    );
    let mut either = either;
    either["default"] = json!(true);
    assert_eq!(
        default(either),
        [r#"Invalid value: "boolean":  in body must be of type integer,string: "boolean""#]
    );
}

#[test]
fn the_name_is_made_of_plural_and_group() {
    let mut object = Object::from_value(json!({"metadata": {"name": "x"}})).expect("an object");
    RESOURCE.strategy.default(&mut object);
    let mut errors = FieldErrors::default();
    RESOURCE.strategy.validate(&object, &mut errors);
    let first = errors.iter().next().map(ToString::to_string);
    let wanted = "metadata.name: Invalid value: \"x\": must be spec.names.plural+\".\"+spec.group";
    assert_eq!(first.as_deref(), Some(wanted));
}
