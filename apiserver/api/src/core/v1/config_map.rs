//! ConfigMap: data that Pods read; may be frozen by `immutable`.

use coracle_clock::Timestamp;
use serde_json::Value;

use crate::field_errors::ErrorType;
use crate::kinds::{AGE, ALL_VERBS, Column, NAME, NameRule, Storage, age};
use crate::validation::names;
use crate::{At, FieldErrors, Object, Resource, Strategy};

/// Most bytes that the values of a ConfigMap or of a Secret may have together.
pub(super) const MOST_BYTES: usize = 1024 * 1024;

/// What the pipeline knows of configmaps.
pub static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    columns: COLUMNS,
    name_rule: NameRule::Subdomain,
    generation: false,
    create_on_update: false,
    unconditional_update: true,
    storage: Storage::Own,
    deprecation: None,
    strategy: &ConfigMap,
};

/// ConfigMap: data that Pods read; may be frozen by `immutable`.
pub struct ConfigMap;

impl Strategy for ConfigMap {
    fn validate(&self, new: &Object, errors: &mut FieldErrors) {
        let (data, binary) = (new.at("data"), new.at("binaryData"));
        let mut bytes = 0;
        for (key, value) in data.entries() {
            named_value(key, &value, errors);
            if binary.entry(key).exists() {
                let shown = Some(Value::from(key));
                errors.push(
                    ErrorType::Invalid,
                    value.path(),
                    shown,
                    "duplicate of key present in binaryData",
                );
            }
            bytes += value.str().len();
        }
        for (key, value) in binary.entries() {
            named_value(key, &value, errors);
            bytes += value.str().len() / 4 * 3;
        }
        if bytes > MOST_BYTES {
            errors.too_long(&new.at(""), MOST_BYTES);
        }
    }

    fn validate_update(&self, new: &Object, old: &Object, errors: &mut FieldErrors) {
        frozen(new, old, &["data", "binaryData"], errors);
    }

    fn cells(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        let entries = object.at("data").len() + object.at("binaryData").len();
        vec![object.name().into(), entries.into(), age(object, now)]
    }
}

/// Reports a key that is not legal.
pub(super) fn named_value(key: &str, value: &At<'_>, errors: &mut FieldErrors) {
    for message in names::config_key(key) {
        errors.push(
            ErrorType::Invalid,
            value.path(),
            Some(Value::from(key)),
            message,
        );
    }
}

/// Reports changes of what `immutable` has frozen, also of itself.
pub(super) fn frozen(new: &Object, old: &Object, fields: &[&str], errors: &mut FieldErrors) {
    const DETAIL: &str = "field is immutable when `immutable` is set";
    if !old.at("immutable").is_true() {
        return;
    }
    if !new.at("immutable").is_true() {
        errors.forbidden(&new.at("immutable"), DETAIL);
    }
    for field in fields {
        let (now, was) = (new.at(field), old.at(field));
        if now.value() != was.value() && now.len() + was.len() > 0 {
            errors.forbidden(&now, DETAIL);
        }
    }
}

static COLUMNS: &[Column] = &[
    NAME,
    Column::string(
        "Data",
        "Data contains the configuration data. Each key must consist of alphanumeric characters, '-', '_' or \
         '.'. Values with non-UTF-8 byte sequences must use the BinaryData field. The keys stored in Data \
         must not overlap with the keys in the BinaryData field, this is enforced during validation process.",
    ),
    AGE,
];
