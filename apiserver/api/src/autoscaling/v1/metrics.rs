//! Metrics as the annotations of the older version hold them.
//!
//! One line per kind says which field of the stored form is which of the older one.

use serde_json::{Map, Value, json};

/// A place in the stored form, and the field of the older form.
type Pair = (&'static str, &'static str);

/// A kind of metric: its field and how its parts are called; the older form's order is Go's.
struct Kind {
    field: &'static str,
    spec: &'static [Pair],
    status: &'static [Pair],
}

const KINDS: [Kind; 5] = [
    Kind {
        field: "object",
        spec: &[
            ("describedObject", "target"),
            ("metric.name", "metricName"),
            ("target.value", "targetValue"),
            ("metric.selector", "selector"),
            ("target.averageValue", "averageValue"),
        ],
        status: &[
            ("describedObject", "target"),
            ("metric.name", "metricName"),
            ("current.value", "currentValue"),
            ("metric.selector", "selector"),
            ("current.averageValue", "averageValue"),
        ],
    },
    Kind {
        field: "pods",
        spec: &[
            ("metric.name", "metricName"),
            ("target.averageValue", "targetAverageValue"),
            ("metric.selector", "selector"),
        ],
        status: &[
            ("metric.name", "metricName"),
            ("current.averageValue", "currentAverageValue"),
            ("metric.selector", "selector"),
        ],
    },
    Kind {
        field: "resource",
        spec: &[
            ("name", "name"),
            ("target.averageUtilization", "targetAverageUtilization"),
            ("target.averageValue", "targetAverageValue"),
        ],
        status: &[
            ("name", "name"),
            ("current.averageUtilization", "currentAverageUtilization"),
            ("current.averageValue", "currentAverageValue"),
        ],
    },
    Kind {
        field: "containerResource",
        spec: &[
            ("name", "name"),
            ("target.averageUtilization", "targetAverageUtilization"),
            ("target.averageValue", "targetAverageValue"),
            ("container", "container"),
        ],
        status: &[
            ("name", "name"),
            ("current.averageUtilization", "currentAverageUtilization"),
            ("current.averageValue", "currentAverageValue"),
            ("container", "container"),
        ],
    },
    Kind {
        field: "external",
        spec: &[
            ("metric.name", "metricName"),
            ("metric.selector", "metricSelector"),
            ("target.value", "targetValue"),
            ("target.averageValue", "targetAverageValue"),
        ],
        status: &[
            ("metric.name", "metricName"),
            ("metric.selector", "metricSelector"),
            ("current.value", "currentValue"),
            ("current.averageValue", "currentAverageValue"),
        ],
    },
];

/// Amounts that Go holds by value in the older form, and so writes even when there are none.
const BY_VALUE: [(&str, &str); 7] = [
    ("object", "targetValue"),
    ("object", "currentValue"),
    ("pods", "targetAverageValue"),
    ("pods", "currentAverageValue"),
    ("resource", "currentAverageValue"),
    ("containerResource", "currentAverageValue"),
    ("external", "currentValue"),
];

/// A metric's spec in the older form.
pub(super) fn spec_to_v1(metric: &Value) -> Value {
    to_v1(metric, |kind| kind.spec)
}

/// A metric's status in the older form.
pub(super) fn status_to_v1(metric: &Value) -> Value {
    to_v1(metric, |kind| kind.status)
}

/// A metric's spec in the stored form.
pub(super) fn spec_to_v2(metric: &Value) -> Value {
    let mut converted = to_v2(metric, |kind| kind.spec);
    for kind in &KINDS {
        let Some(target) = converted
            .get_mut(kind.field)
            .and_then(|source| source.get_mut("target"))
        else {
            continue;
        };
        let has = |field: &str| target.get(field).is_some_and(|value| !value.is_null());
        let form = match kind.field {
            "pods" => "AverageValue",
            "object" if has("averageValue") => "AverageValue",
            "object" => "Value",
            "external" if has("value") => "Value",
            "external" => "AverageValue",
            _ if has("averageUtilization") => "Utilization",
            _ => "AverageValue",
        };
        // An average makes the amount that Go always writes meaningless.
        let meaningless = kind.field == "object" && form == "AverageValue";
        if let Some(target) = target.as_object_mut() {
            if meaningless && target.get("value").and_then(Value::as_str) == Some("0") {
                target.shift_remove("value");
            }
            target.insert("type".to_owned(), form.into());
        }
    }
    converted
}

/// A metric's status in the stored form.
pub(super) fn status_to_v2(metric: &Value) -> Value {
    to_v2(metric, |kind| kind.status)
}

/// A struct of Go's internal types by its JSON names: `{"ScaleUp":…}` is `{"scaleUp":…}`; without what is null.
pub(super) fn json_names(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let given = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(
                given
                    .map(|(key, value)| (lower(key), json_names(value)))
                    .collect(),
            )
        }
        Value::Array(items) => items.iter().map(json_names).collect(),
        other => other.clone(),
    }
}

fn lower(key: &str) -> String {
    let mut letters = key.chars();
    letters.next().map_or_else(String::new, |first| {
        format!("{}{}", first.to_ascii_lowercase(), letters.as_str())
    })
}

fn to_v1(metric: &Value, pairs: impl Fn(&Kind) -> &'static [Pair]) -> Value {
    let mut converted = Map::new();
    converted.insert(
        "type".to_owned(),
        metric.get("type").cloned().unwrap_or_default(),
    );
    for kind in &KINDS {
        let Some(source) = metric.get(kind.field).filter(|source| !source.is_null()) else {
            continue;
        };
        let mut older = Map::new();
        for (place, field) in pairs(kind) {
            let value = place
                .split('.')
                .try_fold(source, |value, step| value.get(step))
                .filter(|value| !value.is_null());
            if let Some(value) = value {
                older.insert((*field).to_owned(), value.clone());
            } else if BY_VALUE.contains(&(kind.field, *field)) {
                older.insert((*field).to_owned(), json!("0"));
            }
        }
        converted.insert(kind.field.to_owned(), Value::Object(older));
    }
    Value::Object(converted)
}

fn to_v2(metric: &Value, pairs: impl Fn(&Kind) -> &'static [Pair]) -> Value {
    let mut converted = Map::new();
    converted.insert(
        "type".to_owned(),
        metric.get("type").cloned().unwrap_or_default(),
    );
    for kind in &KINDS {
        let Some(source) = metric.get(kind.field).filter(|source| source.is_object()) else {
            continue;
        };
        let mut newer = crate::Object::default();
        for (place, field) in pairs(kind) {
            if let Some(value) = source.get(*field).filter(|value| !value.is_null()) {
                newer.set(place, value.clone());
            }
        }
        converted.insert(kind.field.to_owned(), newer.into_value());
    }
    Value::Object(converted)
}
