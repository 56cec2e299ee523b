//! Tests of patches; the expectations are an upstream server's answers.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "x", "labels": {"a": "1", "x/y": "z"}, "finalizers": ["example.com/a"]},
        "spec": {"replicas": 1, "template": {"spec": {
            "containers": [{
                "name": "a", "image": "i",
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "ports": [{"containerPort": 80}]
            }],
            "tolerations": [{"key": "a"}, {"key": "b"}],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {}}]
        }}}
    })
}

fn apply(kind: PatchType, patch: Value) -> Result<Value, PatchError> {
    let schema = SchemaRef::for_kind("apps", "v1", "Deployment").expect("a built-in kind");
    let (patch, _) = Patch::parse(kind, patch.to_string().as_bytes())?;
    patch.apply(deployment(), &schema)
}

/// Applies a patch and looks at one place of the result.
fn outcome(kind: PatchType, patch: Value, pointer: &str) -> Value {
    let result = apply(kind, patch.clone()).unwrap_or_else(|error| panic!("{patch}: {error}"));
    result.pointer(pointer).cloned().unwrap_or(Value::Null)
}

#[test]
fn json_patches_change_what_they_point_at() {
    const TOLERATIONS: &str = "/spec/template/spec/tolerations";
    let cases = [
        (json!([]), "/spec/replicas", json!(1)),
        (
            json!([{"op": "add", "path": "/metadata/labels/c", "value": "3"}]),
            "/metadata/labels/c",
            json!("3"),
        ),
        (
            json!([{"op": "replace", "path": "/metadata/labels/x~1y", "value": "w"}]),
            "/metadata/labels/x~1y",
            json!("w"),
        ),
        (
            json!([{"op": "remove", "path": "/metadata/labels/a"}]),
            "/metadata/labels",
            json!({"x/y": "z"}),
        ),
        (
            json!([{"op": "copy", "from": "/metadata/labels/a", "path": "/metadata/labels/c"}]),
            "/metadata/labels/c",
            json!("1"),
        ),
        (
            json!([{"op": "move", "from": "/spec/template/spec/tolerations/0", "path": "/spec/template/spec/tolerations/1"}]),
            TOLERATIONS,
            json!([{"key": "b"}, {"key": "a"}]),
        ),
        (
            json!([{"op": "add", "path": "/spec/template/spec/tolerations/-", "value": {"key": "c"}}]),
            TOLERATIONS,
            json!([{"key": "a"}, {"key": "b"}, {"key": "c"}]),
        ),
        (
            json!([{"op": "replace", "path": "/spec/template/spec/tolerations/-1", "value": {"key": "c"}}]),
            TOLERATIONS,
            json!([{"key": "a"}, {"key": "c"}]),
        ),
        (
            json!([{"op": "replace", "path": "/spec/template/spec/tolerations/00/key", "value": "c"}]),
            TOLERATIONS,
            json!([{"key": "c"}, {"key": "b"}]),
        ),
        (
            json!([{"op": "test", "path": "/metadata/labels/none", "value": null}]),
            "/spec/replicas",
            json!(1),
        ),
        (
            json!([{"op": "test", "path": "/metadata/labels/none"}]),
            "/spec/replicas",
            json!(1),
        ),
        (
            json!([{"op": "replace", "path": "/metadata/labels/new", "value": "3"}]),
            "/metadata/labels/new",
            json!("3"),
        ),
        (
            json!([{"op": "replace", "path": "/metadata/annotations", "value": {"a": "b"}}]),
            "/metadata/annotations",
            json!({"a": "b"}),
        ),
        (
            json!([{"op": "copy", "from": "/metadata/labels/none", "path": "/spec/replicas"}]),
            "/spec/replicas",
            json!(null),
        ),
        (
            json!([{"op": "replace", "path": "", "value": {"a": 1}}, {"op": "test", "path": "", "value": {"a": 1}}]),
            "",
            json!({"a": 1}),
        ),
    ];
    for (patch, pointer, expected) in cases {
        assert_eq!(
            outcome(PatchType::Json, patch.clone(), pointer),
            expected,
            "{patch}"
        );
    }
}

#[test]
fn json_patches_that_do_not_fit_are_rejected() {
    let cases = [
        json!([{"op": "add", "path": "/q/r", "value": 1}]),
        json!([{"op": "frob", "path": "/metadata/labels/a", "value": "1"}]),
        json!([{"path": "/metadata/labels/a", "value": "1"}]),
        json!([{"op": "remove", "path": ""}]),
        json!([{"op": "remove", "path": "/metadata/labels/z"}]),
        json!([{"op": "replace", "path": "/metadata/labels/x/y", "value": "w"}]),
        json!([{"op": "add", "path": "/spec/template/spec/tolerations/99", "value": {}}]),
        json!([{"op": "remove", "path": "/spec/template/spec/tolerations/-"}]),
        json!([{"op": "replace", "path": "/spec/template/spec/tolerations/abc", "value": {}}]),
        json!([{"op": "test", "path": "/metadata/labels/a", "value": "2"}]),
        json!([{"op": "test", "path": "/metadata/labels/a"}]),
        json!([{"op": "test", "path": "/spec/template/spec/tolerations/9", "value": null}]),
        json!([{"op": "test", "path": "", "value": {}}]),
        json!([{"op": "add", "path": "", "value": {}}]),
        json!([{"op": "add", "value": {}}]),
        json!([null]),
        json!([{"op": "replace", "value": {}}]),
        json!([{"op": "replace", "path": "", "value": "x"}]),
        json!([{"op": "replace", "path": ""}]),
        json!([{"op": "move", "from": "/metadata/labels/none", "path": "/metadata/labels/b"}]),
        json!([{"op": "move", "from": "/metadata", "path": ""}]),
        json!([{"op": "move", "path": "/metadata/labels/b"}]),
        json!([{"op": "copy", "from": "", "path": "/metadata/annotations"}]),
        json!([{"op": "copy", "path": "/metadata/annotations"}]),
        json!([{"op": "add", "path": "/spec/replicas", "value": 2}, {"op": "test", "path": "/spec/replicas", "value": 1}]),
    ];
    for patch in cases {
        assert_eq!(
            apply(PatchType::Json, patch.clone()),
            Err(PatchError::Rejected),
            "{patch}"
        );
    }
}

#[test]
fn bodies_that_are_no_patch_are_refused_in_upstreams_words() {
    let cases = [
        (
            PatchType::Json,
            "",
            "error decoding patch: unexpected end of JSON input",
        ),
        (
            PatchType::Json,
            "\u{feff}{}",
            "error decoding patch: invalid character 'ï' looking for beginning of value",
        ),
        (
            PatchType::Json,
            "{'kind':'ConfigMap'}",
            r"error decoding patch: invalid character '\'' looking for beginning of object key string",
        ),
        (
            PatchType::Json,
            "\"x\"",
            "error decoding patch: json: cannot unmarshal string into Go value of type []handlers.jsonPatchOp",
        ),
        (
            PatchType::Merge,
            "[]",
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
        (PatchType::Merge, "null", "Invalid JSON Patch"),
        (
            PatchType::Merge,
            "{\"a\":1} x",
            "error decoding patch: invalid character 'x' after top-level value",
        ),
        (
            PatchType::Strategic,
            "\"x\"",
            "json: cannot unmarshal string into Go value of type map[string]interface {}",
        ),
        (PatchType::Strategic, "{", "unexpected end of JSON input"),
    ];
    for (kind, body, message) in cases {
        let error = Patch::parse(kind, body.as_bytes()).expect_err(body);
        assert_eq!(error, PatchError::BadRequest(message.into()), "{body}");
    }
    let many = Value::Array(vec![
        json!({"op": "test", "path": "/a"});
        MAX_OPERATIONS + 1
    ]);
    let error = Patch::parse(PatchType::Json, many.to_string().as_bytes()).expect_err("too many");
    assert_eq!(
        error.to_string(),
        "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001"
    );
}

#[test]
fn duplicate_and_unknown_fields_of_a_patch_are_reported() {
    let cases = [
        (
            PatchType::Json,
            r#"[{"op":"add","path":"/a","value":3,"value":5}]"#,
            r#"duplicate field "[0].value""#,
        ),
        (
            PatchType::Json,
            r#"[{"op":"add","path":"/a","extra":1}]"#,
            r#"unknown field "[0].extra""#,
        ),
        (
            PatchType::Merge,
            r#"{"spec":{"replicas":1,"replicas":2}}"#,
            r#"duplicate field "spec.replicas""#,
        ),
    ];
    for (kind, body, expected) in cases {
        let (_, strict) = Patch::parse(kind, body.as_bytes()).expect(body);
        let strict: Vec<_> = strict.iter().map(ToString::to_string).collect();
        assert_eq!(strict, [expected]);
    }
}

#[test]
fn merge_patches_follow_the_rfc() {
    let patch = json!({"metadata": {"labels": {"a": null, "b": "2"}}, "spec": {"template": {"spec": {"tolerations": []}}}});
    assert_eq!(
        outcome(PatchType::Merge, patch.clone(), "/metadata/labels"),
        json!({"x/y": "z", "b": "2"})
    );
    assert_eq!(
        outcome(PatchType::Merge, patch, "/spec/template/spec/tolerations"),
        json!([])
    );
    let nulls = json!({"metadata": {"annotations": {"a": null, "b": {"c": null}}}});
    assert_eq!(
        outcome(PatchType::Merge, nulls, "/metadata/annotations"),
        json!({"b": {}})
    );
    let in_lists = json!({"spec": {"template": {"spec": {"tolerations": [{"key": "c", "value": null}, null]}}}});
    assert_eq!(
        outcome(
            PatchType::Merge,
            in_lists,
            "/spec/template/spec/tolerations"
        ),
        json!([{"key": "c"}, null])
    );
}

/// A strategic patch of the container, and the named list of the container afterwards.
fn container(fields: Value, list: &str) -> Value {
    let mut patch = json!({"name": "a"});
    patch
        .as_object_mut()
        .expect("a map")
        .extend(fields.as_object().expect("a map").clone());
    let patch = json!({"spec": {"template": {"spec": {"containers": [patch]}}}});
    outcome(
        PatchType::Strategic,
        patch,
        &format!("/spec/template/spec/containers/0/{list}"),
    )
}

#[test]
fn strategic_patches_merge_lists_by_their_keys() {
    let a = json!({"name": "A", "value": "1"});
    let b = json!({"name": "B", "value": "2"});
    let c = json!({"name": "C", "value": "3"});
    let cases = [
        (json!({"env": [c]}), json!([c, a, b])),
        (
            json!({"env": [{"name": "A", "value": "9"}]}),
            json!([{"name": "A", "value": "9"}, b]),
        ),
        (
            json!({"env": [{"name": "A", "$patch": "delete"}]}),
            json!([b]),
        ),
        (
            json!({"env": [{"name": "NONE", "$patch": "delete"}]}),
            json!([a, b]),
        ),
        (json!({"env": [{"$patch": "replace"}, c]}), json!([c])),
        (json!({"env": null}), json!(null)),
        (
            json!({"$setElementOrder/env": [{"name": "B"}, {"name": "A"}]}),
            json!([b, a]),
        ),
        (
            json!({"$setElementOrder/env": [{"name": "C"}, {"name": "B"}, {"name": "A"}], "env": [c]}),
            json!([c, b, a]),
        ),
        (
            json!({"env": [{"name": "A", "value": null, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
            json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, b]),
        ),
    ];
    for (patch, expected) in cases {
        assert_eq!(container(patch.clone(), "env"), expected, "{patch}");
    }
    assert_eq!(
        container(
            json!({"ports": [{"containerPort": 80, "name": "http"}]}),
            "ports"
        ),
        json!([{"containerPort": 80, "name": "http"}])
    );
}

#[test]
fn strategic_patches_that_do_not_fit_say_what_they_met() {
    let spec = |fields: Value| json!({"spec": {"template": {"spec": fields}}});
    let internal = |message: &str| Err(PatchError::Internal(message.into()));
    for (patch, expected) in [
        (
            json!({"metadata": {"finalizers": [{"a": 1}]}}),
            internal("list element types are not identical: [[example.com/a] [map[a:1]]]"),
        ),
        (
            spec(json!({"containers": [{"name": "a"}, "x"], "volumes": null, "tolerations": null})),
            internal(
                "list element types are not identical: [[map[env:[map[name:A value:1] map[name:B value:2]] image:i name:a ports:[map[containerPort:80]]]] [map[name:a] x]]",
            ),
        ),
        (
            spec(json!({"$setElementOrder/bogus": [{"name": "a"}]})),
            internal("unable to find api field in struct PodSpec for the json field \"bogus\""),
        ),
        (
            json!({"metadata": {"$setElementOrder/finalizers": "x"}}),
            internal("expected a []interface {}, but received a string"),
        ),
    ] {
        assert_eq!(
            apply(PatchType::Strategic, patch.clone()),
            expected,
            "{patch}"
        );
    }
    let schema = SchemaRef::for_kind("", "v1", "ConfigMap").expect("a built-in kind");
    let lists = json!({"metadata": {"finalizers": [[]]}});
    let (patch, _) =
        Patch::parse(PatchType::Strategic, lists.to_string().as_bytes()).expect("a map");
    let applied = patch.apply(json!({"metadata": {"finalizers": []}}), &schema);
    assert_eq!(applied, Err(PatchError::Rejected));
}

#[test]
fn strategic_patches_replace_retain_and_delete() {
    let spec = |fields: Value| json!({"spec": {"template": {"spec": fields}}});
    let cases = [
        (
            json!({"metadata": {"labels": {"$patch": "replace", "e": "f"}}}),
            "/metadata/labels",
            json!({"e": "f"}),
        ),
        (
            json!({"metadata": {"labels": {"$patch": "delete"}}}),
            "/metadata/labels",
            json!({}),
        ),
        (
            json!({"metadata": {"finalizers": ["example.com/b"]}}),
            "/metadata/finalizers",
            json!(["example.com/b", "example.com/a"]),
        ),
        (
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["example.com/a"]}}),
            "/metadata/finalizers",
            json!([]),
        ),
        (
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": "x"}}),
            "/metadata/finalizers",
            json!(["example.com/a"]),
        ),
        (
            spec(json!({"tolerations": [{"key": "c"}]})),
            "/spec/template/spec/tolerations",
            json!([{"key": "c"}]),
        ),
        (
            spec(
                json!({"volumes": [{"name": "v", "$retainKeys": ["name", "secret"], "secret": {"secretName": "s"}}]}),
            ),
            "/spec/template/spec/volumes",
            json!([{"name": "v", "secret": {"secretName": "s"}}, {"name": "w", "emptyDir": {}}]),
        ),
        (
            spec(json!({"volumes": [{"name": "w", "$patch": "delete"}]})),
            "/spec/template/spec/volumes",
            json!([{"name": "v", "emptyDir": {}}]),
        ),
    ];
    for (patch, pointer, expected) in cases {
        assert_eq!(
            outcome(PatchType::Strategic, patch.clone(), pointer),
            expected,
            "{patch}"
        );
    }
}

#[test]
fn wrong_directives_are_refused_in_upstreams_words() {
    let container =
        |fields: Value| json!({"spec": {"template": {"spec": {"containers": [fields]}}}});
    let cases = [
        (
            json!({"spec": {"$patch": "frob"}}),
            "unknown patch type: frob in map: map[$patch:frob]",
        ),
        (
            container(json!({"name": "a", "env": [{"name": "A", "$patch": "frob"}]})),
            "unknown patch type: frob in map: map[$patch:frob name:A]",
        ),
        (
            json!({"spec": {"template": {"spec": {"$setElementOrder/containers": "x"}}}}),
            "expected a []interface {}, but received a string",
        ),
        (
            container(json!({"image": "example.com/app:1"})),
            "map: map[image:example.com/app:1] does not contain declared merge key: name",
        ),
        (
            container(
                json!({"name": "a", "$setElementOrder/env": [{"name": "B"}], "env": [{"name": "C", "value": "3"}]}),
            ),
            "The order in patch list:\n[map[name:C value:3]]\n doesn't match $setElementOrder list:\n[map[name:B]]\n",
        ),
    ];
    for (patch, message) in cases {
        assert_eq!(
            apply(PatchType::Strategic, patch.clone()),
            Err(PatchError::Internal(message.into())),
            "{patch}"
        );
    }
    let retain = json!({"spec": {"template": {"spec": {"volumes": [
        {"name": "v", "$retainKeys": ["name"], "configMap": {"name": "z"}}
    ]}}}});
    let expected = PatchError::BadRequest("invalid patch format of retainKeys".into());
    assert_eq!(apply(PatchType::Strategic, retain), Err(expected));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "(name|a|delete|replace|x)".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        let key = "(metadata|spec|template|containers|env|name|labels|volumes|\\$patch|\\$retainKeys|\\$setElementOrder/env|\\$deleteFromPrimitiveList/finalizers|finalizers)";
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((key, inner), 0..5).prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

#[test]
fn a_patch_that_moves_a_long_list_again_and_again_is_rejected() {
    let mut operations = vec![json!({"op": "add", "path": "/long", "value": vec![0; 500_000]})];
    let insert = |count| vec![json!({"op": "add", "path": "/long/0", "value": 1}); count];
    operations.extend(insert(100));
    let patched = outcome(PatchType::Json, json!(operations), "/long");
    assert_eq!(patched.as_array().map(Vec::len), Some(500_100));
    operations.extend(insert(5_000));
    assert_eq!(
        apply(PatchType::Json, json!(operations)),
        Err(PatchError::Rejected)
    );

    // What moves deeper is looked through.
    let mut operations = vec![json!({"op": "add", "path": "/long", "value": vec![0; 500_000]})];
    for _ in 0..1000 {
        operations.push(json!({"op": "add", "path": "/deep", "value": {}}));
        operations.push(json!({"op": "move", "from": "/long", "path": "/deep/long"}));
        operations.push(json!({"op": "move", "from": "/deep/long", "path": "/long"}));
    }
    assert_eq!(
        apply(PatchType::Json, json!(operations)),
        Err(PatchError::Rejected)
    );
}

proptest! {
    #[test]
    fn any_patch_is_applied_or_refused(patch in any_json()) {
        for kind in [PatchType::Json, PatchType::Merge, PatchType::Strategic] {
            let _ = apply(kind, patch.clone());
        }
    }

    #[test]
    fn merging_twice_is_merging_once(patch in any_json()) {
        if let Ok(once) = apply(PatchType::Merge, patch.clone()) {
            let (patch, _) = Patch::parse(PatchType::Merge, patch.to_string().as_bytes()).expect("it parsed before");
            prop_assert_eq!(patch.apply(once.clone(), &SchemaRef::any()), Ok(once));
        }
    }
}

#[test]
fn values_are_shown_as_go_shows_them() {
    let value = json!({"b": [1, "x"], "a": {"c": null}});
    assert_eq!(go_format(&value), "map[a:map[c:<nil>] b:[1 x]]");
}
