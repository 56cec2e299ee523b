//! The table form of objects: what `kubectl get` prints.

use coracle_api::{Object, Resource};
use coracle_clock::Timestamp;
use serde_json::{Map, Value, json};

use crate::status::{ApiError, Result};

/// Columns and rows; the caller adds type, metadata and the rows' objects.
pub(crate) struct Table {
    /// `columnDefinitions`.
    pub columns: Value,
    /// `rows`, without `object`.
    pub rows: Vec<Value>,
}

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

/// The table of `objects`, whose ages are as of `now`.
pub(crate) fn render(resource: &Resource, objects: &[Object], now: Timestamp) -> Table {
    let columns = resource.columns.iter().map(|column| {
        json!({
            "name": column.name,
            "type": column.kind,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        })
    });
    let rows = objects.iter().map(|object| {
        let mut row = Map::from_iter([(
            "cells".to_owned(),
            resource.strategy.cells(object, now).into(),
        )]);
        let conditions = resource.strategy.row_conditions(object);
        if !conditions.is_empty() {
            row.insert("conditions".to_owned(), conditions.into());
        }
        Value::Object(row)
    });
    Table {
        columns: columns.collect(),
        rows: rows.collect(),
    }
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
            let table = render(resource, std::slice::from_ref(&object), now());
            let cells = table.rows[0]["cells"].as_array().map(Vec::len);
            assert_eq!(
                cells,
                table.columns.as_array().map(Vec::len),
                "{}",
                resource.qualified()
            );
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
        let table = render(pods, &[object("Running"), object("Succeeded")], now());
        assert!(table.rows[0].get("conditions").is_none());
        assert_eq!(table.rows[1]["conditions"][0]["reason"], "Succeeded");
    }
}
