//! The table form of objects: what `kubectl get` prints.

use coracle_api::{Object, Resource};
use coracle_clock::Timestamp;
use serde_json::{Map, Value, json};

use crate::status::{ApiError, Result};

/// Refuses an `includeObject` that says nothing.
pub(crate) fn check_include(include: Option<&str>) -> Result<()> {
    match include.unwrap_or_default() {
        "" | "Metadata" | "Object" | "None" => Ok(()),
        other => Err(ApiError::bad_request(format!(
            "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', \
             'Object', 'None', or empty"
        ))),
    }
}

/// `columnDefinitions`.
pub(crate) fn columns(resource: &Resource) -> Value {
    let columns = resource.columns.iter().map(|column| {
        json!({
            "name": column.name,
            "type": column.kind,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        })
    });
    columns.collect()
}

/// The row of an object, without `object`; its age is as of `now`.
pub(crate) fn row(resource: &Resource, object: &Object, now: Timestamp) -> Value {
    let cells = resource.strategy.cells(object, now);
    let mut row = Map::from_iter([("cells".to_owned(), cells.into())]);
    let conditions = resource.strategy.row_conditions(object);
    if !conditions.is_empty() {
        row.insert("conditions".to_owned(), conditions.into());
    }
    Value::Object(row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::Registry;

    fn now() -> Timestamp {
        "2030-01-01T00:00:00Z".parse().expect("a time")
    }

    #[test]
    fn every_kind_fills_all_its_columns() {
        let object = Object::from_value(json!({"metadata": {"name": "x"}})).expect("an object");
        for resource in Registry::builtin().iter() {
            let (row, columns) = (row(resource, &object, now()), columns(resource));
            let cells = row["cells"].as_array().map(Vec::len);
            let columns = columns.as_array().map(Vec::len);
            assert_eq!(cells, columns, "{}", resource.qualified());
        }
    }

    #[test]
    fn a_pod_that_has_ended_says_so_beside_its_cells() {
        let registry = Registry::builtin();
        let pods = registry.by_kind("", "v1", "Pod").expect("served");
        let object = |phase: &str| {
            Object::from_value(json!({"metadata": {"name": "x"}, "status": {"phase": phase}}))
                .expect("an object")
        };
        let running = row(pods, &object("Running"), now());
        assert!(running.get("conditions").is_none());
        let ended = row(pods, &object("Succeeded"), now());
        assert_eq!(ended["conditions"][0]["reason"], "Succeeded");
    }
}
