//! The table form of objects: what `kubectl get` prints.

use coracle_api::{Object, Resource};
use coracle_clock::Timestamp;
use serde_json::{Value, json};

/// Columns and rows; the caller adds type, metadata and the rows' objects.
pub struct Table {
    /// `columnDefinitions`.
    pub columns: Value,
    /// `rows`, without `object`.
    pub rows: Vec<Value>,
}

/// The table of `objects`, whose ages are as of `now`.
pub fn render(resource: &Resource, objects: &[Object], now: Timestamp) -> Table {
    let columns = resource.columns.iter().map(|column| {
        json!({
            "name": column.name,
            "type": column.kind,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        })
    });
    let rows = objects.iter().map(|object| json!({"cells": resource.strategy.cells(object, now)}));
    Table { columns: columns.collect(), rows: rows.collect() }
}
