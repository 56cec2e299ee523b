//! Strategic merge patches as kubectl computes them, over a kind that has every sort of list.

use coracle_api::patch::{Patch, PatchType};
use coracle_api::schema::SchemaRef;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::objects::{any_object, deployment, drop_empty, names};
use crate::scanning;

fn schema() -> SchemaRef {
    SchemaRef::for_kind("apps", "v1", "Deployment").expect("a built-in kind")
}

fn apply(patch: &Value, object: &Value) -> Value {
    let text = patch.to_string();
    let (parsed, _) = Patch::parse(PatchType::Strategic, text.as_bytes()).expect("a map");
    let result = parsed.apply(object.clone(), &schema());
    let mut result = result.unwrap_or_else(|error| panic!("{text}: {error}"));
    drop_empty(&mut result);
    result
}

/// The patch that kubectl would send: `live` gets what `wanted` says, and loses what `last` said and `wanted` doesn't.
fn difference(
    last: &Map<String, Value>,
    wanted: &Map<String, Value>,
    live: &Map<String, Value>,
    schema: &SchemaRef,
) -> Map<String, Value> {
    let mut patch = Map::new();
    for key in last.keys().filter(|key| !wanted.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in wanted {
        let below = schema.child(key).unwrap_or_else(SchemaRef::any);
        let strategy = below.patch_strategy();
        let (last, live) = (last.get(key), live.get(key));
        match (value, live) {
            (Value::Object(value), Some(Value::Object(live))) if !strategy.replace => {
                let none = Map::new();
                let last = last.and_then(Value::as_object).unwrap_or(&none);
                let mut inner = difference(last, value, live, &below);
                if !inner.is_empty() {
                    retain(&mut inner, value, &below);
                    patch.insert(key.clone(), Value::Object(inner));
                }
            }
            (Value::Array(items), Some(Value::Array(live))) if strategy.merge => {
                let last = last
                    .and_then(Value::as_array)
                    .map_or(&[][..], Vec::as_slice);
                list_difference(key, (last, items, live), &below, &mut patch);
            }
            (value, Some(live)) if value == live => {}
            (value, _) => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    patch
}

/// Says which keys stay, where Go has a union.
fn retain(patch: &mut Map<String, Value>, wanted: &Map<String, Value>, schema: &SchemaRef) {
    if schema.patch_strategy().retain_keys {
        let keys: Vec<_> = wanted.keys().cloned().collect();
        patch.insert("$retainKeys".into(), keys.into());
    }
}

fn list_difference(
    name: &str,
    (last, wanted, live): (&[Value], &[Value], &[Value]),
    schema: &SchemaRef,
    patch: &mut Map<String, Value>,
) {
    let Some(key) = schema.merge_key() else {
        let gone: Vec<_> = last
            .iter()
            .filter(|item| !wanted.contains(item))
            .cloned()
            .collect();
        let new: Vec<_> = wanted
            .iter()
            .filter(|item| !live.contains(item))
            .cloned()
            .collect();
        if !gone.is_empty() {
            patch.insert(format!("$deleteFromPrimitiveList/{name}"), gone.into());
        }
        if !new.is_empty() {
            patch.insert(name.into(), new.into());
        }
        patch.insert(format!("$setElementOrder/{name}"), wanted.into());
        return;
    };
    let elem = schema.elem().expect("a list's items");
    let find = |list: &[Value], item: &Value| {
        let found = list.iter().find(|other| other[key] == item[key]);
        found.and_then(Value::as_object).cloned()
    };
    let mut items = Vec::new();
    for item in wanted {
        let fields = item.as_object().expect("an item with a key");
        match find(live, item) {
            None => items.push(item.clone()),
            Some(live) => {
                let last = find(last, item).unwrap_or_default();
                let mut inner = difference(&last, fields, &live, &elem);
                if !inner.is_empty() {
                    // The item's key is stated, hence retained.
                    if schema.patch_strategy().retain_keys {
                        let keys: Vec<_> = fields.keys().cloned().collect();
                        inner.insert("$retainKeys".into(), keys.into());
                    }
                    inner.insert(key.into(), item[key].clone());
                    items.push(Value::Object(inner));
                }
            }
        }
    }
    for item in last.iter().filter(|item| find(wanted, item).is_none()) {
        items.push(json!({key: item[key], "$patch": "delete"}));
    }
    if !items.is_empty() {
        patch.insert(name.into(), items.into());
    }
    let order: Vec<_> = wanted.iter().map(|item| json!({key: item[key]})).collect();
    patch.insert(format!("$setElementOrder/{name}"), order.into());
}

fn patch_of(last: &Value, wanted: &Value, live: &Value) -> Value {
    let map = |value: &Value| value.as_object().cloned().expect("an object");
    Value::Object(difference(&map(last), &map(wanted), &map(live), &schema()))
}

const FOREIGN: &str = "foreign";

/// The object with a label, a finalizer, a container and a variable that someone else added, each at some place.
fn with_foreign(object: &Value, at: usize) -> Value {
    let mut object = object.clone();
    object["metadata"]["labels"][FOREIGN] = json!("1");
    let spec = &mut object["spec"]["template"]["spec"];
    insert(
        &mut spec["containers"][0]["env"],
        at,
        json!({"name": FOREIGN}),
    );
    insert(
        &mut spec["containers"],
        at,
        json!({"name": FOREIGN, "image": "i"}),
    );
    insert(&mut object["metadata"]["finalizers"], at, json!(FOREIGN));
    object
}

fn insert(list: &mut Value, at: usize, item: Value) {
    if list.is_null() {
        *list = json!([]);
    }
    let items = list.as_array_mut().expect("a list");
    items.insert(at.min(items.len()), item);
}

/// The object without what [`with_foreign`] adds.
fn without_foreign(mut object: Value) -> Value {
    fn strip(value: &mut Value) {
        let foreign = |value: &Value| *value == FOREIGN || value["name"] == FOREIGN;
        match value {
            Value::Array(items) => {
                items.retain(|item| !foreign(item));
                items.iter_mut().for_each(strip);
            }
            Value::Object(map) => {
                map.shift_remove(FOREIGN);
                map.values_mut().for_each(strip);
            }
            _ => {}
        }
    }
    strip(&mut object);
    drop_empty(&mut object);
    object
}

/// What a list of a patch, or of an object that others wrote, may have in it, sound or not.
fn element() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        8 => "[abcd]".prop_map(Value::from),
        1 => Just(Value::Null),
        1 => (0..2).prop_map(Value::from),
        1 => Just(json!({"a": null})),
    ];
    let rest = prop_oneof![
        4 => Just(json!({})),
        3 => "[12]".prop_map(|image| json!({"image": image})),
        2 => names(&["x", "y", "z"], 0).prop_map(|args| json!({"args": args})),
        1 => Just(json!({"image": null})),
        2 => Just(json!({"$patch": "delete"})),
        1 => Just(json!({"$patch": "replace"})),
        1 => Just(json!({"$retainKeys": ["name", "image"]})),
    ];
    let keyed = (key, rest).prop_map(|(key, mut fields)| {
        fields["name"] = key;
        fields
    });
    prop_oneof![20 => keyed, 1 => Just(json!({"image": "1"})), 1 => Just(json!({"$patch": "replace"})), 1 => Just(json!("a"))]
}

/// A part of a Pod's template: an object, or a patch with any directives.
fn part() -> impl Strategy<Value = Value> {
    let list = || prop::option::of(prop::collection::vec(element(), 0..6));
    let primitives = || prop::option::of(prop::collection::vec("[abcd]", 0..6));
    let order = || prop::option::of(names(&["a", "b", "c", "d"], 0));
    let lists = (list(), order(), primitives(), primitives(), order());
    lists.prop_map(|(containers, container_order, finalizers, gone, order)| {
        let named = |names: Vec<&str>| -> Vec<Value> {
            names.iter().map(|name| json!({"name": name})).collect()
        };
        let parts = [
            ("containers", containers.map(Value::from)),
            (
                "$setElementOrder/containers",
                container_order.map(named).map(Value::from),
            ),
            ("finalizers", finalizers.map(Value::from)),
            ("$deleteFromPrimitiveList/finalizers", gone.map(Value::from)),
            ("$setElementOrder/finalizers", order.map(Value::from)),
        ];
        let mut object = json!({"metadata": {}, "spec": {"template": {"spec": {}}}});
        for (name, value) in parts {
            let place = match name.ends_with("finalizers") {
                true => &mut object["metadata"],
                false => &mut object["spec"]["template"]["spec"],
            };
            if let Some(value) = value {
                place[name] = value;
            }
        }
        object
    })
}

/// A thousand times what people write; the scanning model would take its square.
#[test]
fn long_lists_merge_element_by_element() {
    const COUNT: usize = 20_000;
    let list = |from: usize, image: &str| -> Vec<Value> {
        let names = (from..from + COUNT).map(|n| format!("c{n:06}"));
        names
            .map(|name| json!({"name": name, "image": image}))
            .collect()
    };
    let object = |items: Vec<Value>| json!({"spec": {"template": {"spec": {"containers": items}}}});
    let before = object(list(0, "old"));
    let merged = apply(&object(list(COUNT / 2, "new")), &before);
    let merged = merged
        .pointer("/spec/template/spec/containers")
        .and_then(Value::as_array);
    let merged = merged.expect("a list");
    assert_eq!(merged.len(), COUNT + COUNT / 2);
    for (n, item) in merged.iter().enumerate() {
        let image = if n < COUNT / 2 { "old" } else { "new" };
        assert_eq!(*item, json!({"name": format!("c{n:06}"), "image": image}));
    }
    let gone: Vec<_> = list(1, "")
        .into_iter()
        .map(|item| json!({"name": item["name"], "$patch": "delete"}))
        .collect();
    let left = apply(&object(gone), &before);
    assert_eq!(
        left,
        object(vec![json!({"name": "c000000", "image": "old"})])
    );
    let nulls: Map<_, _> = (0..COUNT).map(|n| (format!("k{n}"), Value::Null)).collect();
    let labels: Map<_, _> = (0..COUNT)
        .map(|n| (format!("k{}", n * 2), json!("1")))
        .collect();
    let left = apply(
        &json!({"metadata": {"labels": nulls}}),
        &json!({"metadata": {"labels": labels}}),
    );
    assert_eq!(
        left["metadata"]["labels"].as_object().map(Map::len),
        Some(COUNT / 2)
    );
}

proptest! {
    #[test]
    fn an_index_finds_what_a_search_finds(object in part(), patch in part()) {
        let text = patch.to_string();
        let (parsed, _) = Patch::parse(PatchType::Strategic, text.as_bytes()).expect("a map");
        let map = |value: &Value| value.as_object().cloned().expect("an object");
        let searched = scanning::merge_map(map(&object), map(&patch), &schema());
        prop_assert_eq!(parsed.apply(object.clone(), &schema()), searched.map(Value::Object));
    }

    #[test]
    fn a_difference_makes_one_of_the_other(before in deployment(), after in deployment()) {
        let patch = patch_of(&before, &after, &before);
        prop_assert_eq!(apply(&patch, &before), after, "{}", patch);
    }

    #[test]
    fn a_three_way_difference_keeps_what_others_added(last in deployment(), wanted in deployment(), at in 0_usize..4) {
        // A manifest that drops the last label drops the map, and with it everybody's.
        let (mut last, mut wanted) = (last, wanted);
        last["metadata"]["labels"]["kept"] = json!("1");
        wanted["metadata"]["labels"]["kept"] = json!("1");
        let live = with_foreign(&last, at);
        let patch = patch_of(&last, &wanted, &live);
        let result = apply(&patch, &live);
        prop_assert_eq!(&result["metadata"]["labels"][FOREIGN], "1");
        let containers = result["spec"]["template"]["spec"]["containers"].as_array().expect("containers");
        prop_assert!(containers.iter().any(|container| container["name"] == FOREIGN), "{}", patch);
        prop_assert_eq!(without_foreign(result), wanted, "{}", patch);
    }

    #[test]
    fn replace_and_delete_take_the_whole_place(before in deployment(), after in deployment(), map in any_object(false)) {
        let mut containers = after["spec"]["template"]["spec"]["containers"].clone();
        insert(&mut containers, 9, json!({"$patch": "replace"}));
        let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
        let result = apply(&patch, &before);
        let spec = "/spec/template/spec/containers";
        prop_assert_eq!(result.pointer(spec), after.pointer(spec));
        let mut replaced = map.clone();
        replaced["$patch"] = json!("replace");
        let mut expected = before.clone();
        expected["metadata"]["annotations"] = map.clone();
        drop_empty(&mut expected);
        let mut object = before.clone();
        object["metadata"]["annotations"] = json!({"old": "1"});
        let patch = json!({"metadata": {"annotations": replaced}});
        prop_assert_eq!(apply(&patch, &object), expected);
        let patch = json!({"metadata": {"annotations": {"$patch": "delete"}}});
        prop_assert_eq!(apply(&patch, &object), before);
    }

    #[test]
    fn an_order_moves_what_it_lists_and_leaves_the_rest(
        before in names(&["A", "B", "C", "D", "E"], 1),
        order in names(&["A", "B", "C", "D", "E", "F"], 0),
    ) {
        let named = |names: &[&str]| -> Vec<Value> { names.iter().map(|name| json!({"name": name})).collect() };
        let env = |list: Value| json!({"spec": {"template": {"spec": {"containers": [list]}}}});
        let object = env(json!({"name": "c", "env": named(&before)}));
        let patch = env(json!({"name": "c", "$setElementOrder/env": named(&order)}));
        let result = apply(&patch, &object);
        let list = result.pointer("/spec/template/spec/containers/0/env").and_then(Value::as_array);
        let after: Vec<&str> = list.into_iter().flatten().filter_map(|item| item["name"].as_str()).collect();
        let only = |names: &[&str], keep: &dyn Fn(&str) -> bool| -> Vec<String> {
            names.iter().filter(|name| keep(name)).map(ToString::to_string).collect()
        };
        let listed = |name: &str| order.contains(&name);
        prop_assert_eq!(only(&after, &listed), only(&order, &|name| before.contains(&name)));
        prop_assert_eq!(only(&after, &|name| !listed(name)), only(&before, &|name| !listed(name)));
    }
}
