//! Laws of server-side apply with two managers.

use coracle_api::apply::{ApplyError, FieldManager};
use coracle_api::schema::{SchemaRef, decode_value};
use coracle_api::{Object, Registry};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::objects::{deployment, drop_empty};

const NOW: &str = "2030-01-01T00:00:00Z";
const LATER: &str = "2030-01-01T00:01:00Z";

fn manager() -> FieldManager {
    let resource = Registry::builtin().by_kind("apps", "v1", "Deployment");
    FieldManager::new(resource.expect("a built-in kind"), "")
}

/// What is stored after a manager applied a configuration.
fn apply_at(
    live: Option<&Object>,
    config: &Value,
    who: &str,
    force: bool,
    now: &str,
) -> Result<Object, ApplyError> {
    let schema = SchemaRef::for_kind("apps", "v1", "Deployment").expect("a built-in kind");
    let applied = manager().apply(live, config, who, force, now)?;
    let decoded = decode_value(applied.object, &schema).expect("it fits its schema");
    Ok(Object::from_value(decoded.value).expect("an object"))
}

fn apply(live: Option<&Object>, config: &Value, who: &str) -> Object {
    apply_at(live, config, who, false, NOW).expect("no conflict")
}

/// A configuration that states nothing.
fn nothing() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}})
}

/// An object as a value whose lists are sorted, without times: both tell which manager came first.
fn sorted(object: &Object) -> Value {
    fn sort(value: &mut Value) {
        match value {
            Value::Array(items) => {
                items.iter_mut().for_each(sort);
                items.sort_by_key(ToString::to_string);
            }
            Value::Object(map) => {
                map.shift_remove("time");
                map.values_mut().for_each(sort);
            }
            _ => {}
        }
    }
    let mut value = object.clone().into_value();
    value.sort_all_objects();
    sort(&mut value);
    value
}

/// Splits a manifest: labels, finalizers and list items go to one of two, everything else to the first.
fn split(manifest: &Value, picks: u32) -> (Value, Value) {
    let (mut one, mut two) = (manifest.clone(), nothing());
    let mut turn = picks;
    let mut first = || {
        turn = turn.rotate_right(1);
        turn & 1 == 1
    };
    let labels = manifest["metadata"]["labels"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    for (key, value) in labels.into_iter().filter(|_| !first()) {
        one["metadata"]["labels"]
            .as_object_mut()
            .expect("labels")
            .shift_remove(&key);
        two["metadata"]["labels"][key] = value;
    }
    for place in [
        "/metadata/finalizers",
        "/spec/template/spec/containers",
        "/spec/template/spec/volumes",
    ] {
        let Some(Value::Array(items)) = one.pointer_mut(place) else {
            continue;
        };
        let (mine, theirs): (Vec<_>, Vec<_>) = items.drain(..).partition(|_| first());
        *items = mine;
        let mut into = &mut two;
        for step in place.split('/').skip(1) {
            into = &mut into[step];
        }
        *into = theirs.into();
    }
    drop_empty(&mut one);
    drop_empty(&mut two);
    (one, two)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn applying_twice_changes_nothing(first in deployment(), config in deployment()) {
        let live = apply(None, &first, "one");
        let once = apply_at(Some(&live), &config, "two", true, NOW).expect("by force");
        let twice = apply_at(Some(&once), &config, "two", false, LATER).expect("no conflict is left");
        prop_assert_eq!(twice, once);
    }

    #[test]
    fn managers_who_share_nothing_come_in_any_order(manifest in deployment(), picks in any::<u32>()) {
        let (one, two) = split(&manifest, picks);
        let one_first = apply(Some(&apply(None, &one, "one")), &two, "two");
        let two_first = apply(Some(&apply(None, &two, "two")), &one, "one");
        prop_assert_eq!(sorted(&one_first), sorted(&two_first));
        let mut whole = apply(None, &manifest, "one");
        let mut shared = one_first;
        whole.remove("metadata.managedFields");
        shared.remove("metadata.managedFields");
        prop_assert_eq!(sorted(&shared), sorted(&whole), "together they state the whole");
    }

    #[test]
    fn whoever_leaves_takes_what_was_theirs_alone(manifest in deployment(), picks in any::<u32>(), shared in any::<u32>()) {
        // Both state what the second split gives to the second, with the same values.
        let (_, both) = split(&manifest, shared);
        let (mine, theirs) = split(&manifest, picks);
        let one = merged(&mine, &both);
        let two = merged(&theirs, &both);
        let live = apply(Some(&apply(None, &one, "one")), &two, "two");
        let left = apply(Some(&live), &nothing(), "one");
        let alone = apply(None, &two, "two");
        prop_assert_eq!(sorted(&left), sorted(&alone));
        let empty = apply(Some(&left), &nothing(), "two");
        prop_assert_eq!(sorted(&empty), sorted(&apply(None, &nothing(), "two")));
    }

    #[test]
    fn force_moves_what_differs_to_the_new_owner(config in deployment(), image in "i:[34]") {
        let live = apply(None, &config, "one");
        let name = config["spec"]["template"]["spec"]["containers"][0]["name"].clone();
        let mut wanted = nothing();
        wanted["spec"]["template"]["spec"]["containers"] = json!([{"name": name, "image": image}]);
        let refused = apply_at(Some(&live), &wanted, "two", false, NOW);
        let Err(ApplyError::Conflicts(conflicts)) = refused else {
            panic!("{refused:?} is no conflict");
        };
        let fields: Vec<_> = conflicts.iter().map(|conflict| conflict.field()).collect();
        prop_assert_eq!(fields, [format!(".spec.template.spec.containers[name={name}].image")]);
        let forced = apply_at(Some(&live), &wanted, "two", true, NOW).expect("by force");
        // Now it is the first who would change what is the other's.
        let back = apply_at(Some(&forced), &config, "one", false, NOW);
        prop_assert!(matches!(back, Err(ApplyError::Conflicts(_))), "{:?}", back);
        // The first owner who states the new value shares it, and the second may leave.
        let mut agreed = config.clone();
        agreed["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
        let shared = apply(Some(&forced), &agreed, "one");
        let left = apply(Some(&shared), &nothing(), "two");
        prop_assert_eq!(sorted(&left), sorted(&apply(None, &agreed, "one")));
    }
}

/// Both configurations in one; where both say something they say the same.
fn merged(one: &Value, two: &Value) -> Value {
    match (one, two) {
        (Value::Object(one), Value::Object(two)) => {
            let mut map = one.clone();
            for (key, value) in two {
                let both = one
                    .get(key)
                    .map_or_else(|| value.clone(), |one| merged(one, value));
                map.insert(key.clone(), both);
            }
            Value::Object(map)
        }
        (Value::Array(one), Value::Array(two)) => {
            let mut items = one.clone();
            items.extend(two.iter().filter(|item| !one.contains(item)).cloned());
            Value::Array(items)
        }
        _ => one.clone(),
    }
}
