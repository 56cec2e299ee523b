//! Reads the definitions of a published OpenAPI document in its JSON-Schema form.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A definition as the table needs it.
pub(crate) struct Definition {
    pub(crate) fields: Vec<Field>,
    pub(crate) required: Vec<String>,
    pub(crate) kinds: Vec<String>,
    pub(crate) atomic: bool,
}

/// One property.
pub(crate) struct Field {
    pub(crate) name: String,
    /// The type in the table's notation, with full names of definitions.
    pub(crate) kind: String,
    /// List, map and patch facts in the table's notation.
    pub(crate) facts: Vec<String>,
}

/// Definitions that are scalars to whoever uses them.
const SCALARS: [(&str, &str); 13] = [
    ("io.k8s.apimachinery.pkg.api.resource.Quantity", "quantity"),
    (
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
        "intorstring",
    ),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Time", "time"),
    (
        "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
        "microtime",
    ),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Duration", "duration"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", "fieldsv1"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Patch", "json"),
    ("io.k8s.apimachinery.pkg.runtime.RawExtension", "raw"),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON",
        "json",
    ),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray",
        "json",
    ),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool",
        "json",
    ),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray",
        "json",
    ),
    (
        "io.k8s.apimachinery.pkg.util.intstr.IntOrStringPatch",
        "intorstring",
    ),
];

pub(crate) fn read(path: &Path) -> Result<BTreeMap<String, Definition>> {
    let document: Value = serde_json::from_slice(&fs::read(path)?)?;
    let all = document
        .get("$defs")
        .or_else(|| document.get("definitions"))
        .and_then(Value::as_object)
        .context("the document has neither $defs nor definitions")?;
    let mut definitions = BTreeMap::new();
    for (name, schema) in all {
        if !name.starts_with("io.k8s.") || SCALARS.iter().any(|(scalar, _)| scalar == name) {
            continue;
        }
        let definition = definition(schema).with_context(|| format!("definition {name}"))?;
        definitions.insert(name.clone(), definition);
    }
    Ok(definitions)
}

fn definition(schema: &Value) -> Result<Definition> {
    let mut fields = Vec::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let kind = kind(property).with_context(|| format!("property {name}"))?;
        fields.push(Field {
            name: name.clone(),
            kind,
            facts: facts(property),
        });
    }
    let kinds = schema["x-kubernetes-group-version-kind"]
        .as_array()
        .into_iter()
        .flatten();
    let kinds = kinds.map(|kind| {
        let part = |key: &str| kind[key].as_str().unwrap_or_default();
        let group = if part("group").is_empty() {
            String::new()
        } else {
            format!("{}/", part("group"))
        };
        format!("{group}{}/{}", part("version"), part("kind"))
    });
    Ok(Definition {
        fields,
        required: strings(&schema["required"]),
        kinds: kinds.collect(),
        atomic: schema["x-kubernetes-map-type"] == "atomic",
    })
}

fn kind(schema: &Value) -> Result<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or(reference);
        let scalar = SCALARS.iter().find(|(scalar, _)| *scalar == name);
        return Ok(scalar.map_or_else(|| format!("&{name}"), |(_, kind)| (*kind).to_owned()));
    }
    let format = schema["format"].as_str().unwrap_or_default();
    let simple = match schema["type"]
        .as_str()
        .or_else(|| non_null(&schema["type"]))
    {
        Some("string") if format == "byte" => "bytes",
        Some("string") if format == "date-time" => "time",
        Some("string") => "string",
        Some("boolean") => "bool",
        Some("integer") if format == "int64" => "int64",
        Some("integer") => "int32",
        Some("number") => "double",
        Some("array") => return Ok(format!("[]{}", kind(&schema["items"])?)),
        Some("object") => match schema.get("additionalProperties") {
            Some(elem) => return Ok(format!("{{}}{}", kind(elem)?)),
            None => "json",
        },
        None => "json",
        Some(other) => bail!("unknown type {other}"),
    };
    Ok(simple.to_owned())
}

/// The one type beside null in a list of types.
fn non_null(types: &Value) -> Option<&str> {
    types
        .as_array()?
        .iter()
        .filter_map(Value::as_str)
        .find(|name| *name != "null")
}

fn facts(schema: &Value) -> Vec<String> {
    let mut facts = Vec::new();
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => facts.push("set".to_owned()),
        Some("map") => facts.push(format!(
            "map={}",
            strings(&schema["x-kubernetes-list-map-keys"]).join(",")
        )),
        _ => {}
    }
    if schema["x-kubernetes-map-type"] == "atomic" {
        facts.push("atomic".to_owned());
    }
    let key = schema["x-kubernetes-patch-merge-key"].as_str();
    let strategies = schema["x-kubernetes-patch-strategy"]
        .as_str()
        .unwrap_or_default();
    for strategy in strategies
        .split(',')
        .filter(|strategy| !strategy.is_empty())
    {
        match (strategy, key) {
            ("merge", Some(key)) => facts.push(format!("merge={key}")),
            (other, _) => facts.push(other.to_owned()),
        }
    }
    if let Some(key) = key.filter(|_| !strategies.contains("merge")) {
        facts.push(format!("key={key}"));
    }
    if let Some(default) = schema.get("default") {
        facts.push(format!("default={default}"));
    }
    facts
}

fn strings(value: &Value) -> Vec<String> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}
