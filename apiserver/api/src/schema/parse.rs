//! Reads the text form of a table.
//!
//! ```text
//! io.k8s.api.core.v1.Container                        a definition, in the first column
//!  name 1 string required value                       a field: name, protobuf number, type, facts
//!  ports 6 []&ContainerPort map=containerPort,protocol merge=containerPort
//! ```
//!
//! A type is a scalar's name, `[]` or `{}` before the type of the elements, or `&` before a definition (of the same
//! package where it has no dot). Numbers of enclosing messages that JSON doesn't show come first: `2.1`. Lines that
//! begin with `#` are comments.

use std::borrow::Cow;

use super::{
    builder::{DefinitionId, FieldFacts, TableBuilder, TypeFacts, TypeId},
    table::{GroupVersionKind, ListType, MapType, Name, SchemaKind, SchemaTable},
};

/// A line of a table's text that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the schema table: {problem}")]
pub struct TableError {
    line: usize,
    problem: String,
}

pub(super) fn parse(text: &'static str) -> Result<SchemaTable, TableError> {
    let mut builder = TableBuilder::default();
    let mut definition = None;
    for (index, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parsed = match (line.strip_prefix(' '), definition) {
            (None, _) => parse_definition(&mut builder, line).map(|found| definition = Some(found)),
            (Some(field), Some((id, package))) => parse_field(&mut builder, id, package, field),
            (Some(_), None) => Err("a field before the first definition".to_owned()),
        };
        parsed.map_err(|problem| TableError {
            line: index + 1,
            problem,
        })?;
    }
    Ok(builder.build())
}

fn parse_definition(
    builder: &mut TableBuilder,
    line: &'static str,
) -> Result<(DefinitionId, &'static str), String> {
    let mut words = line.split(' ');
    let name = words.next().unwrap_or_default();
    let package = name.rsplit_once('.').map_or("", |(package, _)| package);
    let id = builder.definition(name);
    let mut facts = TypeFacts::default();
    for word in words {
        match word.split_once('=') {
            Some(("kind", kind)) => builder.serves(id, parse_kind(kind)?),
            _ => parse_fact(&mut facts, word)?,
        }
    }
    builder.describe(id, facts);
    Ok((id, package))
}

fn parse_kind(text: &str) -> Result<GroupVersionKind, String> {
    let mut parts = text.rsplitn(3, '/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(kind), Some(version), group) => Ok(GroupVersionKind {
            group: group.unwrap_or_default().into(),
            version: version.into(),
            kind: kind.into(),
        }),
        _ => Err(format!("{text} is not a group, version and kind")),
    }
}

fn parse_field(
    builder: &mut TableBuilder,
    definition: DefinitionId,
    package: &str,
    line: &'static str,
) -> Result<(), String> {
    let mut words = line.split(' ');
    let (Some(name), Some(numbers), Some(kind)) = (words.next(), words.next(), words.next()) else {
        return Err("a field has a name, a number and a type".into());
    };
    let mut field = FieldFacts::default();
    if numbers != "-" {
        for (at, number) in numbers.split('.').enumerate() {
            let place = field.numbers.get_mut(at).ok_or("too many field numbers")?;
            *place = number
                .parse()
                .map_err(|_| format!("{number} is not a field number"))?;
        }
    }
    let mut facts = TypeFacts::default();
    for word in words {
        match word {
            "required" => field.required = true,
            "value" => field.value = true,
            "always" => field.always = true,
            _ => match word.strip_prefix("inside=") {
                Some(structs) => field.inside = Some(structs.into()),
                None => parse_fact(&mut facts, word)?,
            },
        }
    }
    let kind = parse_type(builder, package, kind, facts)?;
    builder.field(definition, name, kind, field);
    Ok(())
}

fn parse_type(
    builder: &mut TableBuilder,
    package: &str,
    text: &'static str,
    facts: TypeFacts,
) -> Result<TypeId, String> {
    if let Some(elem) = text.strip_prefix("[]") {
        let mut facts = facts;
        let elem_facts = TypeFacts {
            go_name: facts.go_name.take(),
            ..TypeFacts::default()
        };
        let elem = parse_type(builder, package, elem, elem_facts)?;
        return Ok(builder.list(elem, facts));
    }
    if let Some(elem) = text.strip_prefix("{}") {
        let elem = parse_type(builder, package, elem, TypeFacts::default())?;
        return Ok(builder.map(elem, facts));
    }
    if let Some(target) = text.strip_prefix('&') {
        let name: Name = if target.contains('.') {
            target.into()
        } else {
            format!("{package}.{target}").into()
        };
        let definition = builder.definition(name);
        return Ok(builder.structure(definition, facts));
    }
    let kind = match text {
        "string" => SchemaKind::String,
        "bool" => SchemaKind::Bool,
        "int32" => SchemaKind::Int32,
        "int64" => SchemaKind::Int64,
        "double" => SchemaKind::Double,
        "bytes" => SchemaKind::Bytes,
        "quantity" => SchemaKind::Quantity,
        "intorstring" => SchemaKind::IntOrString,
        "time" => SchemaKind::Time,
        "microtime" => SchemaKind::MicroTime,
        "duration" => SchemaKind::Duration,
        "raw" => SchemaKind::RawExtension,
        "json" => SchemaKind::Json,
        "fieldsv1" => SchemaKind::FieldsV1,
        other => return Err(format!("unknown type {other}")),
    };
    Ok(builder.scalar(kind, facts))
}

fn parse_fact(facts: &mut TypeFacts, word: &'static str) -> Result<(), String> {
    match word.split_once('=') {
        None => match word {
            "set" => facts.list_type = ListType::Set,
            "atomic" => facts.map_type = MapType::Atomic,
            "merge" => facts.patch.merge = true,
            "replace" => facts.patch.replace = true,
            "retainKeys" => facts.patch.retain_keys = true,
            other => return Err(format!("unknown fact {other}")),
        },
        Some(("map", keys)) => {
            facts.list_type = ListType::Map;
            facts.list_keys = keys.split(',').map(Cow::Borrowed).collect();
        }
        Some(("merge", key)) => {
            facts.patch.merge = true;
            facts.merge_key = Some(key.into());
        }
        Some(("go", name)) => facts.go_name = Some(name.into()),
        Some(("key", key)) => facts.merge_key = Some(key.into()),
        Some(("default", value)) => {
            let value =
                serde_json::from_str(value).map_err(|_| format!("default {value} is not JSON"))?;
            facts.default = Some(Box::new(value));
        }
        Some((other, _)) => return Err(format!("unknown fact {other}")),
    }
    Ok(())
}
