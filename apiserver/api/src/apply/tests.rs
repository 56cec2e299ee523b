//! Field sets, owners and applied configurations, as upstream has them.

use serde_json::{Value, json};

use super::entries::Entries;
use super::*;
use crate::schema::{from_kept_json, on_deep_stack};
use crate::{Object, Registry};

const NOW: &str = "2030-01-01T00:00:00Z";
const LATER: &str = "2030-01-01T00:01:00Z";

fn manager(group: &str, plural: &str, subresource: &'static str) -> FieldManager {
    let resource = Registry::builtin().by_plural(group, "v1", plural);
    FieldManager::new(resource.expect("the kind is served"), subresource)
}

fn config_maps() -> FieldManager {
    manager("", "configmaps", "")
}

fn object(value: Value) -> Object {
    Object::from_value(value).expect("an object")
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data})
}

/// Manager, operation and fields of each entry.
fn owners(object: &Object) -> Vec<(String, String, Value)> {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    object
        .at("metadata.managedFields")
        .items()
        .filter_map(|entry| entry.value().cloned())
        .map(|entry| {
            (
                text(&entry, "manager"),
                text(&entry, "operation"),
                entry["fieldsV1"].clone(),
            )
        })
        .collect()
}

fn owner(manager: &str, operation: &str, fields: Value) -> (String, String, Value) {
    (manager.to_owned(), operation.to_owned(), fields)
}

/// What `who` applies to `live`.
fn apply(
    live: Option<&Object>,
    config: &Value,
    who: &str,
    force: bool,
) -> Result<Object, ApplyError> {
    let applied = config_maps().apply(live, config, who, force, NOW)?;
    Ok(object(applied.object))
}

#[test]
fn field_sets_read_as_they_are_written() {
    let fields = json!({
        "f:metadata": {"f:finalizers": {".": {}, "v:\"example.com/a\"": {}}},
        "f:spec": {"f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}}, "i:3": {}}},
    });
    let set = FieldSet::parse(&fields).expect("well-formed");
    assert_eq!(set.to_value(), fields);
    let spelled = json!({"f:spec": {"f:ports": {"k:{ \"protocol\":\"TCP\", \"containerPort\":80}": {"f:name": {}}}}});
    let spelled = FieldSet::parse(&spelled).expect("well-formed");
    assert_eq!(spelled.intersection(&set), spelled);
    let step = FieldSet::parse(&json!({"f:a": {"x": {}}})).expect_err("no such step");
    assert_eq!(step.to_string(), "\"x\" is not a step of a field set");
}

#[test]
fn numbers_as_keys_have_one_order_and_one_form() {
    let step = |text: &str| Element::parse(text).expect(text);
    let sorted = [
        "v:-9007199254740993",
        "v:-9007199254740992",
        "v:-9007199254740992.0",
        "v:0",
        "v:0.0",
        "v:0.12345678901234567",
        "v:9223372036854775807",
        "v:1e300",
        "v:\"0\"",
    ];
    for (at, a) in sorted.iter().enumerate() {
        for (other, b) in sorted.iter().enumerate() {
            assert_eq!(step(a).cmp(&step(b)), at.cmp(&other), "{a} and {b}");
        }
        assert_eq!(step(&step(a).to_key()), step(a), "{a}");
    }
    assert_eq!(step("v:-0.0"), step("v:0.0"));
}

#[test]
fn what_two_spellings_of_a_key_own_is_joined() {
    let set = FieldSet::parse(&json!({
        "k:{\"a\":1}": {"f:x": {}},
        "k:{ \"a\":1}": {".": {}, "f:y": {}},
    }));
    let joined = json!({"k:{\"a\":1}": {".": {}, "f:x": {}, "f:y": {}}});
    assert_eq!(set.expect("well-formed").to_value(), joined);
}

#[test]
fn sets_nest_as_deep_as_objects() {
    let work = || {
        let nested = |levels: usize| {
            let text = format!("{}{{}}{}", "{\"f:a\":".repeat(levels), "}".repeat(levels));
            from_kept_json::<Value>(text.as_bytes()).expect("the test writes JSON")
        };
        let deep = nested(9_999);
        let set = FieldSet::parse(&deep).expect("deep enough");
        assert!(set.to_value() == deep);
        assert_eq!(set.paths(usize::MAX)[0].len(), 9_999);
        FieldSet::parse(&nested(10_001)).expect_err("too deep");
    };
    on_deep_stack("deep", work).expect("room for a thread");
}

#[test]
fn paths_are_as_many_as_have_room() {
    let set = FieldSet::of_fields(["a", "b.c.d", "b.c.e"]);
    let paths = |most| set.paths(most).len();
    assert_eq!([0, 1, 2, 4, 5, 9].map(paths), [0, 1, 2, 2, 3, 3]);
}

#[test]
fn sets_are_joined_and_taken_apart_by_path() {
    let set = |value| FieldSet::parse(&value).expect("well-formed");
    let both = set(json!({"f:a": {".": {}, "f:b": {}, "f:c": {}}, "f:d": {}}));
    let part = set(json!({"f:a": {".": {}, "f:b": {}}}));
    assert_eq!(part.clone().union(&both), both);
    assert_eq!(
        both.difference(&part),
        set(json!({"f:a": {"f:c": {}}, "f:d": {}}))
    );
    assert_eq!(both.outside(&part), set(json!({"f:d": {}})));
    assert_eq!(both.intersection(&part), part);
    assert!(both.difference(&both).is_empty());
}

#[test]
fn a_creation_owns_what_it_says_with_its_defaults() {
    let deployments = manager("apps", "deployments", "");
    let mut new = object(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x", "labels": {"a": "b"}},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "x"}}, "strategy": {"type": "Recreate"},
            "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [
                {"name": "a", "env": [{"name": "A", "value": "1"}], "resources": {}},
            ]}},
        },
        "status": {"replicas": 3},
    }));
    deployments.update(None, &mut new, "kubectl-create", NOW);
    let fields = json!({
        "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
        "f:spec": {
            "f:replicas": {}, "f:selector": {}, "f:strategy": {"f:type": {}},
            "f:template": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {"f:containers": {
                "k:{\"name\":\"a\"}": {
                    ".": {}, "f:name": {}, "f:resources": {},
                    "f:env": {".": {}, "k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}}},
                },
            }}},
        },
    });
    assert_eq!(owners(&new), [owner("kubectl-create", "Update", fields)]);
}

#[test]
fn updates_own_what_they_change_and_nothing_else() {
    let mut first = object(config_map(json!({"a": "1", "b": "1"})));
    config_maps().update(None, &mut first, "one", NOW);
    let mut second = first.clone();
    second.set("data.b", "2");
    second.set("data.c", "2");
    config_maps().update(Some(&first), &mut second, "two", LATER);
    assert_eq!(
        owners(&second),
        [
            owner("one", "Update", json!({"f:data": {".": {}, "f:a": {}}})),
            owner("two", "Update", json!({"f:data": {"f:b": {}, "f:c": {}}})),
        ]
    );
    let mut same = second.clone();
    same.remove("metadata.managedFields");
    config_maps().update(Some(&second), &mut same, "three", LATER);
    assert_eq!(
        same, second,
        "an update that changes nothing changes no owner"
    );
    let mut gone = second.clone();
    gone.remove("data");
    config_maps().update(Some(&second), &mut gone, "three", LATER);
    assert_eq!(owners(&gone), []);
}

#[test]
fn status_is_owned_through_status_alone() {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [{"name": "a"}]},
        "status": {"phase": "Pending"},
    });
    let mut new = object(pod);
    manager("", "pods", "").update(None, &mut new, "one", NOW);
    let mut next = new.clone();
    next.set("status.phase", "Running");
    next.set("spec.nodeName", "ignored");
    manager("", "pods", "status").update(Some(&new), &mut next, "kubelet", LATER);
    let entries = next.at("metadata.managedFields");
    let last = entries
        .items()
        .last()
        .expect("two entries")
        .value()
        .expect("an entry")
        .clone();
    assert_eq!(last["subresource"], "status");
    assert_eq!(last["fieldsV1"], json!({"f:status": {"f:phase": {}}}));
    assert_eq!(entries.len(), 2);
}

#[test]
fn metadata_that_a_status_cannot_change_is_not_owned_through_it() {
    for (group, plural, owned) in [
        ("", "nodes", true),
        ("apiextensions.k8s.io", "customresourcedefinitions", false),
        ("flowcontrol.apiserver.k8s.io", "flowschemas", false),
    ] {
        let mut new = object(json!({"metadata": {"name": "x", "labels": {"z": "1"}}}));
        manager(group, plural, "").update(None, &mut new, "one", NOW);
        let mut next = new.clone();
        next.set("metadata.labels.a", "b");
        manager(group, plural, "status").update(Some(&new), &mut next, "two", LATER);
        let found = owners(&next);
        let by_two = found.iter().any(|(manager, ..)| manager == "two");
        assert_eq!(by_two, owned, "{plural}: {found:?}");
    }
}

#[test]
fn what_the_server_puts_back_is_owned_by_nobody() {
    let csr = "certificatesigningrequests";
    let (labels, conditions) = (
        json!({"f:metadata": {"f:labels": {"f:a": {}}}}),
        json!({"f:status": {"f:conditions": {
            "k:{\"type\":\"T\"}": {".": {}, "f:status": {}, "f:type": {}}
        }}}),
    );
    let container = json!({"f:spec": {
        "f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:resources": {}}},
        "f:initContainers": {"k:{\"name\":\"i\"}": {".": {}, "f:resources": {}}},
    }});
    let debug = json!({"f:spec": {"f:ephemeralContainers": {
        "k:{\"name\":\"d\"}": {".": {}, "f:name": {}}
    }}});
    let request = json!({
        "metadata": {"name": "x", "labels": {"a": "b"}}, "spec": {"request": "QQ=="},
        "status": {"conditions": [{"type": "T", "status": "True"}]},
    });
    let pod = json!({
        "metadata": {"name": "x", "labels": {"a": "b"}},
        "spec": {
            "nodeName": "n", "containers": [{"name": "a", "image": "i", "resources": {}}],
            "initContainers": [{"name": "i", "image": "i", "resources": {}}],
            "ephemeralContainers": [{"name": "d"}],
        },
    });
    let definition =
        json!({"metadata": {"name": "x", "labels": {"a": "b"}}, "spec": {"group": "g"}});
    let both = json!({"f:metadata": {"f:labels": {"f:a": {}}}, "f:status": conditions["f:status"]});
    for (group, plural, subresource, config, owned) in [
        (
            "certificates.k8s.io",
            csr,
            "",
            &request,
            Some(labels.clone()),
        ),
        ("certificates.k8s.io", csr, "status", &request, Some(labels)),
        ("certificates.k8s.io", csr, "approval", &request, Some(both)),
        ("", "pods", "resize", &pod, Some(container)),
        ("", "pods", "ephemeralcontainers", &pod, Some(debug)),
        (
            "apiextensions.k8s.io",
            "customresourcedefinitions",
            "status",
            &definition,
            None,
        ),
    ] {
        let resource = Registry::builtin().by_plural(group, "v1", plural);
        let resource = resource.expect("the kind is served");
        let mut config = config.clone();
        config["apiVersion"] = resource.api_version().into();
        config["kind"] = resource.kind.into();
        let manager = FieldManager::new(resource, subresource);
        let applied = manager.apply(None, &config, "one", false, NOW);
        let applied = object(
            applied
                .unwrap_or_else(|error| panic!("{plural}: {error}"))
                .object,
        );
        let owned = owned.map(|fields| owner("one", "Apply", fields));
        assert_eq!(
            owners(&applied),
            Vec::from_iter(owned),
            "{plural}/{subresource}"
        );
    }
}

#[test]
fn applying_merges_takes_away_and_gives_up() {
    let made =
        apply(None, &config_map(json!({"a": "1", "b": "1"})), "one", false).expect("created");
    assert_eq!(
        owners(&made),
        [owner(
            "one",
            "Apply",
            json!({"f:data": {"f:a": {}, "f:b": {}}})
        )]
    );
    let shared = apply(
        Some(&made),
        &config_map(json!({"b": "1", "c": "1"})),
        "two",
        false,
    );
    let shared = shared.expect("the same value is no conflict");
    // `a` goes: only `one` wanted it; `b` stays for `two`.
    let less = apply(Some(&shared), &config_map(json!({})), "one", false).expect("applied");
    assert_eq!(less.at("data").value(), Some(&json!({"b": "1", "c": "1"})));
    assert_eq!(
        owners(&less),
        [
            owner("one", "Apply", json!({"f:data": {}})),
            owner("two", "Apply", json!({"f:data": {"f:b": {}, "f:c": {}}})),
        ]
    );
}

#[test]
fn conflicts_name_every_owner_and_force_takes_all() {
    let made =
        apply(None, &config_map(json!({"a": "1", "b": "1"})), "one", false).expect("created");
    let mut edited = made.clone();
    edited.set("data.b", "2");
    config_maps().update(Some(&made), &mut edited, "ed", NOW);
    let wanted = config_map(json!({"a": "3", "b": "3"}));
    let error = apply(Some(&edited), &wanted, "two", false).expect_err("conflicts");
    assert_eq!(
        error.to_string(),
        "Apply failed with 2 conflicts: conflicts with \"ed\" using v1:\n- .data.b\nconflicts with \"one\":\n- .data.a"
    );
    let ApplyError::Conflicts(conflicts) = error else {
        panic!("not conflicts");
    };
    assert_eq!(conflicts[0].message(), "conflict with \"ed\" using v1");
    assert_eq!(conflicts[1].field(), ".data.a");
    let forced = apply(Some(&edited), &wanted, "two", true).expect("forced");
    assert_eq!(
        owners(&forced),
        [owner(
            "two",
            "Apply",
            json!({"f:data": {"f:a": {}, "f:b": {}}})
        )]
    );
}

#[test]
fn what_was_there_before_the_first_apply_has_an_owner() {
    let live = object(config_map(json!({"a": "1"})));
    let error =
        apply(Some(&live), &config_map(json!({"a": "2"})), "one", false).expect_err("a conflict");
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.a"
    );
}

#[test]
fn kubectl_takes_over_nothing_else_among_however_much_it_may() {
    let data = |value: &str, last: &str| {
        let many = (0..60_000).map(|number| (format!("a{number}"), Value::from(value)));
        let data: serde_json::Map<_, _> = many.chain([("z".to_owned(), last.into())]).collect();
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data})
    };
    let mut live = data("1", "changed since");
    live["metadata"]["annotations"] = json!({LAST_APPLIED: data("1", "1").to_string()});
    let mut live = Object::from_value(live).expect("an object");
    config_maps().update(None, &mut live, "other", NOW);
    let refused = apply(Some(&live), &data("2", "2"), "kubectl", false);
    let Err(ApplyError::Conflicts(conflicts)) = refused else {
        panic!("the owner of z was not asked");
    };
    let fields: Vec<_> = conflicts.iter().map(Conflict::field).collect();
    assert_eq!(fields, [".data.z"]);
}

#[test]
fn kubectl_takes_over_what_it_applied_on_the_client() {
    let mut live = object(config_map(json!({"a": "1"})));
    let last = config_map(json!({"a": "1"})).to_string();
    live.map_mut("metadata.annotations")
        .insert(LAST_APPLIED.into(), last.into());
    config_maps().update(None, &mut live, "kubectl-client-side-apply", NOW);
    let wanted = config_map(json!({"a": "2"}));
    apply(Some(&live), &wanted, "other", false).expect_err("others may not");
    let applied = apply(Some(&live), &wanted, "kubectl", false).expect("kubectl may");
    let annotation = applied
        .at("metadata.annotations")
        .entry(LAST_APPLIED)
        .str()
        .to_owned();
    let annotation: Value = serde_json::from_str(&annotation).expect("JSON");
    assert_eq!(annotation, wanted);
    live.set("data.a", "edited");
    apply(Some(&live), &wanted, "kubectl", false).expect_err("changed since");
}

#[test]
fn items_of_keyed_lists_belong_to_whoever_applies_them() {
    let services = manager("", "services", "");
    let service = |ports: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"ports": ports}});
    let apply = |live: Option<&Object>, ports: Value, who: &str| {
        let applied = services.apply(live, &service(ports), who, false, NOW);
        object(applied.expect("no conflict").object)
    };
    let one = apply(None, json!([{"port": 80}, {"port": 90}]), "one");
    let two = apply(
        Some(&one),
        json!([{"port": 70}, {"port": 80, "protocol": "TCP"}]),
        "two",
    );
    let ports = |object: &Object| -> Vec<i64> {
        let ports = object.at("spec.ports");
        ports
            .items()
            .filter_map(|port| port.key("port").as_i64())
            .collect()
    };
    assert_eq!(ports(&two), [70, 80, 90]);
    let three = apply(Some(&two), json!([{"port": 90}]), "one");
    assert_eq!(ports(&three), [70, 80, 90], "80 is two's as well");
    let four = apply(Some(&three), json!([]), "one");
    assert_eq!(ports(&four), [70, 80]);
}

#[test]
fn configurations_that_do_not_fit_are_refused_in_upstreams_words() {
    let refuse = |config: Value| {
        apply(None, &config, "one", false)
            .expect_err("refused")
            .to_string()
    };
    let mut unknown = config_map(json!({}));
    unknown["bogus"] = json!(1);
    let head = "failed to create typed patch object (/x; /v1, Kind=ConfigMap): ";
    assert_eq!(
        refuse(unknown),
        format!("{head}.bogus: field not declared in schema")
    );
    assert_eq!(
        refuse(config_map(json!({"a": 1}))),
        format!("{head}.data.a: expected string, got &value.valueUnstructured{{Value:1}}")
    );
    let mut twice = config_map(json!({}));
    twice["metadata"]["finalizers"] = json!(["example.com/a", "example.com/a"]);
    assert_eq!(
        refuse(twice),
        format!("{head}.metadata.finalizers: duplicate entries for key [=\"example.com/a\"]")
    );
    let mut owned = config_map(json!({}));
    owned["metadata"]["managedFields"] = json!([]);
    assert_eq!(refuse(owned), "metadata.managedFields must be nil");
    assert_eq!(
        refuse(json!({"apiVersion": "v2", "kind": "ConfigMap"})),
        "invalid object type: /v2, Kind=ConfigMap"
    );
}

#[test]
fn items_with_the_same_key_are_owned_and_kept_as_a_whole() {
    let pods = manager("", "pods", "");
    let pod = |env: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [{"name": "c", "env": env}]}});
    let mut live = object(pod(json!([{"name": "A"}, {"name": "A", "value": "2"}])));
    pods.update(None, &mut live, "one", NOW);
    let wanted = pod(json!([{"name": "B"}]));
    let env = json!([{"name": "A"}, {"name": "A", "value": "2"}, {"name": "B"}]);
    for _ in 0..2 {
        let applied = pods.apply(Some(&live), &wanted, "two", false, NOW);
        live = object(applied.expect("no conflict").object);
        let containers = live.at("spec.containers");
        assert_eq!(containers.index(0).key("env").value(), Some(&env));
    }
}

#[test]
fn an_unchanged_object_keeps_its_times() {
    let made = apply(None, &config_map(json!({"a": "1"})), "one", false).expect("created");
    let again = config_maps().apply(
        Some(&made),
        &config_map(json!({"a": "1"})),
        "one",
        false,
        LATER,
    );
    assert_eq!(object(again.expect("applied").object), made);
}

#[test]
fn the_oldest_updaters_share_an_entry() {
    let mut live = object(config_map(json!({"k": "v"})));
    config_maps().update(None, &mut live, "u0", "2030-01-01T00:00:00Z");
    for n in 1..14 {
        let mut next = live.clone();
        next.set(&format!("data.k{n}"), "v");
        config_maps().update(
            Some(&live),
            &mut next,
            &format!("u{n}"),
            &format!("2030-01-01T00:00:{n:02}Z"),
        );
        live = next;
    }
    let entries = owners(&live);
    assert_eq!(entries.len(), 10);
    assert_eq!(entries[0].0, "ancient-changes");
    let fields =
        json!({"f:data": {".": {}, "f:k": {}, "f:k1": {}, "f:k2": {}, "f:k3": {}, "f:k4": {}}});
    assert_eq!(entries[0].2, fields);
}

#[test]
fn one_empty_entry_makes_all_owners_forgotten() {
    let mut live = object(config_map(json!({"a": "1"})));
    config_maps().update(None, &mut live, "one", NOW);
    let mut next = live.clone();
    next.set("metadata.managedFields", json!([{}]));
    config_maps().update(Some(&live), &mut next, "two", NOW);
    assert_eq!(owners(&next), []);
    let mut damaged = live.clone();
    damaged.set(
        "metadata.managedFields",
        json!([{"manager": "x", "operation": "Steal"}]),
    );
    config_maps().update(Some(&live), &mut damaged, "two", NOW);
    assert_eq!(
        owners(&damaged),
        owners(&live),
        "what can't be read is not believed"
    );
}

#[test]
fn entries_survive_a_round_trip() {
    let entries = json!([
        {"manager": "b", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
         "fieldsV1": {"f:data": {"f:a": {}}}},
        {"manager": "a", "operation": "Update", "apiVersion": "v1", "time": NOW, "fieldsType": "FieldsV1",
         "fieldsV1": {"f:status": {"f:phase": {}}}, "subresource": "status"},
    ]);
    let decoded = Entries::decode(&entries).expect("well-formed");
    assert_eq!(decoded.encode(), Some(entries));
}
