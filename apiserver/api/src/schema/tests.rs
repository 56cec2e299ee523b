//! Tests of the table and of decoding.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn schema(group: &str, version: &str, kind: &str) -> SchemaRef {
    SchemaRef::for_kind(group, version, kind).unwrap_or_else(|| panic!("{group}/{version} {kind}"))
}

#[test]
fn the_builtin_table_knows_every_definition() {
    let table = SchemaTable::builtin();
    assert!(table.definitions.len() > 735, "{}", table.definitions.len());
    assert!(table.by_kind.len() > 180, "{}", table.by_kind.len());
    for definition in &table.definitions {
        let empty = definition.fields.is_empty();
        let known = definition.name.starts_with("io.k8s.");
        assert!(known, "{}", definition.name);
        assert!(
            !empty
                || !definition.kinds.is_empty()
                || SchemaRef::builtin(&definition.name).is_some()
        );
    }
}

#[test]
fn the_table_knows_how_lists_merge() {
    let spec = schema("", "v1", "Pod")
        .child("spec")
        .expect("a pod has a spec");
    let containers = spec.child("containers").expect("a spec has containers");
    assert_eq!(containers.kind(), SchemaKind::List);
    assert_eq!(
        (containers.list_type(), containers.merge_key()),
        (ListType::Map, Some("name"))
    );
    let ports = containers
        .child("0")
        .and_then(|container| container.child("ports"))
        .expect("ports");
    assert_eq!(ports.list_keys(), ["containerPort", "protocol"]);
    assert_eq!(ports.merge_key(), Some("containerPort"));
    let volumes = spec.field("volumes").expect("volumes").schema();
    assert!(volumes.patch_strategy().merge && volumes.patch_strategy().retain_keys);
    let volume = volumes.elem().expect("a list has elements");
    assert_eq!(
        volume.field("configMap").expect("a source").numbers(),
        [2, 19]
    );
    let selector = schema("apps", "v1", "Deployment")
        .child("spec")
        .and_then(|spec| spec.child("selector"));
    assert_eq!(selector.expect("selector").map_type(), MapType::Atomic);
}

/// Decodes a body of a kind; the error's words, or the value.
fn decode(kind: (&str, &str, &str), body: &str) -> Result<Decoded, String> {
    decode_json(body.as_bytes(), &schema(kind.0, kind.1, kind.2)).map_err(|error| error.to_string())
}

const POD: (&str, &str, &str) = ("", "v1", "Pod");
const CONFIG_MAP: (&str, &str, &str) = ("", "v1", "ConfigMap");
const DEPLOYMENT: (&str, &str, &str) = ("apps", "v1", "Deployment");
const SERVICE: (&str, &str, &str) = ("", "v1", "Service");
const EVENT: (&str, &str, &str) = ("", "v1", "Event");
const SECRET: (&str, &str, &str) = ("", "v1", "Secret");

#[test]
fn syntax_errors_are_gos() {
    let cases = [
        ("", "unexpected end of JSON input"),
        ("{", "unexpected end of JSON input"),
        (
            "\u{feff}{}",
            "invalid character 'ï' looking for beginning of value",
        ),
        (
            r#"{"kind":"ConfigMap",}"#,
            "invalid character '}' looking for beginning of object key string",
        ),
        (
            "{'kind':'ConfigMap'}",
            r"invalid character '\'' looking for beginning of object key string",
        ),
        (
            "{\"a\":\"\u{1}\"}",
            r"invalid character '\x01' in string literal",
        ),
        (
            r#"{"a":1} x"#,
            "invalid character 'x' after top-level value",
        ),
        ("{}{}", "invalid character '{' after top-level value"),
        (
            "kind: ConfigMap",
            "invalid character 'k' looking for beginning of value",
        ),
        (r#"{"a" 1}"#, "invalid character '1' after object key"),
        (
            r#"{"a":1 "b":2}"#,
            "invalid character '\"' after object key:value pair",
        ),
        ("[1 2]", "invalid character '2' after array element"),
        (r#"["\x"]"#, "invalid character 'x' in string escape code"),
        (
            r#"["\u12g4"]"#,
            r"invalid character 'g' in \u hexadecimal character escape",
        ),
        (
            "nul!",
            "invalid character '!' in literal null (expecting 'l')",
        ),
        ("[-]", "invalid character ']' in numeric literal"),
        (
            "[1.]",
            "invalid character ']' after decimal point in numeric literal",
        ),
        (
            "[1e]",
            "invalid character ']' in exponent of numeric literal",
        ),
        ("[01]", "invalid character '1' after array element"),
    ];
    for (body, message) in cases {
        assert_eq!(
            parse_json(body.as_bytes()),
            Err(DecodeError::Syntax(message.into())),
            "{body}"
        );
    }
}

fn kind((group, version, kind): (&str, &str, &str)) -> SchemaRef {
    schema(group, version, kind)
}

/// An object with a field that nests so many levels, of which the object itself is the first.
fn nested(field: &str, open: &str, inner: &str, close: &str, levels: usize) -> Vec<u8> {
    let (open, close) = (open.repeat(levels - 1), close.repeat(levels - 1));
    format!("{{\"{field}\":{open}{inner}{close}}}").into_bytes()
}

/// Does `work` with a stack for objects that nest as deep as they may.
fn deep(work: impl FnOnce() + Send) {
    on_deep_stack("deep", work).expect("room for a thread");
}

#[test]
fn bodies_may_nest_as_deep_as_upstream_allows() {
    deep(|| {
        let unknown = [StrictError::UnknownField("x".into())];
        let shapes = [
            ("[", "", "]"),
            ("[1,", "2", ",{\"a\":[]} ]"),
            ("{\"a\":", "null", "}"),
            (
                "{ \"b\" : [ ] , \"a\" : ",
                "\"\\u0041\"",
                " , \"c\":-1.5e3 }",
            ),
        ];
        for (open, inner, close) in shapes {
            for levels in [120, 9_998] {
                let body = nested("x", open, inner, close, levels);
                let dropped = decode_json(&body, &kind(CONFIG_MAP)).expect("not kept");
                assert_eq!(dropped.strict, unknown, "{levels}");
                let whole: Value = from_kept_json(&body).expect("the test writes JSON");
                assert!(parse_json(&body) == Ok(whole), "{levels} of {open}");
            }
            let body = nested("x", open, inner, close, 10_001);
            let error = parse_json(&body).expect_err("too deep").to_string();
            assert!(error.ends_with("exceeded max depth"), "{error}");
            // Syntax counts in the depths, too.
            let cut = decode_json(&body[..5 + 5_000 * open.len()], &kind(CONFIG_MAP));
            let message = cut.expect_err("cut off").to_string();
            assert_eq!(message, "unexpected end of JSON input");
        }
        parse_json(&nested("x", "[", "", "]", 10_000)).expect("the deepest that there may be");
    });
}

#[test]
fn yaml_may_nest_as_deep_as_upstream_allows() {
    deep(|| {
        let schema = SchemaRef::any();
        let read = |text: String| decode_yaml(text.as_bytes(), &schema);
        let flow = |levels: usize| format!("- {}{}", "[a, ".repeat(levels), "]".repeat(levels));
        for levels in [64, 300, 9_999] {
            assert!(nests_deeper(
                &read(flow(levels)).expect("deep").value,
                levels
            ));
        }
        let lines = (0..2_000).map(|level| format!("{}a:\n", " ".repeat(level)));
        let block = read(lines.collect()).expect("deep");
        assert!(nests_deeper(&block.value, 1_999));
        // What nests by its aliases was read level by level, too.
        let mut chain = format!("a0: &a0 {}\n", "[".repeat(5_000) + &"]".repeat(5_000));
        for number in 1..4 {
            let (open, close) = ("[".repeat(5_000), "]".repeat(5_000));
            chain += &format!("a{number}: &a{number} {open}*a{}{close}\n", number - 1);
        }
        for text in [flow(10_000), "- ".repeat(10_001), chain] {
            let error = read(text).expect_err("too deep").to_string();
            assert!(error.ends_with("exceeded max depth of 10000"), "{error}");
        }
    });
}

#[test]
fn findings_in_the_depths_are_few_and_cheap() {
    deep(|| {
        // Each has a path of 50,000 bytes.
        let many: Vec<String> = (0..20_000)
            .map(|number| format!("\"x{number}\":[]"))
            .collect();
        let inner = format!("{{{},\"b\":1,\"b\":2}}", many.join(","));
        let body = nested("data", "{\"abcd\":", &inner, "}", 9_000);
        let schema = kind(("apps", "v1", "ControllerRevision"));
        let decoded = decode_json(&body, &schema).expect("free JSON");
        assert!(decoded.strict.len() <= 100);
        let property = |inner: &str| format!("{{\"properties\":{{\"a\":{inner}}}}}");
        let empty: Vec<String> = (0..20_000)
            .map(|number| format!("\"x{number}\":{{\"required\":[],\"nothing\":1}}"))
            .collect();
        let mut props = format!("{{\"properties\":{{{}}}}}", empty.join(","));
        for _ in 0..4_000 {
            props = property(&props);
        }
        let body = format!(
            "{{\"spec\":{{\"versions\":[{{\"schema\":{{\"openAPIV3Schema\":{props}}}}}]}}}}"
        );
        let schema = kind(("apiextensions.k8s.io", "v1", "CustomResourceDefinition"));
        let decoded = decode_json(body.as_bytes(), &schema).expect("a schema");
        assert_eq!(decoded.strict.len(), 100);
        let places: usize = decoded.empties.iter().map(|(place, _)| place.len()).sum();
        assert!(places < 2 * 1024 * 1024, "{places}");
    });
}

#[test]
fn syntax_errors_far_below_are_those_of_the_surface() {
    for (inner, message) in [
        ("[1 2]", "invalid character '2' after array element"),
        ("{\"a\" 1}", "invalid character '1' after object key"),
        (
            "{\"a\":1 2}",
            "invalid character '2' after object key:value pair",
        ),
        (
            "{a:1}",
            "invalid character 'a' looking for beginning of object key string",
        ),
        (
            "[1,]",
            "invalid character ']' looking for beginning of value",
        ),
        (
            "{\"a\":1,}",
            "invalid character '}' looking for beginning of object key string",
        ),
        ("[1}", "invalid character '}' after array element"),
        (
            "truth",
            "invalid character 't' in literal true (expecting 'e')",
        ),
    ] {
        for levels in [2, 120, 500] {
            let body = nested("x", "[", inner, "]", levels);
            let error = decode_json(&body, &kind(CONFIG_MAP)).expect_err(inner);
            assert_eq!(error, DecodeError::Syntax(message.into()), "{levels}");
        }
    }
}

#[test]
fn what_is_kept_may_nest_as_deep_as_a_body() {
    deep(|| {
        let schema = kind(("apps", "v1", "ControllerRevision"));
        let body = |levels| nested("data", "{\"a\":", "1", "}", levels);
        let decoded = decode_json(&body(10_000), &schema).expect("deep enough");
        let again = decode_value(decoded.value.clone(), &schema).expect("the same");
        assert!(again.value == decoded.value);
        let deeper = json!({"data": {"a": decoded.value}});
        let merged = decode_unstructured(deeper.clone(), &schema).expect("no bound");
        assert!(merged.value["data"] == deeper["data"]);
        let error = decode_value(deeper, &schema)
            .expect_err("too deep")
            .to_string();
        assert_eq!(error, "invalid character '{' exceeded max depth");
        let deep = nested("data", "{\"a\":", "1", "}", 5_000);
        let error = decode_json(&deep, &kind(CONFIG_MAP)).expect_err("a map of strings");
        assert!(
            error.to_string().contains("cannot unmarshal object"),
            "{error}"
        );
    });
}

#[test]
fn wrong_types_are_refused_in_upstreams_words() {
    let cases = [
        (
            CONFIG_MAP,
            r#"{"metadata":"abc"}"#,
            "string into Go struct field ConfigMap.metadata of type v1.ObjectMeta",
        ),
        (
            CONFIG_MAP,
            r#"{"binaryData":[]}"#,
            "array into Go struct field ConfigMap.binaryData of type map[string][]uint8",
        ),
        (
            SERVICE,
            r#"{"metadata":{"name":7}}"#,
            "number into Go struct field ObjectMeta.metadata.name of type string",
        ),
        (
            SERVICE,
            r#"{"spec":{"ports":[[]]}}"#,
            "array into Go struct field ServiceSpec.spec.ports of type v1.ServicePort",
        ),
        (
            SERVICE,
            r#"{"spec":{"ports":[{"port":"x"}]}}"#,
            "string into Go struct field ServicePort.spec.ports.port of type int32",
        ),
        (
            SERVICE,
            r#"{"spec":{"loadBalancerSourceRanges":{}}}"#,
            "object into Go struct field ServiceSpec.spec.loadBalancerSourceRanges of type []string",
        ),
        (
            DEPLOYMENT,
            r#"{"spec":{"replicas":1.5}}"#,
            "number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            DEPLOYMENT,
            r#"{"spec":{"strategy":{"rollingUpdate":{"maxSurge":1.5}}}}"#,
            "number 1.5 into Go struct field RollingUpdateDeployment.spec.strategy.rollingUpdate.maxSurge of type int32",
        ),
        (
            DEPLOYMENT,
            r#"{"spec":{"strategy":{"type":7}}}"#,
            "number into Go struct field DeploymentStrategy.spec.strategy.type of type v1.DeploymentStrategyType",
        ),
        (
            ("autoscaling", "v2", "HorizontalPodAutoscaler"),
            r#"{"spec":{"metrics":[{"type":1}]}}"#,
            "number into Go struct field MetricSpec.spec.metrics.type of type v2.MetricSourceType",
        ),
        (
            ("batch", "v1", "Job"),
            r#"{"spec":{"podFailurePolicy":{"rules":[{"action":{}}]}}}"#,
            "object into Go struct field PodFailurePolicyRule.spec.podFailurePolicy.rules.action \
             of type v1.PodFailurePolicyAction",
        ),
        (
            (
                "admissionregistration.k8s.io",
                "v1",
                "ValidatingAdmissionPolicyBinding",
            ),
            r#"{"spec":{"validationActions":"Deny"}}"#,
            "string into Go struct field ValidatingAdmissionPolicyBindingSpec.spec.validationActions \
             of type []v1.ValidationAction",
        ),
        (
            ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
            r#"{"spec":{"versions":[{"schema":{"openAPIV3Schema":{"x-kubernetes-validations":{}}}}]}}"#,
            "object into Go struct field JSONSchemaProps.spec.versions.schema.openAPIV3Schema.x-kubernetes-validations \
             of type v1.ValidationRules",
        ),
        (
            ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
            r#"{"spec":{"versions":[{"schema":{"openAPIV3Schema":{"enum":{}}}}]}}"#,
            "object into Go struct field JSONSchemaProps.spec.versions.schema.openAPIV3Schema.enum of type []v1.JSON",
        ),
        (
            ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
            r#"{"spec":{"versions":[{"schema":{"openAPIV3Schema":{"items":{"properties":{"a":{"type":1}}}}}}]}}"#,
            "number into Go struct field JSONSchemaProps.spec.versions.schema.openAPIV3Schema.items of type string",
        ),
        (
            ("coordination.k8s.io", "v1", "Lease"),
            r#"{"spec":{"renewTime":7}}"#,
            "number into Go struct field LeaseSpec.spec.renewTime of type string",
        ),
        (
            ("", "v1", "ConfigMap"),
            r#"{"metadata":{"creationTimestamp":[]}}"#,
            "array into Go struct field ObjectMeta.metadata.creationTimestamp of type string",
        ),
        (
            POD,
            r#"{"spec":{"containers":[{"livenessProbe":{"httpGet":{"port":3000000000}}}]}}"#,
            "number 3000000000 into Go struct field \
             HTTPGetAction.spec.containers.livenessProbe.ProbeHandler.httpGet.port of type int32",
        ),
        (
            POD,
            r#"{"spec":{"volumes":[{"iscsi":{"lun":3000000000}}]}}"#,
            "number 3000000000 into Go struct field ISCSIVolumeSource.spec.volumes.VolumeSource.iscsi.lun of type int32",
        ),
        (
            POD,
            r#"{"spec":{"containers":[{"securityContext":{"capabilities":{"add":{}}}}]}}"#,
            "object into Go struct field Capabilities.spec.containers.securityContext.capabilities.add \
             of type []v1.Capability",
        ),
        (
            SECRET,
            r#"{"stringData":{"b":"two","c":[1]}}"#,
            "array into Go struct field Secret.stringData of type string",
        ),
        (
            (
                "admissionregistration.k8s.io",
                "v1",
                "ValidatingAdmissionPolicy",
            ),
            r#"{"spec":{"matchConstraints":{"resourceRules":[{"apiGroups":{}}]}}}"#,
            "object into Go struct field \
             NamedRuleWithOperations.spec.matchConstraints.resourceRules.RuleWithOperations.Rule.apiGroups of type []string",
        ),
    ];
    for (kind, body, message) in cases {
        let expected = format!("json: cannot unmarshal {message}");
        assert_eq!(decode(kind, body).expect_err(body), expected, "{body}");
    }
}

#[test]
fn schemas_inside_schemas_are_read_by_themselves() {
    let definition = schema("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let read = |inside: &str| {
        let body = format!(
            r#"{{"spec":{{"versions":[{{"schema":{{"openAPIV3Schema":{{{inside}}}}}}}]}}}}"#
        );
        decode_json(body.as_bytes(), &definition)
    };
    let cases = [
        (
            r#""items":{"type":"string","nullable":false,"none":1}"#,
            json!({"items": {"type": "string"}}),
        ),
        (
            r#""items":[{"type":"string"},{}]"#,
            json!({"items": [{"type": "string"}, {}]}),
        ),
        (r#""items":"x""#, json!({})),
        (
            r#""additionalProperties":false"#,
            json!({"additionalProperties": false}),
        ),
        (
            r#""additionalProperties":{"items":{"title":""}}"#,
            json!({"additionalProperties": {"items": {}}}),
        ),
        (r#""default":{"a":1,"a":2}"#, json!({"default": {"a": 2}})),
    ];
    for (inside, expected) in cases {
        let decoded = read(inside).expect(inside);
        let found = &decoded.value["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        assert_eq!(found, &expected, "{inside}");
        assert_eq!(decoded.strict, [], "{inside}");
    }
    for wrong in [r#""additionalProperties":1"#, r#""additionalItems":[]"#] {
        let why = read(wrong).expect_err(wrong).to_string();
        assert_eq!(why, "boolean or JSON schema expected", "{wrong}");
    }
}

#[test]
fn the_table_knows_how_go_declares_fields() {
    // A definition, a field, whether it is held by value, and whether it is written even when empty.
    let cases = [
        ("core.v1.ISCSIVolumeSource", "initiatorName", false, false),
        (
            "core.v1.GlusterfsPersistentVolumeSource",
            "readOnly",
            true,
            false,
        ),
        (
            "core.v1.AzureFilePersistentVolumeSource",
            "secretNamespace",
            false,
            true,
        ),
        ("core.v1.TypedLocalObjectReference", "apiGroup", false, true),
        ("core.v1.TypedObjectReference", "namespace", false, false),
        ("storage.v1.CSINodeDriver", "topologyKeys", true, true),
        ("core.v1.ProjectedVolumeSource", "sources", true, true),
        (
            "flowcontrol.v1.FlowSchemaCondition",
            "lastTransitionTime",
            true,
            true,
        ),
    ];
    for (definition, name, value, always) in cases {
        let schema = SchemaRef::builtin(&format!("io.k8s.api.{definition}")).expect(definition);
        let field = schema.field(name).expect(name);
        let (list, written) = (
            field.schema().kind() == SchemaKind::List,
            field.is_always_written(),
        );
        assert_eq!(written, always, "{definition}.{name}");
        assert!(list || field.is_value() == value, "{definition}.{name}");
    }
}

#[test]
fn values_that_no_type_can_read_are_refused_in_upstreams_words() {
    let quantity = r"quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
    let cases = [
        (POD, r#"{"spec":{"overhead":{"cpu":"x"}}}"#, quantity),
        (POD, r#"{"spec":{"overhead":{"cpu":[1]}}}"#, quantity),
        (
            EVENT,
            r#"{"firstTimestamp":""}"#,
            r#"parsing time "" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "2006""#,
        ),
        (
            EVENT,
            r#"{"lastTimestamp":"Bad_Name!"}"#,
            r#"parsing time "Bad_Name!" as "2006-01-02T15:04:05Z07:00": cannot parse "Bad_Name!" as "2006""#,
        ),
        (
            SECRET,
            r#"{"data":{"a":"!"}}"#,
            "illegal base64 data at input byte 0",
        ),
        // What can't be read at all goes before a mere wrong type.
        (
            SECRET,
            r#"{"type":7,"data":{"a":"!"}}"#,
            "illegal base64 data at input byte 0",
        ),
    ];
    for (kind, body, message) in cases {
        assert_eq!(decode(kind, body).expect_err(body), message, "{body}");
    }
}

#[test]
fn unknown_and_duplicate_fields_are_reported_and_dropped() {
    let cases: [(_, &str, &[&str]); 8] = [
        (
            CONFIG_MAP,
            r#"{"Metadata":{},"Data":{}}"#,
            &[r#"unknown field "Metadata""#, r#"unknown field "Data""#],
        ),
        (
            CONFIG_MAP,
            r#"{"kind":"ConfigMap","kind":"ConfigMap","metadata":{},"metadata":{}}"#,
            &[r#"duplicate field "kind""#, r#"duplicate field "metadata""#],
        ),
        (
            CONFIG_MAP,
            r#"{"metadata":{"labels":{"a":"1","a":"2"}},"data":{"k":"1","k":"2"}}"#,
            &[
                r#"duplicate field "metadata.labels.a""#,
                r#"duplicate field "data.k""#,
            ],
        ),
        (
            DEPLOYMENT,
            r#"{"spec":{"template":{"spec":{"containers":[{"image":"a","image":"b","bogus":1}]}},"bogus":2}}"#,
            &[
                r#"duplicate field "spec.template.spec.containers[0].image""#,
                r#"unknown field "spec.template.spec.containers[0].bogus""#,
                r#"unknown field "spec.bogus""#,
            ],
        ),
        (
            POD,
            r#"{"spec":{"containers":[{"envFrom":[{},{"secretRef":{"x":1}}]}]}}"#,
            &[r#"unknown field "spec.containers[0].envFrom[1].secretRef.x""#],
        ),
        (
            ("resource.k8s.io", "v1", "ResourceSlice"),
            r#"{"spec":{"devices":[{"capacity":{"memory":{"value":"1","x":1}}}]}}"#,
            &[r#"unknown field "spec.devices[0].capacity.memory.x""#],
        ),
        (
            ("apps", "v1", "ControllerRevision"),
            r#"{"data":{"anything":{"goes":1}}}"#,
            &[],
        ),
        (
            CONFIG_MAP,
            r#"{"data":{"unknown":"keys are no fields"}}"#,
            &[],
        ),
    ];
    for (kind, body, expected) in cases {
        let decoded = decode(kind, body).expect(body);
        let strict: Vec<_> = decoded.strict.iter().map(ToString::to_string).collect();
        assert_eq!(strict, expected, "{body}");
        assert!(!decoded.value.to_string().contains("bogus"));
        let message = (!expected.is_empty())
            .then(|| format!("strict decoding error: {}", expected.join(", ")));
        assert_eq!(decoded.strict_message(), message);
    }
    let many: Vec<String> = (0..500).map(|n| format!("\"x{n}\":1")).collect();
    let decoded = decode(CONFIG_MAP, &format!("{{{}}}", many.join(",")))
        .expect("unknown fields are no error");
    assert_eq!(decoded.strict.len(), 100);
}

#[test]
fn decoding_writes_what_go_would_write() {
    let cases = [
        (
            CONFIG_MAP,
            r#"{"data":{"b":"1","a":null},"kind":"ConfigMap","metadata":{"labels":{},"name":"x"},"immutable":false,"apiVersion":"v1"}"#,
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"x"},"immutable":false,"data":{"b":"1","a":""}}"#,
        ),
        (
            POD,
            r#"{"spec":{"hostNetwork":false,"hostUsers":false,"nodeName":"","containers":[{"stdin":false,"env":[]}]}}"#,
            r#"{"metadata":{},"spec":{"containers":[{"name":"","resources":{}}],"hostUsers":false},"status":{}}"#,
        ),
        (
            POD,
            r#"{"spec":null,"status":null}"#,
            r#"{"metadata":{},"spec":{"containers":null},"status":{}}"#,
        ),
        (
            DEPLOYMENT,
            r#"{"spec":{"paused":false,"replicas":0,"minReadySeconds":0}}"#,
            r#"{"metadata":{},"spec":{"replicas":0,"selector":null,"template":{"metadata":{},"spec":{"containers":null}},"strategy":{}},"status":{}}"#,
        ),
        (
            SECRET,
            r#"{"data":{"a":"QQ==","b":[1,2],"c":null}}"#,
            r#"{"metadata":{},"data":{"a":"QQ==","b":"AQI=","c":null}}"#,
        ),
        (
            ("coordination.k8s.io", "v1", "Lease"),
            r#"{"metadata":{"creationTimestamp":"2026-01-02T05:04:05.9+02:00"},"spec":{"renewTime":"2026-01-02T03:04:05.000000Z","holderIdentity":""}}"#,
            r#"{"metadata":{"creationTimestamp":"2026-01-02T03:04:05Z"},"spec":{"holderIdentity":"","renewTime":"2026-01-02T03:04:05.000000Z"}}"#,
        ),
        (
            POD,
            r#"{"spec":{"containers":[{"name":"a","resources":{"limits":{"cpu":0.5,"memory":"1.5Gi"}}}]}}"#,
            r#"{"metadata":{},"spec":{"containers":[{"name":"a","resources":{"limits":{"cpu":"500m","memory":"1536Mi"}}}]},"status":{}}"#,
        ),
        (
            ("discovery.k8s.io", "v1", "EndpointSlice"),
            r#"{"addressType":"IPv4"}"#,
            r#"{"metadata":{},"addressType":"IPv4","endpoints":null,"ports":null}"#,
        ),
    ];
    for (kind, body, expected) in cases {
        let decoded = decode(kind, body).expect(body);
        assert_eq!(decoded.value.to_string(), expected, "{body}");
        let again = decode_value(decoded.value.clone(), &schema(kind.0, kind.1, kind.2))
            .expect("decoded values decode");
        assert_eq!(
            again.value.to_string(),
            expected,
            "decoding twice changes nothing"
        );
    }
}

#[test]
fn yaml_is_read_as_json_is() {
    let body = "# a comment\nkind: ConfigMap\napiVersion: v1\nmetadata: {name: x}\ndata:\n  a: \"1\"\n  b: |\n    two\n";
    let decoded = decode_yaml(body.as_bytes(), &schema("", "v1", "ConfigMap")).expect("YAML");
    assert_eq!(
        decoded.value,
        json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "x"}, "data": {"a": "1", "b": "two\n"}})
    );
    let duplicate = decode_yaml(
        b"data:\n  k: a\n  k: b\nextra: 1\n",
        &schema("", "v1", "ConfigMap"),
    )
    .expect("YAML");
    let strict: Vec<_> = duplicate.strict.iter().map(ToString::to_string).collect();
    assert_eq!(
        strict,
        [
            r#"line 3: key "k" already set in map"#,
            r#"unknown field "extra""#
        ]
    );
    let number = decode_yaml(b"data: {a: 1}", &schema("", "v1", "ConfigMap"))
        .expect_err("a number is no string");
    let expected =
        "json: cannot unmarshal number into Go struct field ConfigMap.data of type string";
    assert_eq!(number.to_string(), expected);
    for body in ["{", "a: [", "a: b: c", "&a [*a]", "a: &x 1\nb: *y"] {
        assert!(
            decode_yaml(body.as_bytes(), &SchemaRef::any()).is_err(),
            "{body}"
        );
    }
}

#[test]
fn bodies_say_what_kind_they_are() {
    let meta =
        type_meta_of_json(br#"{"x":[],"kind":"Deployment","apiVersion":"apps/v1"}"#).expect("JSON");
    assert_eq!(
        (meta.group_version(), meta.kind.as_str()),
        (("apps", "v1"), "Deployment")
    );
    assert_eq!(
        type_meta_of_yaml(b"kind: Pod\napiVersion: v1")
            .expect("YAML")
            .group_version(),
        ("", "v1")
    );
    assert_eq!(type_meta_of_json(b"null"), Ok(TypeMeta::default()));
    let array = type_meta_of_json(b"[]").expect_err("an array").to_string();
    assert_eq!(
        array,
        "couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type struct \
         { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }"
    );
    assert_eq!(excerpt(b""), "<empty>");
    assert_eq!(excerpt(b"[]"), "5b5d");
    assert_eq!(
        excerpt(br#"{"kind":"ConfigMap","apiVersion":"v1"}"#),
        r#"{"kind":"ConfigMap","apiVersio ..."#
    );
}

#[test]
fn a_table_for_a_custom_resource_is_read_like_the_builtin_one() {
    let mut builder = TableBuilder::default();
    let thing = builder.definition("com.example.v1.Thing");
    let text = builder.scalar(SchemaKind::String, TypeFacts::default());
    let items = builder.list(
        text,
        TypeFacts {
            list_type: ListType::Set,
            ..TypeFacts::default()
        },
    );
    builder.describe(
        thing,
        TypeFacts {
            preserve_unknown: true,
            ..TypeFacts::default()
        },
    );
    builder.field(thing, "items", items, FieldFacts::default());
    let table = std::sync::Arc::new(builder.build());
    let schema = table.definition("com.example.v1.Thing").expect("just made");
    assert_eq!(
        schema.child("items").expect("a field").list_type(),
        ListType::Set
    );
    let decoded = decode_json(br#"{"other":1,"items":["a"]}"#, &schema).expect("a thing");
    assert_eq!(
        (decoded.value, decoded.strict.len()),
        (json!({"items": ["a"], "other": 1}), 0)
    );
}

#[test]
fn yaml_that_cannot_be_read_is_refused_in_words_of_go() {
    for (body, why) in [
        ("{\"a\":\"\u{1}\"}", "control characters are not allowed"),
        ("a: b: c", "mapping values are not allowed in this context"),
        (
            "x: y\na: b: c",
            "line 2: mapping values are not allowed in this context",
        ),
    ] {
        let error = decode_yaml(body.as_bytes(), &SchemaRef::any()).expect_err(body);
        let expected = format!("error converting YAML to JSON: yaml: {why}");
        assert_eq!(error.to_string(), expected, "{body}");
    }
}

#[test]
fn json_as_yaml_may_have_long_keys_and_escaped_backslashes() {
    let body = json!({"k".repeat(2000): r"\ud", "b": r"\\ud"}).to_string();
    let read = decode_yaml(body.as_bytes(), &SchemaRef::any()).map(|decoded| decoded.value);
    assert_eq!(read, parse_json(body.as_bytes()));
    decode_yaml(br#"{"a":"\ud800"}"#, &SchemaRef::any()).expect_err("half of a character");
}

#[test]
fn what_go_holds_by_value_is_there_whatever_was_read() {
    let schema = schema("", "v1", "Service");
    let decoded = decode_json(br#"{"spec":{"ports":[{"port":80}]}}"#, &schema).expect("fits");
    let ports = json!([{"port": 80, "targetPort": 0}]);
    assert_eq!(decoded.value.pointer("/spec/ports"), Some(&ports));
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "(1Gi|QQ==|2026-01-02T03:04:05Z|\\PC{0,6})".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        let key = "(metadata|spec|status|template|containers|name|env|resources|limits|ports|startTime|labels|zz)";
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((key, inner), 0..6).prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_is_decoded_or_refused(value in any_json()) {
        for (group, version, kind) in [POD, DEPLOYMENT, SECRET, EVENT] {
            let schema = schema(group, version, kind);
            if let Ok(decoded) = decode_value(value.clone(), &schema) {
                let again = decode_value(decoded.value.clone(), &schema);
                prop_assert_eq!(again, Ok(Decoded { value: decoded.value, strict: Vec::new(), empties: Vec::new() }));
            }
        }
    }

    #[test]
    fn json_is_read_as_serde_json_reads_it(value in any_json()) {
        let text = value.to_string();
        prop_assert_eq!(parse_json(text.as_bytes()).map_err(|error| error.to_string()), Ok(value));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let json = parse_json(&bytes).is_ok();
        if serde_json::from_slice::<Value>(&bytes).is_ok() {
            prop_assert!(json, "what is JSON is read");
        }
        let _ = decode_yaml(&bytes, &SchemaRef::any());
        let _ = type_meta_of_yaml(&bytes);
    }
}
