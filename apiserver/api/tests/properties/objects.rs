//! What the properties are tried on: JSON of any shape, and Deployments with every sort of list.

use proptest::prelude::*;
use proptest::sample::{Index, subsequence};
use serde_json::{Map, Value, json};

/// JSON with few keys, so that two of them have much in common; without null if `nulls` is false.
pub(crate) fn any_json(nulls: bool) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(if nulls { Value::Null } else { json!({}) }),
        any::<bool>().prop_map(Value::from),
        (0..3).prop_map(Value::from),
        "[ab]".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let entries = prop::collection::vec(("(a|b|c|x/y|~|0)", inner.clone()), 0..4);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::Array),
            entries.prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

/// A JSON object.
pub(crate) fn any_object(nulls: bool) -> impl Strategy<Value = Value> {
    let entries = prop::collection::vec(("[abc]", any_json(nulls)), 0..4);
    entries.prop_map(|entries| Value::Object(entries.into_iter().collect()))
}

/// Some of the names, in any order.
pub(crate) fn names(
    all: &'static [&'static str],
    at_least: usize,
) -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(all, at_least..=all.len()).prop_shuffle()
}

/// Items of the given names, each made of its name and a small number.
fn items(
    all: &'static [&'static str],
    at_least: usize,
    item: fn(&str, usize) -> Value,
) -> impl Strategy<Value = Value> {
    (names(all, at_least), any::<[Index; 4]>()).prop_map(move |(names, picks)| {
        let items = names.iter().zip(picks);
        Value::Array(
            items
                .map(|(name, pick)| item(name, pick.index(3)))
                .collect(),
        )
    })
}

fn container() -> impl Strategy<Value = Value> {
    let env = items(&["A", "B", "C"], 0, |name, pick| match pick {
        0 => json!({"name": name}),
        1 => json!({"name": name, "value": "1"}),
        _ => json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
    });
    let ports = items(
        &["80", "81", "82"],
        0,
        |port, pick| json!({"containerPort": port.parse::<i64>().unwrap_or_default(), "protocol": "TCP", "hostPort": pick + 1}),
    );
    (env, ports, names(&["x", "y", "z"], 0), "i:[12]").prop_map(|(env, ports, args, image)| {
        json!({"image": image, "env": env, "ports": ports, "args": args})
    })
}

/// A Deployment's manifest, with lists that merge by key, lists of primitives that merge, lists that are replaced, and
/// unions whose keys are retained; nothing in it is empty.
pub(crate) fn deployment() -> impl Strategy<Value = Value> {
    let labels = prop::collection::btree_map("[abc]", "[12]", 0..3);
    let finalizers = names(&["example.com/a", "example.com/b", "example.com/c"], 0);
    let containers = (
        names(&["c", "d", "e"], 1),
        [container(), container(), container()],
    )
        .prop_map(|(names, containers)| {
            let named = names.iter().zip(containers).map(|(name, mut container)| {
                container["name"] = json!(name);
                container
            });
            Value::Array(named.collect())
        });
    let volumes = items(&["v", "w", "u"], 0, |name, pick| match pick {
        0 => json!({"name": name, "emptyDir": {"medium": "Memory"}}),
        1 => json!({"name": name, "secret": {"secretName": "s"}}),
        _ => json!({"name": name, "configMap": {"name": "m"}}),
    });
    let tolerations = items(
        &["k", "l"],
        0,
        |key, _| json!({"key": key, "operator": "Exists"}),
    );
    let strategy = prop_oneof![
        Just(json!({"type": "Recreate"})),
        (1..3).prop_map(
            |surge| json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge}})
        ),
    ];
    (
        labels,
        finalizers,
        containers,
        volumes,
        tolerations,
        strategy,
    )
        .prop_map(
            |(labels, finalizers, containers, volumes, tolerations, strategy)| {
                let mut object = json!({
                    "apiVersion": "apps/v1", "kind": "Deployment",
                    "metadata": {"name": "x", "labels": labels, "finalizers": finalizers},
                    "spec": {"strategy": strategy, "template": {"spec": {
                        "containers": containers, "volumes": volumes, "tolerations": tolerations,
                    }}},
                });
                drop_empty(&mut object);
                object
            },
        )
}

/// Leaves out empty lists and maps, which objects don't keep either.
pub(crate) fn drop_empty(value: &mut Value) {
    let empty = |value: &Value| {
        value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty)
    };
    match value {
        Value::Array(items) => items.iter_mut().for_each(drop_empty),
        Value::Object(map) => {
            map.values_mut().for_each(drop_empty);
            map.retain(|_, value| !empty(value));
        }
        _ => {}
    }
}
