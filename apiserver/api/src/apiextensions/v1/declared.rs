//! The types that rules in CEL see: those that a schema declares.
//!
//! Upstream: `SchemaDeclType` of `k8s.io/apiserver/pkg/cel/common`.

use std::collections::HashMap;

use serde_json::Value;

use crate::At;
use crate::cel::{CelError, Environment, ObjectType, Type, check};

/// The types that were found so far in one schema: rules may stand at every level of it, and each level's type holds
/// those below.
#[derive(Default)]
pub(super) struct Declared(HashMap<*const Value, Option<Type>>);

impl Declared {
    /// The type of `self` at a schema; `None` where a schema says too little to have rules.
    pub(super) fn at(&mut self, schema: &At<'_>, root: bool) -> Option<Type> {
        let place = std::ptr::from_ref(schema.value()?);
        if let Some(known) = self.0.get(&place) {
            return known.clone();
        }
        let found = self.find(schema, root);
        self.0.insert(place, found.clone());
        found
    }

    fn find(&mut self, schema: &At<'_>, root: bool) -> Option<Type> {
        if schema.key("x-kubernetes-int-or-string").is_true() {
            return Some(Type::Dyn);
        }
        let kind = match schema.key("type").str() {
            "" if root => "object",
            kind => kind,
        };
        Some(match kind {
            "array" => Type::list(self.at(&schema.key("items"), false)?),
            "object" => {
                let values = schema.key("additionalProperties");
                if values.value().is_some_and(|values| values.is_object()) {
                    return Some(Type::map(self.at(&values, false)?));
                }
                let embedded = root || schema.key("x-kubernetes-embedded-resource").is_true();
                Type::from(self.object(schema, embedded))
            }
            "string" => match schema.key("format").str() {
                "byte" => Type::Bytes,
                "duration" => Type::Duration,
                "date" | "date-time" => Type::Timestamp,
                _ => Type::String,
            },
            "boolean" => Type::Bool,
            "number" => Type::Double,
            "integer" => Type::Int,
            _ => return None,
        })
    }

    fn object(&mut self, schema: &At<'_>, embedded: bool) -> ObjectType {
        let metadata = || {
            let names = ["name", "generateName"].map(|field| (field, Type::String));
            Type::from(ObjectType::new("object", names))
        };
        let properties = schema.key("properties");
        let own: Vec<(String, Type)> = properties
            .entries()
            .filter_map(|(name, property)| Some((escaped(name), self.at(&property, false)?)))
            .collect();
        let fixed = [
            ("apiVersion", Type::String),
            ("kind", Type::String),
            ("metadata", metadata()),
        ];
        let fixed = fixed.into_iter().filter(|_| embedded);
        let own = own
            .iter()
            .map(|(name, found)| (name.as_str(), found.clone()));
        ObjectType::new("object", own.chain(fixed))
    }
}

/// The name that a property has in CEL, where it is no identifier.
fn escaped(name: &str) -> String {
    if crate::cel::RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    name.replace("__", "__underscores__")
        .replace('.', "__dot__")
        .replace('-', "__dash__")
        .replace('/', "__slash__")
}

/// What is wrong with a rule whose `self` is of that type.
pub(super) fn rule(expression: &str, found: &Type) -> Option<String> {
    match check(expression, &environment(found)) {
        Err(error) => Some(error.to_string()),
        Ok(Type::Bool | Type::Unknown) => None,
        Ok(_) => Some("cel expression must evaluate to a bool".to_owned()),
    }
}

/// What is wrong with the expression of a rule's message.
pub(super) fn message(expression: &str, found: &Type) -> Option<String> {
    match check(expression, &environment(found)) {
        Err(CelError::Compilation(why)) => {
            Some(format!("messageExpression compilation failed: {why}"))
        }
        Err(error) => Some(error.to_string()),
        Ok(Type::String | Type::Unknown) => None,
        Ok(_) => Some("messageExpression must evaluate to a string".to_owned()),
    }
}

fn environment(found: &Type) -> Environment {
    Environment::default()
        .with("self", found.clone())
        .with("oldSelf", found.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_see_what_the_schema_declares() {
        let schema = json!({"type": "object", "properties": {
            "replicas": {"type": "integer"},
            "names": {"type": "array", "items": {"type": "string"}},
            "port": {"x-kubernetes-int-or-string": true},
            "a-b": {"type": "boolean"},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }});
        let found = Declared::default()
            .at(&At::maybe(Some(&schema), ""), true)
            .expect("an object");
        let accepted = [
            "self.replicas < 9",
            "self.names.all(n, n.startsWith('a'))",
            "self.port == 'a' || self.port == 1",
            "self.a__dash__b",
            "self.metadata.name != '' && self.kind == 'A'",
            "!has(oldSelf.replicas) || self.replicas >= oldSelf.replicas",
        ];
        for expression in accepted {
            assert_eq!(rule(expression, &found), None, "{expression}");
        }
        let why = |expression| rule(expression, &found).unwrap_or_default();
        assert_eq!(
            why("self.replicas"),
            "cel expression must evaluate to a bool"
        );
        assert!(why("self.free.x == 1").contains("undefined field 'x'"));
        assert!(why("self.replicas == 'a'").contains("applied to '(int, string)'"));
        assert_eq!(message("'a' + self.names[0]", &found), None);
        assert!(message("self.x", &found).is_some_and(|why| why.starts_with("messageExpression")));
    }
}
